-- How much stands in the keys `<family>:<name>` of any number of names, as a table name -> n. Most are empty, and asking
-- whether any of a hundred exists costs little more than asking for one.
local function sizes(family, command, names)
  local found = {}
  for first = 1, #names, 100 do
    local keys = {}
    for i = first, math.min(first + 99, #names) do keys[#keys + 1] = P .. family .. ':' .. names[i] end
    if call('EXISTS', unpack(keys)) > 0 then
      for i, key in ipairs(keys) do
        local n = call(command, key)
        if n > 0 then found[names[first + i - 1]] = n end
      end
    end
  end
  return found
end
