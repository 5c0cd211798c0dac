-- Writes, reads and deletes a key that is nobody else's; it ends by itself if this is cut short.
redis.call('SET', KEYS[1], ARGV[1], 'EX', 10)
local found = redis.call('GET', KEYS[1])
redis.call('DEL', KEYS[1])
return found
