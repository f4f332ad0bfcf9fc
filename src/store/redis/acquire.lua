-- SET NX GET, for servers that know it not: the value that is there, or nil once ours is.
-- KEYS[1] name; ARGV[1] value; ARGV[2] milliseconds to live
local held = redis.call('GET', KEYS[1])
if held then
  -- A record in flight of the same owner: the claim is made again. It writes, so that a replica refuses it.
  if held:byte(1) == 2 and held:byte(2) == 1 and held:sub(5, 20) == ARGV[1]:sub(5, 20) then
    redis.call('PEXPIRE', KEYS[1], ARGV[2])
  end
  return held
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return false
