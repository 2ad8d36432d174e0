-- Taking messages from what is ready: part of fetch.lua, whose locals this uses.

-- Take up to n ids of a queue that has nothing special; returns how many, and whether there may be more.
local function take_plain(queue, n)
  local key = P .. 'queue:' .. queue
  local ids = call('LPOP', key, n)
  if not ids then return 0, false end
  local values, taken, held, o = call('HMGET', messages, unpack(ids)), int(now) .. ' ' .. queue, f, outs
  for j = 1, #ids do
    local value = values[j]
    if any_revoked and flow.end_revoked(queue, ids[j], 'discarded', value) then -- it ends when its turn comes
    elseif not value then
      count(queue, 'dangling')
    else
      fields[held + 1], fields[held + 2] = ids[j], taken
      out[o + 1], out[o + 2] = ids[j], value
      held, o = held + 2, o + 2
    end
  end
  local got = (held - f) / 2
  f, outs = held, o
  return got, #ids == n and call('LLEN', key) > 0
end

-- Take up to n of a line (`<queue>|<gate>`) or a queue.
local function take_from(line, queue, n)
  if line == queue then return (marks(queue) == '' and take_plain or flow.take_special)(queue, n) end
  if not find(marks(queue), 'o', 1, true) then return flow.take_line(queue, sub(line, #queue + 2), n) end
  if outs > 3 then return 0, true, true end
  local got, more = flow.take_line(queue, sub(line, #queue + 2), 1)
  return got, more, got > 0
end

-- What the worker knows of a queue: how many of its messages fill one fetch (0: one, and nothing beside it), and how many
-- ms one takes. A worker that runs many at once (`*`) fills its free slots, a part of them from each queue that is ready.
local function pace_of(queue, turns, left)
  if caps == '' then return want, 10 end
  local _, at = find(caps, ' ' .. queue .. '=', 1, true)
  local most, ms = string.match(caps, '^(%d+)/?(%S*)', at and at + 1 or #caps + 1)
  if byte(caps) == 42 and most ~= '0' then most = order == '' and want or math.ceil(left / turns) end
  return tonumber(most) or 1, tonumber(ms) or 10
end

-- A fetch is full when it holds one budget: a queue of cap n fills it with n messages; and where the next message is one that
-- must be taken alone. If it was not, its queue comes first next time. It looks at so many names at most; where that was in
-- vain, the bell is rung again.
local LOOKS = 128
local function take_ready()
  local ready, budget, left = P .. 'ready:' .. set, 1, want
  for turns = math.min(call('ZCARD', ready), LOOKS), 1, -1 do
    local line = order ~= '' and next_line(ready) or call('ZPOPMIN', ready)[1]
    local queue, got, more, alone = string.match(line, '^[^|]*'), 0, true, false
    local most, ms = pace_of(queue, turns, left)
    if most > 0 then
      local room_for = byte(caps) == 42 and most or math.max(1, math.floor(most * budget))
      got, more, alone = attempt(take_from, line, queue, math.min(left, room_for))
      left = left - got
      if byte(caps) ~= 42 then budget = budget - got / most end
    elseif outs == 3 then
      got, more = attempt(take_from, line, queue, 1)
      left = left - want * got
    else
      alone = true
    end
    keep()
    if order ~= '' and got > 0 then charge(queue, got * ms) end
    local turn = order == '' and (alone and got == 0 and 0 or now)
    if more then call('ZADD', ready, turn or (turn_of(queue, ready)), line) end
    if alone or left <= 0 or budget < 0.01 then break end
  end
end
