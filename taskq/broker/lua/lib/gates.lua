-- Gates: each limit of a task is one, or one for each of its keys. A message passes all of its gates at the moment it is
-- taken; if one is closed it waits in a line (see lines.lua), or, if the limit covers everything in the queue, the queue
-- waits as a whole. A gate opens when its time has come (a rate) or when a slot is freed (a concurrency).
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
  limits.paused = call('HEXISTS', P .. 'paused', '=' .. task) + call('HEXISTS', P .. 'paused', task) > 0
  limits_of_task[task] = limits
  return limits
end

-- A gate by its name: <task>#<which of its limits>, <task>#<which>=<key>; <task>#p, shut while the task is paused;
-- <task>#0, which RateLimited shuts where there is no limit. It is open if there is no such limit any more, by key or not.
-- <task>#t never shuts: in its line waits what was taken by a lane that does not run the task, for one that does.
local OPEN = { interval = 0, burst = 1, slots = 0 }
local SHUT = { interval = 0, burst = 1, slots = 0, shut = true }
local function gate_named(name)
  local task, which, key = string.match(name, '^([^#]*)#(%w+)(=?)')
  local limits = task and limits_of(task) or {}
  if which == 'p' then return limits.paused and SHUT or OPEN end
  local limit = limits[tonumber(which)]
  return limit and limit.keyed == (key == '=') and limit or OPEN
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

-- What waits for a gate: names of queues with a line of that name or a group, `*queue` for a whole queue, `!queue` for its
-- suspects.
local waiters_at = {}
local anybody_in_line = call('HLEN', P .. 'gates') > 0
local function waits_at(name)
  if not anybody_in_line then return '' end
  waiters_at[name] = waiters_at[name] or call('HGET', P .. 'gates', name) or ''
  return waiters_at[name]
end

-- The name of a line of a task in which messages still wait, although the reason may be over: new messages queue behind
-- them.
local function line_left(task, which)
  if not anybody_in_line then return nil end
  local name = task .. '#' .. which
  return waits_at(name) ~= '' and name or nil
end

