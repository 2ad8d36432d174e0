--@include base
--@include types
--@include pulse
-- Renew the leases of a worker's incarnations and of the sets they serve.
--
-- KEYS  1 prefix
-- ARGV  1 lease ms, 2 sets joined by spaces, then incarnations
-- Returns {ms until the earliest lease of all ends, suspects waiting (0 or 1), {incarnation, id of a revoked message that it
--       holds, ...}, incarnations that are not registered ...}.
-- Again: renews again.
local lease = tonumber(ARGV[1])
local now = clock()
expect('zset', { 'leases', 'set-leases', 'openings', 'arrivals', 'shut' })
expect('hash', { 'sets', 'revoked', 'breakers' })
pulse(now, lease)
local out = { 0, 0, {} }
local any_revoked = call('EXISTS', P .. 'revoked') == 1
local function look_for_revoked(inc)
  local held = any_revoked and call('HKEYS', P .. 'processing:' .. inc) or {}
  for first = 1, #held, 1000 do
    for i, why in ipairs(call('HMGET', P .. 'revoked', unpack(held, first, math.min(first + 999, #held)))) do
      if why then
        out[3][#out[3] + 1] = inc
        out[3][#out[3] + 1] = held[first + i - 1]
      end
    end
  end
end
for i = 3, #ARGV do
  if call('ZSCORE', P .. 'leases', ARGV[i]) then
    call('ZADD', P .. 'leases', 'XX', int(now + lease), ARGV[i])
    look_for_revoked(ARGV[i])
  else
    out[#out + 1] = ARGV[i]
  end
end
for set in string.gmatch(ARGV[2], '%S+') do
  if call('HEXISTS', P .. 'sets', set) == 1 then
    call('ZADD', P .. 'set-leases', int(now + lease), set)
    if call('EXISTS', P .. 'solo:' .. set) == 1 then out[2] = 1 end
  end
end
local first = call('ZRANGE', P .. 'leases', 0, 0, 'WITHSCORES')[2]
out[1] = int(first and math.max(0, first - now) or lease)
return out
