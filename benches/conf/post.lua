-- What wrk sends: POST with 300 bytes of JSON, and a key as MODE says. Ends with one line of figures.
--   MODE pass | first | replay   PREFIX of the keys, new for each run   KEYS how many are repeated
--   PAUSE mean pause before each request in milliseconds, which makes a rate of it
local mode, prefix = os.getenv("MODE"), os.getenv("PREFIX")
local keys, pause = tonumber(os.getenv("KEYS")), tonumber(os.getenv("PAUSE"))

local body = '{"amount":1200,"currency":"eur","reference":"' .. string.rep("x", 253) .. '"}'
local headers = {
  ["Content-Type"] = "application/json", ["Accept"] = "application/json", ["User-Agent"] = "bench/1",
  ["Authorization"] = "Bearer 0123456789abcdef0123456789abcdef",
}
local sent = 0

function request()
  if mode == "first" then
    headers["Idempotency-Key"] = string.format("%s-%012x", prefix, sent)
  elseif mode == "replay" then
    headers["Idempotency-Key"] = string.format("%s-%012x", prefix, sent % keys)
  end
  sent = sent + 1
  return wrk.format("POST", wrk.path, headers, body)
end

if pause > 0 then
  function delay() return math.random(0, 2 * pause) end
end

function done(summary, latency)
  local e = summary.errors
  io.write(string.format("FIGURES requests=%d us=%d p50=%d p99=%d errors=%d\n", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), e.connect + e.read + e.write + e.status + e.timeout))
end
