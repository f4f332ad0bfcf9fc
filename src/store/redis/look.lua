-- A record and its milliseconds to live, at one moment. A full server runs this, and no MULTI.
-- KEYS[1] record
return { redis.call('GET', KEYS[1]), redis.call('PTTL', KEYS[1]) }
