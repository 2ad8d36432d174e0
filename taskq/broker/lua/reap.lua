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
-- Recover what incarnations with an ended lease held, at most `limit` of them; drop sets nobody serves any more and
-- dead letters past their time.
--
-- KEYS  1 prefix
-- ARGV  1 limit, 2 '1' to only say what would be done
-- Returns {ms until the earliest remaining lease ends (-1: there is none), incarnation, n, id, queue, place, ... (n times),
--       incarnation, ...}. Under a dry run the places are what is known beforehand: 'held'.
-- Again: finds nothing more to do. Any number of reapers may run at once.
local limit, dry = tonumber(ARGV[1]), ARGV[2] == '1'
local lease = setting('lease') or 15000
local now = clock()
local out = { -1 }
if not dry then pulse(now, lease) end
local ended = call('ZRANGEBYSCORE', P .. 'leases', '-inf', int(now), 'LIMIT', 0, limit)
for _, inc in ipairs(ended) do
  local moves
  if dry then
    moves = {}
    for _, item in ipairs((held_in_order(inc))) do
      moves[#moves + 1] = item.id
      moves[#moves + 1] = item.queue
      moves[#moves + 1] = 'held'
    end
  else
    moves = recover(inc, now, nil, true, false, '')
  end
  out[#out + 1] = inc
  out[#out + 1] = #moves / 3
  for _, move in ipairs(moves) do out[#out + 1] = move end
end
if not dry then
  for _, set in ipairs(call('ZRANGEBYSCORE', P .. 'set-leases', '-inf', int(now - lease), 'LIMIT', 0, 20)) do
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
if first then out[1] = int(math.max(0, first - now)) end
write_counts()
return out
