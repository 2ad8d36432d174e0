-- Taking messages from what is ready: part of fetch.lua, whose `run` this uses.

-- Take up to n ids of a queue with nothing special; returns how many, and whether there may be more. If one of the keys has
-- another type they go back.
local function take_plain(queue, n)
  local key, taken, f, outs = P .. 'queue:' .. queue, int(now) .. ' ' .. queue, 0, run.outs
  local ids = call('LPOP', key, n)
  if not ids then return 0, false end
  local values, fields, out = try('HMGET', run.messages, unpack(ids)), {}, run.out
  if values.err then return flow.undo_take(key, ids, values.err) end
  for j = 1, #ids do
    local value = values[j]
    if run.some_revoked and flow.end_revoked(queue, ids[j], 'discarded', value) then -- it ends when its turn comes
    elseif not value then
      count(queue, 'dangling')
    else
      fields[f + 1], fields[f + 2] = ids[j], taken
      out[outs + 1], out[outs + 2] = ids[j], value
      f, outs = f + 2, outs + 2
    end
  end
  local kept = f > 0 and try('HSET', run.processing, unpack(fields))
  if type(kept) == 'table' then -- what has ended here does not go back
    local left = {}
    for i = 1, f, 2 do left[#left + 1] = fields[i] end
    return flow.undo_take(key, left, kept.err)
  end
  run.outs = outs
  return f / 2, #ids == n and call('LLEN', key) > 0
end

-- Take up to n of a line (`<queue>|<gate>`) or a queue.
local function take_from(line, queue, n)
  if line == queue then
    local letters = rare ~= false and call('HMGET', P .. 'marks', queue, '*')
    if not letters or not (letters[1] or letters[2]) then return take_plain(queue, n) end
  end
  return flow.take_marked(line, queue, n)
end

-- What the worker knows of a queue: how many of its messages fill one fetch (0: one, and nothing besides it), and how
-- many ms one takes. A worker that runs many at once (`*`) fills its free slots, a part of them from each queue that is
-- ready.
local function pace_of(queue, names, left)
  local caps = run.caps
  if caps == '' then return run.want, 10 end
  local _, at = find(caps, ' ' .. queue .. '=', 1, true)
  local most, ms = string.match(caps, '^(%d+)/?(%S*)', at and at + 1 or #caps + 1)
  if byte(caps) == 42 and most ~= '0' then most = run.order == '' and run.want or math.ceil(left / names) end
  return tonumber(most) or 1, tonumber(ms) or 10
end

-- A fetch is full when it holds one budget: a queue of cap n fills it with n messages; and where the next message is one
-- that must be taken alone. If it was not, its queue comes first next time. It looks at so many names at most. Returns
-- whether any may be left.
local LOOKS = 128
local function take_ready()
  local ready, budget, left, many, in_turn = P .. 'ready:' .. run.set, 1, run.want, byte(run.caps) == 42, run.order ~= ''
  local looked_at = {}
  for names = (many or in_turn) and math.min(call('ZCARD', ready), LOOKS) or LOOKS, 1, -1 do
    local line = in_turn and turns.next_line(ready) or not in_turn and call('ZPOPMIN', ready)[1]
    if not line then return false end
    if looked_at[line] then -- it was put back just now, and so was all that is left
      call('ZADD', ready, now, line)
      break
    end
    local queue, got, more, alone = string.match(line, '^[^|]*'), 0, true, false
    local most, ms = pace_of(queue, names, left)
    if most > 0 then
      local room_for = many and most or math.max(1, math.floor(most * budget))
      got, more, alone = attempt(take_from, line, queue, math.min(left, room_for))
      left = left - got
      if not many then budget = budget - got / most end
    elseif run.outs == 3 then
      got, more = attempt(take_from, line, queue, 1)
      left = left - run.want * got
    else
      alone = true
    end
    if in_turn and got > 0 then turns.charge(queue, got * ms) end
    local turn = not in_turn and (alone and got == 0 and 0 or now)
    if more then
      looked_at[line] = not in_turn
      call('ZADD', ready, turn or (turns.turn_of(queue, ready)), line)
    end
    if alone or left <= 0 or budget < 0.01 then break end
  end
  return call('ZCARD', ready) > 0
end
