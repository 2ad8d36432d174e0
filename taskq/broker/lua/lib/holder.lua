-- The incarnations that hold an id, at most so many of them, and what the processing hash of each has for it: a flat list.
-- They are looked through in pieces, since there may be any number.
local function holders_of(id, most)
  local found = {}
  for first = 0, call('ZCARD', P .. 'leases') - 1, 1000 do
    for _, inc in ipairs(call('ZRANGE', P .. 'leases', first, first + 999)) do
      local held = call('HGET', P .. 'processing:' .. inc, id)
      if held then found[#found + 1], found[#found + 2] = inc, held end
      if #found == 2 * most then return found end
    end
  end
  return found
end
