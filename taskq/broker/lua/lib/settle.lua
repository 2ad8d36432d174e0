-- The outcomes a worker tells, for what it still holds: part of fetch.lua, whose locals this uses.
local fenced = 0
local queue_of = {} -- processing value -> queue; few distinct values in a batch
local function queue_in(value)
  local queue = queue_of[value]
  if not queue then
    queue = taken_from(value)
    queue_of[value] = queue
  end
  return queue
end

-- What the processing hash has for these ids, and whether it has nothing else. Mostly a batch is settled as it was taken,
-- whole and in order; then one walk through the hash does, where a look-up of each id would walk through half of it.
local function held_values(ids, n)
  if call('HLEN', processing) ~= n then return call('HMGET', processing, unpack(ids)), false end
  local flat, values = call('HGETALL', processing), {}
  for i = 1, n do
    if flat[2 * i - 1] ~= ids[i] then return call('HMGET', processing, unpack(ids)), false end
    values[i] = flat[2 * i]
  end
  return values, true
end

-- A delivery of this processing value has ended: what it held of its limits is free.
local function left(value, failed)
  local _, _, _, gates = taken_from(value)
  if gates ~= '' then free(gates, now, failed) end
end

local function settle_done(blob, ttl, first_result, n_results)
  local ids, n = {}, 0
  for i = 1, #blob, 16 do
    n = n + 1
    ids[n] = sub(blob, i, i + 15)
  end
  local held, all = held_values(ids, n)
  local mine, results, m, tally = {}, {}, 0, {}
  for i = 1, n do
    local value = held[i]
    if value then
      m = m + 1
      mine[m] = ids[i]
      results[m] = ARGV[first_result + i - 1]
      tally[value] = (tally[value] or 0) + 1
    end
  end
  fenced = fenced + n - m
  if m == 0 then return end
  for value, times in pairs(tally) do
    count(queue_in(value), 'done', times)
    if find(value, '\n', 1, true) then
      for _ = 1, times do left(value, false) end
    end
  end
  if all then call('DEL', processing) else call('HDEL', processing, unpack(mine)) end
  call('HDEL', messages, unpack(mine))
  if call('EXISTS', P .. 'crashes') == 1 then call('HDEL', P .. 'crashes', unpack(mine)) end
  if call('EXISTS', P .. 'revoked') == 1 then call('HDEL', P .. 'revoked', unpack(mine)) end
  if anybody_waits() then
    for i = 1, m do publish(mine[i], n_results > 0 and results[i] or '', ttl, true) end
  elseif n_results > 0 then
    local prefix = P .. 'result:'
    for i = 1, m do call('PSETEX', prefix .. mine[i], ttl, results[i]) end
  end
end

local settle = {
  ['end'] = function(i, id, queue)
    count(queue, ARGV[i + 2])
    call('HDEL', messages, id)
    call('HDEL', P .. 'crashes', id)
    call('HDEL', P .. 'revoked', id)
    publish(id, ARGV[i + 3], ARGV[i + 4], anybody_waits())
  end,
  dead = function(i, id, queue)
    bury(queue, id, now, ARGV[i + 2], ARGV[i + 3])
    publish(id, ARGV[i + 4], ARGV[i + 5], anybody_waits())
  end,
  schedule = function(i, id, queue)
    call('HSET', messages, id, ARGV[i + 2])
    count(queue, ARGV[i + 4])
    local delay = tonumber(ARGV[i + 3])
    if delay > 0 then
      schedule(queue, id, now + delay)
    elseif call('HEXISTS', P .. 'crashes', id) == 1 then
      push_suspects(queue, { id }, now)
    else
      offer(queue, { id }, now)
    end
  end,
  limit = function(i, id, queue)
    local value = call('HGET', messages, id)
    local _, task, _, flags, at = head(value)
    count(queue, 'returned')
    if task then
      local name = gates_of(task, extras(value, flags, at))[1]
      if not name or find(name, '#[bp]$') then name = task .. '#0' end
      shut_until(name, now + tonumber(ARGV[i + 2]))
      mark(queue, 'l', true)
    end
    put_back(queue, { id }, now)
  end,
  ['return'] = function(_, id, queue, value)
    count(queue, 'returned')
    if byte(value, 1) == 33 then push_suspects(queue, { id }, now, true) else put_back(queue, { id }, now) end
  end,
}
