//! The scripts for work that Redis must do in one step.
//!
//! The chord scripts do on Celery's keys what Celery 5.7 does, in the same order. Workers of both kinds therefore count
//! together, and only one of them sends the body.

use redis::Script;

/// All scripts. The store sends a script's text to Redis once, and later only its digest.
pub(super) struct Scripts {
    pub(super) replace: Script,
    pub(super) open_chord: Script,
    pub(super) join: Script,
    pub(super) chord_size: Script,
    pub(super) extend_chord: Script,
    pub(super) close: Script,
    pub(super) claim: Script,
    pub(super) compare_and_set_all: Script,
    pub(super) list_notes: Script,
    pub(super) lead: Script,
    pub(super) resign: Script,
    pub(super) revoke: Script,
    pub(super) acquire_window: Script,
    pub(super) prolong: Script,
    pub(super) release_window: Script,
    pub(super) acquire: Script,
    pub(super) extend: Script,
    pub(super) holders: Script,
    pub(super) take_starts: Script,
}

impl Scripts {
    pub(super) fn new() -> Self {
        Self {
            replace: Script::new(REPLACE),
            open_chord: Script::new(OPEN_CHORD),
            join: with_helpers(JOIN),
            chord_size: Script::new(CHORD_SIZE),
            extend_chord: with_helpers(EXTEND_CHORD),
            close: Script::new(CLOSE),
            claim: Script::new(CLAIM),
            compare_and_set_all: Script::new(CHANGE_NOTES),
            list_notes: Script::new(LIST_NOTES),
            lead: Script::new(LEAD),
            resign: Script::new(RESIGN),
            revoke: Script::new(REVOKE),
            acquire_window: Script::new(HOLD),
            prolong: Script::new(PROLONG),
            release_window: Script::new(LET_GO),
            acquire: with_helpers(ACQUIRE),
            extend: with_helpers(EXTEND),
            holders: Script::new(HOLDERS),
            take_starts: Script::new(TAKE_STARTS),
        }
    }
}

/// Makes a script that calls [`HELPERS`].
fn with_helpers(script: &str) -> Script {
    Script::new(&[HELPERS, script].concat())
}

/// Functions that several scripts use. `expire` sets the lifetime of keys. `keep_for` keeps keys with a lease for twice
/// the lease, and for a day at least.
const HELPERS: &str = r"
local function expire(seconds, ...)
    for _, key in ipairs({...}) do
        redis.call('EXPIRE', key, seconds)
    end
end
local function keep_for(lease, ...)
    local keep = math.max(lease * 2, 86400000)
    for _, key in ipairs({...}) do
        if redis.call('PTTL', key) < keep then
            redis.call('PEXPIRE', key, keep)
        end
    end
end
";

/// Writes and announces a document if the key holds what the caller expects: `ARGV[3]`, or nothing if there is no such
/// argument. Returns whether it did, and otherwise what the key holds. The caller can read the old document and decides
/// whether it may be replaced, so the script parses no document.
const REPLACE: &str = r"
local key, document, seconds, believed = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local held = redis.call('GET', key)
if (held or nil) ~= believed then
    return {0, held}
end
redis.call('SETEX', key, seconds, document)
redis.call('PUBLISH', key, document)
return {1, false}
";

/// Stores the number of members of a chord, as Celery does. If an earlier chord of the same id is done, the script
/// deletes its remains. Otherwise the process that opened the chord runs for the second time, and members may have been
/// counted in between.
const OPEN_CHORD: &str = r"
local claim, size, wanted, seconds = KEYS[1], KEYS[2], ARGV[1], ARGV[2]
if redis.call('GET', claim) == 'done' then
    redis.call('DEL', unpack(KEYS, 3))
end
redis.call('DEL', claim)
redis.call('SET', size, wanted, 'EX', seconds)
return 1
";

