-- The places a message can be in.

-- Every queue of which anything was ever counted.
local function all_queues()
  local names, known = {}, {}
  for _, field in ipairs(call('HKEYS', P .. 'counters')) do
    local queue = string.match(field, '^(.*)|')
    if queue and not known[queue] then names[#names + 1], known[queue] = queue, true end
  end
  return names
end

-- The places of an id, of which there must be one: those a message of `queue` can be in (nil: its head does not say, so it
-- may be in any), and the key `seen` (after the prefix). The best to keep comes first: a worker's, then what waits, then the
-- schedule, then the dead letters.
local function places_of(id, queue, seen, lines)
  local places, queues = {}, queue and { queue } or call('HEXISTS', P .. 'messages', id) == 1 and all_queues() or {}
  for _, inc in ipairs(call('ZRANGE', P .. 'leases', 0, 999)) do
    local held = call('HGET', P .. 'processing:' .. inc, id)
    if held then
      places[#places + 1] = { kind = 'hash', key = 'processing:' .. inc, queue = taken_from(held) }
    end
  end
  local looked = {}
  local function look(kind, key, name)
    if looked[key] then return end
    looked[key] = true
    if kind == 'zset' then
      if call('ZSCORE', P .. key, id) then places[#places + 1] = { kind = kind, key = key, queue = name } end
    else
      for _ = 1, #call('LPOS', P .. key, id, 'COUNT', 0) do
        places[#places + 1] = { kind = kind, key = key, queue = name }
      end
    end
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
