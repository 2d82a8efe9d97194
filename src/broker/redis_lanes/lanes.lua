-- Decides the lanes of serial keys, each step in one call: it does what core/lane.rs does, in Redis, where all
-- processes see it. The broker that uses them has a drawing of a run's states.
--
-- The keys, after the prefix:
--   task:<id>     a hash for each run that is not over:
--       lane queue  the names of its lane and of its queue
--       m           its message
--       e           while it is let in: the token of its pass
--       s           while it is let in: since when it is
--       a           the time at which it was let in, if it had to wait
--       k           while it waits: its ticket
--       f           while a process holds it: the token of that start
--       w           while a process holds it: the name of that process
--       d           while a process holds it: that process and the tag of its delivery
--       x           1 if no message that the broker has is good for it, so that it is sent anew if its run does not end it
--       q           until when a process that has its message waits for it to become free
--       n           1 if an earlier start of it did not end in order
--       c           the crashes that it will have if the body that has begun does not end
--       r           why its lane did not take it; it is only sent to be told so
--   in:<lane>     the runs that are let in, by the tokens of their passes
--   line:<lane>   the runs that wait, by ticket
--   lane:<lane>   what is not as usual: the limit that its runs state (stated), the one set by hand (adjusted), blocked
--   lanes         the names of the lanes that are not idle
--   in_line       the number of waiting runs of each queue
--   due           the runs to be sent, by when: at once, after a lease if that is not confirmed, or at the next attempt
--   deadlines     the runs that stop waiting, by when
--   processes     the processes, by the ends of their leases; 0: the process was given up
--   of:<process>  the runs that a process holds
--   clock         the last token that was given
--   era           since when nothing was forgotten
-- An idle lane has no keys.
--
-- Tokens, tickets and times are microseconds since 1970. An answer is {word, a, b, runs to be sent}.

local P, command, lease = KEYS[1], ARGV[1], tonumber(ARGV[2])
local DUE, DEADLINES, LANES, IN_LINE = P .. 'due', P .. 'deadlines', P .. 'lanes', P .. 'in_line'
local PROCESSES, CLOCK, ERA = P .. 'processes', P .. 'clock', P .. 'era'
local call = redis.call
local time = call('TIME')
local now = time[1] * 1000000 + time[2]
local out = {}

local function text(n) return string.format('%.0f', n) end
local function task(id) return P .. 'task:' .. id end
local function inside(lane) return P .. 'in:' .. lane end
local function line(lane) return P .. 'line:' .. lane end
local function state(lane) return P .. 'lane:' .. lane end
local function of(process) return P .. 'of:' .. process end
local function answer(word, a, b) return {word, a or false, b or false, out} end

-- A number above all that were given before, even if those are forgotten, because the clock of the machine goes
-- on.
local function token()
    local next = math.max(tonumber(call('GET', CLOCK) or 0) + 1, now)
    call('SET', CLOCK, text(next))
    return next
end

-- The time since when nothing was forgotten. `doubt`: look whether the server has started again since, because it
-- may have lost what it had not written.
local function era(doubt)
    local held = call('HMGET', ERA, 'era', 'run')
    if held[1] and not doubt then return held[1] end
    local run = string.match(call('INFO', 'server'), 'run_id:(%x+)')
    if held[1] and held[2] == run then return held[1] end
    local new = text(math.max(tonumber(held[1] or 0) + 1, now))
    call('HSET', ERA, 'era', new, 'run', run)
    return new
end

