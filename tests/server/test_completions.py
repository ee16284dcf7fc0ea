#!/usr/bin/env python3
"""Chats and completions: shapes, streams, parameters, bad input, clients that leave. The demo model has no chat template: it is given one."""
import json
import math
import re
import select
import socket
import struct
import tempfile
import threading
import time

from client import Server, run, until

TEMPLATE = "{% for m in messages %}{% if m.content == 'raise' %}{{ raise_exception('no such thing') }}{% endif %}[{{ m.role }}] {{ m.content }}\n{% endfor %}" \
           "The old man{% if think %}<think>\n{% endif %}"
PROMPT = "The old man sat by the fire and"
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"

with tempfile.NamedTemporaryFile("w", suffix=".jinja") as f:
    f.write(TEMPLATE)
    f.flush()
    server = Server("--chat-template", f.name, "--max-requests", "24", "--idle", "5", "--drain", "2", "--max-body", "1M")


def chat(**fields):
    return {"model": "demo", "messages": [{"role": "user", "content": "Hello there"}], "max_tokens": 12, "temperature": 0, **fields}


def text(**fields):
    return {"model": "demo", "prompt": PROMPT, "max_tokens": 12, "temperature": 0, **fields}


def ok(path, body):
    reply = server.post(path, body)
    assert reply.status == 200, (reply.status, reply.body)
    return reply


def test_completion():
    answer = ok(TEXT, text()).json()
    assert set(answer) == {"id", "object", "created", "model", "system_fingerprint", "choices", "usage"}
    assert answer["object"] == "text_completion" and answer["model"] == "demo" and answer["id"].startswith("cmpl-")
    (choice,) = answer["choices"]
    assert choice["index"] == 0 and choice["finish_reason"] == "length" and choice["logprobs"] is None and choice["text"].strip()
    usage = answer["usage"]
    assert usage["completion_tokens"] == 12 and usage["total_tokens"] == 12 + usage["prompt_tokens"] and usage["prompt_tokens"] > 3
    assert ok(TEXT, text(prompt=[PROMPT])).json()["choices"] == answer["choices"]


def test_chat():
    answer = ok(CHAT, chat()).json()
    assert answer["object"] == "chat.completion" and answer["id"].startswith("chatcmpl-")
    (choice,) = answer["choices"]
    assert set(choice) == {"index", "message", "logprobs", "finish_reason"} and choice["finish_reason"] == "length"
    assert choice["message"]["role"] == "assistant" and choice["message"]["content"].strip() and choice["message"]["refusal"] is None
    parts = [{"type": "text", "text": "Hello"}, {"type": "text", "text": " there"}]
    assert ok(CHAT, chat(messages=[{"role": "user", "content": parts}])).json()["choices"] == answer["choices"]
    system, developer = (ok(CHAT, chat(messages=[{"role": role, "content": "x"}])).json()["choices"] for role in ("system", "developer"))
    assert system == developer


def test_same_with_template_or_without():
    by_chat = ok(CHAT, chat(max_tokens=20)).json()["choices"][0]["message"]["content"]
    by_text = ok(TEXT, text(prompt="[user] Hello there\nThe old man", max_tokens=20)).json()
    assert by_text["usage"]["prompt_tokens"] > 0 and by_chat


def test_streams_are_the_same_answers():
    whole = ok(TEXT, text(max_tokens=40)).json()
    reply = ok(TEXT, text(max_tokens=40, stream=True, stream_options={"include_usage": True}))
    assert reply.headers["content-type"] == "text/event-stream"
    events = reply.events()
    assert "".join(e["choices"][0]["text"] for e in events[:-1]) == whole["choices"][0]["text"]
    assert [e["choices"][0]["finish_reason"] for e in events[:-1]] == [None] * (len(events) - 2) + ["length"]
    assert events[-1]["choices"] == [] and events[-1]["usage"]["completion_tokens"] == 40
    assert all(e["usage"] is None for e in events[:-1]) and len({e["id"] for e in events}) == 1
    assert len(events) > 20  # not all at once

    whole = ok(CHAT, chat()).json()
    events = ok(CHAT, chat(stream=True)).events()
    assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""} and events[0]["object"] == "chat.completion.chunk"
    assert "".join(e["choices"][0]["delta"].get("content", "") for e in events) == whole["choices"][0]["message"]["content"]
    assert events[-1]["choices"][0]["delta"] == {} and events[-1]["choices"][0]["finish_reason"] == "length"
    assert all("usage" not in e for e in events)


