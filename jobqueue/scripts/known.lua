-- Which jobs of a gateway the queue still has; and the gateway lives, so its reply stream does.
--
-- ARGV  1 reply stream's lifetime, s, then per job: lane, entry id
-- Returns 1 or 0 per job.

keep_replies_open(ARGV[1])
local reply = {}
for i = 2, #ARGV, 2 do
  reply[#reply + 1] = #redis.call('XRANGE', STREAMS[ARGV[i]], ARGV[i + 1], ARGV[i + 1])
end
return reply