-- Adds a run to those that the caller sends. If the caller does not confirm that, it is due again after a lease.
local function send(id)
    call('ZADD', DUE, text(now + lease), id)
    local v = call('HMGET', task(id), 'm', 'e', 'a', 'r', 'c')
    out[#out + 1] = {id, v[1], v[2], v[3], v[4], v[5]}
end

-- Lets a run in: it gets a new pass.
local function enter(lane, id)
    local pass = text(token())
    call('ZADD', inside(lane), pass, id)
    call('HSET', task(id), 'e', pass, 's', text(now))
    call('ZADD', LANES, 0, lane)
end

-- Deletes a run.
local function forget(id)
    call('DEL', task(id))
    call('ZREM', DUE, id)
end

-- Takes a run out of its lane's line.
local function no_longer_in_line(id, lane, queue)
    call('ZREM', line(lane), id)
    call('ZREM', DEADLINES, id)
    if call('HINCRBY', IN_LINE, queue, -1) <= 0 then call('HDEL', IN_LINE, queue) end
    call('HDEL', task(id), 'k')
end

-- Lets waiting runs in while the lane has room, and deletes the keys of a lane that is idle.
local function let_in(lane)
    local v = call('HMGET', state(lane), 'adjusted', 'stated', 'blocked')
    local room = 0
    if not v[3] then room = tonumber(v[1] or v[2] or 1) - call('ZCARD', inside(lane)) end
    while room > 0 do
        local id = call('ZRANGE', line(lane), 0, 0)[1]
        if not id then break end
        local queue = call('HGET', task(id), 'queue')
        if queue then
            no_longer_in_line(id, lane, queue)
            call('HSET', task(id), 'a', text(now))
            enter(lane, id)
            send(id)
            room = room - 1
        else
            call('ZREM', line(lane), id)
        end
    end
    if call('EXISTS', inside(lane), line(lane)) == 0 then
        call('HDEL', state(lane), 'stated')
        if call('EXISTS', state(lane)) == 0 then call('ZREM', LANES, lane) end
    end
end

-- Takes a run out of its lane that was let in.
local function leave(id, lane, process)
    if process then call('SREM', of(process), id) end
    call('ZREM', inside(lane), id)
    forget(id)
end

-- Takes a run that waited out of its lane, to be sent once so that it is told why.
local function refuse(id, why)
    call('HDEL', task(id), 'lane', 'k')
    call('HSET', task(id), 'r', cjson.encode(why))
    send(id)
end

-- Takes a run from its process, and gives it a new pass, so that no message that is on its way is good for it.
local function take_back(id, process)
    if process then call('SREM', of(process), id) end
    call('HDEL', task(id), 'f', 'w', 'd', 'x', 'q')
    call('HSET', task(id), 'e', text(token()))
end

-- Brings a run to its lane. Answers with `in`, `waits`, `refused`, or with `joined` and the run that does its
-- work.
local function arrive(id, lane, limit, newcomer, patience, queue, message)
    local v = call('HMGET', state(lane), 'adjusted', 'stated', 'blocked')
    local waiting = call('ZCARD', line(lane))
    if waiting == 0 and not v[3] and call('ZCARD', inside(lane)) < tonumber(v[1] or limit) then
        if (v[2] or '1') ~= limit then call('HSET', state(lane), 'stated', limit) end
        call('HSET', task(id), 'lane', lane, 'queue', queue, 'm', message)
        enter(lane, id)
        return 'in'
    end
    if (v[2] or '1') ~= limit then call('HSET', state(lane), 'stated', limit) end
    patience = tonumber(patience)
    if newcomer == 'fail' and patience == 0 then return 'refused' end
    local last = call('ZREVRANGE', line(lane), 0, 0)[1]
    if newcomer == 'skip' and last then return 'joined', last end
    if newcomer == 'replace' and last then
        local old = call('HGET', task(last), 'queue')
        if old then
            no_longer_in_line(last, lane, old)
            refuse(last, {Replaced = {by = id}})
        end
    end
    local ticket = text(token())
    call('HSET', task(id), 'lane', lane, 'queue', queue, 'm', message, 'k', ticket)
    call('ZADD', line(lane), ticket, id)
    call('ZADD', LANES, 0, lane)
    call('HINCRBY', IN_LINE, queue, 1)
    if newcomer == 'fail' then call('ZADD', DEADLINES, text(now + patience), id) end
    return 'waits'
end

-- Whether the lease of a process is not over.
local function is_alive(process)
    return tonumber(call('ZSCORE', PROCESSES, process) or 0) >= now
end

local commands = {}

-- A run comes to its lane. Answers `in` if it is to be sent, with era and pass. `waits`, `refused`, `joined`,
-- `taken` (its id is another one's) and `known` (a process holds it) say that it is not.
function commands.arrive(id, unique, ...)
    local v = call('HMGET', task(id), 'e', 'f', 'k', 'r')
    if v[1] or v[3] or v[4] then
        if unique == '1' then return answer('taken') end
        if v[3] or v[4] then return answer('waits') end
        if v[2] then return answer('known') end
    else
        local word, last = arrive(id, ...)
        if word ~= 'in' then return answer(word, last) end
    end
    call('ZADD', DUE, text(now + lease), id)
    return answer('in', era(), call('HGET', task(id), 'e'))
end

-- Takes a run out again that was let in when it came and could not be sent.
function commands.undo(id, pass)
    local v = call('HMGET', task(id), 'e', 'f', 'lane')
    if v[1] ~= pass or v[2] or not v[3] then return answer('stale') end
    leave(id, v[3])
    let_in(v[3])
    return answer('done')
end

-- A process asks to start a run of which it has a delivery.
--   run      it may start, with this token
--   held     another process holds it and may be alive; if the asker asks again within an eighth of a lease, it is the first to
--            be told `run` should that process be gone
--   stale    the delivery is a copy: its run is over or has another pass
--   gone     nothing is known of the run, because it was forgotten
--   waits, refused   the delivery has no pass, and its lane is taken
--   lapsed   the asking process itself was given up
function commands.start(id, delivery, process, pass, of_era, dead, ...)
    if call('ZSCORE', PROCESSES, process) == '0' then return answer('lapsed') end
    local v = call('HMGET', task(id), 'e', 'f', 'w', 'k', 'd', 'r', 'n', 'c', 'x')
    local held, from = v[1] or v[4] or v[6], process .. ' ' .. delivery
    if v[5] == from then return answer('run', v[2], v[7] and (v[8] or '0')) end
    local again = v[7]
    if not held then
        if pass ~= '' then
            if era(true) == of_era then return answer('stale') end
            return answer('gone')
        end
        local word = arrive(id, ...)
        if word ~= 'in' then return answer(word) end
        call('HSET', task(id), 'x', 1)
    elseif v[4] or v[6] or (pass ~= v[1] and not (pass == '' and v[9] and v[2])) then
        return answer('stale')
    elseif v[2] then
        if v[3] ~= dead and is_alive(v[3]) then
            call('HSET', task(id), 'q', text(now + lease / 8))
            return answer('held', v[3], call('ZSCORE', PROCESSES, v[3]))
        end
        call('SREM', of(v[3]), id)
        call('HSET', task(id), 'n', 1)
        again = '1'
    end
    local start = text(token())
    call('HSET', task(id), 'f', start, 'w', process, 'd', from)
    call('SADD', of(process), id)
    call('ZREM', DUE, id)
    call('ZADD', PROCESSES, text(now + lease), process)
    return answer('run', start, again and (v[8] or '0'))
end

-- Another process holds the run and is alive, so the asker acknowledges its delivery. If that process does not end
-- the run, it is sent anew.
function commands.park(id, pass, process)
    local v = call('HMGET', task(id), 'e', 'f', 'w', 'x')
    if not v[2] or v[3] ~= process or (pass ~= v[1] and not (pass == '' and v[4])) then return answer('stale') end
    call('HSET', task(id), 'x', 1, 'e', text(token()))
    call('HDEL', task(id), 'q')
    return answer('done')
end

-- Renews the lease of a process. `lapsed`: it was given up.
function commands.renew(process)
    local score = call('ZSCORE', PROCESSES, process)
    if not score or score == '0' then return answer('lapsed') end
    call('ZADD', PROCESSES, text(now + lease), process)
    return answer('done')
end

-- A process ends in order, and holds nothing.
function commands.depart(process)
    if call('SCARD', of(process)) == 0 then call('ZREM', PROCESSES, process) end
    return answer('done')
end

-- Whether this start is still the one that counts.
function commands.affirm(id, start)
    if call('HGET', task(id), 'f') ~= start then return answer('stale') end
    return answer('done')
end

-- Notes that a body begins which may take its process down once more.
function commands.note(id, start, crashes)
    if call('HGET', task(id), 'f') ~= start then return answer('stale') end
    call('HSET', task(id), 'c', crashes)
    return answer('done')
end

-- The answer about a start that is not the one that counts. `done`: the same was said before, and only the answer
-- was lost. `forgotten`: the start may have counted until everything was forgotten. `stale`: another start counts.
local function stale(start, again)
    if again == '1' then return answer('done', era()) end
    local since = era(true)
    return answer(tonumber(start) < tonumber(since) and 'forgotten' or 'stale', since)
end

-- Goes on after a run has left: blocks the lane for the given reason, and lets the next runs in unless it is
-- blocked.
local function go_on(lane, id, block)
    if block ~= '' then
        call('HSETNX', state(lane), 'blocked', cjson.encode({id, text(now), block}))
        call('ZADD', LANES, 0, lane)
    end
    let_in(lane)
end

-- Ends a run that is over.
function commands.release(id, start, block, again)
    local v = call('HMGET', task(id), 'f', 'w', 'lane')
    if v[1] ~= start then return stale(start, again) end
    leave(id, v[3], v[2])
    go_on(v[3], id, block)
    return answer('done', era())
end

-- Ends a run that is followed by another one of the same task, which may be in another queue.
function commands.requeue(id, start, message, due, crashed, queue, again)
    local v = call('HMGET', task(id), 'f', 'w')
    if v[1] ~= start then return stale(start, again) end
    take_back(id, v[2])
    call('HDEL', task(id), 'n', 'c')
    call('HSET', task(id), 'm', message, 'queue', queue)
    if crashed == '1' then call('HSET', task(id), 'n', 1) end
    if tonumber(due) <= now then
        send(id)
    else
        call('ZADD', DUE, due, id)
    end
    return answer('done', era())
end

-- Ends a start whose run is to start again: the next delivery of it may. `sent`: the run is sent anew instead.
function commands.back(id, start, again)
    local v = call('HMGET', task(id), 'f', 'w', 'x')
    if v[1] ~= start then return stale(start, again) end
    if v[3] then
        take_back(id, v[2])
        send(id)
        return answer('sent', era())
    end
    call('SREM', of(v[2]), id)
    call('HDEL', task(id), 'f', 'w', 'd')
    return answer('done')
end

-- Confirms that these were sent: id, pass, id, pass, ...
function commands.confirm(...)
    local pairs_ = {...}
    for i = 1, #pairs_, 2 do
        local v = call('HMGET', task(pairs_[i]), 'e', 'r', 'f')
        if v[2] then
            forget(pairs_[i])
        elseif v[1] == pairs_[i + 1] and not v[3] then
            call('ZREM', DUE, pairs_[i])
        end
    end
    return answer('done')
end

-- Takes a run out of its lane that no process holds, and that was made a dead letter before it was delivered.
function commands.bury(id, pass, block)
    local v = call('HMGET', task(id), 'e', 'f', 'lane')
    if v[1] ~= pass or v[2] or not v[3] then return answer('stale') end
    leave(id, v[3])
    go_on(v[3], id, block)
    return answer('done', era())
end

-- Takes a run out that no process holds. `held`: a process holds it.
function commands.remove(id)
    local v = call('HMGET', task(id), 'lane', 'queue', 'm', 'k', 'f')
    if not v[1] then return answer('unknown') end
    if v[5] then return answer('held', v[2]) end
    if v[4] then
        no_longer_in_line(id, v[1], v[2])
        forget(id)
    else
        leave(id, v[1])
    end
    let_in(v[1])
    return answer('removed', v[3], era())
end

-- Where a run is.
function commands.find(id)
    local v = call('HMGET', task(id), 'm', 'w', 'lane')
    if not v[3] then return answer('unknown') end
    return answer(v[2] and 'held' or 'waits', v[2] or v[1])
end

-- Moves a lever of a lane: ends its block, or sets or ends a limit by hand.
function commands.steer(lane, lever, value)
    local moved = 1
    if lever == 'unblock' then
        moved = call('HDEL', state(lane), 'blocked')
    elseif value == '' then
        call('HDEL', state(lane), 'adjusted')
    else
        call('HSET', state(lane), 'adjusted', value)
        call('ZADD', LANES, 0, lane)
    end
    let_in(lane)
    return answer(moved == 1 and 'done' or 'none', era())
end

-- The facts of a lane, with the messages of the first `shown` runs that wait.
local function facts(lane, shown)
    local v = call('HMGET', state(lane), 'stated', 'adjusted', 'blocked')
    local holders, first = {}, {}
    for _, id in ipairs(call('ZRANGE', inside(lane), 0, -1)) do
        holders[#holders + 1] = {id, call('HGET', task(id), 's')}
    end
    if shown > 0 then
        for _, id in ipairs(call('ZRANGE', line(lane), 0, shown - 1)) do
            first[#first + 1] = call('HGET', task(id), 'm')
        end
    end
    return {lane, v[1], v[2], v[3], holders, call('ZCARD', line(lane)), first}
end

function commands.facts(lane, shown)
    if not call('ZSCORE', LANES, lane) then return {} end
    return {facts(lane, tonumber(shown))}
end

function commands.lanes(limit)
    local all = {}
    if tonumber(limit) > 0 then
        for _, lane in ipairs(call('ZRANGE', LANES, 0, tonumber(limit) - 1)) do
            all[#all + 1] = facts(lane, 0)
        end
    end
    return all
end

-- The number of waiting runs of a queue.
function commands.in_line(queue)
    return answer('done', call('HGET', IN_LINE, queue) or '0')
end

-- Does what is due: refuses runs that have waited long enough, sends runs that are to be sent, and frees the
-- runs of processes that are gone. Answers with the microseconds until something is due next.
function commands.sweep(limit)
    limit = tonumber(limit)
    for _, id in ipairs(call('ZRANGEBYSCORE', DEADLINES, '-inf', text(now), 'LIMIT', 0, limit)) do
        local v = call('HMGET', task(id), 'lane', 'queue', 'k')
        call('ZREM', DEADLINES, id)
        if v[3] then
            no_longer_in_line(id, v[1], v[2])
            refuse(id, 'CouldNotAcquireLock')
            let_in(v[1])
        end
    end
    for _, process in ipairs(call('ZRANGEBYSCORE', PROCESSES, '-inf', text(now), 'LIMIT', 0, limit)) do
        call('ZADD', PROCESSES, 0, process)
        for _, id in ipairs(call('SRANDMEMBER', of(process), limit)) do
            local v = call('HMGET', task(id), 'w', 'x', 'q')
            if v[1] ~= process then
                call('SREM', of(process), id)
            elseif tonumber(v[3] or 0) < now then
                if v[2] then
                    take_back(id, process)
                else
                    -- The broker may give the run's message to a process before the new one has passed the queue;
                    -- the first one counts.
                    call('SREM', of(process), id)
                    call('HDEL', task(id), 'f', 'w', 'd', 'q')
                end
                call('HSET', task(id), 'n', 1)
                send(id)
            end
        end
        if call('SCARD', of(process)) == 0 then call('ZREM', PROCESSES, process) end
    end
    for _, id in ipairs(call('ZRANGEBYSCORE', DUE, '-inf', text(now), 'LIMIT', 0, limit)) do
        if call('EXISTS', task(id)) == 1 then send(id) else call('ZREM', DUE, id) end
    end
    local wait = 3600000000
    for _, key in ipairs({DUE, DEADLINES}) do
        local first = call('ZRANGE', key, 0, 0, 'WITHSCORES')
        if first[2] then wait = math.min(wait, math.max(tonumber(first[2]) - now, 0)) end
    end
    return answer('done', era(), text(wait))
end

return commands[command](unpack(ARGV, 3))
