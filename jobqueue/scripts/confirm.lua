-- Which jobs are still this worker's to run: not cancelled, expired or given to another since they were taken.
--
-- KEYS  1 hi stream  2 lo stream
-- ARGV  1 consumer, then per job: lane, entry id
-- Returns 1 or 0 per job.

local streams = {hi = KEYS[1], lo = KEYS[2]}
local reply = {}
for i = 2, #ARGV, 2 do
  reply[#reply + 1] = #redis.call('XPENDING', streams[ARGV[i]], 'workers', ARGV[i + 1], ARGV[i + 1], 1, ARGV[1])
end
return reply