-- Names of the gates of a message, and that of the line in which it waits for them: of those with its keys, so that all
-- in a line are alike, else of its first; or that of its task, if there is one. `found` is what its head says of keys.
local function gates_of(task, found)
  local limits = limits_of(task)
  if limits.names then return limits.names, limits.line end
  local names, keys, keyed = {}, {}, false
  for i, limit in ipairs(limits) do
    local key = found[tostring(i)]
    keyed = keyed or limit.keyed
    if not limit.keyed then names[#names + 1] = task .. '#' .. i
    elseif key then
      names[#names + 1] = task .. '#' .. i .. '=' .. key
      keys[#keys + 1] = names[#names]
    end
  end
  if #names == 0 then names[1] = shut_until(task .. '#0') > 0 and task .. '#0' or line_left(task, '0') or line_left(task, '1') end
  if limits.breaker or (#names == 0 and line_left(task, 'b')) then names[#names + 1] = task .. '#b' end
  local line = keys[1] and table.concat(keys, '|') or names[1]
  if limits.paused or line_left(task, 'p') then
    table.insert(names, 1, task .. '#p')
    line = line or names[1]
  end
  if line_left(task, 't') then
    line = task .. '#t'
    names[#names + 1] = line
  end
  limits.keyed = keyed
  if not keyed then limits.names, limits.line = names, line end -- the same for all of its messages
  return names, line
end

-- Gates for everything in a queue: those of a task that has the queue to itself.
local function own_gates(queue)
  local names, limits = {}, limits_of(queue)
  for i, limit in ipairs(limits) do
    if limit.own then names[#names + 1] = queue .. '#' .. i end
  end
  if limits.breaker and limits.breaker.own then names[#names + 1] = queue .. '#b' end
  return names
end

-- What is known of gates in this call: their arrival times, slots in use, what waits there, breakers. Looked up once;
-- what has changed is written by save_gates().
local arrivals, slots_used, breakers = {}, {}, {}
local new_arrivals, new_slots, new_breakers = {}, {}, {}

local function arrival_at(name)
  arrivals[name] = arrivals[name] or tonumber(call('ZSCORE', P .. 'arrivals', name) or 0)
  return arrivals[name]
end
local function used_at(name)
  slots_used[name] = slots_used[name] or tonumber(call('HGET', P .. 'slots', name) or 0) or 0
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

-- A breaker: 'c' closed (all may pass), 'o' open until a time, 'h' half open (one has passed, and decides); a time (ms), of
-- 'h' when that one passed, of 'c' when the one did that closed it; and how the last runs ended, a digit each: 1 failed.
local function breaker_of(task)
  breakers[task] = breakers[task] or call('HGET', P .. 'breakers', task) or 'c 0 '
  local mode, time, outcomes = string.match(breakers[task], '^(%a) (%d+) (%d*)$')
  return mode, tonumber(time), outcomes
end
local function set_breaker(task, mode, time, outcomes)
  breakers[task], new_breakers[task] = mode .. ' ' .. int(time) .. ' ' .. outcomes, true
end

local function room_at_breaker(task, now)
  local mode, ends = breaker_of(task)
  if mode == 'c' then return 1 / 0 end
  if mode == 'o' and now >= ends then return 1 end
  return 0, mode == 'o' and ends or nil
end

-- A delivery of a task with a breaker, taken at a time, has ended: failed, or not, or (nil) nobody can say. Runs that
-- began before the breaker opened say nothing about the present. (A time of 0: written by a version that kept none.)
local function record(task, failed, now, taken_at)
  local breaker, mode, time, outcomes = limits_of(task).breaker, breaker_of(task)
  if not breaker or mode == 'o' or taken_at < time then return end
  if mode == 'h' then
    if time > 0 and taken_at ~= time then return end
    if failed == false then set_breaker(task, 'c', math.min(time, now), '')
    else set_breaker(task, 'o', failed and now + breaker.slots or now, '')
    end
  elseif failed ~= nil then
    outcomes = sub(outcomes .. (failed and '1' or '0'), -breaker.burst)
    local failures = #string.gsub(outcomes, '0', '')
    if #outcomes >= breaker.burst and failures >= breaker.interval * breaker.burst then
      set_breaker(task, 'o', now + breaker.slots, '')
      count(task, 'tripped')
    else
      set_breaker(task, 'c', time, outcomes)
    end
  end
end

-- How many may pass a rate now, and when one more may (ms). A score is good to a microsecond, which must not cost a start.
local function room_by_rate(name, gate, now)
  local arrival, last = arrival_at(name), now + gate.burst * gate.interval
  if arrival > last + 1 then -- from a slower rate that was in force before, or a clock that has been set back
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

-- Returns whether the gate must hear of the end: a run that took no slot gives none back, whatever the limits are by
-- then.
local function pass(name, now)
  local guarded = guarded_by(name)
  if guarded then
    if breaker_of(guarded) == 'o' then set_breaker(guarded, 'h', now, '') end
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

-- A limit set by hand, a pause, and what RateLimited asked for hold for a task's messages in whatever queue they wait: while
-- there is any of these, all queues are treated like those with limits.
local function watch_controls()
  local any = call('EXISTS', P .. 'shut') == 1
  for _, name in ipairs(call('HKEYS', P .. 'limits')) do any = any or byte(name) == 33 end
  for _, name in ipairs(call('HKEYS', P .. 'paused')) do
    any = any or byte(name) == 61 or call('HEXISTS', P .. 'tasks', name) == 1
  end
  mark('*', $MARK_LIMITED, any)
end

-- Let no message like this one pass before a time (RateLimited): shut its first limit, or a gate made for the purpose.
local function shut(id, time)
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
  mark('*', $MARK_LIMITED, true)
end

--@include lines
