--@include base
--@include types
--@include unique
-- What is kept of messages goes when they are gone: locks, marks of revocation, counted deaths, who waits for them. Of dead
-- letters without a reason it is said that it is not known.
--
-- KEYS  1 prefix
-- ARGV  1 which: unique | revoked | crashes | waiters | reasons | dead, then fields of it (of `dead`: ids of dead letters)
-- Returns how many were put right.
-- Again: 0.
local kind, key, now, wrong = ARGV[1], P .. ARGV[1], clock(), 0
expect('hash', { 'messages', 'reasons', 'unique', 'revoked', 'crashes', 'waiters' })
begin_writes()
for i = 2, #ARGV do
  local field = ARGV[i]
  if kind == 'dead' then
    wrong = wrong + call('HSETNX', P .. 'reasons', field, 'unknown\n')
  elseif kind == 'unique' then
    if not holder(field, 'd', now) then wrong = wrong + call('HDEL', key, field) end
  elseif call('HEXISTS', P .. 'messages', field) == 0 then
    wrong = wrong + call('HDEL', key, field)
  end
end
return wrong
