--@include base
--@include held
--@include holder
--@include bells
--@include waiting
--@include ranked
--@include ending
--@include delivering
--@include burying
--@include unique
--@include gates
-- Why a message does not run: what is known of it, of the place it is in, and of what may hold it there. Reads only; of a
-- list at most 10,000 ids, of those that could run it at most 100.
--
-- KEYS  1 prefix
-- ARGV  1 id
-- Returns names and values in turn, of which those that do not apply are missing:
--       now, ttl (ms results are kept), result; value; reason and died (of a dead letter); revoked (why), crashes;
--       due (ms); since, worker, lease (of what is running);
--       and of what waits: paused, task-paused (as pause.lua stores them), served (by how many live sets of queues),
--       incarnations (how many there are), workers {what they are ...}, gates {{name, 1 if something may pass now, when it
--       opens (ms) or '', ms between two, slots, slots in use, ids of up to 3 holders ...} ...} (closed ones, and the one it
--       waits at), place (queue, ranked, suspects, or a gate), lanes (of its task's line: the sets of those that run it),
--       ahead (missing beyond the 10,000), of.
-- Again: the same.
local MOST, FEW = 10000, 100
local id, now = ARGV[1], clock()
local out = { 'now', int(now), 'ttl', int(setting('result_ttl') or 3600000) }
local function tell(name, value)
  if value then out[#out + 1], out[#out + 2] = name, value end
end

tell('result', call('GET', P .. 'result:' .. id))
local value = call('HGET', P .. 'messages', id)
if not value then return out end
tell('value', value)
local queue, task, _, flags, at = head(value)
local reason = call('HGET', P .. 'reasons', id)
tell('reason', reason)
if reason then tell('died', call('ZSCORE', P .. 'dead:' .. (queue or 'unreadable'), id)) end
if reason or not queue then return out end
tell('revoked', call('HGET', P .. 'revoked', id))
tell('crashes', call('HGET', P .. 'crashes', id))
local due = call('ZSCORE', P .. 'schedule', id)
tell('due', due)
if due then return out end

local inc, held = unpack(holders_of(id, 1))
if held then
  tell('since', select(3, taken_from(held)))
  tell('worker', call('HGET', P .. 'workers', inc) or '')
  tell('lease', call('ZSCORE', P .. 'leases', inc))
  return out
end

-- Which workers could run it.
local served, workers, incarnations = 0, {}, call('ZRANGE', P .. 'leases', 0, FEW - 1)
for set in string.gmatch(call('HGET', P .. 'serving', queue) or '', '%S+') do
  if tonumber(call('ZSCORE', P .. 'set-leases', set) or 0) > now then served = served + 1 end
end
for i = 1, #incarnations do
  if tonumber(call('ZSCORE', P .. 'leases', incarnations[i])) > now then
    workers[#workers + 1] = call('HGET', P .. 'workers', incarnations[i]) or ''
  end
end
tell('served', served)
tell('incarnations', call('ZCARD', P .. 'leases'))
tell('workers', workers)

-- What holds it up.
tell('paused', call('HGET', P .. 'paused', queue))
tell('task-paused', call('HGET', P .. 'paused', '=' .. task) or call('HGET', P .. 'paused', task))
local function tell_holders(name, gate)
  for i = 1, #incarnations do
    local flat = call('HGETALL', P .. 'processing:' .. incarnations[i])
    for k = 1, #flat, 2 do
      local _, _, _, passed = taken_from(flat[k + 1])
      if find(passed .. '\n', '\n' .. name .. '\n', 1, true) then gate[#gate + 1] = flat[k] end
      if #gate == 9 then return end
    end
  end
end

local place, index, gates = nil, nil, {}
local function look_at(name, waits_here)
  local n, opens = room(name, now)
  if n >= 1 and not waits_here then return end
  local limit = gate_named(name)
  local gate = {
    name, n >= 1 and '1' or '0', opens and int(opens) or '', string.format('%.6f', limit.interval), int(limit.slots),
    call('HGET', P .. 'slots', name) or '0',
  }
  if limit.slots > 0 then tell_holders(name, gate) end
  gates[#gates + 1] = gate
end
local function look_for(key) return call('LPOS', P .. key, id, 'MAXLEN', MOST) end

local own = {}
for _, name in ipairs(own_gates(queue)) do
  own[name] = true
  look_at(name, false)
end
local names, line = gates_of(task, extras(value, flags, at))
local function look_in(name)
  if place then return end
  local above, rank = call('ZCOUNT', P .. 'ranked:' .. queue .. '|' .. name, '-inf', '(0'), call('ZRANK', P .. 'ranked:' .. queue .. '|' .. name, id)
  local plain = call('LLEN', P .. 'gated:' .. queue .. '|' .. name)
  index = rank and (rank < above and rank or rank + plain)
  if not index then
    index = look_for('gated:' .. queue .. '|' .. name)
    if index then index = index + above end
  end
  if index then place = name end
end
if line then look_in(line) end
for _, name in ipairs(names) do
  look_in(name)
  if not own[name] then look_at(name, place == name) end
end
if #gates > 0 then tell('gates', gates) end

-- Where it stands.
local ranked = marked(queue, $MARK_RANKED) and call('ZCARD', P .. 'ranked:' .. queue) or 0
local above = ranked > 0 and call('ZCOUNT', P .. 'ranked:' .. queue, '-inf', '(0') or 0
local plain = call('LLEN', P .. 'queue:' .. queue)
if place then
  tell('of', call('LLEN', P .. 'gated:' .. queue .. '|' .. place) + call('ZCARD', P .. 'ranked:' .. queue .. '|' .. place))
  if sub(place, -2) == '#t' then tell('lanes', served_by(queue, place)) end
else
  index = look_for('suspects:' .. queue)
  if index then
    place = 'suspects'
    tell('of', call('LLEN', P .. 'suspects:' .. queue))
  else
    local rank = ranked > 0 and call('ZRANK', P .. 'ranked:' .. queue, id)
    if rank then
      place, index = 'ranked', rank < above and rank or rank + plain
    else
      place, index = 'queue', look_for('queue:' .. queue)
      if index then index = index + above end
    end
    tell('of', plain + ranked)
  end
end
tell('place', place)
tell('ahead', index)
return out
