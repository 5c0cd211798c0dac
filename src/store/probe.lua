-- Asks for what the work needs, reading and writing, and for the data: the marker keeps the value
-- of whoever found it missing, so another value than last time means that Redis lost its data.
local marker = redis.call('GET', KEYS[1]) or ARGV[1]
redis.call('SET', KEYS[1], marker)
return marker
