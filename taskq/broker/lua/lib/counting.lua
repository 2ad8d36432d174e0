-- Counters of the ledger: gathered in a table, written once a call.
local counts = {}
local function count(queue, what, n)
  local field = queue .. '|' .. what
  counts[field] = (counts[field] or 0) + (n or 1)
end
local function write_counts()
  for field, n in pairs(counts) do
    if n ~= 0 then call('HINCRBY', P .. 'counters', field, int(n)) end
  end
  counts = {}
end
