-- Gates: each limit of a task is one, or one for each of its keys. A message passes all of its gates at the moment it is
-- taken; if one is closed it waits in the line of that gate, or, where the limit is of all that is in the queue, its
-- queue waits as a whole. A gate opens when its time has come (a rate) or when a slot is freed (a concurrency).
-- Source of the rates: the generic cell rate algorithm, ITU-T I.371, with the theoretical arrival time as the state.

-- The limits of a task as they were published, or set by hand: {interval ms, burst, slots, keyed, own} each; `breaker`:
-- {interval = share of failures, burst = of how many, slots = ms of its pause, own}.
local limits_of_task = {}
local function limits_of(task)
  local limits = limits_of_task[task]
  if limits then return limits end
  limits = {}
  local text = call('HGET', P .. 'limits', '!' .. task) or call('HGET', P .. 'limits', task) or ''
  for kind, interval, burst, slots in string.gmatch(text, '(%a) (%S+) (%d+) (%d+)') do
    local limit = {
      interval = tonumber(interval), burst = tonumber(burst), slots = tonumber(slots),
      keyed = kind == 'k', own = kind == 'o' or kind == 'B',
    }
    if string.lower(kind) == 'b' then limits.breaker = limit else limits[#limits + 1] = limit end
  end
  limits.paused = call('HEXISTS', P .. 'paused', '=' .. task) == 1
  limits_of_task[task] = limits
  return limits
end

-- A gate by its name: <task>#<which of its limits>, <task>#<which>=<key>; <task>#p, shut while the task is paused;
-- <task>#0, which RateLimited shuts where there is no limit. It is open if that limit is no more. <task>#t never shuts: in its
-- line waits what was taken by a lane that does not run the task, for one that does.
local OPEN = { interval = 0, burst = 1, slots = 0 }
local SHUT = { interval = 0, burst = 1, slots = 0, shut = true }
local function gate_named(name)
  local task, which = string.match(name, '^([^#]*)#(%w+)')
  local limits = task and limits_of(task) or {}
  if which == 'p' then return limits.paused and SHUT or OPEN end
  return limits[tonumber(which)] or OPEN
end

-- The task whose breaker a gate is, if it is one.
local function guarded_by(name) return sub(name, -2) == '#b' and sub(name, 1, -3) end

-- Until when (ms) a task that was told to slow down has shut a gate; 0 if none has.
local shut_times, any_shut = {}, nil
local function shut_until(name)
  if any_shut == nil then any_shut = call('ZCARD', P .. 'shut') > 0 end
  shut_times[name] = shut_times[name] or any_shut and tonumber(call('ZSCORE', P .. 'shut', name)) or 0
  return shut_times[name]
end

-- Who waits for a gate: names of queues with a line at it, `*queue` for a whole queue, `!queue` for its suspects.
local waiters_at = {}
local anybody_in_line = call('HLEN', P .. 'gates') > 0
local function waits_at(name)
  if not anybody_in_line then return '' end
  waiters_at[name] = waiters_at[name] or call('HGET', P .. 'gates', name) or ''
  return waiters_at[name]
end

-- Names of the gates of a message; found is what its head says of keys. The last is the line of its task, if there is one.
local function gates_of(task, found)
  local limits = limits_of(task)
  if limits.names then return limits.names end
  local names, keyed = {}, false
  if limits.paused then names[1] = task .. '#p' end
  for i, limit in ipairs(limits) do
    local key = found[tostring(i)]
    keyed = keyed or limit.keyed
    if not limit.keyed then names[#names + 1] = task .. '#' .. i
    elseif key then names[#names + 1] = task .. '#' .. i .. '=' .. key end
  end
  if #names == 0 and shut_until(task .. '#0') > 0 then names[1] = task .. '#0' end
  if limits.breaker then names[#names + 1] = task .. '#b' end
  if waits_at(task .. '#t') ~= '' then names[#names + 1] = task .. '#t' end
  if not keyed then limits.names = names end -- the same for all of its messages
  return names
end

-- Gates of all that is in a queue: those of a task that has it for itself.
local function own_gates(queue)
  local names, limits = {}, limits_of(queue)
  for i, limit in ipairs(limits) do
    if limit.own then names[#names + 1] = queue .. '#' .. i end
  end
  if limits.breaker and limits.breaker.own then names[#names + 1] = queue .. '#b' end
  return names
end

-- What is known of gates in this call: their arrival times, slots in use, who waits there, breakers. Looked up once; what
-- has changed is written by save_gates().
local arrivals, slots_used, breakers = {}, {}, {}
local new_arrivals, new_slots, new_breakers = {}, {}, {}

local function arrival_at(name)
  arrivals[name] = arrivals[name] or tonumber(call('ZSCORE', P .. 'arrivals', name) or 0)
  return arrivals[name]
end
local function used_at(name)
  slots_used[name] = slots_used[name] or tonumber(call('HGET', P .. 'slots', name) or 0)
  return slots_used[name]
end
local function use(name, n)
  slots_used[name] = math.max(used_at(name) + n, 0)
  new_slots[name] = true
end

local function save_gates(now)
  if next(new_arrivals) then call('ZREMRANGEBYSCORE', P .. 'arrivals', '-inf', int(now - 1)) end -- as if they had none
  for name in pairs(new_arrivals) do call('ZADD', P .. 'arrivals', string.format('%.3f', arrivals[name]), name) end
  local words = {}
  for name in pairs(new_slots) do
    local n = slots_used[name]
    if n == 0 then call('HDEL', P .. 'slots', name) else words[#words + 1], words[#words + 2] = name, n end
  end
  for i = 1, #words, 1000 do call('HSET', P .. 'slots', unpack(words, i, math.min(i + 999, #words))) end
  for task in pairs(new_breakers) do call('HSET', P .. 'breakers', task, breakers[task]) end
  new_arrivals, new_slots, new_breakers = {}, {}, {}
end

-- A breaker: 'c' closed (all may pass), 'o' open until a time, 'h' half open (one has passed, and decides); and what the
-- last ones came to, a digit each: 1 failed.
local function breaker_of(task)
  breakers[task] = breakers[task] or call('HGET', P .. 'breakers', task) or 'c 0 '
  local mode, ends, outcomes = string.match(breakers[task], '^(%a) (%d+) (%d*)$')
  return mode, tonumber(ends), outcomes
end
local function set_breaker(task, mode, ends, outcomes)
  breakers[task], new_breakers[task] = mode .. ' ' .. int(ends) .. ' ' .. outcomes, true
end

local function room_at_breaker(task, now)
  local mode, ends = breaker_of(task)
  if mode == 'c' then return 1 / 0 end
  if mode == 'o' and now >= ends then return 1 end
  return 0, mode == 'o' and ends or nil
end

-- A delivery of a task with a breaker has ended: failed, or not, or (nil) nobody can say.
local function record(task, failed, now)
  local breaker, mode, _, outcomes = limits_of(task).breaker, breaker_of(task)
  if not breaker or mode == 'o' then return end
  if mode == 'h' then
    if failed == false then set_breaker(task, 'c', 0, '') else set_breaker(task, 'o', failed and now + breaker.slots or now, '') end
  elseif failed ~= nil then
    outcomes = sub(outcomes .. (failed and '1' or '0'), -breaker.burst)
    local failures = #string.gsub(outcomes, '0', '')
    if #outcomes >= breaker.burst and failures >= breaker.interval * breaker.burst then
      set_breaker(task, 'o', now + breaker.slots, '')
      count(task, 'tripped')
    else
      set_breaker(task, 'c', 0, outcomes)
    end
  end
end

-- How many may pass a rate now, and when one more may (ms). A score is good to a microsecond, which must not cost a start.
local function room_by_rate(name, gate, now)
  local arrival, last = arrival_at(name), now + gate.burst * gate.interval
  if arrival > last + 1 then -- that of a slower rate which held before, or of a clock that has been set back
    arrival, arrivals[name], new_arrivals[name] = last, last, true
  end
  local rounded = math.min(0.001 / gate.interval, 0.01)
  local n = math.floor(gate.burst - math.max(arrival - now, 0) / gate.interval + rounded)
  return n, arrival - (gate.burst - 1) * gate.interval
end

-- How many may pass a gate now; if none, also when it opens (ms; nil if that is up to a slot).
local function room(name, now)
  local guarded = guarded_by(name)
  if guarded then return room_at_breaker(guarded, now) end
  local gate, n, opens = gate_named(name), 1 / 0, shut_until(name)
  if gate.shut then return 0 end
  if opens > now then return 0, opens end
  if gate.interval > 0 then n, opens = room_by_rate(name, gate, now) end
  if gate.slots > 0 then
    local free = gate.slots - used_at(name)
    if free < n then n = free end
    if free < 1 then opens = nil end
  end
  return n, n < 1 and opens or nil
end

-- Returns whether the gate is to be told of the end: what takes no slot gives none back, whatever its limits are then.
local function pass(name, now)
  local guarded = guarded_by(name)
  if guarded then
    if breaker_of(guarded) == 'o' then set_breaker(guarded, 'h', 0, '') end
    return true
  end
  local gate = gate_named(name)
  if gate.slots > 0 then use(name, 1) end
  if gate.interval > 0 then
    arrivals[name] = math.max(now, arrival_at(name)) + gate.interval
    new_arrivals[name] = true
  end
  return gate.slots > 0
end

-- No message like this one passes before a time (RateLimited): its first limit is shut, or a gate made for the purpose.
local function shut(queue, id, time)
  local value = call('HGET', P .. 'messages', id)
  local _, task, _, flags, at = head(value)
  if not task then return end
  local names = gates_of(task, extras(value, flags, at))
  local name = names[1] == task .. '#p' and names[2] or names[1]
  if not name or find(name, '#[bpt]$') then
    name = task .. '#0'
    limits_of(task).names = nil
  end
  if time > shut_until(name) then
    any_shut, shut_times[name] = true, time
    call('ZADD', P .. 'shut', int(math.ceil(time)), name)
  end
  mark(queue, 'l', true)
end

local function set_waiters(name, waiters)
  anybody_in_line, waiters_at[name] = true, waiters == ' ' and '' or waiters
  if waiters == ' ' then call('HDEL', P .. 'gates', name) else call('HSET', P .. 'gates', name, waiters) end
end

local function has_line(name, queue) return find(waits_at(name), ' ' .. queue .. ' ', 1, true) ~= nil end

local function wait_at(name, who, opens)
  local waiters = waits_at(name)
  if not find(waiters, ' ' .. who .. ' ', 1, true) then
    set_waiters(name, (waiters == '' and ' ' or waiters) .. who .. ' ')
  end
  if opens then
    call('ZADD', P .. 'openings', int(math.ceil(opens)), name)
    if call('ZRANGE', P .. 'openings', 0, 0)[1] == name then ring(P .. 'alarm') end
  end
end

local function leave_line(name, queue)
  local waiters = waits_at(name)
  local at, stop = find(waiters, ' ' .. queue .. ' ', 1, true)
  if at then set_waiters(name, sub(waiters, 1, at) .. sub(waiters, stop + 1)) end
end

-- A gate may let something pass again: tell those that can take what waits at it. The lines stay, whole queues go on.
local function open(name, now)
  local lines = ' '
  for who in string.gmatch(waits_at(name), '%S+') do
    local first = sub(who, 1, 1)
    if first == '*' then announce(sub(who, 2), now)
    elseif first == '!' then announce_suspects(sub(who, 2), now)
    else
      announce(who, now, name, true)
      lines = lines .. who .. ' '
    end
  end
  if lines ~= waits_at(name) then set_waiters(name, lines) end
end

-- Deliveries that passed these gates have ended: their slots are free again, their breakers know; their locks go if they
-- were their last. save_gates() follows.
local function free(gates, now, failed, times)
  for name in string.gmatch(gates, '[^\n]+') do
    local guarded = guarded_by(name)
    if byte(name) == 42 then
      release(sub(name, 2), now)
    elseif guarded then
      for _ = 1, times or 1 do record(guarded, failed, now) end
    elseif used_at(name) > 0 then
      use(name, -(times or 1))
    end
    if waits_at(name) ~= '' then open(name, now) end
  end
end

-- What was taken and not started goes to the head of its queue, or of the line it came from if that is still there. Work
-- that was unique until its start is so again, or superseded by what has come since. With a `line` it goes to the end of that.
local function put_back(queue, ids, now, line)
  if not marked(queue, 'l') then return offer(queue, ids, now, true) end
  for i = #ids, 1, -1 do
    local value, at_line = call('HGET', P .. 'messages', ids[i]), line
    local _, task, _, flags, at = head(value)
    local found = extras(value, flags or 0, at)
    for _, name in ipairs(task and gates_of(task, found) or {}) do
      local there = not line and has_line(name, queue) and try('LLEN', P .. 'gated:' .. queue .. '|' .. name)
      if tonumber(there) then at_line = name end
    end
    if found.u and not lock_again(found.u, ids[i], now) then
      call('HDEL', P .. 'messages', ids[i])
      count(queue, 'discarded')
      publish(ids[i], 'Xsuperseded', setting('result_ttl') or 3600000, anybody_waits())
    elseif at_line then
      call(line and 'RPUSH' or 'LPUSH', P .. 'gated:' .. queue .. '|' .. at_line, ids[i])
      count(queue, 'gated')
      if room(at_line, now) >= 1 then announce(queue, now, at_line) end
    else
      offer(queue, { ids[i] }, now, true)
    end
  end
end

-- The limits of a task have changed: whatever waits at one of its gates looks again. Returns how many gates there are.
local function open_all(task, now)
  limits_of_task[task] = nil
  if not limits_of(task).breaker then call('HDEL', P .. 'breakers', task) end
  local n = 0
  for _, name in ipairs(call('HKEYS', P .. 'gates')) do
    if sub(name, 1, #task + 1) == task .. '#' then
      open(name, now)
      n = n + 1
    end
  end
  return n
end
