-- Word of what waits, told again. A queue that has something is announced once, and what was said then may be lost: with
-- the reply that carried the token of a bell, by the hand of an operator, with a snapshot. Every renewal makes up for that.

-- What only says what waits is made anew: a key of it that somebody has made another type goes.
local WORD = { ready = 'zset', bell = 'list', solo = 'zset', ['solo-bell'] = 'list', spent = 'hash' }
local function drop_spoilt(set, healed)
  for family, kind in pairs(WORD) do
    local name = family .. ':' .. set
    local there = call('TYPE', P .. name).ok
    if there ~= kind and there ~= 'none' then
      call('DEL', P .. name)
      healed[#healed + 1] = 'key ' .. name .. ' (it was a ' .. there .. ')'
    end
  end
end

-- The queues of a set that one call looks at (joined by spaces): all of them, or if there are many a part, by turns.
local LOOKS, TURN = 100, 4000
local function some_of(queues, now)
  local names, some = {}, {}
  for name in string.gmatch(queues, '%S+') do names[#names + 1] = name end
  if #names <= LOOKS then return queues end
  local first = math.floor(now / TURN) * LOOKS
  for k = 1, LOOKS do some[k] = names[(first + k) % #names + 1] end
  return table.concat(some, ' ')
end

-- Whether the parent is to be told of a queue's suspects: not if they may wait for a gate, or for the end of a pause. It
-- would start a process each time.
local function suspects_wait(queue)
  if call('EXISTS', P .. 'suspects:' .. queue) == 0 then return false end
  local letters = call('HMGET', P .. 'marks', queue, '*')
  return not (letters[1] or letters[2])
end

-- Put back the names of these queues of a set that have something and are not among what is ready, and ring. Returns
-- whether something was ready and the bell was silent: then nobody may have heard it, and the next may not either.
-- Only looks whether keys exist, whatever their types: a lane that takes from one of the wrong type says so.
local function remind(set, queues, now)
  local ready, bell, keys = P .. 'ready:' .. set, P .. 'bell:' .. set, {}
  local unheard = call('EXISTS', ready) == 1 and call('EXISTS', bell) == 0
  for name in string.gmatch(queues, '%S+') do
    local n = #keys
    keys[n + 1], keys[n + 2], keys[n + 3] = P .. 'queue:' .. name, P .. 'ranked:' .. name, P .. 'suspects:' .. name
  end
  if keys[1] and call('EXISTS', unpack(keys)) > 0 then
    for name in string.gmatch(queues, '%S+') do
      if call('EXISTS', P .. 'queue:' .. name, P .. 'ranked:' .. name) > 0 then call('ZADD', ready, 'NX', int(now), name) end
      if suspects_wait(name) then call('ZADD', P .. 'solo:' .. set, 'NX', int(now), name) end
    end
  end
  if call('EXISTS', ready) == 1 then ring(bell) end
  return unheard
end
