--@include base
--@include held
--@include waiting
--@include ranked
--@include terminal
--@include pulse
--@include unique
--@include gates
--@include revoking
--@include recover
-- Recover what incarnations with an ended lease held, at most `limit` of them; drop sets nobody serves any more. One that
-- cannot be recovered (a key of the wrong type) is tried again a lease later, so it is in nobody's way.
--
-- KEYS  1 prefix
-- ARGV  1 limit, 2 '1' to only say what would be done
-- Returns {ms until the caller is to look again (-1: there is no lease), incarnation, n, id, queue, place, ... (n times),
--       incarnation, ...}; for one that cannot be recovered n is -1, and why follows. Under a dry run the places are what is
--       known beforehand: 'held'.
-- Again: finds nothing more to do. Any number of reapers may run at once.
local limit, dry = tonumber(ARGV[1]), ARGV[2] == '1'
local lease = setting('lease') or 15000
local shortest, longest = lease, lease
local now = clock()
local out = { -1 }
if not dry then shortest, longest = pulse(now, lease) end

local function what_it_holds(inc)
  local moves = {}
  for _, item in ipairs((held_in_order(inc))) do
    moves[#moves + 1] = item.id
    moves[#moves + 1] = item.queue
    moves[#moves + 1] = 'held'
  end
  return moves
end

for _, inc in ipairs(call('ZRANGEBYSCORE', P .. 'leases', '-inf', int(now), 'LIMIT', 0, limit)) do
  local ok, moves
  if dry then ok, moves = pcall(what_it_holds, inc) else ok, moves = pcall(recover, inc, now, nil, true, false, '') end
  out[#out + 1] = inc
  out[#out + 1] = ok and #moves / 3 or -1
  if ok then
    for _, move in ipairs(moves) do out[#out + 1] = move end
  else
    out[#out + 1] = type(moves) == 'table' and moves.err or tostring(moves)
    if not dry then call('ZADD', P .. 'leases', int(now + longest), inc) end
  end
end
if not dry then
  for _, set in ipairs(call('ZRANGEBYSCORE', P .. 'set-leases', '-inf', int(now - longest), 'LIMIT', 0, 20)) do
    for queue in string.gmatch(call('HGET', P .. 'sets', set) or '', '%S+') do
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
    call('ZREM', P .. 'set-leases', set)
    call('DEL', P .. 'ready:' .. set, P .. 'bell:' .. set, P .. 'solo:' .. set, P .. 'solo-bell:' .. set, P .. 'spent:' .. set)
  end
end
local first = call('ZRANGE', P .. 'leases', 0, 0, 'WITHSCORES')[2]
if first then
  out[1] = math.max(0, first - now)
  if shortest < lease then out[1] = math.min(out[1], shortest / 3) end
  out[1] = int(out[1])
end
write_counts()
return out
