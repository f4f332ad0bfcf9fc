-- The first bytes of many records, each with its milliseconds to live. Where something else lies, there is no value.
-- KEYS records; ARGV[1] number of bytes
local told = {}
for i, key in ipairs(KEYS) do
  local head = redis.pcall('GETRANGE', key, 0, ARGV[1] - 1)
  if type(head) == 'table' then
    if not string.find(head.err, 'WRONGTYPE', 1, true) then
      return head
    end
    head = false
  end
  told[i] = { head, redis.call('PTTL', key) }
end
return told
