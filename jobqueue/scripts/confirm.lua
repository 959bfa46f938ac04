-- Which jobs are still this worker's to run: not cancelled, expired or given to another since they were taken.
--
-- ARGV  1 consumer, then per job: lane, entry id
-- Returns 1 or 0 per job.

local reply = {}
for i = 2, #ARGV, 2 do
  reply[#reply + 1] = #redis.call('XPENDING', STREAMS[ARGV[i]], GROUP, ARGV[i + 1], ARGV[i + 1], 1, ARGV[1])
end
return reply
