"""What the soak's clients do: ask and compare, leave in every way, and send what no client should. Each action raises where the server does anything but what it should."""
import json
import random
import socket
import struct
import time

CHAT, TEXT, GENERATE = "/v1/chat/completions", "/v1/completions", "/generate"
WORDS = "the old man sea house and went night said river green child stone wind long far it was a of in her eyes".split()


class Wrong(Exception):
    """The server did what it should not."""


def expect(condition, *what):
    if not condition:
        raise Wrong(*what)


# ---- requests whose answers are known ----

def words(rng, n):
    return " ".join(rng.choice(WORDS) for _ in range(n))


def known_request(rng, beginnings):
    """A path and a body with a fixed seed, of any size and shape. Some begin as others do: their pages are shared."""
    path = rng.choice([CHAT, CHAT, TEXT, TEXT, GENERATE])
    prompt = rng.choice([words(rng, rng.choice([1, 5, 30, 200])), rng.choice(beginnings) + words(rng, rng.randrange(1, 40))])
    body = {"seed": rng.randrange(1 << 30), "temperature": rng.choice([0, 0.7, 1, 1.5]), "max_tokens": rng.choice([1, 2, 8, 20, 33, 64])}
    if path == CHAT:
        body["messages"] = [{"role": "system", "content": rng.choice(beginnings)}] * rng.randrange(2) + [{"role": "user", "content": prompt}]
    else:
        body["prompt"] = prompt
    for field, value, odds in (("stop", [rng.choice(WORDS), "."], 0.3), ("top_p", 0.8, 0.3), ("top_k", 20, 0.2), ("min_p", 0.05, 0.1), ("frequency_penalty", 0.5, 0.2),
                               ("repetition_penalty", 1.1, 0.1), ("ignore_eos", True, 0.5), ("min_tokens", 3, 0.2), ("logit_bias", {"100": 5, "200": -100}, 0.1)):
        if rng.random() < odds:
            body[field] = value
    if path != GENERATE and rng.random() < 0.4:
        body["n"] = rng.randrange(1, 5)
    if path == CHAT and rng.random() < 0.4:
        body.update(logprobs=True, top_logprobs=rng.randrange(0, 6))
    if path == TEXT and rng.random() < 0.4:
        body["logprobs"] = rng.randrange(0, 6)
    return path, body


def merge_logprobs(so_far, more):
    """A stream's logprobs, one part behind the other."""
    for name, values in (more or {}).items():
        if isinstance(values, list):
            so_far.setdefault(name, []).extend(values)


def essence(path, objects):
    """What an answer says, the same whether whole or as the parts of a stream: of each choice its texts, logprobs and finish reason, and the token counts."""
    choices, usage = {}, None
    for o in objects:
        usage = o.get("usage") or usage
        for choice in [o] if path == GENERATE else o["choices"]:
            c = choices.setdefault(choice.get("index", 0), {"text": "", "thought": "", "logprobs": {}, "finish": None})
            said = choice.get("delta") or choice.get("message") or {"content": choice.get("text")}
            c["text"] += said.get("content") or ""
            c["thought"] += said.get("reasoning_content") or ""
            c["finish"] = choice["finish_reason"] or c["finish"]
            merge_logprobs(c["logprobs"], choice.get("logprobs"))
    return choices, usage["prompt_tokens"], usage["completion_tokens"]


def ask(server, path, body, stream, connection=None):
    """The answer's essence; comes again when the queue is full."""
    if stream:
        body = {**body, "stream": True, **({} if path == GENERATE else {"stream_options": {"include_usage": True}})}
    own = connection or server.connect()
    while True:
        own.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        response = own.getresponse()
        data = response.read()
        if response.status != 429:
            break
        expect(response.getheader("Retry-After"), "a 429 without Retry-After")
        time.sleep(0.2)
    if not connection:
        own.close()
    expect(response.status == 200, path, body, response.status, data)
    if not stream:
        return essence(path, [json.loads(data)])
    parts = data.decode().split("\n\n")
    expect(parts[-2:] == ["data: [DONE]", ""], "the stream's end", path, body, data[-300:])
    return essence(path, [json.loads(part.removeprefix("data: ")) for part in parts[:-2]])