/// Counts a member. Returns a word, and the milliseconds for which another process's claim still lasts. The words are:
/// - `waiting`: members are missing, or the size is not known.
/// - `claimed`: the caller sends the body.
/// - `taken`: another process is about to send the body.
/// - `done`: the body was sent. The member was not counted.
///
/// A claim that the caller already has stays its own, so the caller may ask again after a lost answer.
const JOIN: &str = r"
local parts, extra, size, done = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local group, claim = KEYS[5], KEYS[6]
local id, part, score = ARGV[1], ARGV[2], ARGV[3]
local seconds, lease, token = ARGV[4], ARGV[5], ARGV[6]
local holder = redis.call('GET', claim)
if holder == 'done' then
    return {'done', 0}
end
local member = id .. ':' .. score
if redis.call('SISMEMBER', done, member) == 0 then
    redis.call('ZADD', parts, score, part)
    redis.call('SADD', done, member)
end
local counted = redis.call('ZCARD', parts)
expire(seconds, parts, extra, size, done, group)
local added = tonumber(redis.call('GET', extra) or 0)
local wanted = tonumber(redis.call('GET', size) or -1)
if wanted < 0 or counted ~= wanted + added then
    return {'waiting', 0}
end
if holder == token then
    redis.call('EXPIRE', claim, lease)
    return {'claimed', 0}
end
if redis.call('SET', claim, token, 'NX', 'EX', lease) then
    return {'claimed', 0}
end
return {'taken', redis.call('PTTL', claim)}
";

/// Counts the bytes of the parts of a chord, and stops when they exceed `ARGV[1]`. It reads one part after the other,
/// so that the script never has all of them in memory.
const CHORD_SIZE: &str = r"
local parts, most, bytes = KEYS[1], tonumber(ARGV[1]), 0
for place = 0, redis.call('ZCARD', parts) - 1 do
    bytes = bytes + #redis.call('ZRANGE', parts, place, place)[1]
    if bytes > most then
        return bytes
    end
end
return bytes
";

/// Announces one more part of a chord, as Celery's `add_to_chord` counts it, once for each id. Returns whether the body
/// can still wait for the part. The number of members may not be known yet, because Celery stores it when it sends the
/// last member.
const EXTEND_CHORD: &str = r"
local extra, added, claim = KEYS[1], KEYS[2], KEYS[3]
local id, seconds = ARGV[1], ARGV[2]
if redis.call('GET', claim) == 'done' then
    return 0
end
if redis.call('SADD', added, id) == 1 then
    redis.call('INCR', extra)
end
expire(seconds, extra, added)
return 1
";

/// Ends a chord whose body was sent, if the caller has the claim. If the chord has failed, the caller does not name the
/// keys of the parts, because Celery keeps the parts too.
const CLOSE: &str = r"
local claim, token, seconds = KEYS[1], ARGV[1], ARGV[2]
if redis.call('GET', claim) ~= token then
    return 0
end
redis.call('DEL', unpack(KEYS, 2))
redis.call('SET', claim, 'done', 'EX', seconds)
return 1
";

/// Decides, for each key, whether this copy of a message came first. `ARGV` has, for each of `KEYS`, a copy and the
/// seconds to keep it. Returns 1 for each key that this copy has.
const CLAIM: &str = r"
local mine = {}
for i, key in ipairs(KEYS) do
    local copy, seconds = ARGV[2 * i - 1], ARGV[2 * i]
    local held = redis.call('GET', key)
    if held == false or held == copy then
        redis.call('SET', key, copy, 'EX', seconds)
        mine[i] = 1
    else
        mine[i] = 0
    end
end
return mine
";

/// Changes notes, all or none. `KEYS` are the notes, their names, and the election. `ARGV` begins with the candidate
/// and its term (an empty term asks for none), and whether the answer to this call was lost before. Then it has for
/// each change its name, whether a note is expected and what it says, and whether a note is wanted and what it must
/// say.
const CHANGE_NOTES: &str = r"
local notes, names, election = KEYS[1], KEYS[2], KEYS[3]
local candidate, term, again = ARGV[1], ARGV[2], ARGV[3]
if term ~= '' then
    local held = redis.call('HMGET', election, 'holder', 'term')
    if held[1] ~= candidate or held[2] ~= term then
        return 0
    end
end
local as_expected, as_wanted = true, again == '1'
for i = 4, #ARGV, 5 do
    local says = redis.call('HGET', notes, ARGV[i])
    local expected = ARGV[i + 1] == '1' and ARGV[i + 2]
    local wanted = ARGV[i + 3] == '1' and ARGV[i + 4]
    as_expected = as_expected and says == expected
    as_wanted = as_wanted and says == wanted
