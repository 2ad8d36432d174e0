-- What every script begins with: the partition's prefix, the clock, a first write.
-- Key names are listed in taskq/broker/keys.py. Ids and values are opaque bytes; no script decodes msgpack.
local P = KEYS[1]
local rare -- false once a script has seen that there are no marks, crashes or revocations
local no_room = false -- true where memory is too scarce for results to be kept
local call, try, sub, byte, find = redis.call, redis.pcall, string.sub, string.byte, string.find

-- Server time in milliseconds, with the microseconds as a fraction.
local function clock()
  local t = call('TIME')
  return t[1] * 1000 + t[2] / 1000 + 0 --[[test clock]]
end

local function int(n) return string.format('%.0f', n) end

-- If the first write of a script frees memory, the script runs to its end even when the server is over maxmemory.
local function begin_writes() call('DEL', P .. 'none') end
