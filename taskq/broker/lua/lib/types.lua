-- Check the types of keys before the first write: a key that an operator has made another type must not end a script
-- half-way, with slots taken for nobody and a ledger that never balances again.

local function expect(kind, names)
  for _, name in ipairs(names) do
    local there = call('TYPE', P .. name).ok
    if there ~= kind and there ~= 'none' then
      error('WRONGTYPE the key ' .. P .. name .. ' is a ' .. there .. ' and not a ' .. kind .. ': somebody has written to it')
    end
  end
end

-- The keys that exist once: a script that moves messages may write to most of them.
local function expect_common()
  expect('hash', {
    'messages', 'counters', 'settings', 'serving', 'calls', 'workers', 'marks', 'crashes', 'reasons', 'revoked', 'waiters',
    'tasks', 'limits', 'paused', 'slots', 'gates', 'breakers', 'unique', 'turns',
  })
  expect('zset', { 'schedule', 'leases', 'terms', 'openings', 'arrivals', 'shut' })
end

-- The keys of a queue. Those for telling workers what waits in it do not matter: see `ring`.
local expected = {}
local function expect_queue(queue)
  if expected[queue] then return end
  expected[queue] = true
  expect('list', { 'queue:' .. queue, 'suspects:' .. queue })
  expect('zset', { 'ranked:' .. queue, 'fair:' .. queue, 'dead:' .. queue, 'lines:' .. queue })
end
