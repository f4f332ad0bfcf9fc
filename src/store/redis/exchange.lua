-- Replaces or deletes the record, if it is still the one that was seen. State (byte 2), token and attempt (5 to 24) tell
-- one from another; a renewal shows in the time to live alone.
-- KEYS[1] record; KEYS[2] sign of those who wait for it, which is not looked for, or none in a cluster
-- ARGV[1] state as seen; ARGV[2] token and attempt as seen; ARGV[3] the most milliseconds to live;
-- ARGV[4] new record, ARGV[5] its milliseconds to live: none to free the key
-- Returns nil when it is done, else the record and its milliseconds to live.
local held = redis.call('GET', KEYS[1])
local left = redis.call('PTTL', KEYS[1])
local same = held and held:byte(1) == 2 and held:byte(2) == tonumber(ARGV[1]) and held:sub(5, 24) == ARGV[2]
if not same or left > tonumber(ARGV[3]) then
  return { held, left }
end
if ARGV[4] then
  redis.call('SET', KEYS[1], ARGV[4], 'PX', ARGV[5])
else
  redis.call('DEL', KEYS[1])
end
-- For those who wait, in a cluster on a channel of the record's slot, too. A user without channels may not: that must not
-- undo what is done.
redis.pcall('PUBLISH', KEYS[1], '')
if not KEYS[2] then
  redis.pcall('SPUBLISH', KEYS[1], '')
end
return false
