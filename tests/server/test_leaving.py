#!/usr/bin/env python3
"""Clients that go away, wherever their request is: it is over, and its pages are free, within a second."""
import json
import random
import socket
import struct
import time

from client import Server, run, until

PARALLEL = 4
server = Server("--parallel", str(PARALLEL), "--threads", "1", "--chunk", "64", "--idle", "3") # steps that are short on any machine
rng = random.Random(7)


def ask(buffer=0, **fields):
    """A request under way; its socket."""
    s = socket.socket()
    if buffer:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    s.settimeout(60)
    s.connect(("127.0.0.1", server.port))
    body = json.dumps({"ignore_eos": True, **fields}).encode()
    s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    return s


def long_prompt():
    """That no cache knows."""
    return [rng.randrange(300, 4000) for _ in range(1000)]


def leave(sockets, reset):
    for s in sockets:
        if reset:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        s.close()


def metrics():
    lines = server.get("/metrics").body.decode().splitlines()
    return {name.removeprefix("m40llm_"): float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}


def metric(name):
    return metrics()[name]


def is_free():
    m = metrics()
    return m["waiting"] == m["running"] == m['kv_pages{state="used"}'] == 0


def test_during_prefill():
    for stream in (False, True):
        for reset in (False, True):
            before = metric("prompt_tokens_total")
            sockets = [ask(prompt=long_prompt(), max_tokens=20, stream=stream) for _ in range(PARALLEL)]
            until(lambda: metric('kv_pages{state="used"}') > 0)
            leave(sockets, reset)
            until(is_free, 1.0)
            assert metric("prompt_tokens_total") < before + PARALLEL * 1000


def test_in_the_queue():
    """Those that run go on."""
    for stream in (False, True):
        running = [ask(prompt=[5, 6, 7], max_tokens=1000, stream=stream) for _ in range(PARALLEL)]
        until(lambda: metric("running") == PARALLEL)
        waiting = [ask(prompt=[5, 6, 7], max_tokens=1000, stream=stream) for _ in range(8)]
        until(lambda: metric("waiting") == 8)
        leave(waiting[:4], False)
        leave(waiting[4:], True)
        until(lambda: metric("waiting") == 0, 1.0)
        assert metric("running") == PARALLEL
        leave(running, False)
        until(is_free, 1.0)


def unsent(s):
    """Bytes that the kernel holds for this client, on the server's side."""
    ends = f"0100007F:{server.port:04X} 0100007F:{s.getsockname()[1]:04X} "
    with open("/proc/net/tcp", encoding="ascii") as f:
        return next((int(line.split()[4].split(":")[0], 16) for line in f if ends in line), 0)


def full_buffer():
    """A stream that is not read, and of which nothing more can be sent; the answer goes on."""
    s = ask(buffer=4096, prompt=[5, 6, 7], max_tokens=1000, n=PARALLEL, logprobs=20, stream=True)
    held = 0
    while held == 0 or held != unsent(s): # as much as a hundred tokens ago
        held, n_tokens = unsent(s), metric("generated_tokens_total")
        until(lambda n_tokens=n_tokens: metric("generated_tokens_total") > n_tokens + 100, 60)
    return s


def test_with_a_full_buffer():
    """Closing resets the connection, since something was not read."""
    s = full_buffer()
    assert server.post("/tokenize", {"text": "a"}).status == 200 # nobody else waits for it
    assert metric("running") == PARALLEL
    leave([s], False)
    until(is_free, 1.0)


def test_that_never_reads():
    """It is there, and takes nothing: --idle ends that."""
    s = full_buffer()
    until(lambda: metric("http_requests_open") == 1 and is_free(), 60)
    s.close()


def test_stop():
    server.stop()


run([f for name, f in list(globals().items()) if name.startswith("test_")])
