-- SET NX GET, for servers that know it not: the value that is there, or nil once ours is.
-- KEYS[1] name; ARGV[1] value; ARGV[2] milliseconds to live, or none
local held = redis.call('GET', KEYS[1])
if held then
  return held
end
if ARGV[2] then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
else
  redis.call('SET', KEYS[1], ARGV[1])
end
return false
