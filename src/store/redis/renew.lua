-- The owner is alive. A record begins with its version (2), its state (1: in flight) and, in bytes 5 to 20, its token.
-- KEYS[1] record; ARGV[1] claim; ARGV[2] milliseconds to live
local held = redis.call('GET', KEYS[1])
if not held then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  return 'claimed again'
end
if held:byte(1) == 2 and held:byte(2) == 1 and held:sub(5, 20) == ARGV[1]:sub(5, 20) then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  return 'extended'
end
return 'lost'
