-- Admit a dead letter's job once more, whatever the limits, to run alone. Its tenant is not charged.
--
-- ARGV  1 the letter's id  2 gateway  3 job id  4 ttl, ms  5 reply stream's lifetime, s
-- Returns {1, entry id, lane, tokens}, or {0} where there is no such letter, or {-1} where its payload was not kept,
--         or {-2} where the queue is paused.

local id, gateway, job_id, ttl_ms, lifetime_s = unpack(ARGV)

local letter = redis.call('XRANGE', DEAD, id, id)[1]
if not letter then
  return {0}
elseif redis.call('HGET', CONTROL, 'paused') then
  return {-2}
end
local fields = fields_of(letter)
if not fields.payload then
  return {-1}
end

make_groups()
keep_replies_open(lifetime_s)
local entry_id = redis.call('XADD', STREAMS[fields.lane], '*', 'tokens', fields.tokens, 'cost', fields.cost, 'ttl_ms', ttl_ms,
  'gateway', gateway, 'tenant', '', 'job_id', job_id, 'request_id', fields.request_id, 'alone', '1',
  'payload', fields.payload)
redis.call('HINCRBY', DEPTH, fields.lane .. '_tokens', fields.tokens)
redis.call('HINCRBY', DEPTH, fields.lane .. '_jobs', 1)
return {1, entry_id, fields.lane, fields.tokens}