def compare(server, rng, known):
    path, body, answer = rng.choice(known)
    stream = rng.random() < 0.6
    got = ask(server, path, body, stream)
    expect(got == answer, "another answer than alone", path, body, stream, got, answer)


def several_on_one_connection(server, rng, known):
    connection = server.connect()
    for _ in range(rng.randrange(2, 5)):
        path, body, answer = rng.choice(known)
        expect(ask(server, path, body, rng.random() < 0.5, connection) == answer, "another answer than alone", path, body)
    connection.close()


# ---- clients that leave ----

def head(path, n_bytes):
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {n_bytes}\r\n\r\n".encode()


def open_socket(server, buffer=0):
    s = socket.socket()
    if buffer:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    s.settimeout(60)
    s.connect(("127.0.0.1", server.port))
    return s


def long_request(server, rng, buffer=0, stream=True, n=None, max_tokens=900, prompt=None):
    s = open_socket(server, buffer)
    body = {"prompt": prompt or words(rng, rng.choice([2, 100, 300])), "max_tokens": max_tokens, "ignore_eos": True, "n": n or rng.randrange(1, 4), "stream": stream}
    if rng.random() < 0.3:
        body["logprobs"] = 3
    data = json.dumps(body).encode()
    s.sendall(head(TEXT, len(data)) + data)
    return s


def hang_up(s, rng):
    if rng.random() < 0.5: # a reset instead of an orderly end
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close()


def leave(server, rng, _known):
    s = long_request(server, rng, stream=rng.random() < 0.7)
    if rng.random() < 0.5:
        time.sleep(rng.random() * 0.5)
    else:
        s.settimeout(rng.random() + 0.01)
        try:
            s.recv(rng.randrange(1, 5000))
        except TimeoutError:
            pass
    hang_up(s, rng)


def leave_half(server, rng, _known):
    """Closes its own side alone, and reads on: the request is over, the connection ends."""
    s = long_request(server, rng, stream=rng.random() < 0.7)
    time.sleep(rng.random() * 0.3)
    s.shutdown(socket.SHUT_WR)
    start = time.monotonic()
    try:
        while s.recv(65536):
            pass
    except ConnectionResetError:
        pass
    s.close()
    expect(time.monotonic() - start < 30, "a half-closed connection lives on")


def leave_in_the_body(server, rng, _known):
    s = open_socket(server)
    data = b'{"prompt": "' + b"a" * rng.randrange(1, 200000)
    s.sendall(rng.choice([b"", b"GET /he", head(TEXT, len(data) + 100)]) or b"P")
    if rng.random() < 0.5:
        try:
            s.sendall(data[:rng.randrange(len(data))])
        except (ConnectionResetError, BrokenPipeError): # what is no HTTP is refused at once
            pass
    hang_up(s, rng)


def do_not_read(server, rng, _known):
    """Lets the answer pile up, then reads it all, or goes."""
    s = long_request(server, rng, buffer=4096, stream=True, n=4, max_tokens=200)
    time.sleep(rng.random() * 3)
    if rng.random() < 0.5:
        hang_up(s, rng)
        return
    got = s.recv(65536)
    if got.startswith(b"HTTP/1.1 429 "):
        s.close()
        return
    while not got.endswith(b"0\r\n\r\n"):
        piece = s.recv(65536)
        expect(piece, "a stream that was read late has no end", got[-300:])
        got = got[-1000:] + piece
    s.close()
    expect(b"data: [DONE]\n\n\r\n0\r\n\r\n" in got, "a stream that was read late", got[-300:])


def burst(server, rng, _known):
    """More than the queue has room for; all leave."""
    sockets = [long_request(server, rng, stream=rng.random() < 0.5) for _ in range(280)]
    time.sleep(rng.random())
    for s in sockets:
        hang_up(s, rng)


# ---- what no client should send ----

