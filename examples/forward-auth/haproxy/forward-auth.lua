-- Asks Portcullis about a request, as Traefik's forwardAuth does, with HAProxy's own HTTP client.
--   http-request lua.forward_auth 127.0.0.1:8080
-- Only a 200 lets the request go on, with the headers of the answer; every other answer goes to the client. No answer: 503.

-- What the answer says in place of what the client sent. An empty value removes it.
local told = {
    "x-forwarded-user", "x-forwarded-groups", "x-forwarded-email", "x-forwarded-preferred-username",
    "cookie", "authorization", "x-api-key",
}

-- What is for one hop only, or is said anew.
local left_out = {
    ["connection"] = true, ["content-length"] = true, ["transfer-encoding"] = true, ["expect"] = true, ["te"] = true,
    ["trailer"] = true, ["upgrade"] = true, ["keep-alive"] = true, ["proxy-connection"] = true,
    ["x-forwarded-for"] = true, ["x-forwarded-method"] = true, ["x-forwarded-host"] = true,
    ["x-forwarded-proto"] = true, ["x-forwarded-uri"] = true,
}

-- What of an answer is not for the client.
local kept_back = { ["connection"] = true, ["content-length"] = true, ["transfer-encoding"] = true, ["keep-alive"] = true }

local function list(values)
    local all, at = {}, 0
    while values and values[at] do
        all[#all + 1] = values[at]
        at = at + 1
    end
    return all
end

local function question(txn)
    local headers = {}
    for name, values in pairs(txn.http:req_get_headers()) do
        if not left_out[name] then
            headers[name] = list(values)
        end
    end
    headers["x-forwarded-for"] = { txn.sf:src() }
    headers["x-forwarded-method"] = { txn.sf:method() }
    headers["x-forwarded-host"] = { txn.sf:req_fhdr("host") or "" }
    headers["x-forwarded-proto"] = { txn.sf:ssl_fc() == 1 and "https" or "http" }
    headers["x-forwarded-uri"] = { txn.sf:pathq() or "" }
    return headers
end

local function refuse(txn, status, headers, body)
    local reply = txn:reply({ status = status })
    for name, values in pairs(headers) do
        if not kept_back[name] then
            for _, value in ipairs(list(values)) do
                reply:add_header(name, value)
            end
        end
    end
    reply:set_body(body or "")
    txn:done(reply)
end

core.register_action("forward_auth", { "http-req" }, function(txn, address)
    local client = core.httpclient()
    local answer = client:get({
        url = "http://" .. address .. "/.gateway/check", headers = question(txn), timeout = 5000,
    })
    if not answer or not answer.status or answer.status == 0 then
        return refuse(txn, 503, {}, "")
    end
    local headers = answer.headers or {}
    if answer.status ~= 200 then
        return refuse(txn, answer.status, headers, answer.body)
    end
    for _, name in ipairs(told) do
        txn.http:req_del_header(name)
        for _, value in ipairs(list(headers[name])) do
            if value ~= "" then
                txn.http:req_add_header(name, value)
            end
        end
    end
end, 1)
