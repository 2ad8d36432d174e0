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

-- A fetch is full when it holds one budget: a queue of cap n fills it with n messages; and where the next message is one that
-- must be taken alone. If it was not, its queue comes first next time.
local function take_ready()
  local ready, budget, left = P .. 'ready:' .. set, 1, want
  for k = 1, call('ZCARD', ready) do
    local line = order ~= '' and flow.next_line(ready, k) or call('ZPOPMIN', ready)[1]
    local queue, most, got, more, alone = string.match(line, '^[^|]*'), want, 0, true, false
    if caps ~= '' then
      local _, at = find(caps, ' ' .. queue .. '=', 1, true)
      most = at and tonumber(string.match(caps, '^%d+', at + 1)) or 1
    end
    if most > 0 then
      got, more, alone = take_from(line, queue, math.min(left, math.max(1, math.floor(most * budget))))
      left = left - got
      budget = budget - got / most
    elseif outs == 3 then
      got, more = take_from(line, queue, 1)
      left = left - want * got
    else
      alone = true
    end
    keep()
    if more then call('ZADD', ready, alone and got == 0 and 0 or now, line) end
    if alone or left <= 0 or budget < 0.01 then break end
  end
end
