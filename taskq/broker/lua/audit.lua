--@include base
--@include held
--@include waiting
--@include ranked
--@include terminal
--@include unique
--@include gates
--@include revoking
--@include recover
-- Compare how many messages there are with how many ids stand in places: by the conservation law they are as many. For
-- one caller a while. Puts right what needs no search: incarnations half registered, and the count of what is scheduled.
--
-- KEYS  1 prefix
-- ARGV  1 ms for which no other caller looks
-- Returns {} if another has looked lately; else {messages, ids in places, incarnations put right, queues whose scheduled
--       messages were counted anew, then every queue}.
-- Again: {} until the time is over.
if call('EXISTS', P .. 'audited') == 1 then return {} end
local incs = call('ZRANGE', P .. 'leases', 0, -1)
local fields = call('HGETALL', P .. 'counters')
local queues, scheduled, counted = {}, {}, 0
for i = 1, #fields, 2 do
  local queue, what = string.match(fields[i], '^(.*)|(.*)$')
  if queue and not scheduled[queue] then
    queues[#queues + 1] = queue
    scheduled[queue] = 0
  end
  if what == 'scheduled' then
    scheduled[queue] = tonumber(fields[i + 1])
    counted = counted + scheduled[queue]
  end
end

local function lines()
  local flat, found = call('HGETALL', P .. 'gates'), {}
  for i = 1, #flat, 2 do
    for who in string.gmatch(flat[i + 1], '%S+') do
      if not find(who, '^[*!]') and byte(flat[i]) ~= 126 then found[#found + 1] = who .. '|' .. flat[i] end
    end
  end
  return found
end

local later = call('ZCARD', P .. 'schedule')
local function in_places()
  local n = later
  for _, queue in ipairs(queues) do
    n = n + waiting(queue) + call('LLEN', P .. 'suspects:' .. queue) + call('ZCARD', P .. 'dead:' .. queue)
  end
  for _, inc in ipairs(incs) do n = n + call('HLEN', P .. 'processing:' .. inc) end
  for _, line in ipairs(lines()) do n = n + call('LLEN', P .. 'gated:' .. line) + call('ZCARD', P .. 'ranked:' .. line) end
  return n
end

-- Incarnations that some keys know and others do not: every call of theirs is refused, so they are as good as lost.
local function half_registered()
  local half, leased = {}, {}
  for _, inc in ipairs(incs) do
    leased[inc] = true
    if call('HEXISTS', P .. 'calls', inc) == 0 then half[#half + 1] = inc end
  end
  for _, inc in ipairs(call('HKEYS', P .. 'calls')) do
    if not leased[inc] then half[#half + 1] = inc end
  end
  return half
end

local function count_scheduled_anew()
  local ids, found, wrong = call('ZRANGE', P .. 'schedule', 0, -1), {}, 0
  for first = 1, #ids, 1000 do
    for _, value in ipairs(call('HMGET', P .. 'messages', unpack(ids, first, math.min(first + 999, #ids)))) do
      local queue = head(value)
      if queue then found[queue] = (found[queue] or 0) + 1 end
    end
  end
  for queue, n in pairs(scheduled) do
    if n ~= (found[queue] or 0) then
      count(queue, 'scheduled', (found[queue] or 0) - n)
      wrong = wrong + 1
    end
  end
  return wrong
end

local half = half_registered()
begin_writes()
call('SET', P .. 'audited', '1', 'PX', ARGV[1])
for _, inc in ipairs(half) do recover(inc, clock(), nil, true, false, '') end
local wrong = 0
if counted ~= later and later <= 5000 then wrong = count_scheduled_anew() end
write_counts()
incs, later = call('ZRANGE', P .. 'leases', 0, -1), call('ZCARD', P .. 'schedule')
return { call('HLEN', P .. 'messages'), in_places(), #half, wrong, unpack(queues) }
