--@include base
--@include types
-- Delete what is kept about messages that are gone: locks, marks of revocation, counted deaths, waiters. Dead letters
-- without a reason get one that says so. A lock whose time is over, or whose message has expired where it waits, is not
-- wrong: it goes when that message does.
--
-- KEYS  1 prefix
-- ARGV  1 which: unique | revoked | crashes | waiters | reasons | dead, then fields of it (of `dead`: ids of dead letters)
-- Returns how many were corrected.
-- Again: 0.
local kind, key, wrong = ARGV[1], P .. ARGV[1], 0
expect('hash', { 'messages', 'reasons', 'unique', 'revoked', 'crashes', 'waiters' })

local function is_of_none(lock)
  local id = string.match(call('HGET', key, lock) or '', '^%d+ (.*)$')
  return not id or call('HEXISTS', P .. 'messages', id) == 0 or call('HEXISTS', P .. 'reasons', id) == 1
end

begin_writes()
for i = 2, #ARGV do
  local field = ARGV[i]
  if kind == 'dead' then
    wrong = wrong + call('HSETNX', P .. 'reasons', field, 'unknown\n')
  elseif kind == 'unique' then
    if is_of_none(field) then wrong = wrong + call('HDEL', key, field) end
  elseif call('HEXISTS', P .. 'messages', field) == 0 then
    wrong = wrong + call('HDEL', key, field)
  end
end
return wrong
