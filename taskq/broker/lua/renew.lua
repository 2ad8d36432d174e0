--@include base
--@include types
--@include pulse
--@include bells
--@include waiting
--@include ranked
--@include serving
--@include repair
-- Renew the leases of a worker's incarnations and of the sets they serve; put back whatever is missing of them, and tell
-- these again of what waits: lanes sleep until their bell rings, whatever became of the word of it.
--
-- KEYS  1 prefix
-- ARGV  1 lease ms, 2 sets: a line each, of its name and its queues between spaces, 3 when this worker's announcement was
--       made (ms, as publish_tasks.lua said; '' for none), then for each incarnation: its name, what it is ('' if that was told)
-- Returns {ms until the caller is to look again, suspects waiting (0 or 1), {incarnation, id of a revoked message that it
--       holds, ...}, 1 if the announcement is not in force, {incarnations whose description is lost ...}, {what was
--       put back or made anew: 'incarnation <its name>' | 'set <its name>' | 'key <its name> (it was a <type>)' ...}, 1 if
--       something was ready and its bell was silent, incarnations that are not registered ...}.
-- Again: renews again.
local lease, announced = tonumber(ARGV[1]), tonumber(ARGV[3])
local now = clock()
expect('zset', { 'leases', 'terms', 'set-leases', 'openings', 'arrivals', 'shut' })
expect('hash', { 'sets', 'serving', 'revoked', 'breakers', 'calls', 'workers', 'gates', 'marks' })
local shortest = pulse(now, lease)
local revoked, unknown, healed, lost, suspects, unheard = {}, {}, {}, {}, 0, 0
local any_revoked = call('EXISTS', P .. 'revoked') == 1
local function look_for_revoked(inc)
  local held = any_revoked and call('HKEYS', P .. 'processing:' .. inc) or {}
  for first = 1, #held, 1000 do
    for i, why in ipairs(call('HMGET', P .. 'revoked', unpack(held, first, math.min(first + 999, #held)))) do
      if why then
        revoked[#revoked + 1] = inc
        revoked[#revoked + 1] = held[first + i - 1]
      end
    end
  end
end

for i = 4, #ARGV, 2 do
  local inc, info = ARGV[i], ARGV[i + 1]
  local leased = call('ZSCORE', P .. 'leases', inc)
  if leased or call('HEXISTS', P .. 'calls', inc) == 1 then
    call('ZADD', P .. 'leases', int(now + lease), inc)
    call('ZADD', P .. 'terms', lease, inc)
    if call('HSETNX', P .. 'calls', inc, 0) == 1 or not leased then healed[#healed + 1] = 'incarnation ' .. inc end
    if info ~= '' then call('HSET', P .. 'workers', inc, info)
    elseif call('HEXISTS', P .. 'workers', inc) == 0 then unknown[#unknown + 1] = inc
    end
    look_for_revoked(inc)
  else
    lost[#lost + 1] = inc
  end
end
for set, queues in string.gmatch(ARGV[2], '(%S+) ([^\n]*)') do
  local some = some_of(queues, now)
  drop_spoilt(set, healed)
  if serve(set, queues, now + lease, some) then
    serve(set, queues, now + lease)
    healed[#healed + 1] = 'set ' .. set
    tell_what_waits(queues, now)
    tell_of_lines(queues, now)
  end
  if remind(set, some, now) then unheard = 1 end
  if call('EXISTS', P .. 'solo:' .. set) == 1 then suspects = 1 end
end
local first = call('ZRANGE', P .. 'leases', 0, 0, 'WITHSCORES')[2]
local again = first and math.max(0, first - now) or lease
if shortest < lease then again = math.min(again, shortest / 3) end -- so that the pulse stays fresh for those as well
local missing = announced and (tonumber(call('HGET', P .. 'published', '=') or '') or 0) < announced
return { int(again), suspects, revoked, missing and 1 or 0, unknown, healed, unheard, unpack(lost) }
