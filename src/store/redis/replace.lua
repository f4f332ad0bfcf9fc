-- Takes a claim over from a lost owner, if that has not stirred since it was looked at: a renewal leaves
-- the bytes as they are, and shows in the time to live alone.
-- KEYS[1] record; ARGV[1] claim as seen; ARGV[2] its milliseconds to live as seen; ARGV[3] new claim;
-- ARGV[4] its milliseconds to live
-- Returns nil when the new claim is written, else the record and its milliseconds to live.
local held = redis.call('GET', KEYS[1])
local left = redis.call('PTTL', KEYS[1])
if held == ARGV[1] and left >= 0 and left <= tonumber(ARGV[2]) then
  redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[4])
  return false
end
return { held, left }
