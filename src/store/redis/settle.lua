-- Writes the owner's outcome over its own record in flight (state 1) or unknown (4), or where there is none.
-- KEYS[1] record; KEYS[2] sign of those who wait for it, or none in a cluster, where one half of two keys may be
-- elsewhere and channels have slots; ARGV[1] outcome; ARGV[2] milliseconds to live
-- Returns nil when it is written, else the record that stays.
local held = redis.call('GET', KEYS[1])
if held then
  local state = held:byte(2)
  local open = held:byte(1) == 2 and (state == 1 or state == 4)
  if not open or held:sub(5, 20) ~= ARGV[1]:sub(5, 20) then
    return held
  end
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
-- A user without channels may not, and the sign may be no string: neither undoes what is done.
local sign = KEYS[2] or '{' .. KEYS[1] .. '}:waiting'
if redis.pcall('GET', sign) then
  local told = KEYS[2] == nil and redis.pcall('SPUBLISH', KEYS[1], '')
  if type(told) ~= 'number' or told == 0 then
    redis.pcall('PUBLISH', KEYS[1], '')
  end
end
return false
