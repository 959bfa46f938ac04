-- A queue as it is now, by this server's clock; nothing is changed.
--
-- Returns {server time ms, hi, lo, lease of each worker, lease of each loading worker, rates, control, dead letters}:
--         a lane is {tokens, jobs, entry id of its oldest job or '', name and jobs of each consumer that holds some};
--         leases are {name, lease expiry ms, ...}; rates and control are {field, value, ...}.

local function held(stream)
  local summary = redis.pcall('XPENDING', stream, GROUP)
  local flat = {}
  -- No group yet: nobody holds anything.
  for _, consumer in ipairs(not summary.err and summary[4] or {}) do
    flat[#flat + 1] = consumer[1]
    flat[#flat + 1] = consumer[2]
  end
  return flat
end

local function lane(name)
  local oldest = redis.call('XRANGE', STREAMS[name], '-', '+', 'COUNT', 1)[1]
  return {redis.call('HGET', DEPTH, name .. '_tokens') or '0', redis.call('XLEN', STREAMS[name]),
    oldest and oldest[1] or '', held(STREAMS[name])}
end

return {server_time_ms(), lane('hi'), lane('lo'), redis.call('ZRANGE', WORKERS, 0, -1, 'WITHSCORES'),
  redis.call('ZRANGE', LOADING, 0, -1, 'WITHSCORES'), redis.call('HGETALL', RATES), redis.call('HGETALL', CONTROL),
  redis.call('XLEN', DEAD)}
