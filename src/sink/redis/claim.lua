-- Makes a server the one whose commits of a sender count, if anything of the sender is known. Nothing is
-- kept of one that has not sent anything yet: whichever server commits its first message makes the claim.
--
-- KEYS: as in commit.lua
-- ARGV: the sender's id, the server's own, the least that the sender's count is to be
--
-- Returns the epoch of the claim and the sender's count.
local id, owner, least = ARGV[1], ARGV[2], tonumber(ARGV[3])
local count = tonumber(string.match(redis.call('HGET', KEYS[2], id) or '0', '^%d+'))
local claim = redis.call('HGET', KEYS[3], id)

local epoch = 1
if claim then
    epoch = tonumber(string.match(claim, '^%d+')) + 1
end
if least > count then
    count = least
    redis.call('HSET', KEYS[2], id, string.format('%.0f', count))
end
if count > 0 then
    redis.call('HSET', KEYS[3], id, string.format('%.0f %s', epoch, owner))
end
return {epoch, count}
