-- Whose turn it is among the queues of a set: part of fetch.lua, whose `run` this uses.
--
-- They share the time of their workers by weight: start-time fair queueing (Goyal, Vin, Cheng 1996). The account of a
-- queue is the time its messages took so far, in ms over its weight, by the mean that the worker reports. The one with the
-- lowest is next, and no account is below `*`, the account of the last queue taken from: a queue that was empty saves
-- nothing up. In ready:<set> a name waits for its turn at LATER + its account, or, in strict order, at its rank. One that
-- has just come up stands at the time, which is less, so it is looked at first.
local LATER = 1e13
local spent = P .. 'spent:' .. run.set
local account, lowest = {}, nil

-- Where a queue waits for its turn, and the score from which on it is its turn if its name comes first.
local function turn_of(queue, ready)
  local _, at = find(run.order, ' ' .. queue .. '=', 1, true)
  local weight = tonumber(at and string.match(run.order, '^%d+', at + 1)) or 1
  if byte(run.order) == 33 then
    local rank = LATER * math.max(1, 1001 - weight)
    return string.format('%.0f', rank + now), rank
  end
  local its = account[queue]
  if not its then
    local known = call('HMGET', spent, '*', queue)
    if not lowest then -- without accounts (a new set, a deleted key) all begin level with the one that has waited longest for its turn
      local last = not known[1] and call('ZRANGE', ready, -1, -1, 'WITHSCORES')[2] or 0
      lowest = tonumber(known[1]) or math.max(0, tonumber(last) - LATER)
    end
    its = { at = math.max(tonumber(known[2]) or 0, lowest), weight = weight }
    account[queue] = its
  end
  return string.format('%.3f', LATER + its.at), its.at > lowest and LATER + its.at - 0.01 or 0
end

-- Take out the name whose turn it is.
local function next_line(ready)
  for _ = 1, 1000 do
    local line, score = unpack(call('ZPOPMIN', ready))
    local turn, from = turn_of(string.match(line, '^[^|]*'), ready)
    if tonumber(score) >= from then return line end
    call('ZADD', ready, turn, line)
  end
  return call('ZPOPMIN', ready)[1]
end

-- Messages of a queue were taken that will last this many ms.
local function charge(queue, ms)
  local its = account[queue]
  if not its then return end
  lowest = math.max(lowest, its.at)
  its.at = its.at + ms / its.weight
  call('HSET', spent, '*', string.format('%.3f', lowest), queue, string.format('%.3f', its.at))
end
