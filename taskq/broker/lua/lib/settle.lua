-- The outcomes that a worker reports, for messages it still holds: part of fetch.lua, whose `run` this uses.
local processing, messages = run.processing, run.messages

-- Deliveries of this processing value have ended: what they held of their limits is free.
local function left(value, failed, times)
  local _, _, taken_at, gates = taken_from(value)
  if gates ~= '' then free(gates, taken_at, now, failed, times) end
end

-- What the end of done messages means to others: callers that wait, and the limits that they held.
local function finish_done(ids, results, tally, ttl)
  for value, times in pairs(tally) do left(value, false, times) end
  for i, id in ipairs(ids) do deliver(id, results and results[i] or '', ttl, run.some_wait) end
  save_gates(now)
end

-- What becomes of a message that was revoked: as an outcome of a run, or of one that never began. A value counts (nil).
local function fate(kind, i)
  local how = kind ~= 'move' and ARGV[kind == 'schedule' and i + 4 or i + 2]
  if kind == 'end' and how == 'done' and sub(ARGV[i + 3], 1, 1) ~= $DISCARDED then return nil end
  return (kind == 'return' or kind == 'pass' or how == 'discarded' or how == 'deferred') and 'discarded' or 'done'
end

-- Look at the types of the keys that an outcome writes to.
local function look_before_settling(kind, queue)
  call('HLEN', messages)
  if kind == 'dead' then
    call('ZCARD', P .. 'dead:' .. queue)
    call('HLEN', P .. 'reasons')
  elseif kind ~= 'end' then
    call('LLEN', P .. 'queue:' .. queue)
    call('LLEN', P .. 'suspects:' .. queue)
    if kind == 'schedule' or kind == 'move' then call('ZCARD', P .. 'schedule') end
    for _, key in ipairs(kind == 'move' and { 'guests', 'tasks', 'marks' } or {}) do call('HLEN', P .. key) end
  end
end

-- Any other outcome: its words begin at ARGV[i]. A breaker hears whether the task failed, or nothing.
local function settle(kind, i, id, value)
  local queue, failed = taken_from(value), nil
  local to = kind == 'move' and ARGV[i + 4] or queue
  look_before_settling(kind, to)
  call('HDEL', processing, id)
  local counter = any_revoked and fate(kind, i)
  if counter and end_revoked(queue, id, counter) then return left(value) end
  if kind == 'end' then
    local how = ARGV[i + 2]
    ended(queue, { id }, how)
    deliver(id, ARGV[i + 3], ARGV[i + 4], run.some_wait)
    if no_room and ARGV[i + 3] ~= '' then count(queue, 'unkept') end
    if how ~= 'discarded' then failed = how == 'failed' end
  elseif kind == 'dead' then
    bury(queue, id, now, ARGV[i + 2], ARGV[i + 3])
    deliver(id, ARGV[i + 4], ARGV[i + 5], run.some_wait)
    if no_room and ARGV[i + 4] ~= '' then count(queue, 'unkept') end
    if ARGV[i + 2] == 'failed' then failed = true end
  elseif kind == 'schedule' or kind == 'move' then
    local delay, how = tonumber(ARGV[i + 3]), kind == 'move' and 'retried' or ARGV[i + 4]
    call('HSET', messages, id, ARGV[i + 2])
    count(queue, how)
    if to ~= queue then moved(queue, to, ARGV[i + 2]) end
    if how == 'deferred' and marks(queue) ~= '' and superseded(queue, id, ARGV[i + 2], now) then -- gone
    elseif delay > 0 then schedule(to, id, now + delay)
    elseif call('HEXISTS', P .. 'crashes', id) == 1 then push_suspects(to, { id }, now)
    else (marks(to) == '' and push or offer)(to, { id }, now)
    end
    if how == 'retried' then failed = true end
  elseif kind == 'pass' then
    if ARGV[i + 2] ~= '' then call('HSET', P .. 'messages', id, ARGV[i + 2]) end
    hand_on(queue, id, value, now + tonumber(ARGV[i + 3]), ARGV[i + 4] == '1')
  else
    count(queue, 'returned')
    if kind == 'limit' then shut(id, now + tonumber(ARGV[i + 2])) end
    if byte(value, 1) == 33 then push_suspects(queue, { id }, now, true)
    elseif marks(queue) == '' then push(queue, { id }, now, true)
    else put_back(queue, { id }, now)
    end
  end
  left(value, failed)
end

local width = { ['end'] = 5, dead = 6, schedule = 5, move = 5, limit = 3, ['return'] = 2, pass = 5 }
local function settle_each(settle_done)
  local i = 8
  while i <= #ARGV do
    local kind = ARGV[i]
    if kind == 'done' then
      local n_results = tonumber(ARGV[i + 3])
      settle_done(ARGV[i + 1], ARGV[i + 2], i + 4, n_results)
      i = i + 4 + n_results
    else
      local id = ARGV[i + 1]
      local value = call('HGET', processing, id)
      if value then settle(kind, i, id, value) else run.out[2] = run.out[2] + 1 end
      i = i + width[kind]
    end
  end
end

local function settle_all(inc, number, settle_done)
  call('HLEN', P .. 'counters') -- the other keys are read with the outcomes
  first_write('HSET', P .. 'calls', inc, number)
  local fine, why = pcall(settle_each, settle_done)
  save_gates(now)
  if not fine then -- everything settled before it is complete
    write_counts()
    error(why)
  end
end
