-- Taking messages of which something is special, suspects, and what a lost bell left: part of fetch.lua, whose locals this
-- uses. It is made only when it is asked for; see there.

local function hold(id, value, taken)
  fields[f + 1], fields[f + 2] = id, taken
  out[outs + 1], out[outs + 2] = id, value
  f, outs = f + 2, outs + 2
end

local NONE = {}

-- The gates of a message, and what its head says of its lock.
local function gates_in(value)
  local _, task, _, flags, at = head(value)
  if not task then return NONE end
  local found = extras(value, flags, at)
  return gates_of(task, found), found.u
end

-- The first of these gates that does not let a message pass now, or where others wait already; when it opens; and whether
-- the message has been in its line before. One that comes from the line of a later gate has, and goes to the head of it: those
-- of two lines would send each other back and forth for ever.
local function closed_gate(names, queue, from)
  local been_there = not queue or from ~= nil
  for _, name in ipairs(names) do
    if name == from then
      been_there = false
    else
      local n, opens = room(name, now)
      if n < 1 or (not been_there and has_line(name, queue)) then return name, opens, been_there end
    end
  end
end

-- A lock until the start ends here; one until it is done is named beside the gates, so that it ends with the delivery.
local function pass_all(id, value, names, taken, text)
  for _, name in ipairs(names) do
    if pass(name, now) then taken = taken .. '\n' .. name end
  end
  if text then
    local lock, mode = lock_in(text)
    if mode == 's' then unlock(lock, id) elseif mode == 'd' then taken = taken .. '\n*' .. lock end
  end
  hold(id, value, taken)
end

local function stand_in_line(queue, name, id, opens, at_head)
  call(at_head and 'LPUSH' or 'RPUSH', P .. 'gated:' .. queue .. '|' .. name, id)
  wait_at(name, queue, opens)
end

-- Take up to n from a queue with limits or ranks; what may not pass a gate of its own goes to its line. Where `careful`, n is 1:
-- what runs at most once ends the fetch, and goes back to the head if that holds something already.
local function take_some(queue, n, careful)
  local ids, got, taken, limited, alone = pop(queue, n), 0, int(now) .. ' ' .. queue, marked(queue, 'l'), false
  if #ids == 0 then return 0, false end
  for j, value in ipairs(call('HMGET', messages, unpack(ids))) do
    local once = careful and value and (byte(value, 2) or 0) % 4 >= 2
    if not value then
      count(queue, 'dangling')
    elseif once and outs > 3 then
      alone = true
      offer(queue, { ids[j] }, now, true)
    elseif not end_revoked(queue, ids[j], 'discarded', value) then
      local names, lock = NONE, nil
      if limited then names, lock = gates_in(value) end
      local name, opens = closed_gate(names, queue)
      if name then
        stand_in_line(queue, name, ids[j], opens)
        count(queue, 'gated')
      else
        pass_all(ids[j], value, names, taken, lock)
        got, alone = got + 1, once
      end
    end
  end
  return got, waiting(queue) > 0, alone
end

-- The same, where a limit of the queue's only task holds the queue as a whole. Returns also whether the next message must be
-- taken alone, or was.
local function take_special(queue, n)
  if marked(queue, 'p') then return 0, false end
  for _, name in ipairs(own_gates(queue)) do
    local free_now, opens = room(name, now)
    n = math.min(n, free_now)
    if n < 1 then
      wait_at(name, '*' .. queue, opens)
      return 0, false
    end
  end
  if not marked(queue, 'o') then return take_some(queue, n) end
  local got, one, more, alone = 0, 0, true, false
  for _ = 1, n do
    one, more, alone = take_some(queue, 1, true)
    got = got + one
    if alone or not more then break end
  end
  return got, more, alone
end

