-- The load of scripts/report: wrk -s wrk.lua URL -- METHOD DEPTH [BODY]
-- Prints one line of JSON that begins with BAREWIRE when it is done.

local threads = 0

function setup(thread)
   thread:set("number", threads)
   threads = threads + 1
end

function init(args)
   wrk.method = args[1]
   local depth = tonumber(args[2])
   local body = args[3]
   if body then
      wrk.headers["Content-Type"] = "application/json"
      wrk.body = body
   end

   -- `request` is defined only where one constant request is not enough: a script that defines it
   -- costs the load generator a call into Lua for every request.
   if body and body:find("{i}", 1, true) then
      local i = number * 1000003
      local before, after = body:match("^(.*){i}(.*)$")
      function request()
         local all = {}
         for n = 1, depth do
            i = i + 1
            all[n] = wrk.format(nil, nil, nil, before .. (i % 75000) .. after)
         end
         return table.concat(all)
      end
   elseif depth > 1 then
      local all = string.rep(wrk.format(), depth)
      function request() return all end
   end
end

function done(summary, latency, requests)
   local errors = summary.errors
   io.write(string.format(
      'BAREWIRE {"requests":%d,"duration_us":%d,"bytes":%d,' ..
      '"latency_us":{"p50":%d,"p90":%d,"p99":%d,"p99_9":%d,"max":%d},' ..
      '"errors":{"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d}}\n',
      summary.requests, summary.duration, summary.bytes,
      latency:percentile(50), latency:percentile(90), latency:percentile(99),
      latency:percentile(99.9), latency.max,
      errors.connect, errors.read, errors.write, errors.status, errors.timeout))
end
