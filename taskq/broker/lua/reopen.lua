--@include base
--@include types
--@include waiting
--@include ranked
--@include terminal
--@include unique
--@include gates
-- Work out anew what is derived of gates: that lines without anybody are forgotten, that a gate which lets something pass
-- has been opened, and that one which will by itself has its time among the openings; so with pauses that end.
--
-- KEYS  1 prefix
-- ARGV  gates, and '=<name>' for what is paused
-- Returns gate and what was missing, in turn: line, open, opening.
-- Again: nothing.
local now, out = clock(), {}
expect_common()

local function restored(name, what) out[#out + 1], out[#out + 2] = name, what end

local function set_time(name, time)
  if call('ZSCORE', P .. 'openings', name) then return end
  call('ZADD', P .. 'openings', int(math.ceil(time)), name)
  ring(P .. 'alarm')
  restored(name, 'opening')
end

-- The gate for which a line of a queue waits, or a group by the first of its lines, if it is closed; when it opens; and the
-- place of the first.
local function waits_for(queue, name)
  local line = byte(name) == 126 and call('ZRANGE', P .. 'heads:' .. queue .. '|' .. name, 0, 0)[1] or name
  local id, rank = first_of(queue, line)
  local value = id and call('HGET', P .. 'messages', id)
  local _, task, _, flags, at = head(value)
  local gate, opens = closed_gate(task and gates_of(task, extras(value, flags, at)) or {}, nil, now)
  return gate, opens, place_of(rank, value)
end

local function in_group(queue, line, group)
  return call('ZSCORE', P .. 'heads:' .. queue .. '|' .. group, line) and has_line(group, queue)
end

-- Whether a line or a group that may pass all of its gates has been announced. One that may not is where it waits.
local function is_ready(queue, name)
  local gate, opens, place = waits_for(queue, name)
  if gate then
    if opens then set_time(gate, opens) end
    if byte(name) ~= 126 and not is_told(name, gate) and not in_group(queue, name, group_of(gate)) then
      line_waits(queue, name, gate, opens, place, now)
      restored(name, 'line')
    end
    return true
  end
  if in_group(queue, name, '~' .. string.match(name, '^[^#]*')) then return true end
  if call('HEXISTS', P .. 'paused', queue) == 1 and call('ZSCORE', P .. 'lines:' .. queue, name) then return true end
  for set in string.gmatch(served_by(queue, name), '%S+') do
    if not call('ZSCORE', P .. 'ready:' .. set, queue .. '|' .. name) then return false end
  end
  return true
end

-- Whether all who can take what waits at a gate have been told of it. Who waits as a whole stands at no open gate.
local function all_told(name)
  for who in string.gmatch(waits_at(name), '%S+') do
    if find(who, '^[*!]') or not is_ready(who, name) then return false end
  end
  return true
end

local function is_there(queue, name)
  local line = queue .. '|' .. name
  return call('EXISTS', P .. 'gated:' .. line, P .. 'ranked:' .. line, P .. 'heads:' .. line) > 0
end

local function look_at(name)
  for who in string.gmatch(waits_at(name), '%S+') do
    if not find(who, '^[*!]') and not is_there(who, name) then
      leave_line(name, who)
      restored(name, 'line')
    end
  end
  if waits_at(name) == '' then return end
  local n, opens = room(name, now)
  if n < 1 then
    if opens then set_time(name, opens) end
  elseif not all_told(name) then
    open(name, now)
    restored(name, 'open')
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
