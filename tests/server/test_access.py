#!/usr/bin/env python3
"""Who may ask, and how: CORS, names of the host, TLS, keys, clients that dribble."""
import json
import os
import socket
import ssl
import subprocess
import tempfile
import threading
import time
import warnings

from client import BIN, MODEL, Server, run, until

TEXT = "/v1/completions"
BODY = {"prompt": "The old man", "max_tokens": 3}
PAGE = "http://page.example:3000"
FOLDER = tempfile.TemporaryDirectory()


def file(name, content=None):
    path = os.path.join(FOLDER.name, name)
    if content is not None:
        with open(path, "w", encoding="utf-8") as f:
            f.write(content)
    return path


def make_certificate(name):
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
                    "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", file(name + ".key"), "-out", file(name + ".crt")], check=True, capture_output=True)


def openssl(*args):
    return subprocess.run(["openssl", *args], check=True, capture_output=True, text=True).stdout


make_certificate("one")
make_certificate("two")
plain = Server("--idle", "1")
shared = Server("--cors", PAGE + ",https://other.example", "--cors", "http://third.example", "--api-key-file", file("key", "the key\r\nnot this\n"), "--allow-host",
                "box.lan,second.lan", "--max-body", "64K")
KEY = "Bearer the key"


# ---- CORS ----

def test_no_cors_unless_told():
    for path in ("/health", "/v1/models", "/nothing"):
        reply = plain.get(path, Origin=PAGE)
        assert not any(h.startswith("access-control") or h == "vary" for h in reply.headers), reply.headers
    preflight = plain.request("OPTIONS", TEXT, Origin=PAGE, Access_Control_Request_Method="POST")
    assert preflight.status == 405 and preflight.headers["allow"] == "POST"


def preflight(server, origin=PAGE, **headers):
    return server.request("OPTIONS", TEXT, Origin=origin, **{"Access_Control_Request_Method": "POST", **headers})


def test_preflight():
    reply = preflight(shared, Access_Control_Request_Headers="authorization,content-type,x-stainless-os")  # without the key
    assert reply.status == 204 and reply.body == b"" and reply.headers["access-control-allow-origin"] == PAGE
    assert reply.headers["vary"] == "Origin" and "POST" in reply.headers["access-control-allow-methods"]
    assert reply.headers["access-control-allow-headers"] == "authorization,content-type,x-stainless-os"
    assert int(reply.headers["access-control-max-age"]) > 0
    assert "Authorization" in preflight(shared).headers["access-control-allow-headers"]
    assert "\"" not in preflight(shared, Access_Control_Request_Headers='a"b').headers["access-control-allow-headers"]
    for origin in ("https://other.example", "http://third.example"):
        assert preflight(shared, origin).headers["access-control-allow-origin"] == origin
    for origin in ("http://page.example", "http://page.example:30001", "https://page.example:3000", "null", "", "http://third.example,https://other.example"):
        reply = preflight(shared, origin)
        assert reply.status == 403 and reply.json()["error"]["code"] == "origin_not_allowed", origin
        assert "access-control-allow-origin" not in reply.headers and reply.headers["vary"] == "Origin"
    assert shared.request("OPTIONS", TEXT, Origin=PAGE, Authorization=KEY).status == 405  # no preflight


def test_cors_headers_on_every_answer():
    def check(reply, status):
        assert reply.status == status and reply.headers["access-control-allow-origin"] == PAGE and reply.headers["vary"] == "Origin", (status, reply.headers)
        assert "X-Request-Id" in reply.headers["access-control-expose-headers"]
        return reply

    page = {"Origin": PAGE, "Authorization": KEY}
    check(shared.get("/health", Origin=PAGE), 200)
    check(shared.get("/metrics", **page), 200)
    check(shared.post(TEXT, BODY, **page), 200)
    assert check(shared.post(TEXT, {**BODY, "stream": True}, **page), 200).events()
    check(shared.get("/v1/models", Origin=PAGE), 401)
    check(shared.get("/nothing", **page), 404)
    check(shared.get(TEXT, **page), 405)
    check(shared.post(TEXT, {**BODY, "n": 0}, **page), 400)
    check(shared.post(TEXT, {**BODY, "prompt": "a" * 70000}, **page), 413)
    check(shared.post(TEXT, BODY, Content_Type="text/plain", **page), 415)
    check(shared.get("/health", Host="evil.example", **page), 403)
    reply = shared.get("/v1/models", Origin="http://elsewhere.example", Authorization=KEY)
    assert reply.status == 200 and reply.headers["vary"] == "Origin" and "access-control-allow-origin" not in reply.headers
    assert "access-control-allow-origin" not in shared.get("/v1/models", Authorization=KEY).headers


def test_cors_for_all():
    server = Server("--cors", "*")
    assert server.get("/v1/models", Origin=PAGE).headers["access-control-allow-origin"] == "*"
    assert preflight(server).headers["access-control-allow-origin"] == "*"
    server.stop()


