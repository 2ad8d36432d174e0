-- Taking messages from what is ready: part of fetch.lua, whose locals this uses.

-- Written after each queue, so that a key of the wrong type further on does not strand what was taken before it.
local function keep()
  if f > 0 then call('HSET', processing, unpack(fields)) end
  fields, f = {}, 0
end

-- Take up to n ids of a queue that has nothing special; returns how many, and whether there may be more.
local function take_plain(queue, n)
  local key = P .. 'queue:' .. queue
  local ids = call('LPOP', key, n)
  if not ids then return 0, false end
  local got, taken = 0, int(now) .. ' ' .. queue
  for j, value in ipairs(call('HMGET', messages, unpack(ids))) do
    if not value then
      count(queue, 'dangling')
    elseif not any_revoked or not flow.was_revoked(queue, ids[j]) then
      fields[f + 1], fields[f + 2] = ids[j], taken
      out[outs + 1], out[outs + 2] = ids[j], value
      f, outs, got = f + 2, outs + 2, got + 1
    end
  end
  return got, #ids == n and call('LLEN', key) > 0
end

local function cap(queue)
  if caps == '' then return want end
  local _, at = find(caps, ' ' .. queue .. '=', 1, true)
  return at and tonumber(string.match(caps, '^%d+', at + 1)) or 1
end

local function take_from(line, n)
  local queue, gate = string.match(line, '^([^|]*)|(.*)$')
  if gate then return flow.take_line(queue, gate, n) end
  return (marks(line) == '' and take_plain or flow.take_special)(line, n)
end

-- The next line to take from: each in its turn, unless the set says otherwise: the first in a given order, or by lot, in
-- which a queue has as many tickets as its weight. `k` is the how manieth it is in this fetch.
local function next_line(ready, k)
  if order == '' then return call('ZPOPMIN', ready)[1] end
  local lines, strict = call('ZRANGE', ready, 0, 99), byte(order) == 33
  local function weight(line)
    local _, at = find(order, ' ' .. string.match(line, '^[^|]*') .. '=', 1, true)
    return at and tonumber(string.match(order, '^%d+', at + 1)) or strict and 0 or 1
  end
  local total, best = 0, lines[1]
  for _, line in ipairs(lines) do
    if strict and weight(line) > weight(best) then best = line end
    total = total + weight(line)
  end
  -- Steps of the golden ratio spread over the tickets more evenly than chance does, if each keeps its place.
  table.sort(lines)
  local ticket = (number * 0.6180339887 + k * 0.7548776662) % 1 * total
  for _, line in ipairs(strict and {} or lines) do
    ticket = ticket - weight(line)
    if ticket < 0 then
      best = line
      break
    end
  end
  call('ZREM', ready, best)
  return best
end

-- A fetch is full when it holds one budget: a queue of cap n fills it with n messages.
local function take_ready()
  local ready, budget, left = P .. 'ready:' .. set, 1, want
  for k = 1, call('ZCARD', ready) do
    local line = next_line(ready, k)
    local most, got, more = cap(string.match(line, '^[^|]*')), 0, true
    if most > 0 then
      got, more = take_from(line, math.min(left, math.max(1, math.floor(most * budget))))
      left = left - got
      budget = budget - got / most
    elseif outs == 3 then
      got, more = take_from(line, 1)
      left = left - want * got
    end
    keep()
    if more then call('ZADD', ready, now, line) end
    if left <= 0 or budget < 0.01 then break end
  end
end

-- After a wait in vain: put back names of ready queues that are missing, a few each time.
local function repair()
  local names = {}
  for name in string.gmatch(call('HGET', P .. 'sets', set) or '', '%S+') do names[#names + 1] = name end
  for k = 1, math.min(#names, 8) do
    local name = names[(math.floor(now / 4000) * 8 + k) % #names + 1]
    if flow.waiting(name) > 0 then call('ZADD', P .. 'ready:' .. set, 'NX', now, name) end
  end
end
