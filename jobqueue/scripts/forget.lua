-- Remove a queue that nobody serves. Reply streams are left to expire.
--
-- ARGV  1 1 to remove its jobs too
-- Returns {1}, or {0, jobs} where it has some, or {-1, live workers, loading workers} where it has some.

local alive = '(' .. server_time_ms()
local num_live = redis.call('ZCOUNT', WORKERS, alive, '+inf')
local num_loading = redis.call('ZCOUNT', LOADING, alive, '+inf')
if num_live + num_loading > 0 then
  return {-1, num_live, num_loading}
end

local num_jobs = redis.call('XLEN', STREAMS.hi) + redis.call('XLEN', STREAMS.lo)
if num_jobs > 0 and ARGV[1] ~= '1' then
  return {0, num_jobs}
end
redis.call('UNLINK', unpack(KEYS))
return {1}
