-- Bells: passing word on to sets of workers.
--
-- It must not end a script half-way: where one of the keys for it is of the wrong type, an operator's doing, nobody is told,
-- and the audit passes it on later.

-- Ring a bell that is silent.
local function ring(bell)
  if try('RPUSH', bell, '1') ~= 1 then try('LPOP', bell) end
end

-- There is something to take now, from a queue or a line: these sets (joined by spaces) are told.
local function tell(sets, line, now)
  for set in string.gmatch(sets, '%S+') do
    try('ZADD', P .. 'ready:' .. set, 'NX', now, line)
    ring(P .. 'bell:' .. set)
  end
end
