# Ruby's net/http, in a loop. ruby net_http.rb http://HOST:PORT KEY[=AMOUNT]...
require "json"
require "net/http"

BASE = URI(ARGV.shift)

class Refused < StandardError
  attr_reader :response

  def initialize(response)
    @response = response
  end
end

def post(key, amount)
  http = Net::HTTP.new(BASE.host, BASE.port, nil)
  # Who asks for something slow does not wait for it.
  http.read_timeout = key.start_with?("slow") ? 3 : 60
  headers = { "Content-Type" => "application/json", "Idempotency-Key" => key, "Authorization" => "Bearer secret" }
  http.start { http.post("/orders", JSON.generate(amount: amount, note: "n" * amount), headers) }
end

# The loop that people write around a client that does not repeat by itself.
def patiently
  (1..4).each do |tries|
    retry_after = nil
    begin
      response = yield
      status = response.code.to_i
      retry_after = response["Retry-After"]
      return JSON.parse(response.body)["id"] if status < 300
      raise Refused.new(response) if tries == 4 || !(status >= 500 || (status == 409 && retry_after))
    rescue SystemCallError, IOError, Timeout::Error
      raise if tries == 4
    end
    sleep(Float(retry_after || 0.25 * tries))
  end
end

ARGV.each do |call|
  key, amount = call.split("=")
  began = Process.clock_gettime(Process::CLOCK_MONOTONIC)
  begin
    saw = { id: patiently { post(key, Integer(amount || 1)) } }
  rescue Refused => refused
    saw = { status: refused.response.code.to_i, code: JSON.parse(refused.response.body)["code"] }
  rescue StandardError => error
    saw = { raised: error.class.name }
  end
  spent = Process.clock_gettime(Process::CLOCK_MONOTONIC) - began
  puts JSON.generate({ key: key, **saw, ms: (1000 * spent).round })
end