end
if as_wanted then
    return 1
end
if not as_expected then
    return 0
end
for i = 4, #ARGV, 5 do
    if ARGV[i + 3] == '1' then
        redis.call('HSET', notes, ARGV[i], ARGV[i + 4])
        redis.call('ZADD', names, 0, ARGV[i])
    else
        redis.call('HDEL', notes, ARGV[i])
        redis.call('ZREM', names, ARGV[i])
    end
end
return 1
";

/// Lists notes by name, from `ARGV[1]` to `ARGV[2]` in the terms of ZRANGEBYLEX, and `ARGV[3]` of them at most. Returns
/// names and texts by turns.
const LIST_NOTES: &str = r"
local listed = {}
for _, name in ipairs(redis.call('ZRANGEBYLEX', KEYS[2], ARGV[1], ARGV[2], 'LIMIT', 0, ARGV[3])) do
    listed[#listed + 1] = name
    listed[#listed + 1] = redis.call('HGET', KEYS[1], name)
end
return listed
";

/// Asks to lead. `ARGV` has the candidate and its lease in milliseconds. The time is that of the server. Returns the
/// term, or 0 and the milliseconds for which another candidate's lease still lasts.
const LEAD: &str = r"
local candidate, lease = ARGV[1], tonumber(ARGV[2])
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local held = redis.call('HMGET', KEYS[1], 'holder', 'term', 'until')
local term, last = tonumber(held[2]) or 0, tonumber(held[3]) or 0
if held[1] ~= candidate then
    if held[1] and held[1] ~= '' and last > now then
        return {0, last - now}
    end
    term = term + 1
end
redis.call('HSET', KEYS[1], 'holder', candidate, 'term', string.format('%.0f', term), 'until', string.format('%.0f', now + lease))
return {term, 0}
";

/// Gives the lead back. The term stays, so that the next term is higher.
const RESIGN: &str = r"
if redis.call('HGET', KEYS[1], 'holder') == ARGV[1] then
    redis.call('HSET', KEYS[1], 'holder', '', 'until', '0')
end
return 0
";

/// Keeps a revocation, and announces it. Also keeps the ids of all revocations, for as long as the longest one lasts.
const REVOKE: &str = r"
local key, all, seconds, till = KEYS[1], KEYS[2], tonumber(ARGV[1]), ARGV[2]
local id, channel = ARGV[3], ARGV[4]
local time = tonumber(redis.call('TIME')[1])
redis.call('SETEX', key, seconds, till)
redis.call('ZREMRANGEBYSCORE', all, '-inf', time - 1)
redis.call('ZADD', all, time + seconds, id)
if redis.call('PTTL', all) < seconds * 1000 then
    redis.call('EXPIRE', all, seconds)
end
redis.call('PUBLISH', channel, till .. ' ' .. id)
";

/// Begins a unique window for a lease, unless another task holds it or it is confirmed. In these cases, returns its
/// holder, and whether that task is still being published.
const HOLD: &str = r"
local window, of, publishing, id, millis = KEYS[1], KEYS[2], KEYS[3], ARGV[1], ARGV[2]
local held = redis.call('GET', window)
local is_publishing = redis.call('EXISTS', publishing)
if held and (held ~= id or is_publishing == 0) then
    return {held, is_publishing}
end
redis.call('SET', window, id, 'PX', millis)
redis.call('SET', of, window, 'PX', millis)
redis.call('SET', publishing, id, 'PX', millis)
return {false, 1}
";

/// Prolongs a unique window. If `ARGV[3]` is 1, the task is known to be published from now on. Has no effect if the
/// task does not hold the window any more, perhaps because the task is over.
const PROLONG: &str = r"
local window, of, publishing, id, millis = KEYS[1], KEYS[2], KEYS[3], ARGV[1], ARGV[2]
if redis.call('GET', window) ~= id then
    return 0
end
if ARGV[3] == '1' then
    redis.call('DEL', publishing)
elseif redis.call('EXISTS', publishing) == 0 then
    return 1
else
    redis.call('PEXPIRE', publishing, millis)
end
redis.call('PEXPIRE', window, millis)
redis.call('SET', of, window, 'PX', millis)
return 1
";

/// Ends the unique window of a task if the task still holds it. The keys name the window twice, the second time in the
/// form of an earlier version. Without such keys, the script ends the window that is noted for the task.
const LET_GO: &str = r"
local of, id = KEYS[1], ARGV[1]
local noted = redis.call('GET', of)
local windows = {unpack(KEYS, 2)}
if #windows == 0 and noted then
    windows = {noted}
end
local ended = 0
for _, window in ipairs(windows) do
    if noted == window then
        redis.call('DEL', of)
    end
    if redis.call('GET', window) == id then
        ended = redis.call('DEL', window)
    end
end
return ended
";

/// Takes a permit of each name, or none. The keys are a set and a hash for each name. The arguments are the holder, the
/// lease in milliseconds, and the limits. Returns 0 and the tokens, or the place, from 1, of the first name that is
/// busy. A token is higher than all before it and not below the time in microseconds, so it grows even if Redis has
/// forgotten the others.
const ACQUIRE: &str = r"
local holder, lease = ARGV[1], tonumber(ARGV[2])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local micros = time[1] * 1000000 + time[2]
for i = 1, #KEYS / 2 do
    local set, tokens = KEYS[2 * i - 1], KEYS[2 * i]
    local over = redis.call('ZRANGEBYSCORE', set, '-inf', now)
    for _, gone in ipairs(over) do
        redis.call('HDEL', tokens, gone)
    end
    redis.call('ZREMRANGEBYSCORE', set, '-inf', now)
    local mine = redis.call('ZSCORE', set, holder)
    if not mine and redis.call('ZCARD', set) >= tonumber(ARGV[2 + i]) then
        return {i}
    end
end
local answer = {0}
for i = 1, #KEYS / 2 do
    local set, tokens = KEYS[2 * i - 1], KEYS[2 * i]
    local token = redis.call('ZSCORE', set, holder) and redis.call('HGET', tokens, holder)
    if not token then
        local last = tonumber(redis.call('HGET', tokens, '') or 0)
        token = string.format('%.0f', math.max(last + 1, micros))
        redis.call('HSET', tokens, holder, token, '', token)
    end
    redis.call('ZADD', set, now + lease, holder)
    keep_for(lease, set, tokens)
    answer[i + 1] = tonumber(token)
end
return answer
";

/// Prolongs the permits that a holder has of these. Returns whether it has all of them.
const EXTEND: &str = r"
local holder, lease = ARGV[1], tonumber(ARGV[2])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local all = 1
for i = 1, #KEYS / 2 do
    local set, tokens = KEYS[2 * i - 1], KEYS[2 * i]
    local mine = redis.call('ZSCORE', set, holder)
    if mine and tonumber(mine) > now then
        redis.call('ZADD', set, now + lease, holder)
        keep_for(lease, set, tokens)
    else
        all = 0
    end
end
return all
";

/// Lists the holders of a permit, each with its token and the end of its lease.
const HOLDERS: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local held = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. string.format('%.0f', now), '+inf', 'WITHSCORES')
local answer = {}
for i = 1, #held, 2 do
    local token = tonumber(redis.call('HGET', KEYS[2], held[i]) or 0)
    answer[#answer + 1] = {held[i], token, tonumber(held[i + 1])}
end
return answer
";

/// Takes starts of a rate. The key has the time, in microseconds, before which no further start lies. The arguments are the
/// microseconds between two starts, how many are wanted, and how many microseconds ahead they may lie. Returns how many
/// there are, and the microseconds until the first of them; with none, until it is worth asking again.
const TAKE_STARTS: &str = r"
local key = KEYS[1]
local interval, wanted, ahead = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local first = math.max(tonumber(redis.call('GET', key) or 0), now)
if first - now > ahead then
    return {0, first - now - ahead}
end
local starts = math.min(wanted, math.floor((now + ahead - first) / interval) + 1)
local behind = first + starts * interval
redis.call('SET', key, string.format('%.0f', behind), 'PX', math.ceil((behind - now) / 1000))
return {starts, first - now}
";
