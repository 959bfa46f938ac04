-- Look through a lane for a gateway's jobs, also for those of which it does not know that they are there.
--
-- ARGV  1 gateway, then per lane: its name, the entry id behind which to begin
-- Returns per lane {1 where there is more, the last entry id that was looked at, job...}, a job being
--         {job id, entry id, tokens, tenant}.

local LOOKED_AT = 25  -- entries come with their payloads: a script must not hold up the server

local function seek(stream, last)
  local entries = redis.call('XRANGE', stream, '(' .. last, '+', 'COUNT', LOOKED_AT)
  local found = {}
  for _, entry in ipairs(entries) do
    local fields = fields_of(entry)
    if fields.gateway == ARGV[1] then
      found[#found + 1] = {fields.job_id, entry[1], fields.tokens, fields.tenant}
    end
    last = entry[1]
  end
  return {#entries == LOOKED_AT and 1 or 0, last, unpack(found)}
end

local replies = {}
for i = 2, #ARGV, 2 do
  replies[#replies + 1] = seek(STREAMS[ARGV[i]], ARGV[i + 1])
end
return replies
