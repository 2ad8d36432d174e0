--@include base
-- A page of what waits in a queue, in the order in which it would be taken: the suspects, which run alone and beside the
-- others, then the messages ranked above the plain ones, the plain ones, and those ranked below. Reads only.
--
-- KEYS  1 prefix
-- ARGV  1 queue, 2 how many to pass over, 3 how many at most (1 to 100)
-- Returns {how many wait in all, place (suspects, ranked, queue), id, the beginning of the message ('' if it is gone), ...}.
-- Again: the same.
local queue, skip, left, all, out = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), 0, { 0 }
local function page(family, n, read)
  all = all + n
  local some = math.min(math.max(0, n - skip), left)
  for _, id in ipairs(some > 0 and read(P .. family .. ':' .. queue, skip, skip + some - 1) or {}) do
    out[#out + 1], out[#out + 2] = family, id
    out[#out + 1] = sub(call('HGET', P .. 'messages', id) or '', 1, 512)
  end
  skip, left = math.max(0, skip - n), left - some
end
local function of_list(key, first, last) return call('LRANGE', key, first, last) end
local above = call('ZCOUNT', P .. 'ranked:' .. queue, '-inf', '(0')
page('suspects', call('LLEN', P .. 'suspects:' .. queue), of_list)
page('ranked', above, function(key, first, last) return call('ZRANGE', key, first, last) end)
page('queue', call('LLEN', P .. 'queue:' .. queue), of_list)
page('ranked', call('ZCARD', P .. 'ranked:' .. queue) - above, function(key, first, last)
  return call('ZRANGE', key, above + first, above + last)
end)
out[1] = all
return out