def test_seeds_and_choices():
    body = text(temperature=1, seed=5, n=3)
    first = ok(TEXT, body).json()
    assert [c["index"] for c in first["choices"]] == [0, 1, 2] and len({c["text"] for c in first["choices"]}) == 3
    assert ok(TEXT, body).json()["choices"] == first["choices"]
    assert ok(TEXT, text(temperature=1, seed=6, n=3)).json()["choices"] != first["choices"]
    assert first["usage"]["completion_tokens"] == 36
    texts = ["", "", ""]
    for e in ok(TEXT, {**body, "stream": True}).events():
        texts[e["choices"][0]["index"]] += e["choices"][0]["text"]
    assert texts == [c["text"] for c in first["choices"]]
    assert ok(TEXT, text(temperature=1)).json()["choices"] != ok(TEXT, text(temperature=1)).json()["choices"]  # a seed of its own each


def test_stop():
    whole = ok(TEXT, text(max_tokens=30)).json()["choices"][0]["text"]
    stop = whole[20:25]
    for given in (stop, [stop], ["no such text", stop]):
        choice = ok(TEXT, text(max_tokens=30, stop=given)).json()["choices"][0]
        assert choice["finish_reason"] == "stop" and choice["text"] == whole[:whole.index(stop)]
    events = ok(TEXT, text(max_tokens=30, stop=stop, stream=True)).events()
    assert "".join(e["choices"][0]["text"] for e in events) == whole[:whole.index(stop)]


def test_logprobs_of_chats():
    choice = ok(CHAT, chat(logprobs=True, top_logprobs=3)).json()["choices"][0]
    content = choice["logprobs"]["content"]
    assert len(content) == 12
    for token in content:
        assert set(token) == {"token", "logprob", "bytes", "top_logprobs"} and len(token["top_logprobs"]) == 3
        assert token["logprob"] == token["top_logprobs"][0]["logprob"] <= 0 and token["token"] == token["top_logprobs"][0]["token"]
        assert sum(math.exp(t["logprob"]) for t in token["top_logprobs"]) <= 1.0001
    assert bytes(b for t in content for b in t["bytes"]).decode() == "".join(t["token"] for t in content) == choice["message"]["content"]
    events = ok(CHAT, chat(logprobs=True, top_logprobs=3, stream=True)).events()
    assert [t for e in events for t in (e["choices"][0]["logprobs"] or {"content": []})["content"]] == content
    assert ok(CHAT, chat(logprobs=True)).json()["choices"][0]["logprobs"]["content"][0]["top_logprobs"] == []


def test_logprobs_of_completions():
    choice = ok(TEXT, text(logprobs=2)).json()["choices"][0]
    p = choice["logprobs"]
    assert set(p) == {"tokens", "token_logprobs", "top_logprobs", "text_offset"} and all(len(v) == 12 for v in p.values())
    assert "".join(p["tokens"]) == choice["text"] and p["text_offset"][1] == len(p["tokens"][0])
    assert all(max(top.values()) == logprob for top, logprob in zip(p["top_logprobs"], p["token_logprobs"]))
    assert ok(TEXT, text(logprobs=0)).json()["choices"][0]["logprobs"]["top_logprobs"] == [{}] * 12


