--@include base
--@include types
--@include held
--@include bells
--@include waiting
--@include ranked
--@include ending
--@include delivering
--@include burying
--@include pulse
--@include unique
--@include gates
--@include revoking
--@include recover
-- Recover what incarnations with an ended lease held, at most `limit` of them and no more than one call can take; drop
-- sets that nobody serves any more. An incarnation that cannot be recovered is named and tried again later.
--
-- KEYS  1 prefix
-- ARGV  1 limit, 2 '1' to only say what would be done
-- Returns {ms until the caller is to look again (-1: there is no lease), incarnation, n, id, queue, place, ... (n times),
--       incarnation, ...}. In a dry run the place is always 'held'. If n is negative there is more of the
--       incarnation, for another call; if it is a text, that says why it cannot be recovered.
-- Again: finds nothing more to do. Any number of reapers may run at once.
local limit, dry = tonumber(ARGV[1]), ARGV[2] == '1'
local lease = setting('lease') or 15000
local shortest, longest = lease, lease
local now = clock()
local out, moved = { -1 }, 0
if not dry then
  expect('zset', { 'leases', 'terms', 'set-leases', 'openings', 'arrivals', 'shut' })
  expect('hash', { 'sets', 'serving', 'breakers' })
  shortest, longest = pulse(now, lease)
end

-- What becomes of an incarnation: its moves, and whether there is more.
local function look(inc)
  if not dry then return recover(inc, now, nil, true, false, '') end
  local moves, held, all = {}, held_in_order(inc)
  for _, item in ipairs(held) do
    moves[#moves + 1] = item.id
    moves[#moves + 1] = item.queue
    moves[#moves + 1] = 'held'
  end
  return moves, #held < all
end

for _, inc in ipairs(call('ZRANGEBYSCORE', P .. 'leases', '-inf', int(now), 'LIMIT', 0, limit)) do
  local fine, moves, more = pcall(look, inc)
  out[#out + 1] = inc
  if fine then
    out[#out + 1] = #moves / 3 * (more and -1 or 1)
    for _, move in ipairs(moves) do out[#out + 1] = move end
    moved = moved + #moves / 3
  else
    out[#out + 1] = type(moves) == 'table' and moves.err or tostring(moves)
    if not dry then call('ZADD', P .. 'leases', int(now + lease / 3), inc) end -- the others first
  end
  if moved >= MOST then break end
end

local function drop(set, queues)
  for queue in string.gmatch(queues, '%S+') do
    local others = {}
    for other in string.gmatch(call('HGET', P .. 'serving', queue) or '', '%S+') do
      if other ~= set then others[#others + 1] = other end
    end
    if #others > 0 then
      call('HSET', P .. 'serving', queue, table.concat(others, ' '))
    else
      call('HDEL', P .. 'serving', queue)
    end
  end
  call('HDEL', P .. 'sets', set)
  call('HDEL', P .. 'runs', set)
  call('ZREM', P .. 'set-leases', set)
  call('DEL', P .. 'ready:' .. set, P .. 'spent:' .. set, P .. 'bell:' .. set, P .. 'solo:' .. set, P .. 'solo-bell:' .. set)
end

local letters = 0 -- of the names of queues: a set may have thousands
for _, set in ipairs(dry and {} or call('ZRANGEBYSCORE', P .. 'set-leases', '-inf', int(now - longest), 'LIMIT', 0, 20)) do
  local queues = call('HGET', P .. 'sets', set) or ''
  if letters > 0 and letters + #queues > 50000 then break end
  letters = letters + #queues
  drop(set, queues)
end
local first = call('ZRANGE', P .. 'leases', 0, 0, 'WITHSCORES')[2]
if first then
  out[1] = math.max(0, first - now)
  if shortest < lease then out[1] = math.min(out[1], shortest / 3) end
  out[1] = int(out[1])
end
write_counts()
return out
