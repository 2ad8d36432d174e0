--@include base
--@include waiting
--@include terminal
--@include promote
-- Settle deliveries that have ended, promote what is due, take new messages: one round trip of a worker.
--
-- KEYS  1 prefix
-- ARGV  1 incarnation, 2 call number, 3 how many to take at most (0 to 128), 4 set of queues,
--       5 mode: '' | 'repair' (after a wait in vain: put back missing names of ready queues) | 'solo' (one suspect)
--       6 caps: '' or ' queue=n queue=n ' : how many of a queue fill one fetch alone; a queue not named: 1;
--         0: one, and nothing else with it
--       then groups of outcomes:
--         'done', ids of 16 bytes joined, result TTL ms, n results, results ...   (n is 0 or the number of ids)
--         'end', id, counter, result, result TTL ms          done | failed | discarded
--         'dead', id, reason, detail, result, result TTL ms
--         'schedule', id, value, delay ms, counter           retried | deferred
--         'return', id                                        uncounted, to the head (in order, last first)
-- Returns {'lost'} if the incarnation is not registered, {'stale'} if the number is not higher than its last;
--       else {now ms, outcomes refused because the id is no longer held, crashes of the suspect, id, value, id, value ...}.
-- Again: refused as stale, changing nothing.
local inc, number = ARGV[1], tonumber(ARGV[2])
local last = call('HGET', P .. 'calls', inc)
if not last then return { 'lost' } end
if number <= tonumber(last) then return { 'stale' } end
local want, set, mode, caps = tonumber(ARGV[3]), ARGV[4], ARGV[5], ARGV[6]
local now = clock()
local processing, messages = P .. 'processing:' .. inc, P .. 'messages'
begin_writes()
call('HSET', P .. 'calls', inc, number)

-- settle -------------------------------------------------------------------------------------------------------
local fenced = 0
local queue_of = {} -- processing value -> queue; few distinct values in a batch
local function queue_in(value)
  local queue = queue_of[value]
  if not queue then
    queue = taken_from(value)
    queue_of[value] = queue
  end
  return queue
end

-- What the processing hash has for these ids, and whether it has nothing else. Mostly a batch is settled as it was taken,
-- whole and in order; then one walk through the hash does, where a look-up of each id would walk through half of it.
local function held_values(ids, n)
  if call('HLEN', processing) ~= n then return call('HMGET', processing, unpack(ids)), false end
  local flat, values = call('HGETALL', processing), {}
  for i = 1, n do
    if flat[2 * i - 1] ~= ids[i] then return call('HMGET', processing, unpack(ids)), false end
    values[i] = flat[2 * i]
  end
  return values, true
end

local function settle_done(blob, ttl, first_result, n_results)
  local ids, n = {}, 0
  for i = 1, #blob, 16 do
    n = n + 1
    ids[n] = sub(blob, i, i + 15)
  end
  local held, all = held_values(ids, n)
  local mine, results, m, tally = {}, {}, 0, {}
  for i = 1, n do
    local value = held[i]
    if value then
      m = m + 1
      mine[m] = ids[i]
      results[m] = ARGV[first_result + i - 1]
      tally[value] = (tally[value] or 0) + 1
    end
  end
  fenced = fenced + n - m
  if m == 0 then return end
  for value, times in pairs(tally) do count(queue_in(value), 'done', times) end
  if all then call('DEL', processing) else call('HDEL', processing, unpack(mine)) end
  call('HDEL', messages, unpack(mine))
  if call('EXISTS', P .. 'crashes') == 1 then call('HDEL', P .. 'crashes', unpack(mine)) end
  if anybody_waits() then
    for i = 1, m do publish(mine[i], n_results > 0 and results[i] or '', ttl, true) end
  elseif n_results > 0 then
    local prefix = P .. 'result:'
    for i = 1, m do call('PSETEX', prefix .. mine[i], ttl, results[i]) end
  end
end

