#!/usr/bin/env python3
"""What no client should send: sizes, nesting, encodings, fields of OpenAI's that are not supported, templates that fail. Each is a 4xx that names the field, and the server goes on."""
import json
import os
import re
import socket
import tempfile
import threading

from client import ROOT, Server, run, until

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
TEMPLATE = "{% if how == 'raise' %}{{ raise_exception('no') }}{% elif how == 'zero' %}{{ 1 // 0 }}{% elif how == 'undefined' %}{{ a.b.c }}{% elif how == 'type' %}{{ 'a' + 1 }}" \
           "{% elif how == 'long' %}{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}{% elif how == 'large' %}{{ 'a' * 1000000000 }}{% elif how == 'deep' %}" \
           "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}{% elif how == 'endless' %}{{ ('a' * 1000000) * 1000 }}{% endif %}{% for m in messages %}{{ m.content }}{% if m.content == 'raise' %}{{ raise_exception('no') }}{% endif %}{% endfor %}"

with tempfile.NamedTemporaryFile("w", suffix=".jinja") as f:
    f.write(TEMPLATE)
    f.flush()
    server = Server("--chat-template", f.name)


def chat(**fields):
    return {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2, **fields}


def text(**fields):
    return {"prompt": "Hello", "max_tokens": 2, **fields}


def memory():
    """Of the server, in MiB: the most so far."""
    with open(f"/proc/{server.process.pid}/status", encoding="utf-8") as f:
        return int(re.search(r"VmHWM:\s+(\d+)", f.read()).group(1)) / 1024


def goes_on():
    reply = server.post(TEXT, text())
    assert reply.status == 200, reply.body


