-- Sends one request over and over; `{secret}` in it becomes a line of a file, any as likely.
-- wrk -s load.lua URL -- REQUEST-FILE [SECRETS-FILE]

local head, tail
local secrets = { "" }

function init(args)
  -- Else each run would present the same secrets in the same order, remembered from the last.
  math.randomseed(os.time())
  local file = assert(io.open(args[1], "rb"))
  local text = file:read("*a")
  file:close()
  local first, last = text:find("{secret}", 1, true)
  head = first and text:sub(1, first - 1) or text
  tail = first and text:sub(last + 1) or ""
  if args[2] then
    secrets = {}
    for line in io.lines(args[2]) do secrets[#secrets + 1] = line end
  end
end

function request()
  return head .. secrets[math.random(#secrets)] .. tail
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "seconds": %f, "p50": %f, "p99": %f, "refused": %d, "failed": %d}\n',
    summary.requests, summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout))
end