BAD_BODIES = [(400, b) for b in (
    b"", b"{", b"[]", b"null", b'{"prompt": "\xff"}', b'{"prompt": "\\u0000"}', b"[" * 50000, b'{"a":' * 50000, b'{"prompt": "a", "prompt": "b"}', b'{"seed": 9e99, "prompt": "a"}',
    b'{"prompt": "a", "temperature": -1}', b'{"prompt": "a", "max_tokens": -5}', b'{"prompt": "a", "n": 1e30}', b'{"prompt": "a", "n": 1000}', b'{"prompt": [5000000]}', b'{"prompt": 5}', b"{}",
    b'{"prompt": "a", "stop": [""]}', b'{"prompt": "a", "logit_bias": {"x": 1}}', b'{"prompt": "a", "stream": "yes"}', b'{"prompt": "a", "no_such_field": 1}', b'{"prompt": ""' + b" " * 5000)]
BAD_BODIES += [(400, json.dumps({"prompt": "word " * 5000}).encode()), (404, b'{"prompt": "a", "model": "other"}'), (413, b'{"prompt": "' + b"a" * 1500000 + b'"}')]


def bad_body(server, rng, _known):
    status, body = rng.choice(BAD_BODIES)
    reply = server.post(TEXT, body)
    expect(reply.status == status and reply.json()["error"]["message"], "a bad body", body[:100], reply.status, reply.body[:300])


BAD_MESSAGES = ([], "a", [5], [{}], [{"role": "tool", "content": "a"}], [{"role": "user"}], [{"role": "user", "content": [{"type": "image_url"}]}], [{"role": "user", "content": "raise"}])


def bad_chat(server, rng, _known):
    reply = server.post(CHAT, {"messages": rng.choice(BAD_MESSAGES)})
    expect(reply.status == 400 and reply.json()["error"]["param"].startswith("messages"), reply.status, reply.body)


BAD_HTTP = [b"\r\n\r\n", b"GET\r\n\r\n", b"GET /health HTTP/9.9\r\n\r\n", b"POST /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n", b"\0" * 1000 + b"\r\n\r\n", b"\xff\xfe /\x01 HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"GET /" + b"a" * 60000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 10000 + b"\r\n",
            b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"]


def bad_http(server, rng, _known):
    data = rng.choice(BAD_HTTP + [rng.randbytes(rng.randrange(1, 3000)) + b"\r\n\r\n"])
    try:
        answer = server.raw(data, shut=True)
    except OSError: # refused before all of it was sent
        return
    expect(b" 200 " not in answer.split(b"\r\n")[0], "no HTTP", data[:100], answer[:300])


def other_requests(server, rng, _known):
    for method, path, status in rng.sample([("GET", "/health", 200), ("GET", "/metrics", 200), ("GET", "/props", 200), ("GET", "/v1/models", 200), ("HEAD", "/health", 200),
                                            ("GET", "/nothing", 404), ("GET", TEXT, 405), ("DELETE", "/v1/models", 405)], 3):
        reply = server.request(method, path)
        expect(reply.status == status, method, path, reply.status, reply.body)
    text = "".join(chr(rng.choice([rng.randrange(32, 127), rng.randrange(0xa0, 0x800), rng.randrange(0x4e00, 0x9000), 0x1f600])) for _ in range(rng.randrange(200)))
    tokens = server.post("/tokenize", {"text": text, "add_bos": False}).json()["tokens"]
    expect(server.post("/detokenize", {"tokens": tokens}).json()["text"] == text, "other text after /tokenize and /detokenize", text)


# Each with how often it is done.
ACTIONS = [(compare, 40), (several_on_one_connection, 6), (leave, 15), (leave_half, 4), (leave_in_the_body, 4), (do_not_read, 3), (bad_body, 10), (bad_chat, 3), (bad_http, 4), (other_requests, 5),
           (burst, 0.3)]


def choose_action(rng):
    return rng.choices([a for a, _ in ACTIONS], [odds for _, odds in ACTIONS])[0]


def make_known(server, seed, n):
    """n requests with their answers, each asked alone."""
    rng = random.Random(seed)
    beginnings = [words(rng, 90) + " " for _ in range(4)]
    requests = [known_request(rng, beginnings) for _ in range(n)]
    return [(path, body, ask(server, path, body, False)) for path, body in requests]
