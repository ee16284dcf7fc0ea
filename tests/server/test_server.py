#!/usr/bin/env python3
"""The server from outside: what every request passes, what the server says about itself, start and end."""
import os
import tempfile
import socket
import subprocess

from client import BIN, MODEL, Server, run

server = Server("--max-body", "64K", "--idle", "2")


def test_health_and_models():
    assert server.get("/health").json() == {"status": "ready"}
    models = server.get("/v1/models").json()
    assert models["object"] == "list" and [m["id"] for m in models["data"]] == ["demo"]
    assert models["data"][0]["object"] == "model" and models["data"][0]["meta"]["n_vocab"] == 4096


def test_props():
    props = server.get("/props").json()
    assert props["model"] == "demo" and props["device"] == "cpu" and props["limits"]["n_ctx"] == 1024
    assert props["limits"]["max_body_bytes"] == 65536 and props["chat_template"] is None


def test_head():
    reply = server.request("HEAD", "/health")
    assert reply.status == 200 and reply.body == b"" and reply.headers["content-length"] == "18"


def test_page():  # what it does: test_page.py
    reply = server.get("/")
    assert reply.status == 200 and reply.headers["content-type"] == "text/html; charset=utf-8" and reply.body.startswith(b"<!doctype html>")
    policy = reply.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-") and "unsafe" not in policy and "*" not in policy and "http" not in policy
    assert reply.headers["cache-control"] == "no-cache" and reply.headers["x-content-type-options"] == "nosniff"
    tag = reply.headers["etag"]
    again = server.get("/", If_None_Match=f'"other", W/{tag}')
    assert again.status == 304 and again.body == b"" and again.headers["etag"] == tag
    assert server.get("/", If_None_Match='"other"').status == 200
    head = server.request("HEAD", "/")
    assert head.status == 200 and head.body == b"" and head.headers["content-length"] == str(len(reply.body))
    assert server.post("/", {}).status == 405
    assert server.get("/health").headers["cache-control"] == "no-store"


def test_unknown_path_and_method():
    reply = server.get("/nothing?a=b")
    assert reply.status == 404 and reply.json()["error"]["code"] == "not_found"
    reply = server.request("DELETE", "/v1/models")
    assert reply.status == 405 and reply.headers["allow"] == "GET" and reply.json()["error"]["type"] == "invalid_request_error"


def test_long_header():
    assert server.get("/health", X_Long="a" * 100000).status in (413, 431)
    assert server.get("/" + "a" * 100000).status in (413, 414, 431)


def test_malformed_http():
    for data in (b"\r\n\r\n", b"GET\r\n\r\n", b"GET /health HTTP/9.9\r\n\r\n", b"POST /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n", b"\0" * 1000 + b"\r\n\r\n",
                 b"GET /health HTTP/1.1\r\n\r\n", b"\xff\xfe /\x01 HTTP/1.1\r\nHost: localhost\r\n\r\n"):
        answer = server.raw(data, shut=True)
        assert answer == b"" or b" 200 " not in answer.split(b"\r\n")[0], (data, answer)
    assert server.get("/health").status == 200


def test_slow_client_is_disconnected():
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as s:
        s.sendall(b"GET /hea")
        while s.recv(4096):  # an answer or none, but the end, within the limit
            pass


def test_key():
    with tempfile.NamedTemporaryFile("w") as f:
        f.write("the-key\nanother line\n")
        f.flush()
        guarded = Server("--api-key-file", f.name)
    assert guarded.get("/health").status == 200 and guarded.get("/").status == 200
    for header in ({}, {"Authorization": "Bearer"}, {"Authorization": "Bearer "}, {"Authorization": "Bearer the-ke"}, {"Authorization": "Bearer the-key2"},
                   {"Authorization": "Basic the-key"}, {"Authorization": "Bearer the-kez"}):
        reply = guarded.get("/v1/models", **header)
        assert reply.status == 401 and reply.json()["error"]["code"] == "invalid_api_key", header
        assert reply.headers["www-authenticate"] == "Bearer"
        assert guarded.get("/nothing", **header).status == 401
    assert guarded.get("/v1/models", Authorization="Bearer the-key").status == 200
    assert guarded.get("/v1/models", Authorization="bearer the-key").status == 200
    guarded.stop()
    assert not guarded.line("the-key")


def test_warns_when_open_to_a_network():
    opened = Server("--host", "0.0.0.0", wait=False)
    opened.wait_for("open to the network")
    opened.wait_for("ready")
    opened.stop()
    assert not server.line("open to the network")


def test_bad_flags():
    def status(*flags):
        return subprocess.run([BIN, "serve", MODEL, "--device", "cpu", *flags], capture_output=True, timeout=60).returncode

    assert status("--port", "70000") == 2
    assert status("--api-key", "") == 2
    assert status("--api-key", "a", "--api-key-file", "/dev/null") == 2
    assert status("--api-key-file", "/nonexistent") == 1
    assert status("--port", str(server.port)) == 1
    assert status("--host", "256.1.1.1.invalid", "--port", "0") == 1


def test_stops_while_loading():
    early = Server(wait=False)
    early.stop()


def test_log():
    server.get("/a%0a%1b[31mb")
    assert " GET /a??[31mb 404 " in server.wait_for("[31m")


def test_no_descriptor_is_left():
    def count():
        return len(os.listdir(f"/proc/{server.process.pid}/fd"))

    server.get("/health")
    before = count()
    for _ in range(50):
        server.get("/health")
        server.get("/nothing")
    assert count() <= before + 1, (before, count())


def test_stop():
    server.stop()


run([f for name, f in list(globals().items()) if name.startswith("test_")])
