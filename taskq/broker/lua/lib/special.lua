-- Taking messages with something special, and suspects: part of fetch.lua, whose `run` this uses.
local out, set, messages = run.out, run.set, run.messages

local function hold(id, value, taken)
  local f, outs = run.f, run.outs
  run.fields[f + 1], run.fields[f + 2] = id, taken
  out[outs + 1], out[outs + 2] = id, value
  run.f, run.outs = f + 2, outs + 2
end

-- Written after each queue, so that a key of the wrong type further on does not strand what was taken before it.
local function keep()
  if run.f > 0 then
    call('HSET', run.processing, unpack(run.fields))
    run.fields, run.f = {}, 0
  end
  save_gates(now)
end

local function undo_take(key, ids, why)
  put(key, ids, true)
  error(why)
end

local NONE = {}

-- The gates of a message, what its head says besides its names, and the line in which it would wait.
local function gates_in(value)
  local _, task, _, flags, at = head(value)
  if not task then return NONE, NONE end
  local found = extras(value, flags, at)
  local names, line = gates_of(task, found)
  return names, found, line
end

-- A lock until the start ends here, and so does that of a debounced call; a lock until it is done is noted beside the
-- gates, so that it ends with the delivery.
local function pass_all(id, value, names, taken, found)
  for _, name in ipairs(names) do
    if pass(name, now) then taken = taken .. '\n' .. name end
  end
  if found[$FIELD_LOCK] then
    local lock, mode = lock_in(found[$FIELD_LOCK])
    if mode == 's' or found[$FIELD_DEBOUNCE] then unlock(lock, id) elseif mode == 'd' then taken = taken .. '\n*' .. lock end
  end
  hold(id, value, taken)
end

-- A message that must not run ends when its turn comes, and uses up nothing. Returns whether it has ended.
local function has_ended(queue, id, value)
  if value then return end_revoked(queue, id, 'discarded', value) or end_expired(queue, id, value, now) end
  count(queue, 'dangling')
  return true
end

