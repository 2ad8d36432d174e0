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

-- Whether all who can take what waits at a gate have been told of it.
local function is_told(name)
  for who in string.gmatch(waits_at(name), '%S+') do
    local kind, queue = string.match(who, '^([*!]?)(.*)$')
    if kind ~= '' then return false end -- who waits as a whole stands at no open gate
    if not (call('HEXISTS', P .. 'paused', queue) == 1 and call('ZSCORE', P .. 'lines:' .. queue, name)) then
      for set in string.gmatch(served_by(queue, name), '%S+') do
        if not call('ZSCORE', P .. 'ready:' .. set, queue .. '|' .. name) then return false end
      end
    end
  end
  return true
end

local function look_at(name)
  for who in string.gmatch(waits_at(name), '%S+') do
    if not find(who, '^[*!]') and call('EXISTS', P .. 'gated:' .. who .. '|' .. name) == 0 then
      leave_line(name, who)
      restored(name, 'line')
    end
  end
  if waits_at(name) == '' then return end
  local n, opens = room(name, now)
  if n < 1 then
    if opens then set_time(name, opens) end
  elseif not is_told(name) then
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