def test_token_ids_and_bias():
    free = ok(TEXT, text(prompt=[1, 100, 200, 300], max_tokens=4, logprobs=1)).json()
    assert free["usage"]["prompt_tokens"] == 4
    forced = ok(TEXT, text(max_tokens=4, logit_bias={"500": 100})).json()["choices"][0]["text"]
    assert len(forced) % 4 == 0 and forced[: len(forced) // 4] * 4 == forced
    stopped = ok(TEXT, text(max_tokens=4, logit_bias={"500": 100}, stop_token_ids=[500])).json()
    assert stopped["choices"][0] == {"index": 0, "text": "", "logprobs": None, "finish_reason": "stop"} and stopped["usage"]["completion_tokens"] == 0


def test_thoughts():
    body = chat(chat_template_kwargs={"think": True})
    message = ok(CHAT, body).json()["choices"][0]["message"]
    assert message["content"] == "" and message["reasoning_content"]
    events = ok(CHAT, {**body, "stream": True}).events()
    assert "".join(e["choices"][0]["delta"].get("reasoning_content", "") for e in events) == message["reasoning_content"]


def test_neutral_values_are_accepted():
    plain = ok(CHAT, chat()).json()["choices"]
    neutral = chat(tools=[], tool_choice="none", response_format={"type": "text"}, store=False, user="me", metadata={"a": "b"}, logit_bias={}, stop=None, n=1, top_p=1,
                   frequency_penalty=0, presence_penalty=0.0, audio=None, max_completion_tokens=12)
    assert ok(CHAT, neutral).json()["choices"] == plain
    body = chat()
    del body["model"]
    assert ok(CHAT, body).json()["choices"] == plain


def test_unsupported_fields_are_named():
    for field, value in {"tools": [{"type": "function"}], "tool_choice": "auto", "response_format": {"type": "json_object"}, "modalities": ["text", "audio"], "audio": {},
                         "functions": [1], "store": True, "reasoning_effort": "low", "no_such_field": 1}.items():
        assert field in server.refused(400, field, CHAT, chat(**{field: value}))
    for field, value in {"suffix": "x", "echo": True, "best_of": 2, "top_logprobs": 1, "messages": []}.items():
        server.refused(400, field, TEXT, text(**{field: value}))
    for type_ in ("image_url", "input_audio", "file"):
        server.refused(400, "messages[0].content[1]", CHAT, chat(messages=[{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": type_}]}]))
    server.refused(400, "messages[1].tool_calls", CHAT, chat(messages=[{"role": "user", "content": "a"}, {"role": "assistant", "content": "", "tool_calls": []}]))


def test_wrong_values_are_named():
    wrong = {"temperature": (-0.1, 2.1, "1", True, [], 1e308), "top_p": (-1, 1.5, {}), "n": (0, 129, 1.5, -1, "2"), "max_tokens": (0, -1, 1.5, 2**40, "a"),
             "seed": (1.5, "x"), "stream": (1, "true"), "stop": ("", 5, [1], ["a", ""], ["a"] * 65, "a" * 5000), "stream_options": ({}, 5),
             "logit_bias": ([], {"x": 1}, {"4096": 1}, {"-1": 1}, {"1": 101}, {"1": "a"}, {"1 ": 1}, {"": 1}), "stop_token_ids": (5, [-1], [4096], [1.0], [0] * 1025),
             "presence_penalty": (3, "1"), "frequency_penalty": (-2.5,), "top_k": (-1, 1.5), "min_p": (2,), "ignore_eos": (1,)}
    for field, values in wrong.items():
        for value in values:
            server.refused(400, field, TEXT, text(**{field: value}))
    for value in (None, 5, {}, [], ["a", "b"], [1.5], [-1], [4096], [True], [[1], [2]], [["a"]], [None]):
        server.refused(400, "prompt", TEXT, text(prompt=value))
    for value in (21, -1, "a"):
        server.refused(400, "logprobs", TEXT, text(logprobs=value))
        server.refused(400, "top_logprobs", CHAT, chat(logprobs=True, top_logprobs=value))
    server.refused(400, "top_logprobs", CHAT, chat(top_logprobs=2))
    for value, param in ((None, "messages"), ([], "messages"), ("a", "messages"), ([5], "messages[0]"), ([{}], "messages[0].role"), ([{"role": "tool"}], "messages[0].role"),
                         ([{"role": "user"}], "messages[0].content"), ([{"role": "user", "content": 5}], "messages[0].content"),
                         ([{"role": "user", "content": [5]}], "messages[0].content[0]"), ([{"role": "user", "content": [{"type": "text"}]}], "messages[0].content[0]"),
                         ([{"role": "user", "content": "a", "name": 5}], "messages[0].name")):
        server.refused(400, param, CHAT, chat(messages=value))
    assert "no such thing" in server.refused(400, "messages", CHAT, chat(messages=[{"role": "user", "content": "raise"}]))
    server.refused(404, "model", CHAT, chat(model="gpt-4"))
    server.refused(400, "model", CHAT, chat(model=5))


def test_no_json():
    for body in (b"", b"{", b"[]", b"5", b'"a"', b"null", b"[" * 100000, b"{} {}", b"\xff\xfe{\0}\0", b"{\"\xff\": 1}", b'{"a\\"b":'):
        server.refused(400, None, TEXT, body)
    for body, field in ((b'{"prompt": "\xff"}', "prompt"), (b'{"prompt": "\\u0000"}', "prompt"), (b'{"prompt": "\\ud800"}', "prompt"), (b'{"a":' * 100000, "a"),
                        (b'{"prompt": "a", "prompt": "b"}', "prompt"), (b'{"seed": 99999999999999999999999}', "seed"), (b'{"temperature": 1e999}', "temperature"),
                        (b'{"a": NaN}', "a"), (b'{"n": 1, "stop": ["a", "x\\"}, {", {"n": [tru', "stop"), (b'{"n": 1, "stop": ["b"], "top_p" 5}', "top_p"),
                        (b'{"n": 1,, "stop": 1}', None), (b'{"messages": [' + b"[" * 5000, "messages")):
        message = server.refused(400, field, TEXT, body)
        assert "line 1, column " in message, message
    assert server.post(TEXT, json.dumps(text()), Content_Type="text/plain").status == 415
    assert server.post(TEXT, json.dumps(text()), Content_Type="application/json; charset=utf-8").status == 200
    assert server.get(CHAT).status == 405


def test_long_bodies():
    server.refused(413, None, TEXT, text(prompt="a" * 2_000_000))
    got = server.raw(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: 99999999\r\n\r\n", shut=True)
    assert got.startswith(b"HTTP/1.1 413 "), got


def test_context_is_full():
    message = server.refused(400, "prompt", TEXT, text(prompt=[5] * 1030))
    assert "1030" in message and "6" in message
    assert server.post(TEXT, text(prompt="word " * 3000)).json()["error"]["code"] == "context_length_exceeded"
    assert ok(TEXT, text(prompt=[5] * 1020, max_tokens=500, ignore_eos=True)).json()["choices"][0]["finish_reason"] == "length"


def stream_socket(**fields):
    s = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    body = json.dumps(text(max_tokens=1000, ignore_eos=True, **fields)).encode()
    s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    return s


def metrics():
    reply = server.get("/metrics")
    assert reply.status == 200 and reply.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = reply.body.decode().splitlines()
    assert reply.body.endswith(b"\n") and all(re.fullmatch(r"# (HELP|TYPE) m40llm_\w+ .+|m40llm_\w+(\{\w+=\"[^\"]+\"\})? [-+.e0-9]+", line) for line in lines)
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}


def is_idle():
    now = metrics()
    return now["m40llm_waiting"] == now["m40llm_running"] == now['m40llm_kv_pages{state="used"}'] == 0


def gone_lines():
    return sum(line.endswith(" gone") for line in list(server.log))


def test_clients_that_leave():
    """Streaming or not, closing or resetting: the request is over within a second."""
    for stream in (True, False):
        for reset in (False, True):
            before = gone_lines()
            s = stream_socket(stream=stream)
            if stream:
                assert s.recv(10)
            else:
                time.sleep(0.15)
            if reset:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            s.close()
            until(lambda: gone_lines() == before + 1 and is_idle(), 1.0)


def test_queue_is_full():
    before = gone_lines()
    until(is_idle)
    sockets = [stream_socket(stream=False) for _ in range(30)]
    until(lambda: len(select.select(sockets, [], [], 0)[0]) == 6)
    for s in select.select(sockets, [], [], 0)[0]:
        answer = s.recv(65536)
        assert answer.startswith(b"HTTP/1.1 429 ") and b"\r\nRetry-After: 1\r\n" in answer and b'"type":"rate_limit_error"' in answer, answer
    for s in sockets:
        s.close()
    until(lambda: gone_lines() == before + 24 and is_idle())
    assert ok(TEXT, text()).json()["choices"]


def test_many_at_once():
    """Each gets its own answer, whole or as a stream."""
    bodies = [text(temperature=1, seed=i, max_tokens=10 + i) for i in range(12)]
    alone = [ok(TEXT, b).json()["choices"][0]["text"] for b in bodies]
    got = {}

    def one(i, stream):
        reply = ok(TEXT, {**bodies[i], "stream": stream})
        got[i, stream] = "".join(e["choices"][0]["text"] for e in reply.events()) if stream else reply.json()["choices"][0]["text"]

    threads = [threading.Thread(target=one, args=(i, stream)) for i in range(12) for stream in (False, True)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert all(got[i, stream] == alone[i] for i in range(12) for stream in (False, True))


def test_connection_is_kept():
    connection = server.connect()
    for stream in (False, True, False):
        connection.request("POST", TEXT, json.dumps(text(stream=stream)), {"Content-Type": "application/json"})
        response = connection.getresponse()
        assert response.status == 200 and response.read()
    connection.request("GET", "/health")
    assert connection.getresponse().read() == b'{"status":"ready"}'
    connection.close()


def test_generate():
    whole = ok("/generate", {"prompt": PROMPT, "max_tokens": 12, "temperature": 0}).json()
    assert set(whole) == {"text", "finish_reason", "usage"} and whole["finish_reason"] == "length" and whole["usage"]["completion_tokens"] == 12
    assert whole["text"] == ok(TEXT, text()).json()["choices"][0]["text"]
    events = ok("/generate", {"prompt": PROMPT, "max_tokens": 12, "temperature": 0, "stream": True}).events()
    assert "".join(e["text"] for e in events) == whole["text"] and all(e["finish_reason"] is None for e in events[:-1])
    assert events[-1]["finish_reason"] == "length" and events[-1]["usage"]["completion_tokens"] == 12
    assert ok("/generate", {"prompt": PROMPT, "seed": 3, "top_k": 5, "max_tokens": 3}).json() == ok("/generate", {"prompt": PROMPT, "seed": 3, "top_k": 5, "max_tokens": 3}).json()
    server.refused(400, "n", "/generate", {"prompt": "a", "n": 2})
    server.refused(400, "prompt", "/generate", {})


def test_tokenize():
    answer = ok("/tokenize", {"text": PROMPT}).json()
    assert answer["count"] == len(answer["tokens"]) == ok(TEXT, text()).json()["usage"]["prompt_tokens"]
    assert ok("/detokenize", {"tokens": answer["tokens"]}).json()["text"].strip() == PROMPT
    for sample in ("", "é ü 漢字 🙂\n\t", "a" * 1000):
        tokens = ok("/tokenize", {"text": sample, "add_bos": False}).json()["tokens"]
        assert ok("/detokenize", {"tokens": tokens}).json()["text"] == sample, sample
    for value in (None, 5, ["a"]):
        server.refused(400, "text", "/tokenize", {"text": value})
        server.refused(400, "tokens", "/detokenize", {"tokens": value})
    server.refused(400, "tokens", "/detokenize", {"tokens": [4096]})
    server.refused(400, "special", "/tokenize", {"text": "a", "special": 1})
    server.refused(400, "content", "/tokenize", {"content": "a"})


def test_metrics():
    before = metrics()
    ok(TEXT, text(max_tokens=9))
    after = metrics()
    assert after["m40llm_generated_tokens_total"] == before["m40llm_generated_tokens_total"] + 9
    assert after["m40llm_requests_total"] == before["m40llm_requests_total"] + 1
    assert after['m40llm_requests_ended_total{finish="length"}'] == before['m40llm_requests_ended_total{finish="length"}'] + 1
    assert after['m40llm_http_responses_total{class="2"}'] >= before['m40llm_http_responses_total{class="2"}'] + 1
    assert after["m40llm_first_token_seconds_count"] == before["m40llm_first_token_seconds_count"] + 1
    for name in ("step_seconds", "first_token_seconds", "token_seconds", "batch_tokens"):
        buckets = [v for k, v in after.items() if k.startswith(f"m40llm_{name}_bucket")]
        assert buckets == sorted(buckets) and buckets[-1] == after[f"m40llm_{name}_count"] > 0
    until(is_idle)


def test_log_counts_tokens():
    ok(TEXT, text(max_tokens=7))
    until(lambda: server.line(" answer=7 "))


def test_stop_lets_go_on_and_then_cancels():
    """What is short ends; what is long is cancelled after --drain; what comes on an open connection is refused."""
    slow = stream_socket(stream=True, n=16)
    whole = stream_socket(stream=False, n=8)
    connection = server.connect()
    connection.request("GET", "/health")
    connection.getresponse().read()
    assert slow.recv(10)
    stopper = threading.Thread(target=server.stop)
    stopper.start()
    time.sleep(0.4)
    connection.request("GET", "/health")
    response = connection.getresponse()
    assert response.status == 503 and json.loads(response.read()) == {"status": "draining"}
    connection.request("POST", TEXT, json.dumps(text()), {"Content-Type": "application/json"})
    response = connection.getresponse()
    assert response.status == 503 and response.read()
    got = b""
    while piece := slow.recv(65536): # the server need not keep it for one who does not read
        got += piece
    stopper.join()
    assert got.rstrip().endswith((b"[DONE]\n\n\r\n0", b"}}\n\n\r\n0")), got[-300:]
    assert whole.recv(20).startswith((b"HTTP/1.1 503", b"HTTP/1.1 200"))
    slow.close()
    whole.close()


run([f for name, f in list(globals().items()) if name.startswith("test_")])
