-- End jobs: with their answers, or, where an answer is empty, without one (cancelled or expired).
-- Whoever deletes the entry ends the job and alone lowers the depth; a second finisher changes nothing.
--
-- KEYS  1 hi stream  2 lo stream  3 depth  4 the gateway's reply stream
-- ARGV  per job: lane, entry id, tokens, job id, answer
-- Returns how many jobs this call ended.

local GROUP = 'workers'
local streams = {hi = KEYS[1], lo = KEYS[2]}
local reply, num_ended = {}, 0

for i = 1, #ARGV, 5 do
  local lane, id, tokens, job_id, answer = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4]
  -- First, so that a full server drains: where memory is full, a script may use some only after a write like this.
  redis.call('XACK', streams[lane], GROUP, id)
  if redis.call('XDEL', streams[lane], id) == 1 then
    redis.call('HINCRBY', KEYS[3], lane .. '_tokens', -tonumber(tokens))
    redis.call('HINCRBY', KEYS[3], lane .. '_jobs', -1)
    num_ended = num_ended + 1
    if answer ~= '' then
      reply[#reply + 1] = job_id
      reply[#reply + 1] = answer
    end
  end
end

if #reply > 0 then
  redis.call('XADD', KEYS[4], 'NOMKSTREAM', '*', unpack(reply))
end
return num_ended
