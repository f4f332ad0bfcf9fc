-- Idempotency by hand: the claim is SET NX GET, the answer is stored with a compare-and-set. It has neither leases nor
-- scopes, holds every body in memory, and a nginx that dies leaves 409 until the claim expires.
local RETENTION, CLAIM = 86400000, 30000
local SETTLE = [[
if redis.call('GET', KEYS[1]) == ARGV[1] then
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
  return 1
end
return 0
]]

local key = ngx.var.http_idempotency_key
if not key or ngx.req.get_method() ~= "POST" then
  return ngx.exec("@unguarded")
end

local redis, json = require "nginx.redis", require "cjson.safe"
ngx.req.read_body()
local body = ngx.req.get_body_data() or ""
local fingerprint = ngx.crc32_long(body)

local store = redis:new()
store:set_timeout(1000)
local function fail(err)
  ngx.log(ngx.ERR, err)
  return ngx.exit(503)
end
local connected, err = store:connect("127.0.0.1", redis_port)
if not connected then return fail(err) end

local name, token = "idempotency:" .. key, "claim " .. ngx.var.request_id
local held, err = store:set(name, token, "NX", "PX", CLAIM, "GET")
if not held then return fail(err) end

if held ~= ngx.null then
  store:set_keepalive(60000, 256)
  if held:sub(1, 6) == "claim " then
    ngx.status = 409
    return ngx.say("in flight")
  end
  local line = held:find("\n", 1, true)
  local record = json.decode(held:sub(1, line - 1))
  if record.fingerprint ~= fingerprint then
    ngx.status = 422
    return ngx.say("the key was used for another request")
  end
  ngx.status = record.status
  for field, value in pairs(record.header) do ngx.header[field] = value end
  ngx.header["Idempotent-Replayed"] = "true"
  return ngx.print(held:sub(line + 1))
end

local answer = ngx.location.capture("/.attempt" .. ngx.var.request_uri, { method = ngx.HTTP_POST, body = body })
for _, field in ipairs { "Connection", "Keep-Alive", "Transfer-Encoding", "Date" } do answer.header[field] = nil end
local record = json.encode { fingerprint = fingerprint, status = answer.status, header = answer.header }
if not settle then
  settle, err = store:script("load", SETTLE)
  if not settle then return fail(err) end
end
local stored, err = store:evalsha(settle, 1, name, token, record .. "\n" .. answer.body, RETENTION)
if stored ~= 1 then ngx.log(ngx.ERR, "not stored: ", err) end
store:set_keepalive(60000, 256)
ngx.status = answer.status
for field, value in pairs(answer.header) do ngx.header[field] = value end
ngx.print(answer.body)