# ---- Host ----

def host_status(server, host):
    return server.get("/health", Host=host).status


def test_host_must_be_loopback():
    port = plain.port
    for host in ("localhost", f"localhost:{port}", "LocalHost", "127.0.0.1", f"127.0.0.1:{port}", "127.0.0.1:9", "[::1]", f"[::1]:{port}", "127.1.2.3"):
        assert host_status(plain, host) == 200, host
    for host in ("evil.example", f"evil.example:{port}", "localhost.evil.example", "127.0.0.1.evil.example", "evil.localhost", "localhost:1:2", "localhost:x", "[::1", "[::2]",
                 "::1", "10.0.0.1", "127.0.0.1@evil.example", "[127.0.0.1]", ":80", "a" * 2000, "\xff", "box.lan"):
        reply = plain.get("/health", Host=host.encode("latin-1"))
        assert reply.status == 403 and reply.json()["error"]["code"] == "host_not_allowed", host
    assert plain.post(TEXT, BODY, Host="evil.example").status == 403
    answer = plain.raw(b"GET /health HTTP/1.0\r\n\r\n", shut=True)  # no browser leaves it out
    assert b" 200 " in answer.split(b"\r\n")[0], answer


def test_allowed_hosts():
    for host in ("box.lan", "BOX.LAN:8080", "second.lan", "localhost", "127.0.0.1"):
        assert host_status(shared, host) == 200, host
    for host in ("evil.example", "lan", "box.lan,second.lan", "box"):
        assert host_status(shared, host) == 403, host


def test_any_host():
    anyone = Server("--allow-host", "*")
    assert host_status(anyone, "evil.example") == 200
    anyone.stop()
    named = Server("--host", "0.0.0.0", "--allow-host", "box.lan", "--api-key", "a")
    assert host_status(named, "box.lan") == host_status(named, "10.0.0.1") == 200 and host_status(named, "evil.example") == 403
    named.stop()
    network = Server("--host", "0.0.0.0", "--api-key", "a")
    assert host_status(network, "whatever.example") == 200
    network.stop()


# ---- TLS ----

