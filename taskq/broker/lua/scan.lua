--@include base
-- Some of the ids of messages, without the messages.
--
-- KEYS  1 prefix
-- ARGV  1 cursor ('0' to begin), 2 about how many
-- Returns {cursor ('0' at the end), id, id ...}.  Again: the same, as HSCAN has it.
local key, about, out = P .. 'messages', tonumber(ARGV[2]), { ARGV[1] }
local reply = redis.pcall('HSCAN', key, ARGV[1], 'COUNT', about, 'NOVALUES')
if not reply.err then
  out[1] = reply[1]
  for i, id in ipairs(reply[2]) do out[i + 1] = id end
  return out
end
-- A server without that option copies the messages: read a few at a time, until they come to a mebibyte.
local copied = 0
repeat
  reply = call('HSCAN', key, out[1], 'COUNT', math.min(about, 10))
  out[1] = reply[1]
  for i = 1, #reply[2], 2 do
    out[#out + 1] = reply[2][i]
    copied = copied + #reply[2][i + 1]
  end
until out[1] == '0' or #out > about or copied > 2 ^ 20
return out
