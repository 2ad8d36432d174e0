--@include base
--@include types
--@include bells
--@include waiting
--@include ranked
--@include ending
--@include delivering
--@include burying
--@include unique
--@include gates
-- Recompute what is derived from gates: forget empty lines, open gates that let something pass, and put back the times at
-- which gates open, and pauses end, by themselves.
--
-- KEYS  1 prefix
-- ARGV  gates, and '=<name>' for what is paused
-- Returns gate and what was missing, in turn: line, open, opening.
-- Again: nothing.
local now, out = clock(), {}
expect_common()

local function restored(name, what) out[#out + 1], out[#out + 2] = name, what end

-- A gate whose slots are all in use is opened when one is free again, whatever else shuts it.
local function set_time(name, time)
  local slots = gate_named(name).slots
  if call('ZSCORE', P .. 'openings', name) or (slots > 0 and used_at(name) >= slots) then return end
  call('ZADD', P .. 'openings', int(math.ceil(time)), name)
  ring(P .. 'alarm')
  restored(name, 'opening')
end

-- The first line of a group in which there is anything; those of which all was revoked, or has moved, leave it.
local function first_line(queue, group)
  local heads = P .. 'heads:' .. queue .. '|' .. group
  for _ = 1, 100 do
    local line = call('ZRANGE', heads, 0, 0)[1]
    if not line or first_of(queue, line) then return line end
    call('ZREM', heads, line)
  end
end

-- Of the first message in a line or a group: its gates, its place, its line; nothing if there is none.
local function first_in(queue, name)
  local line = byte(name) == 126 and first_line(queue, name) or name
  local id, rank = first_of(queue, line)
  if not id then return end
  local value = call('HGET', P .. 'messages', id)
  local _, task, _, flags, at = head(value)
  return task and gates_of(task, extras(value, flags, at)) or {}, place_of(rank, value), line
end

-- Which of some gates tell a line, or a group, when they open.
local function telling(gates, name)
  local found = {}
  for _, gate in ipairs(gates) do
    if byte(name) == 126 and group_of(gate) == name or is_told(name, gate) then found[#found + 1] = gate end
  end
  return found
end

local function in_group(queue, line, group)
  return call('ZSCORE', P .. 'heads:' .. queue .. '|' .. group, line) and has_line(group, queue)
end

-- Whether any, and whether all, of the sets that serve a queue have been told of a line, of the whole queue, or of its
-- suspects. A worker that does not say what it runs may be the one that has handed a line on.
local function announced(kind, queue, line)
  local any, all = false, true
  for set in string.gmatch(served_by(queue, line), '%S+') do
    local told = call('ZSCORE', P .. kind .. set, line and queue .. '|' .. line or queue)
    local may_have = line and sub(line, -2) == '#t' and not known_of('runs', set)
    any, all = any or told, all and (told or may_have)
  end
  return any, all
end

-- Whether a line is in a group beside this one: one of its gates, or one of gates that it had, if that is about to be taken.
local function in_another_group(queue, line, gates, group)
  for _, gate in ipairs(gates) do
    local other = group_of(gate)
    if other ~= group and in_group(queue, line, other) then return true end
  end
  for name in string.gmatch(string.match(line, '^[^#]*') .. '|' .. line, '[^|]+') do
    local other = '~' .. name
    if other ~= group and in_group(queue, line, other) and select(2, announced('ready:', queue, other)) then return true end
  end
  return false
end

-- Whether a queue is paused, and its end will announce a line, the whole queue, or its suspects.
local function is_paused(queue, line)
  return call('HEXISTS', P .. 'paused', queue) == 1 and (not line or call('ZSCORE', P .. 'lines:' .. queue, line))
end

-- Whether some process is about to look and will see that a gate opens. If nobody serves the queue, none needs to.
local function is_looked_at(kind, queue, line)
  local any, all = announced(kind, queue, line)
  return any or all or is_paused(queue, line)
end

-- Whether one of these gates is about to be opened, by the process that waits for due times.
local function is_due(names)
  for _, name in ipairs(names) do
    local time = tonumber(call('ZSCORE', P .. 'openings', name))
    if time and time <= now + 1 then return true end
  end
  return false
end

-- Whether a line or a group is where it should be: it waits at a gate that tells it, or has been announced, or is about to
-- be. A line in a group is, since groups are looked at too; a group of limits that are gone is, since its lines are.
local function is_ready(queue, name)
  local gates, place, line = first_in(queue, name)
  if not gates then
    leave_line(name, queue)
    return true
  end
  if in_another_group(queue, line, gates, name) then return true end
  local single = byte(name) ~= 126
  local tell = telling(gates, name)
  if not (single or tell[1]) then return true end
  local gate, opens = closed_gate(tell, nil, now)
  if gate then
    if opens and not is_looked_at('ready:', queue, name) then set_time(gate, opens) end
    return true
  end
  if is_due(gates) or is_due({ name }) or is_paused(queue, name) then return true end
  gate, opens = closed_gate(single and gates or {}, nil, now)
  if gate then
    if not is_looked_at('ready:', queue, name) then
      line_waits(queue, name, gate, opens, place, now)
      restored(name, 'line')
    end
    return true
  end
  return select(2, announced('ready:', queue, name)) or (select(2, announced('ready:', queue, line)))
end

-- Whether a line or a group is empty, and nobody is about to notice.
local function is_forgotten(queue, name)
  local line = queue .. '|' .. name
  if call('EXISTS', P .. 'gated:' .. line, P .. 'ranked:' .. line, P .. 'heads:' .. line) > 0 then return false end
  return not announced('ready:', queue, name)
end

-- Whether a queue that waits at a gate as a whole (`*`), or with its suspects (`!`), is about to be told, or will be when
-- the gate opens.
local function is_known(kind, queue, name)
  local n, opens = room(name, now)
  if n >= 1 then return is_due({ name }) end
  if opens and not is_looked_at(kind, queue) then set_time(name, opens) end
  return true
end

local function is_well(who, name)
  local first = sub(who, 1, 1)
  if first == '*' then return is_known('ready:', sub(who, 2), name) end
  if first == '!' then return is_known('solo:', sub(who, 2), name) end
  if is_forgotten(who, name) then
    leave_line(name, who)
    restored(name, 'line')
    return true
  end
  return is_ready(who, name)
end

local function look_at(name)
  for who in string.gmatch(waits_at(name), '%S+') do
    if not is_well(who, name) then
      open(name, now)
      return restored(name, 'open')
    end
  end
end

begin_writes()
for _, name in ipairs(ARGV) do
  if sub(name, 1, 1) ~= '=' then look_at(name)
  else
    local text = call('HGET', P .. 'paused', name) or call('HGET', P .. 'paused', sub(name, 2)) or ''
    local ends = tonumber(string.match(text, '^%d+ (%d+)'))
    if ends and ends > 0 then set_time(name, ends) end
  end
end
save_gates(now)
return out