-- Take up to n from a queue with limits or ranks; messages that may not pass their gates go to their lines. Where
-- `careful`, n is 1: what runs at most once ends the fetch, and goes back to the head if that holds something already.
local function take_some(queue, n, careful)
  local ids, ranks = pop(queue, n)
  if #ids == 0 then return 0, false end
  local got, taken, limited, served, gone, alone = 0, int(now) .. ' ' .. queue, marked(queue, $MARK_LIMITED), {}, {}, false
  for j, value in ipairs(call('HMGET', messages, unpack(ids))) do
    local once = careful and value and has_flag(byte(value, 2), $FLAG_AT_MOST_ONCE)
    if has_ended(queue, ids[j], value) then
      if value and ranks[j] then gone[#gone + 1] = { value, ranks[j] } end
    elseif once and run.outs > 3 then
      alone = true
      offer(queue, { ids[j] }, now, true)
    else
      local names, found, line = NONE, NONE, nil
      if limited then names, found, line = gates_in(value) end
      local name, opens = closed_gate(names, queue, now)
      if name or (line and anybody_in_line and has_line(line, queue)) then
        stand(queue, line, ids[j], ranks[j])
        if first_of(queue, line) == ids[j] then line_waits(queue, line, name, opens, place_of(ranks[j], value), now) end
      else
        pass_all(ids[j], value, names, taken, found)
        got, alone = got + 1, once
        if ranks[j] then served[math.floor(ranks[j] / BAND)] = ranks[j] end
      end
    end
  end
  if gone[1] then give_back(queue, gone) end
  if marked(queue, $MARK_RANKED) then keep_turns(queue, served) end
  return got, waiting(queue) > 0, alone
end

-- The same, where a limit of the queue's only task holds the queue as a whole. Returns also whether the next message must be
-- taken alone, or was.
local function take_special(queue, n)
  if marked(queue, $MARK_PAUSED) then return 0, false end
  for _, name in ipairs(own_gates(queue)) do
    local free_now, opens = room(name, now)
    n = math.min(n, free_now)
    if n < 1 then
      wait_at(name, '*' .. queue, opens)
      return 0, false
    end
  end
  local got, one, more, alone = 0, 0, true, false
  local careful = marked(queue, $MARK_ONCE)
  for _ = 1, careful and n or 10 do -- until it brings something: many may have expired
    one, more, alone = take_some(queue, careful and 1 or n, careful)
    got = got + one
    if alone or not more or (got > 0 and not careful) then break end
  end
  return got, more, alone
end

-- Those of a queue that come before what stands at `place` in its lines go first. Returns how many were taken.
local function take_those_before(queue, place, n)
  local first = marked(queue, $MARK_RANKED) and tonumber(call('ZRANGE', P .. 'ranked:' .. queue, 0, 0, 'WITHSCORES')[2])
  return first and first < place and take_special(queue, n) or 0
end

-- Take the first of a line, if there is one and its gates let it pass. Returns 1 if so, and whether it would wait in another
-- line now; else 0, the gate that is closed (nil if the line is empty, false if there may be more), when it opens, and the
-- place of the first. In a group its turn has come; else it waits behind one. Where its task has a line (#t) it goes there.
local function take_first(queue, line, in_group)
  for _ = 1, 100 do
    local id, rank = first_of(queue, line)
    if not id then
      leave_line(line, queue)
      return 0
    end
    local value = call('HGET', messages, id)
    local dead = has_ended(queue, id, value)
    local names, found, own = NONE, NONE, nil
    if not dead then names, found, own = gates_in(value) end
    local moves = own and own ~= line and sub(own, -2) == '#t' and has_line(own, queue)
    local name, opens = closed_gate(moves and NONE or names, nil, now)
    for _, other in ipairs((in_group or moves) and NONE or names) do
      if not name and not is_told(line, other) and has_line(group_of(other), queue) then name = other end
    end
    if name then return 0, name, opens, place_of(rank, value) end
    if rank then call('ZREMRANGEBYRANK', P .. 'ranked:' .. queue .. '|' .. line, 0, 0)
    else call('LPOP', P .. 'gated:' .. queue .. '|' .. line)
    end
    count(queue, 'gated', -1)
    if dead and value and rank then give_back(queue, { { value, rank } }, line) end
    if moves then
      stand(queue, own, id)
    elseif not dead then
      pass_all(id, value, names, int(now) .. ' ' .. queue, found)
    end
    if marked(queue, $MARK_RANKED) then keep_turns(queue, rank and not dead and { [math.floor(rank / BAND)] = rank } or NONE) end
    if not (dead or moves) then return 1, own ~= line end
  end
  return 0, false, nil, -2 ^ 43
end

-- Take up to n from the lines that wait as a group, each first message in its order.
local function take_group(queue, group, n)
  local key, got = P .. 'heads:' .. queue .. '|' .. group, 0
  for _ = 1, n + 100 do
    local line, place = unpack(call('ZPOPMIN', key))
    if not line then
      leave_line(group, queue)
      return got, false
    end
    got = got + take_those_before(queue, tonumber(place), n - got)
    local one, name, opens
    if got >= n then one = 0 else one, name, opens, place = take_first(queue, line, true) end
    got = got + one
    if one == 1 then
      local id, rank = first_of(queue, line)
      if not id then leave_line(line, queue)
      elseif name then announce(queue, now, line) -- its limits were replaced: the next may wait for something else
      else call('ZADD', key, string.format('%.3f', place_of(rank, call('HGET', messages, id))), line)
      end
    elseif got >= n then
      call('ZADD', key, place, line)
    elseif name == false then
      call('ZADD', key, place, line)
      return got, true
    elseif name then
      line_waits(queue, line, name, opens, place, now)
      if group_of(name) == group then
        if call('EXISTS', key) == 0 then leave_line(group, queue) end -- it was the last, and is told by its own name
        return got, false
      end
    end
    if got >= n then return got, true end
  end
  return got, true
end

-- Take up to n from a line of a queue, or a group of them.
local function take_line(queue, line, n)
  if marked(queue, $MARK_PAUSED) then
    call('ZADD', P .. 'lines:' .. queue, int(now), line)
    return 0, false
  end
  if byte(line) == 126 then return take_group(queue, line, n) end
  local id, rank = first_of(queue, line)
  local got = id and take_those_before(queue, place_of(rank, not rank and call('HGET', messages, id)), n) or 0
  while got < n do
    local one, name, opens, place = take_first(queue, line, false)
    got = got + one
    if one == 0 then
      if name then line_waits(queue, line, name, opens, place, now) end
      return got, name == false
    end
  end
  if first_of(queue, line) then return got, true end
  leave_line(line, queue)
  return got, false
end

-- Take a suspect that this lane runs, or that no lane runs, if its gates are open; of another suspect tell the lanes that
-- run it. Returns whether there is one fewer.
local function take_this_suspect(queue, id)
  local value = call('HGET', messages, id)
  if has_ended(queue, id, value) then return true end
  local _, task = head(value)
  local lanes = task and served_by(queue, task .. '#t') or ''
  if lanes ~= '' and not find(lanes .. ' ', ' ' .. set .. ' ', 1, true) then return announce_suspects(queue, now, lanes) end
  local names, found = gates_in(value)
  local gate, opens = closed_gate(names, nil, now)
  if gate then return wait_at(gate, '!' .. queue, opens) end
  out[3] = tonumber(call('HGET', P .. 'crashes', id) or '0')
  pass_all(id, value, names, '!' .. int(now) .. ' ' .. queue, found)
  return true
end

-- Take the first suspect that this lane can run, of the first few of a queue that is not paused.
local function take_suspect()
  for _ = 1, 100 do -- until it brings something: many may have expired
    local queue = call('ZPOPMIN', P .. 'solo:' .. set)[1]
    if not queue then return end
    local key, gone = P .. 'suspects:' .. queue, 0
    for _, id in ipairs(marked(queue, $MARK_PAUSED) and NONE or call('LRANGE', key, 0, 31)) do
      if run.outs == 3 and take_this_suspect(queue, id) then gone = gone + call('LREM', key, 1, id) end
    end
    if gone > 0 and call('LLEN', key) > 0 then announce_suspects(queue, now) end
    keep()
    if run.outs > 3 then return end
  end
end

-- A message taken by a lane that does not run its task waits in the task's line for a lane that does: at the end, or
-- `again` at the head. At some time (ms) any lane may look at it.
local function hand_on(queue, id, held, opens, again)
  local _, task = head(call('HGET', messages, id))
  local name = task .. '#t'
  count(queue, 'deferred')
  if byte(held, 1) == 33 then -- a suspect
    local lanes = served_by(queue, name)
    if lanes == '' then return schedule(queue, id, math.min(opens, now + 60000)) end
    call('LPUSH', P .. 'suspects:' .. queue, id)
    return announce_suspects(queue, now, lanes)
  end
  mark(queue, $MARK_LIMITED, true)
  wait_at(name, queue)
  limits_of(task).names = nil -- it has one gate more
  put_back(queue, { id }, now, name, again)
  call('ZREM', P .. 'ready:' .. set, queue .. '|' .. name) -- not for us
  call('ZADD', P .. 'openings', 'LT', int(math.ceil(opens)), name)
  if call('ZRANGE', P .. 'openings', 0, 0)[1] == name then ring(P .. 'alarm') end
end

-- Take up to n from a line, or from a queue with something special.
local function take_it(line, queue, n)
  if line == queue then return take_special(queue, n) end
  if not marked(queue, $MARK_ONCE) then return take_line(queue, sub(line, #queue + 2), n) end
  if run.outs > 3 then return 0, true, true end
  local got, more = take_line(queue, sub(line, #queue + 2), 1)
  return got, more, got > 0
end

local function take_marked(line, queue, n)
  call('HLEN', messages)
  call('HLEN', run.processing)
  local fine, got, more, alone = pcall(take_it, line, queue, n)
  keep()
  if not fine then error(got) end
  return got, more, alone
end