def speaks(server, version):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(file("one.crt"))
    context.set_ciphers("DEFAULT@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        context.minimum_version = context.maximum_version = version
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as s:
        try:
            return context.wrap_socket(s, server_hostname="localhost").version() is not None
        except OSError:
            return False


def test_tls():
    trusted = ssl.create_default_context(cafile=file("one.crt"))
    server = Server("--tls-cert", file("one.crt"), "--tls-key", file("one.key"), "--idle", "1", "--cors", PAGE, tls=trusted)
    assert server.line("https://127.0.0.1:")
    assert server.get("/health", Origin=PAGE).headers["access-control-allow-origin"] == PAGE
    assert server.post(TEXT, BODY).json()["choices"][0]["text"]
    assert len(server.post(TEXT, {**BODY, "max_tokens": 40, "stream": True, "ignore_eos": True}).events()) > 10
    assert server.post(TEXT, {"prompt": "a" * 3_000_000}).json()["error"]["code"] == "context_length_exceeded"  # many records
    assert host_status(server, "evil.example") == 403
    versions = ssl.TLSVersion
    assert [speaks(server, version) for version in (versions.TLSv1, versions.TLSv1_1, versions.TLSv1_2, versions.TLSv1_3)] == [False, False, True, True]
    for data in (b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\x16\x03\x01" + b"\xff" * 500):
        try:
            assert b"200 OK" not in server.raw(data, shut=True)
        except OSError:
            pass
    assert b"200 OK" not in server.raw(b"")  # no handshake: it is not waited for
    stream = server.connect()
    stream.request("POST", TEXT, json.dumps({**BODY, "max_tokens": 900, "stream": True, "ignore_eos": True}), {"Content-Type": "application/json"})
    response = stream.getresponse()
    assert response.read(10)
    response.close()
    stream.close()
    until(lambda: server.line(" gone"))
    server.stop()


def refused(*flags, **env):
    done = subprocess.run([BIN, "serve", MODEL, "--device", "cpu", "--port", "0", *flags], capture_output=True, timeout=60, text=True, env={**os.environ, **env})
    assert done.stderr.count("\n") == 1, done.stderr
    return done.returncode, done.stderr


def test_bad_tls_files():
    def why(cert, key):
        got, text = refused("--tls-cert", cert, "--tls-key", key, ASAN_OPTIONS="detect_leaks=0")  # GnuTLS loses what it could not parse
        assert got == 1, (got, text)
        return text

    crt, key = file("one.crt"), file("one.key")
    assert "need each other" in refused("--tls-cert", crt)[1] and refused("--tls-key", key)[0] == 2
    assert "/nonexistent: No such file" in why("/nonexistent", key) and "/nonexistent: No such file" in why(crt, "/nonexistent")
    assert "do not match" in why(crt, file("two.key"))
    pkcs8 = file("encrypted.key", openssl("pkey", "-in", key, "-aes256", "-passout", "pass:abc"))
    legacy = file("legacy.key", openssl("ec", "-in", key, "-aes128", "-passout", "pass:abc"))
    assert "passphrase" in why(crt, pkcs8) and "passphrase" in why(crt, legacy)
    assert "BEGIN CERTIFICATE" in why(key, key) and "BEGIN PRIVATE KEY" in why(crt, crt)
    assert "BEGIN CERTIFICATE" in why(file("empty", ""), key) and "BEGIN PRIVATE KEY" in why(crt, "/dev/null")
    assert "cannot start" in why(file("broken.crt", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), key)
    assert "cannot start" in why(crt, file("broken.key", "-----BEGIN PRIVATE KEY-----\n!\n-----END PRIVATE KEY-----\n"))


# ---- keys, flags ----

def test_key_from_a_file():
    for sent, status in ((KEY, 200), ("Bearer the key\r", 401), ("Bearer the ke", 401), ("Bearer the keythe key", 401), ("Bearer not this", 401), ("Bearer  the key", 401)):
        reply = shared.raw(f"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: {sent}\r\n\r\n".encode())
        assert f" {status} ".encode() in reply.split(b"\r\n")[0] or (sent.endswith("\r") and b" 400 " in reply.split(b"\r\n")[0]), (sent, reply)
    assert refused("--api-key-file", file("empty.key", "\nkey\n")) == (2, "m40llm: the API key is empty\n")
    assert refused("--api-key-file", FOLDER.name)[0] == 1


def test_bad_flags():
    for origin in ("", "page.example", "http://", "http://a/", "http://a,", "http://a, http://b", "http://*.a", "null", "://a", "http://a?b"):
        status, text = refused("--cors", origin)
        assert status in (1, 2) and "--cors" in text, (origin, text)
    assert refused("--allow-host", "")[0] == 2
    assert refused(*["--allow-host", "a"] * 40)[0] == 2


# ---- clients that dribble ----

def dribble(head, byte, times):
    """Sends a byte again and again; how long the server stands it goes into the list."""
    start = time.monotonic()
    with socket.create_connection(("127.0.0.1", plain.port), timeout=20) as s:
        try:
            s.sendall(head)
            s.settimeout(0.2)
            while time.monotonic() - start < 15:
                s.sendall(byte)
                try:
                    if not s.recv(100):
                        break
                except TimeoutError:
                    pass
        except ConnectionError:
            pass
    times.append(time.monotonic() - start)


def test_slow_loris():
    times = []
    heads = (b"", b"GET /health HTTP/1.1\r\nX: ", b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n")
    threads = [threading.Thread(target=dribble, args=(head, b"a", times)) for head in heads]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(times) == 3 and all(1.5 < t < 12 for t in times), times
    connection = plain.connect()  # a second request has its own time
    for _ in range(3):
        connection.request("GET", "/health")
        assert connection.getresponse().read()
        time.sleep(0.8)
    connection.close()


def test_many_slow_loris():
    """They hold connections up, but neither those that are there nor, when their time is over, new ones."""
    crowd = Server("--idle", "1", "--max-connections", "8")
    sockets = [socket.create_connection(("127.0.0.1", crowd.port), timeout=20) for _ in range(8)]
    for s in sockets:
        s.sendall(b"GET /hea")
    assert crowd.get("/health").status == 200  # waits until one of them is thrown out
    for s in sockets:
        s.close()
    crowd.stop()


def test_half_closed():
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
    for data in (b"", b"GET /hea", head, head + b'{"prompt"', head.replace(b"Content-Length: 100", b"Transfer-Encoding: chunked") + b"10\r\n{"):
        answer = plain.raw(data, shut=True)
        assert b" 200 " not in answer.split(b"\r\n")[0], answer
    n_open = lambda: len(os.listdir(f"/proc/{shared.process.pid}/fd"))  # it would wait for a minute
    before = n_open()
    sockets = [socket.create_connection(("127.0.0.1", shared.port), timeout=20) for _ in range(40)]
    for s in sockets:  # the data and the end at once
        s.sendall(head + b'{"prompt"')
        s.shutdown(socket.SHUT_WR)
    assert all(s.recv(100) == b"" for s in sockets)
    until(lambda: n_open() == before, 10)
    for s in sockets:
        s.close()
    body = json.dumps({**BODY, "n": 0}).encode()
    answer = plain.raw(head.replace(b"100", b"%d" % len(body)) + body, shut=True)
    assert answer.startswith(b"HTTP/1.1 400 ") and b'"param":"n"' in answer, answer
    assert plain.get("/health").status == 200


def test_stop():
    plain.stop()
    shared.stop()


run([f for name, f in list(globals().items()) if name.startswith("test_")])
