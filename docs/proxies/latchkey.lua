-- For haproxy.cfg: asks Latchkey whether a request is allowed.
--
--   http-request lua.latchkey abns@latchkey permission=tasks:read
--
-- Allowed: sets the variable txn.latchkey_allows, the headers that tell the backend who calls, and
-- variables for the key's limits. Refused: answers the client with Latchkey's own answer. In every
-- other case, an error in here too, it leaves the variable alone, and haproxy.cfg answers 503.

-- Longer than the way to Latchkey takes, whose own limits are in haproxy.cfg.
local TIMEOUT_MS = 10000

-- Latchkey is told this much of the client's headers and no more.
local ASKED = {
    "authorization", "x-api-key", "user-agent", "origin", "access-control-request-method",
}
local IDENTITY = {
    "x-key-id", "x-key-name", "x-key-project", "x-key-environment", "x-key-owner",
    "x-key-permissions", "x-key-external-id", "x-key-expires", "x-request-id",
}
local RATE = {
    "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset", "ratelimit",
    "ratelimit-policy",
}
local REFUSAL = {
    "content-type", "cache-control", "www-authenticate", "retry-after", "x-request-id",
}
local REFUSALS = { [400] = true, [401] = true, [403] = true, [429] = true, [503] = true }

local function ask(txn, way, options)
    local headers = {
        ["x-forwarded-method"] = { txn.sf:method() },
        ["x-forwarded-uri"] = { txn.sf:pathq() },
        ["x-forwarded-for"] = { txn.sf:src() },
    }
    local sent = txn.http:req_get_headers()
    for _, name in ipairs(ASKED) do
        headers[name] = sent[name]
    end
    return core.httpclient():get{
        url = "http://127.0.0.1/forward-auth/haproxy?" .. options,
        dst = way,
        headers = headers,
        timeout = TIMEOUT_MS,
    }
end

local function allow(txn, answer)
    for _, name in ipairs(IDENTITY) do
        if not answer.headers[name] then
            return    -- whatever this is, it is not Latchkey
        end
        txn.http:req_set_header(name, answer.headers[name][0])
    end
    for _, name in ipairs(RATE) do
        if answer.headers[name] then
            local variable = name:gsub("-", "_")
            txn:set_var("txn." .. variable, answer.headers[name][0])
        end
    end
    txn:set_var("txn.latchkey_allows", true)
end

local function refuse(txn, answer)
    local reply = txn:reply{ status = answer.status, body = answer.body }
    for _, names in ipairs({ REFUSAL, RATE }) do
        for _, name in ipairs(names) do
            if answer.headers[name] then
                reply:add_header(name, answer.headers[name][0])
            end
        end
    end
    txn:done(reply)
end

core.register_action("latchkey", { "http-req" }, function(txn, way, options)
    local answer = ask(txn, way, options)
    local kind = answer.headers["content-type"]
    if answer.status == 200 then
        allow(txn, answer)
    elseif REFUSALS[answer.status] and kind and kind[0] == "application/problem+json" then
        refuse(txn, answer)
    end
end, 2)
