-- After a wait in vain: put back names of ready queues that are missing, a few each time. Part of fetch.lua.
local names = {}
for name in string.gmatch(call('HGET', P .. 'sets', run.set) or '', '%S+') do names[#names + 1] = name end
for k = 1, math.min(#names, 8) do
  local name = names[(math.floor(now / 4000) * 8 + k) % #names + 1]
  if try('LLEN', P .. 'queue:' .. name) ~= 0 or try('ZCARD', P .. 'ranked:' .. name) ~= 0 then
    call('ZADD', P .. 'ready:' .. run.set, 'NX', now, name)
  end
end
