-- Take from the first of several partitions that has something ready, after a wait for the bells of all of them. They are
-- on one server, so it may look into each; it writes to one only, as if that alone had been asked.
--
-- KEYS  1 prefix, of the partition of the call that this one was sent with; any, if there is none
-- ARGV  1 and 3 to 7 as for fetch.lua, 2 the call number in each partition, joined by spaces
--       8 the number of the call that this one was sent with: refused as stale unless that was executed; '' for none
-- then the prefix of each partition; the first is asked if none has anything ready
-- Returns {which of them it was, from 1; what fetch.lua returns}.
-- Again: refused as stale, changing nothing, if it comes to the same partition; it may come to another, so it is sent once.
if ARGV[8] ~= '' and redis.call('HGET', KEYS[1] .. 'calls', ARGV[1]) ~= ARGV[8] then return { 1, { 'stale' } } end
local numbers, chosen = {}, 1
for number in string.gmatch(ARGV[2], '%d+') do numbers[#numbers + 1] = number end
for n = #numbers, 1, -1 do
  if redis.call('EXISTS', ARGV[8 + n] .. 'ready:' .. ARGV[4]) == 1 then chosen = n end
end
KEYS[1], ARGV[2] = ARGV[8 + chosen], numbers[chosen]
for n = #ARGV, 8, -1 do ARGV[n] = nil end
local function fetch()
--@script fetch
end
return { chosen, fetch() }
