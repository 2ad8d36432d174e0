-- The places a message can be in; it must be in exactly one.

-- Every queue that has a counter: for a message whose head does not say where it belongs.
local function all_queues()
  local names, known = {}, {}
  for _, field in ipairs(call('HKEYS', P .. 'counters')) do
    local queue = string.match(field, '^(.*)|')
    if queue and not known[queue] then names[#names + 1], known[queue] = queue, true end
  end
  return names
end

-- How many times an id stands in a list. If many are looked for, a list is read once for all of them: whole, or its ends
-- if it is long; what comes to a list comes to an end of it, and `audit.py` has walked through the rest twice. `looked`
-- is how many ids have been looked at, by which a call knows when it has done enough.
local END, many, looked, known = 10000, false, 0, {}
local function read_ends(key)
  local found, n = {}, call('LLEN', key)
  local function note(first, last)
    for at = first, last, 1000 do
      for _, id in ipairs(call('LRANGE', key, at, math.min(at + 999, last))) do found[id] = (found[id] or 0) + 1 end
    end
  end
  note(0, math.min(n, END) - 1)
  note(math.max(END, n - END), n - 1)
  looked, known[key] = looked + math.min(n, 2 * END), found
  return found
end
local function times_in(key, id)
  if many then return (known[key] or read_ends(key))[id] or 0 end
  looked = looked + call('LLEN', key)
  return #call('LPOS', key, id, 'COUNT', 0)
end

-- The places of an id: those a message of `queue` can be in (nil: its head does not say, so it may be in any), in these
-- lines, and the key `seen` (after the prefix). The best to keep comes first: a worker's, then what waits, then the
-- schedule, then the dead letters.
local function places_of(id, queue, seen, lines)
  local places, queues = {}, queue and { queue } or call('HEXISTS', P .. 'messages', id) == 1 and all_queues() or {}
  local holders = holders_of(id, 1000)
  looked = looked + 4 * call('ZCARD', P .. 'leases')
  for i = 1, #holders, 2 do
    places[#places + 1] = { kind = 'hash', key = 'processing:' .. holders[i], queue = taken_from(holders[i + 1]) }
  end
  local done = {}
  local function look(kind, key, name)
    if done[key] then return end
    done[key] = true
    local times = kind == 'list' and times_in(P .. key, id) or kind == 'zset' and call('ZSCORE', P .. key, id) and 1 or 0
    for _ = 1, times do places[#places + 1] = { kind = kind, key = key, queue = name } end
  end
  local family, name = string.match(seen, '^(%a+):(.*)$')
  if family == 'suspects' or family == 'queue' then look('list', seen, name) end
  if family == 'gated' then look('list', seen, string.match(name, '^[^|]*')) end
  for _, one in ipairs(queues) do
    look('list', 'suspects:' .. one, one)
    look('list', 'queue:' .. one, one)
    look('zset', 'ranked:' .. one, one)
    for _, line in ipairs(lines) do
      look('list', 'gated:' .. one .. '|' .. line, one)
      look('zset', 'ranked:' .. one .. '|' .. line, one)
    end
  end
  look('zset', 'schedule', queue)
  if family == 'dead' or family == 'ranked' then look('zset', seen, string.match(name, '^[^|]*')) end
  for _, one in ipairs(queues) do look('zset', 'dead:' .. one, one) end
  return places
end

-- Take an id out of one of its places; of several in one list the last goes.
local function leave(id, place, queue)
  local key = P .. place.key
  local of, line = string.match(place.key, '^%a+:([^|]*)|(.*)$')
  if place.kind == 'hash' then
    local _, _, taken_at, gates = taken_from(call('HGET', key, id))
    call('HDEL', key, id)
    local now = clock()
    free(gates, taken_at, now)
    save_gates(now)
  elseif place.kind == 'list' then
    looked = looked + call('LLEN', key)
    call('LREM', key, -1, id)
  else
    call('ZREM', key, id)
    if place.key == 'schedule' then
      if queue then count(queue, 'scheduled', -1) end
    elseif find(place.key, 'dead:', 1, true) == 1 then
      call('HDEL', P .. 'reasons', id)
    end
  end
  if of then
    count(of, 'gated', -1)
    if not first_of(of, line) then leave_line(line, of) end
  end
end
