--@include base
--@include sizes
-- How many messages wait in some queues that are not paused, how long the oldest has waited, and whether any can run.
--
-- KEYS  1 prefix
-- ARGV  1 sets of queues and 2 incarnations, each joined by spaces; then queues
-- Returns {messages waiting, ms since the oldest of the next ones was accepted, suspects among them, lines and queues
--       that the sets have ready, messages that the incarnations hold (-1: one is not registered yet), ms until a gate
--       opens by itself that some of the queues stand at (-1: none does within five seconds)}.
-- Again: the same.
local names, ours = {}, {}
local letters, flat = {}, call('HGETALL', P .. 'marks')
for i = 1, #flat, 2 do letters[flat[i]] = flat[i + 1] end
for i = 3, #ARGV do
  local queue = ARGV[i]
  ours[queue] = true
  if not find(letters[queue] or '', 'p', 1, true) then names[#names + 1] = queue end
end
local pending, oldest, suspects, now = 0, 0, 0, clock()
for _, n in pairs(sizes('suspects', 'LLEN', names)) do suspects = suspects + n end

local function look(family, command, first_of)
  for queue, n in pairs(sizes(family, command, names)) do
    pending = pending + n
    local _, _, accepted = head(call('HGET', P .. 'messages', first_of(P .. family .. ':' .. queue)))
    if accepted then oldest = math.max(oldest, now - accepted) end
  end
end
look('queue', 'LLEN', function(key) return call('LINDEX', key, 0) end)
look('ranked', 'ZCARD', function(key) return call('ZRANGE', key, 0, 0)[1] end)

-- What lanes have handed on to each other, and is ready for them.
local seen = {}
local function look_at_lines(queue)
  for set in string.gmatch(call('HGET', P .. 'serving', queue) or '', '%S+') do
    for lane in string.gmatch(call('HGET', P .. 'runs', set) or '', '(%S+) [^\n]*') do
      for _, line in ipairs(call('ZRANGE', P .. 'ready:' .. lane, 0, 99)) do
        if not seen[line] and sub(line, 1, #queue + 1) == queue .. '|' and sub(line, -2) == '#t' then
          seen[line] = true
          pending = pending + call('LLEN', P .. 'gated:' .. line)
        end
      end
    end
  end
end
for _, queue in ipairs(names) do
  if find(letters[queue] or '', 'l', 1, true) then look_at_lines(queue) end
end

local ready, held, opens = 0, 0, -1
for set in string.gmatch(ARGV[1], '%S+') do
  ready = ready + call('ZCARD', P .. 'ready:' .. set) + call('ZCARD', P .. 'solo:' .. set)
end
for inc in string.gmatch(ARGV[2], '%S+') do
  if call('HEXISTS', P .. 'calls', inc) == 0 then held = -1 end
  if held >= 0 then held = held + call('HLEN', P .. 'processing:' .. inc) end
end
local soon = ARGV[1] ~= '' and call('ZRANGEBYSCORE', P .. 'openings', '-inf', int(now + 5000), 'WITHSCORES', 'LIMIT', 0, 100) or {}
for i = 1, #soon, 2 do
  for queue in string.gmatch(call('HGET', P .. 'gates', soon[i]) or '', '[^%s*!]+') do
    if ours[queue] and opens < 0 then opens = math.max(0, soon[i + 1] - now) end
  end
end
return { pending + suspects, int(oldest), suspects, ready, held, int(opens) }
