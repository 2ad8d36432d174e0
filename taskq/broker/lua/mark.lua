--@include base
-- Messages are to run no more, marked all at once before each of them is revoked: none of them is begun meanwhile. What
-- waits ends when its turn comes, if whoever marked it does not live to revoke it.
--
-- KEYS  1 prefix
-- ARGV  1 why (opaque), then ids (at most 1000)
-- Returns the ids that were marked: not those that have ended or are dead letters.
-- Again: the same.
local out = {}
for i = 2, #ARGV do
  local id = ARGV[i]
  if call('HEXISTS', P .. 'messages', id) == 1 and call('HEXISTS', P .. 'reasons', id) == 0 then out[#out + 1] = id end
end
begin_writes()
for _, id in ipairs(out) do call('HSET', P .. 'revoked', id, ARGV[1]) end
return out
