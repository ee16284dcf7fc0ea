#!/usr/bin/env python3
"""As many clients as there are connections for, all at once: each is answered."""
import os
import signal
import socket
import time

from client import Server, run

N = 512
server = Server("--max-connections", str(N), "--threads", "1")


def test_all_speak_at_once():
    """Every thread that serves connections finds all of its own ready at the same time."""
    sockets = [socket.create_connection(("127.0.0.1", server.port), timeout=20) for _ in range(N)]
    assert sockets[0].send(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n") and sockets[0].recv(12) == b"HTTP/1.1 200" # all before it are accepted
    time.sleep(0.3)
    os.kill(server.process.pid, signal.SIGSTOP)
    for s in sockets[1:]:
        s.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    time.sleep(0.1)
    os.kill(server.process.pid, signal.SIGCONT)
    for s in sockets[1:]:
        assert s.recv(12) == b"HTTP/1.1 200"
    for s in sockets:
        s.close()


def test_stop():
    server.stop()


run([f for name, f in list(globals().items()) if name.startswith("test_")])
