-- Check the types of what the functions of fetch.lua's `flow` write to, when they are made: before the first write.
expect('hash', { 'slots', 'breakers', 'unique', 'limits', 'paused', 'turns' })
expect('zset', { 'arrivals', 'openings', 'shut' })
