-- Frees the key, if its record is in flight (state 1) under this token.
-- KEYS[1] record; KEYS[2] sign of those who wait for it, or none in a cluster, where one half of two keys may be
-- elsewhere and channels have slots; ARGV[1] token
local held = redis.call('GET', KEYS[1])
if not held then
  return 'absent'
end
if held:byte(1) == 2 and held:byte(2) == 1 and held:sub(5, 20) == ARGV[1] then
  redis.call('DEL', KEYS[1])
  -- A user without channels may not, and the sign may be no string: neither undoes what is done.
  local sign = KEYS[2] or '{' .. KEYS[1] .. '}:waiting'
  if redis.pcall('GET', sign) then
    local told = KEYS[2] == nil and redis.pcall('SPUBLISH', KEYS[1], '')
    if type(told) ~= 'number' or told == 0 then
      redis.pcall('PUBLISH', KEYS[1], '')
    end
  end
  return 'deleted'
end
return 'kept'