def chunked(total, piece=b" " * (1 << 20)):
    """A body of so many bytes whose length is not told before, and its status."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as s:
        s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n")
        for _ in range(total // len(piece)):
            s.sendall(b"%x\r\n" % len(piece) + piece + b"\r\n")
        s.sendall(b"0\r\n\r\n")
        return s.recv(65536)


def test_bodies_of_100_mb():
    goes_on()
    before = memory()
    huge = b'{"prompt": "' + b"a" * 100_000_000 + b'"}'
    for path in (TEXT, CHAT, "/generate", "/tokenize", "/detokenize", "/nothing"):
        reply = server.post(path, huge)
        assert reply.status == (404 if path == "/nothing" else 413), (path, reply.status)
        assert reply.json()["error"]["code"] == ("not_found" if path == "/nothing" else "body_too_large")
    answer = chunked(100 << 20)
    assert answer.startswith(b"HTTP/1.1 413 ") and b'"code":"body_too_large"' in answer, answer
    assert memory() < before + 40, (before, memory())
    goes_on()


def test_lengths_of_content():
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: %s\r\n\r\n"
    for length in (b"99999999999999999999999999", b"18446744073709551615", b"9223372036854775808", b"-1", b"0x10", b"1e3", b"", b"1,2"):
        answer = server.raw(head % length + b"{}", shut=True)
        assert b" 200 " not in answer.split(b"\r\n")[0], (length, answer)
    goes_on()


def test_large_but_allowed():
    """Within the limit of a body: many values, and long ones."""
    n = 500_000
    server.refused(400, "prompt", TEXT, text(prompt=[1] * n))
    server.refused(400, "prompt", TEXT, text(prompt=["a"] * n))
    server.refused(400, "stop", TEXT, text(stop=["a"] * n))
    server.refused(400, "logit_bias", TEXT, text(logit_bias={str(i): 1 for i in range(100_000)}))
    server.refused(400, "messages", CHAT, chat(messages=[{"role": "user", "content": "word"}] * 100_000))
    server.refused(400, "f" * 95, TEXT, {"f" * 1_000_000: 1})
    server.refused(400, "a0", TEXT, {f"a{i}": i for i in range(100_000)})
    assert server.post(TEXT, text(user="u" * 1_000_000, metadata={f"a{i}": i for i in range(10_000)})).status == 200
    goes_on()


def deep(n, kind):
    return ("[" * n + "]" * n) if kind == "[" else '{"a":' * n + "1" + "}" * n


def test_nesting():
    for kind in "[{":
        for n in (5, 120, 2000, 100_000):
            for field, path, param in (("prompt", TEXT, "prompt"), ("messages", CHAT, "messages"), ("logit_bias", TEXT, "logit_bias"), ("stop", TEXT, "stop"), ("seed", TEXT, "seed"),
                                       ("tools", CHAT, "tools"), ("response_format", CHAT, "response_format"), ("text", "/tokenize", "text"), ("tokens", "/detokenize", "tokens")):
                body = "{" + ('"messages": [{"role": "user", "content": "a"}], ' if path == CHAT and field != "messages" else "") + f'"{field}": {deep(n, kind)}}}'
                reply = server.post(path, body)
                error = reply.json()["error"]
                assert reply.status == 400 and error["param"].startswith(param), (field, n, error)
            reply = server.post(CHAT, f'{{"messages": [{{"role": "user", "content": "a"}}], "max_tokens": 1, "chat_template_kwargs": {{"x": {deep(n, kind)}}}}}')
            assert reply.status == 200 if n == 5 else reply.status == 400 and reply.json()["error"]["param"] == "chat_template_kwargs", (n, reply.body)
    goes_on()


def test_invalid_utf8():
    """As bytes; as escapes of half characters it is in test_completions.py."""
    for bad in (b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"a\xe2\x82", b"\x80"):
        server.refused(400, "prompt", TEXT, b'{"max_tokens": 1, "prompt": "' + bad + b'"}')
        server.refused(400, "messages", CHAT, b'{"messages": [{"role": "user", "content": "' + bad + b'"}]}')
        server.refused(400, "text", "/tokenize", b'{"text": "' + bad + b'"}')
    server.refused(400, None, TEXT, json.dumps(text()).encode("utf-16"))
    server.refused(400, None, TEXT, b"\xef\xbb\xbf" + json.dumps(text()).encode())
    for name in ("a\nb", "\u00e9" * 200, "\u007f", "\u2028", "'%s%n"):
        message = server.refused(400, name if len(name) < 90 else ("\u00e9" * 200).encode()[:95].decode(errors="replace"), TEXT, text(**{name: 1}))
        assert "\n" not in message
    goes_on()


def test_numbers():
    huge = ("1e308", "-1e308", "1e-400", "9223372036854775807", "-9223372036854775808", "4294967296", "-1", "0.5", "1e400", "9223372036854775808", "-99999999999999999999")
    for field, good in {"n": (), "max_tokens": huge[3:4] + huge[5:6], "top_k": (), "min_tokens": (), "temperature": huge[2:3] + huge[7:8], "top_p": huge[2:3] + huge[7:8],
                        "min_p": huge[2:3] + huge[7:8], "presence_penalty": huge[2:3] + huge[6:8], "repetition_penalty": huge[7:8], "seed": huge[3:7], "logprobs": ()}.items():
        for value in huge:
            body = f'{{"prompt": "a", "max_tokens": 1, "{field}": {value}}}' if field != "max_tokens" else f'{{"prompt": "a", "stop": "a", "ignore_eos": false, "{field}": {value}}}'
            if value in good and field != "max_tokens":
                assert server.post(TEXT, body).status == 200, (field, value)
            else:
                server.refused(400, field, TEXT, body)
    for value in ("4294967296", "-1", "1e3", "99999999999999999999"):
        server.refused(400, "prompt", TEXT, f'{{"prompt": [{value}]}}')
        server.refused(400, "tokens", "/detokenize", f'{{"tokens": [{value}]}}')
        server.refused(400, "logit_bias", TEXT, f'{{"prompt": "a", "logit_bias": {{"{value}": 1}}}}')
    goes_on()


def test_missing_and_null():
    server.refused(400, "messages", CHAT, {})
    server.refused(400, "prompt", TEXT, {})
    server.refused(400, "prompt", "/generate", {"prompt": None})
    server.refused(400, "text", "/tokenize", {})
    server.refused(400, "tokens", "/detokenize", {"tokens": None})
    server.refused(400, "messages[1].content", CHAT, chat(messages=[{"role": "user", "content": "a"}, {"role": "assistant"}]))
    server.refused(400, "messages[0].content[0]", CHAT, chat(messages=[{"role": "user", "content": [{}]}]))
    goes_on()


def test_every_field_of_openai():
    """Of their reference, each is honoured (test_completions.py), without effect, or refused by name: none is ignored."""
    without_effect = {"user": "me", "metadata": {"a": "b"}, "safety_identifier": "me", "prompt_cache_key": "a", "prompt_cache_retention": "24h", "service_tier": "auto", "store": False}
    neutral = {CHAT: {"tools": [], "tool_choice": "none", "parallel_tool_calls": True, "functions": [], "function_call": "none", "response_format": {"type": "text"}, "modalities": ["text"],
                      "audio": None, "prediction": None, "reasoning_effort": None, "verbosity": None, "web_search_options": None},
               TEXT: {"suffix": "", "echo": False, "best_of": 1}}
    refused = {CHAT: {"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "auto", "parallel_tool_calls": False, "functions": [{"name": "f"}],
                      "function_call": {"name": "f"}, "response_format": {"type": "json_schema", "json_schema": {}}, "modalities": ["audio"], "audio": {"voice": "a", "format": "wav"},
                      "prediction": {"type": "content", "content": "a"}, "reasoning_effort": "high", "verbosity": "low", "web_search_options": {}, "service_tier": "priority", "store": True,
                      "stream_options": {"include_usage": True}, "prompt": "a", "echo": True, "best_of": 1, "suffix": "a"},
               TEXT: {"suffix": "a", "echo": True, "best_of": 3, "messages": [], "tools": [], "response_format": {"type": "text"}, "max_completion_tokens": 5, "store": True,
                      "service_tier": "flex", "reasoning_effort": "low"}}
    for path, body in ((CHAT, chat), (TEXT, text)):
        for field, value in {**without_effect, **neutral[path]}.items():
            assert server.post(path, body(**{field: value})).status == 200, (path, field)
        for field, value in refused[path].items():
            assert field in server.refused(400, field, path, body(**{field: value}))
        for field in ("user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"):
            server.refused(400, field, path, body(**{field: 5}))
        server.refused(400, "metadata", path, body(metadata="a"))
        server.refused(400, "stream_options.include_obfuscation", path, body(stream=True, stream_options={"include_obfuscation": True}))
        server.refused(400, "stream_options.include_usage", path, body(stream=True, stream_options={"include_usage": "yes"}))
        server.refused(400, "stream_options.other", path, body(stream=True, stream_options={"other": 1}))
    for part, param in (({"type": "image_url", "image_url": {"url": "a"}}, ""), ({"type": "input_audio", "input_audio": {}}, ""), ({"type": "file", "file": {}}, ""), ({"type": "refusal", "refusal": "a"}, ""),
                        ({"type": "text", "text": "a", "cache_control": {}}, ".cache_control"), ({"type": 5, "text": "a"}, ""), ({"type": "text", "text": 5}, "")):
        server.refused(400, "messages[0].content[0]" + param, CHAT, chat(messages=[{"role": "user", "content": [part]}]))
    for field, value in {"tool_calls": [{"id": "a"}], "function_call": {}, "audio": {"id": "a"}, "refusal": "no", "tool_call_id": "a", "annotations": []}.items():
        server.refused(400, f"messages[0].{field}", CHAT, chat(messages=[{"role": "assistant", "content": "a", field: value}]))
        assert server.post(CHAT, chat(messages=[{"role": "assistant", "content": "a", field: None}])).status == 200
    for role in ("tool", "function", "", "User", 5, None):
        server.refused(400, "messages[0].role", CHAT, chat(messages=[{"role": role, "content": "a"}]))


def test_template_errors():
    for how in ("raise", "zero", "undefined", "type", "long", "large", "deep", "endless"):
        message = server.refused(400, "messages", CHAT, chat(chat_template_kwargs={"how": how}))
        assert message.startswith("line 1: "), message
    for name in ("messages", "tools", "documents", "add_generation_prompt", "bos_token"):
        server.refused(400, f"chat_template_kwargs.{name}", CHAT, chat(chat_template_kwargs={name: 1}))
    for value in (5, "a", []):
        server.refused(400, "chat_template_kwargs", CHAT, chat(chat_template_kwargs=value))
    goes_on()


def test_stored_inputs():
    """Those of the fuzz target, several at a time: none is a server's error."""
    folder = os.path.join(ROOT, "tests/fuzz/corpus/request")
    inputs = []
    for name in sorted(os.listdir(folder)):
        with open(os.path.join(folder, name), "rb") as f:
            data = f.read()
        path = {"c": CHAT, "t": TEXT, "g": "/generate", "k": "/tokenize", "d": "/detokenize"}[data[:1].decode()]
        inputs.append((name, path, data[1:]))
    answers = {}

    def send(mine):
        for name, path, body in mine:
            answers[name] = server.post(path, body).status

    threads = [threading.Thread(target=send, args=(inputs[i::4],)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for name, *_ in inputs:
        assert answers[name] == 200 if name.startswith("good") else 400 <= answers[name] < 500, (name, answers[name])


def test_stop():
    until(lambda: b"m40llm_running 0\n" in server.get("/metrics").body)
    assert b'class="5"} 0\n' in server.get("/metrics").body
    server.stop()


run([f for name, f in list(globals().items()) if name.startswith("test_")])
