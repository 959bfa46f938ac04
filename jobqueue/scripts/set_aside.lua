-- Jobs that must run alone and came to a worker that holds others: they wait with the suspects for an idle one.
--
-- ARGV  per job: lane, entry id

for i = 1, #ARGV, 2 do
  redis.call('XCLAIM', STREAMS[ARGV[i]], GROUP, ORPHANS, 0, ARGV[i + 1], 'RETRYCOUNT', 0, 'JUSTID')
end