local settle = {
  ['end'] = function(i, id, queue)
    count(queue, ARGV[i + 2])
    call('HDEL', messages, id)
    call('HDEL', P .. 'crashes', id)
    publish(id, ARGV[i + 3], ARGV[i + 4], anybody_waits())
  end,
  dead = function(i, id, queue)
    bury(queue, id, now, ARGV[i + 2], ARGV[i + 3])
    publish(id, ARGV[i + 4], ARGV[i + 5], anybody_waits())
  end,
  schedule = function(i, id, queue)
    call('HSET', messages, id, ARGV[i + 2])
    count(queue, ARGV[i + 4])
    local delay = tonumber(ARGV[i + 3])
    if delay > 0 then
      schedule(queue, id, now + delay)
    elseif call('HEXISTS', P .. 'crashes', id) == 1 then
      push_suspects(queue, { id }, now)
    else
      push(queue, { id }, now)
    end
  end,
  ['return'] = function(_, id, queue, value)
    count(queue, 'returned')
    if byte(value, 1) == 33 then push_suspects(queue, { id }, now, true) else push(queue, { id }, now, true) end
  end,
}
local width = { ['end'] = 5, dead = 6, schedule = 5, ['return'] = 2 }

local i = 7
while i <= #ARGV do
  local kind = ARGV[i]
  if kind == 'done' then
    local n_results = tonumber(ARGV[i + 3])
    settle_done(ARGV[i + 1], ARGV[i + 2], i + 4, n_results)
    i = i + 4 + n_results
  else
    local id = ARGV[i + 1]
    local value = call('HGET', processing, id)
    if value then
      call('HDEL', processing, id)
      settle[kind](i, id, queue_in(value), value)
    else
      fenced = fenced + 1
    end
    i = i + width[kind]
  end
end

-- take ---------------------------------------------------------------------------------------------------------
promote(now, 100)
local out = { int(now), fenced, 0 }

-- Move up to n ids of a queue to this incarnation; returns how many have a body, and whether there may be more.
local outs = 3
local function take(key, queue, n, mark)
  local ids = call('LPOP', key, n)
  if not ids then return 0, false end
  local values = call('HMGET', messages, unpack(ids))
  local fields, f, taken = {}, 0, mark .. int(now) .. ' ' .. queue
  for j = 1, #ids do
    local value = values[j]
    if value then
      fields[f + 1], fields[f + 2] = ids[j], taken
      f = f + 2
      out[outs + 1], out[outs + 2] = ids[j], value
      outs = outs + 2
    else
      count(queue, 'dangling')
    end
  end
  if f > 0 then call('HSET', processing, unpack(fields)) end
  return f / 2, #ids == n and call('LLEN', key) > 0
end

local function cap(queue)
  if caps == '' then return want end
  local _, at = find(caps, ' ' .. queue .. '=', 1, true)
  return at and tonumber(string.match(caps, '^%d+', at + 1)) or 1
end

if want > 0 and mode == 'solo' then
  local name = call('ZPOPMIN', P .. 'solo:' .. set)[1]
  while name and outs == 3 do
    local key = P .. 'suspects:' .. name
    local got, more = take(key, name, 1, '!')
    if got == 1 then out[3] = tonumber(call('HGET', P .. 'crashes', out[4]) or '0') end
    if more then announce_suspects(name, now) end
    if outs == 3 then name = call('ZPOPMIN', P .. 'solo:' .. set)[1] end
  end
elseif want > 0 then
  local ready = P .. 'ready:' .. set
  if mode == 'repair' then
    local names = {}
    for name in string.gmatch(call('HGET', P .. 'sets', set) or '', '%S+') do names[#names + 1] = name end
    for k = 1, math.min(#names, 8) do
      local name = names[(math.floor(now / 4000) * 8 + k) % #names + 1]
      if call('LLEN', P .. 'queue:' .. name) > 0 then call('ZADD', ready, 'NX', now, name) end
    end
  end
  -- A fetch is full when it holds one budget: a queue of cap n fills it with n messages.
  local budget, left = 1, want
  for _ = 1, call('ZCARD', ready) do
    local queue = call('ZPOPMIN', ready)[1]
    local key, most, got, more = P .. 'queue:' .. queue, cap(queue), 0, true
    if most > 0 then
      got, more = take(key, queue, math.min(left, math.max(1, math.floor(most * budget))), '')
      left = left - got
      budget = budget - got / most
    elseif outs == 3 then
      got, more = take(key, queue, 1, '')
      left = left - want * got
    end
    if more then call('ZADD', ready, now, queue) end
    if left <= 0 or budget < 0.01 then break end
  end
end
-- Whoever takes the token also passes it on, so each bell is followed by as many as there is work for.
if set ~= '' and mode ~= 'solo' and call('ZCARD', P .. 'ready:' .. set) > 0 then ring(P .. 'bell:' .. set) end
write_counts()
return out
