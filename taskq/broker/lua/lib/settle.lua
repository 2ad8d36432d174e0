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

-- Deliveries of this processing value have ended: what they held of their limits is free.
local function left(value, failed, times)
  local _, _, taken_at, gates = taken_from(value)
  if gates ~= '' then flow.free(gates, taken_at, now, failed, times) end
end

local function settle_done(blob, ttl, first_result, n_results)
  local ids, n = {}, 0
  for i = 1, #blob, 16 do
    n = n + 1
    ids[n] = sub(blob, i, i + 15)
  end
  local held, all = held_values(ids, n)
  local mine, results, m, tally, special = {}, {}, 0, {}, nil
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
  for value in pairs(tally) do special = special or find(value, '\n', 1, true) end
  if special then local _ = flow.free end -- made before the first write: it looks at the types of what it writes to
  call('HDEL', messages, unpack(mine))
  if all then call('DEL', processing) else call('HDEL', processing, unpack(mine)) end
  for value, times in pairs(tally) do
    count(queue_in(value), 'done', times)
    if no_room and n_results > 0 then count(queue_in(value), 'unkept', times) end
  end
  if any_crashes then call('HDEL', P .. 'crashes', unpack(mine)) end
  if any_revoked then call('HDEL', P .. 'revoked', unpack(mine)) end
  if special then
    for value, times in pairs(tally) do left(value, false, times) end
  end
  if waits then
    for i = 1, m do publish(mine[i], n_results > 0 and results[i] or '', ttl, true) end
  elseif n_results > 0 and not no_room then
    local prefix = P .. 'result:'
    for i = 1, m do call('PSETEX', prefix .. mine[i], ttl, results[i]) end
  end
end

-- What becomes of a message that was revoked: as an outcome of a run, or of one that never began. A value counts (nil).
local function fate(kind, i)
  local how = ARGV[kind == 'schedule' and i + 4 or i + 2]
  if kind == 'end' and how == 'done' and byte(ARGV[i + 3], 1) ~= 88 then return nil end -- X: discarded
  return (kind == 'return' or kind == 'pass' or how == 'discarded' or how == 'deferred') and 'discarded' or 'done'
end

-- Look at the types of the keys that an outcome writes to.
local function look_before(kind, queue, value)
  call('HLEN', messages)
  if marks(queue) ~= '' or any_revoked or find(value, '\n', 1, true) then local _ = flow.free end
  if kind == 'dead' then
    call('ZCARD', P .. 'dead:' .. queue)
    call('HLEN', P .. 'reasons')
  elseif kind ~= 'end' then
    call('LLEN', P .. 'queue:' .. queue)
    call('LLEN', P .. 'suspects:' .. queue)
    if kind == 'schedule' then call('ZCARD', P .. 'schedule') end
  end
end

-- Any other outcome: its words begin at ARGV[i]. What a breaker is to know of it is whether the task failed, or nothing.
local function settle(kind, i, id, value)
  local queue, failed = queue_in(value), nil
  look_before(kind, queue, value)
  call('HDEL', processing, id)
  local counter = any_revoked and fate(kind, i)
  if counter and flow.end_revoked(queue, id, counter) then return left(value) end
  if kind == 'end' then
    local how = ARGV[i + 2]
    count(queue, how)
    call('HDEL', messages, id)
    call('HDEL', P .. 'crashes', id)
    call('HDEL', P .. 'revoked', id)
    publish(id, ARGV[i + 3], ARGV[i + 4], waits)
    if no_room and ARGV[i + 3] ~= '' then count(queue, 'unkept') end
    if how ~= 'discarded' then failed = how == 'failed' end
  elseif kind == 'dead' then
    bury(queue, id, now, ARGV[i + 2], ARGV[i + 3])
    publish(id, ARGV[i + 4], ARGV[i + 5], waits)
    if no_room and ARGV[i + 4] ~= '' then count(queue, 'unkept') end
    if ARGV[i + 2] == 'failed' then failed = true end
  elseif kind == 'schedule' then
    local delay = tonumber(ARGV[i + 3])
    call('HSET', messages, id, ARGV[i + 2])
    count(queue, ARGV[i + 4])
    if ARGV[i + 4] == 'deferred' and marks(queue) ~= '' and flow.superseded(queue, id, ARGV[i + 2], now) then -- gone
    elseif delay > 0 then schedule(queue, id, now + delay)
    elseif call('HEXISTS', P .. 'crashes', id) == 1 then push_suspects(queue, { id }, now)
    else (marks(queue) == '' and push or flow.offer)(queue, { id }, now)
    end
    if ARGV[i + 4] == 'retried' then failed = true end
  elseif kind == 'pass' then
    if ARGV[i + 2] ~= '' then call('HSET', P .. 'messages', id, ARGV[i + 2]) end
    flow.hand_on(queue, id, value, now + tonumber(ARGV[i + 3]), ARGV[i + 4] == '1')
  else
    count(queue, 'returned')
    if kind == 'limit' then flow.shut(id, now + tonumber(ARGV[i + 2])) end
    if byte(value, 1) == 33 then push_suspects(queue, { id }, now, true)
    elseif marks(queue) == '' then push(queue, { id }, now, true)
    else flow.put_back(queue, { id }, now)
    end
  end
  left(value, failed)
end
