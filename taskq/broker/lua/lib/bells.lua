-- Bells: passing word on to sets of workers.
-- Ringing must not end a script half-way: if an operator has made one of its keys another type, nobody is told until the
-- next renewal of a worker that serves it (see repair.lua).

-- Ring a bell that is silent.
local function ring(bell)
  if try('RPUSH', bell, '1') ~= 1 then try('LPOP', bell) end
end

-- Tell these sets (joined by spaces) that there is something to take from a queue or a line.
local function tell(sets, line, now)
  for set in string.gmatch(sets, '%S+') do
    try('ZADD', P .. 'ready:' .. set, 'NX', now, line)
    ring(P .. 'bell:' .. set)
  end
end
