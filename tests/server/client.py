"""Starts the server under test and talks to it; TAP for tests/run.sh. Python's standard library alone."""
import atexit
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from unittest import SkipTest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BIN = os.environ.get("M40LLM_BIN", os.path.join(ROOT, "build/m40llm"))
MODEL = os.path.join(ROOT, "models/demo.gguf")


class Reply:
    def __init__(self, response):
        self.status = response.status
        self.headers = {k.lower(): v for k, v in response.getheaders()}
        self.body = response.read()

    def json(self):
        return json.loads(self.body)

    def events(self):
        """The data of a stream's events; the last must be [DONE]."""
        parts = self.body.decode().split("\n\n")
        assert parts[-1] == "", self.body
        data = [part.removeprefix("data: ") for part in parts[:-1]]
        assert data[-1] == "[DONE]", self.body
        return [json.loads(d) for d in data[:-1]]


class Server:
    def __init__(self, *flags, wait=True, tls=None, env=None):
        """tls: an ssl.SSLContext to talk to it with; env: more of the environment."""
        self.log = []
        self.tls = tls
        self.process = subprocess.Popen([BIN, "serve", MODEL, "--device", "cpu", "--port", "0", *flags], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
                                        text=True, env={**os.environ, **(env or {})})
        atexit.register(self.process.kill) # where a test failed before it stopped it
        self.reader = threading.Thread(target=self.read_log, daemon=True) # a full pipe would stop the server
        self.reader.start()
        self.port = int(re.search(r":(\d+)$", self.wait_for("listening at")).group(1))
        if wait:
            self.wait_for("ready")

    def read_log(self):
        for line in self.process.stderr:
            self.log.append(line.rstrip("\n"))

    def wait_for(self, word):
        """The log's first line with the word in it."""
        until(lambda: self.line(word) or self.process.poll() is not None, 60)
        assert self.line(word), f"no '{word}' in the log: {self.log}"
        return self.line(word)

    def line(self, word):
        return next((line for line in list(self.log) if word in line), None)

    def connect(self):
        if self.tls:
            return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=60, context=self.tls)
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def request(self, method, path, body=None, **headers):
        connection = self.connect()
        if body is not None and not isinstance(body, (bytes, str)):
            body = json.dumps(body)
        headers = {k.replace("_", "-"): v for k, v in headers.items()}
        if body is not None:
            headers.setdefault("Content-Type", "application/json")
        connection.request(method, path, body, headers)
        reply = Reply(connection.getresponse())
        connection.close()
        return reply

    def get(self, path, **headers):
        return self.request("GET", path, **headers)

    def post(self, path, body, **headers):
        return self.request("POST", path, body, **headers)

    def refused(self, status, param, path, body):
        """It is refused with an error object that names the field, and the message is returned."""
        reply = self.post(path, body)
        assert reply.status == status, (reply.status, reply.body)
        error = reply.json()["error"]
        assert error["param"] == param, error
        assert set(error) == {"message", "type", "param", "code"} and error["message"], error
        return error["message"]

    def raw(self, data, shut=False):
        """What comes back for these bytes until the server closes the connection."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as s:
            s.sendall(data)
            if shut:
                s.shutdown(socket.SHUT_WR)
            got = b""
            while piece := s.recv(65536):
                got += piece
            return got

    def stop(self, expect=0):
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(60)
        self.reader.join(10)
        assert status == expect, (status, self.log[-20:])


def run(tests):
    """Runs the functions, each a test, and prints TAP."""
    wanted = sys.argv[1:]
    tests = [t for t in tests if not wanted or t.__name__ in wanted]
    failed = 0
    print(f"1..{len(tests)}", flush=True)
    for i, test in enumerate(tests, 1):
        try:
            test()
            print(f"ok {i} - {test.__name__}", flush=True)
        except SkipTest as why:
            print(f"ok {i} - {test.__name__} # SKIP {why}", flush=True)
        except Exception:  # pylint: disable=broad-except
            failed += 1
            traceback.print_exc()
            print(f"not ok {i} - {test.__name__}", flush=True)
    sys.exit(failed > 0)


def until(condition, seconds=5):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
