-- wrk: sixteen requests at a time on each connection.
local depth = 16
init = function(args)
   request_batch = string.rep(wrk.format(), depth)
end
request = function()
   return request_batch
end
