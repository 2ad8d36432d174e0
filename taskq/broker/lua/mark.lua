--@include base
-- Mark messages that must not run any more, all at once, before each of them is revoked: none of them starts meanwhile.
-- If the process that marked them dies before it revokes them, those that wait end when their turn comes.
--
-- KEYS  1 prefix
-- ARGV  1 why (opaque), then ids (at most 1000)
-- Returns the ids that were marked: those that have neither ended nor are dead letters.
-- Again: the same.
local out = {}
for i = 2, #ARGV do
  local id = ARGV[i]
  if call('HEXISTS', P .. 'messages', id) == 1 and call('HEXISTS', P .. 'reasons', id) == 0 then out[#out + 1] = id end
end
begin_writes()
for _, id in ipairs(out) do call('HSET', P .. 'revoked', id, ARGV[1]) end
return out
