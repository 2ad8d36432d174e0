-- What a processing hash has for an id: the queue it was taken from, whether as a suspect, when (ms, as text), and the
-- gates it passed, each after a newline ('' for none).
local function taken_from(value)
  local suspect, at, queue, gates = string.match(value, '^(!?)(%d+) ([^\n]*)(.*)$')
  return queue or 'unreadable', suspect == '!', at, gates or ''
end
