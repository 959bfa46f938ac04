-- Renew a lease, and say how fast the worker is.
--
-- ARGV  1 consumer  2 lease, ms  3 1 while the worker loads its weights  4 tokens it ends per second, 0 where unknown

renew_lease(ARGV[3] == '1' and LOADING or WORKERS, ARGV[1], ARGV[2], server_time_ms())  -- begins with a write that uses no memory
redis.call('ZREM', ARGV[3] == '1' and WORKERS or LOADING, ARGV[1])
if ARGV[4] ~= '0' then
  redis.call('HSET', RATES, ARGV[1], ARGV[4])
end
add_up_rates()