-- Take up to n from the line of a queue at a gate.
local function take_line(queue, gate, n)
  if marked(queue, 'p') then
    call('ZADD', P .. 'lines:' .. queue, int(now), gate)
    return 0, false
  end
  local key, got, taken = P .. 'gated:' .. queue .. '|' .. gate, 0, int(now) .. ' ' .. queue
  local free_now, opens = room(gate, now)
  n = math.min(n, free_now)
  local ids, ahead = n > 0 and call('LPOP', key, n) or {}, {}
  for j, value in ipairs(#ids > 0 and call('HMGET', messages, unpack(ids)) or {}) do
    local names, lock, other, other_opens, been_there
    if value and not end_revoked(queue, ids[j], 'discarded', value) then
      names, lock = gates_in(value)
      other, other_opens, been_there = closed_gate(names, queue, gate)
    end
    if been_there then
      table.insert(ahead, 1, { other, ids[j], other_opens })
    elseif other then
      stand_in_line(queue, other, ids[j], other_opens)
    else
      count(queue, 'gated', -1)
      if names then
        pass_all(ids[j], value, names, taken, lock)
        got = got + 1
      elseif not value then
        count(queue, 'dangling')
      end
    end
  end
  for _, item in ipairs(ahead) do stand_in_line(queue, item[1], item[2], item[3], true) end
  if call('LLEN', key) == 0 then
    leave_line(gate, queue)
    return got, false
  end
  free_now, opens = room(gate, now)
  if free_now < 1 then wait_at(gate, queue, opens) end
  return got, free_now >= 1
end

-- Take the first suspect there is, of a queue that is not paused and at gates that are open.
local function take_suspect()
  local name = call('ZPOPMIN', P .. 'solo:' .. set)[1]
  while name and outs == 3 do
    local key = P .. 'suspects:' .. name
    local id = not marked(name, 'p') and call('LINDEX', key, 0)
    local value = id and call('HGET', messages, id)
    local names, lock = {}, nil
    if value then names, lock = gates_in(value) end
    local gate, opens = closed_gate(names)
    if gate then
      wait_at(gate, '!' .. name, opens)
    elseif id then
      call('LPOP', key)
      if not value then
        count(name, 'dangling')
      elseif not end_revoked(name, id, 'discarded', value) then
        out[3] = tonumber(call('HGET', P .. 'crashes', id) or '0')
        pass_all(id, value, names, '!' .. int(now) .. ' ' .. name, lock)
      end
      if call('LLEN', key) > 0 then announce_suspects(name, now) end
    end
    keep()
    if outs == 3 then name = call('ZPOPMIN', P .. 'solo:' .. set)[1] end
  end
end

-- A message whose taker does not run its task waits in the line of that, for a lane that does: at the end, or `again` at the head.
-- At some time (ms) anybody is to look at it.
local function hand_on(queue, id, held, opens, again)
  local _, task = head(call('HGET', messages, id))
  local name = task .. '#t'
  count(queue, 'deferred')
  if byte(held, 1) == 33 then -- a suspect
    local lanes = served_by(queue, name)
    if lanes == '' then return schedule(queue, id, math.min(opens, now + 60000)) end
    call('LPUSH', P .. 'suspects:' .. queue, id)
    for lane in string.gmatch(lanes, '%S+') do
      call('ZADD', P .. 'solo:' .. lane, 'NX', now, queue)
      ring(P .. 'solo-bell:' .. lane)
    end
    return
  end
  mark(queue, 'l', true)
  wait_at(name, queue)
  limits_of(task).names = nil -- it has one gate more
  put_back(queue, { id }, now, not again and name or nil)
  call('ZREM', P .. 'ready:' .. set, queue .. '|' .. name) -- not for us
  call('ZADD', P .. 'openings', 'LT', int(math.ceil(opens)), name)
  if call('ZRANGE', P .. 'openings', 0, 0)[1] == name then ring(P .. 'alarm') end
end

-- After a wait in vain: put back names of ready queues that are missing, a few each time.
local function repair()
  local names = {}
  for name in string.gmatch(call('HGET', P .. 'sets', set) or '', '%S+') do names[#names + 1] = name end
  for k = 1, math.min(#names, 8) do
    local name = names[(math.floor(now / 4000) * 8 + k) % #names + 1]
    if waiting(name) > 0 then call('ZADD', P .. 'ready:' .. set, 'NX', now, name) end
  end
end
