--@include base
--@include sizes
-- How much waits in some queues that are not paused, and how long its oldest has.
--
-- KEYS  1 prefix
-- ARGV  queues
-- Returns {messages waiting, ms since the oldest of the next ones was accepted, suspects among them}.
-- Again: the same.
local names = {}
local letters, flat = {}, call('HGETALL', P .. 'marks')
for i = 1, #flat, 2 do letters[flat[i]] = flat[i + 1] end
for _, queue in ipairs(ARGV) do
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
return { pending + suspects, int(oldest), suspects }
