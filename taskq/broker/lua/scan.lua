--@include base
-- Some of the ids there are, without their messages.
--
-- KEYS  1 prefix
-- ARGV  1 cursor ('0' to begin), 2 about how many
-- Returns {cursor ('0' at the end), id, id ...}.  Again: the same, as HSCAN has it.
local reply = call('HSCAN', P .. 'messages', ARGV[1], 'COUNT', ARGV[2])
local out = { reply[1] }
for i = 1, #reply[2], 2 do out[#out + 1] = reply[2][i] end
return out
