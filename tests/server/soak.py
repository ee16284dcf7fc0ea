#!/usr/bin/env python3
"""The soak of the server (make soak): 200 streams at once, then many clients that ask, compare, leave and misbehave, in rounds; after each round the server must be as it was. Then SIGTERM in the midst of
streams. Prints figures; exit status 1 where anything was not as it should be."""
import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter

import soak_clients as clients
from client import Server, until

N_ROUNDS = 8
IDLE_S = 10
TEMPLATE = "{% for m in messages %}{% if m.content == 'raise' %}{{ raise_exception('no such thing') }}{% endif %}[{{ m.role }}] {{ m.content }}\n{% endfor %}The old man"
LOG_LINES = re.compile(r"m40llm: (\S+Z #\d+ \S* \S* (0|200|400|404|405|413|415|429|503) prompt=.*|listening at .*|ready: .*|context \d+ tokens .*|\S*device.*|cpu.*)$")


def parse():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--seconds", type=float, default=600)
    p.add_argument("--clients", type=int, default=24)
    p.add_argument("--streams", type=int, default=200)
    p.add_argument("--bench", help="bench-serve; without it the 200 streams are left out")
    p.add_argument("--threads", type=int, default=1, help="that compute")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--sanitized", action="store_true", help="the server is slow, and its memory is not its own")
    return p.parse_args()


class Soak:
    def __init__(self, options):
        self.options = options
        self.failures = []
        self.counts = Counter()
        self.lock = threading.Lock()
        self.rss = []
        with tempfile.NamedTemporaryFile("w", suffix=".jinja") as f:
            f.write(TEMPLATE)
            f.flush()
            # A pool that is too small for all: pages are evicted and answers pre-empted.
            self.server = Server("--chat-template", f.name, "--parallel", "32", "--kv-mem", "10M", "--max-body", "1M", "--idle", str(IDLE_S), "--drain", "20", "--threads",
                                 str(options.threads))

    def fail(self, what):
        with self.lock:
            self.failures.append(what)
        print(f"FAILED: {what}", flush=True)

    def metrics(self):
        lines = self.server.get("/metrics").body.decode().splitlines()
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}

    def proc(self):
        """Resident memory in MiB, open files, threads."""
        pid = self.server.process.pid
        with open(f"/proc/{pid}/status", encoding="ascii") as f:
            status = dict(line.split(":", 1) for line in f)
        return int(status["VmRSS"].split()[0]) / 1024, len(os.listdir(f"/proc/{pid}/fd")), int(status["Threads"])

    # ---- 200 streams ----

    def many_streams(self):
        n = self.options.streams
        done = subprocess.run([self.options.bench, "--port", str(self.server.port), "--pid", str(self.server.process.pid), "--streams", str(n), "--tokens", "24", "--words", "40", "--check", "--json"],
                              capture_output=True, text=True, check=False)
        print(done.stderr, end="")
        if done.returncode != 0:
            self.fail(f"{n} streams: bench-serve says {done.returncode}")
            return
        r = json.loads(done.stdout)
        print(f"{n} streams at once: {r['tokens']} tokens in {r['seconds']:.1f} s, {r['tok_s']:.0f} tok/s, first token {r['first_token_s']['median'] * 1e3:.0f} ms (99%: {r['first_token_s']['p99'] * 1e3:.0f}), "
              f"between parts {r['between_parts_s']['median'] * 1e3:.1f} ms (99%: {r['between_parts_s']['p99'] * 1e3:.1f}), HTTP {r['http_us_per_token']:.1f} us of processor a token; "
              f"{r['failed']} dropped, {r['differ']} differ from the same request's alone", flush=True)

    # ---- rounds ----

    def one_client(self, number, end, known):
        rng = random.Random(self.options.seed * 1000003 + number)
        while time.monotonic() < end and len(self.failures) < 20:
            action = clients.choose_action(rng)
            try:
                action(self.server, rng, known)
            except Exception: # pylint: disable=broad-except
                if self.server.process.poll() is not None:
                    self.fail(f"the server ended with {self.server.process.returncode}")
                    return
                self.fail(f"{action.__name__}: {traceback.format_exc(limit=3)[-1500:]}")
            with self.lock:
                self.counts[action.__name__] += 1

    def is_idle(self):
        m = self.metrics()
        return m["m40llm_waiting"] == m["m40llm_running"] == m['m40llm_kv_pages{state="used"}'] == m['m40llm_kv_pages{state="shared"}'] == 0 and m["m40llm_http_requests_open"] == 1

    def check_idle(self, n_pages, before):
        """Everything is as it was: no page is held, no connection open."""
        try:
            until(self.is_idle, 60)
        except AssertionError:
            self.fail(f"not idle: {self.metrics()}")
        m = self.metrics()
        if m['m40llm_kv_pages{state="free"}'] + m['m40llm_kv_pages{state="cached"}'] != n_pages:
            self.fail(f"pages are lost: {m}")
        try:
            until(lambda: self.proc()[1:] <= before, IDLE_S + 10)
        except AssertionError:
            self.fail(f"files and threads: {before} before, {self.proc()[1:]} after")
        self.rss.append(self.proc()[0])

    def rounds(self, known):
        n_pages = self.metrics()['m40llm_kv_pages{state="free"}'] + self.metrics()['m40llm_kv_pages{state="cached"}']
        before = self.proc()[1:]
        for i in range(N_ROUNDS):
            start = time.monotonic()
            threads = [threading.Thread(target=self.one_client, args=(i * 1000 + k, start + self.options.seconds / N_ROUNDS, known)) for k in range(self.options.clients)]
            for t in threads:
                t.start()
            for t in threads:
                t.join()
            self.check_idle(n_pages, before)
            print(f"round {i + 1}: {time.monotonic() - start:.0f} s, {sum(self.counts.values())} actions so far, {self.rss[-1]:.2f} MiB resident, {len(self.failures)} failures", flush=True)
            if len(self.failures) >= 20 or self.server.process.poll() is not None:
                return
        # The first rounds fill the allocator's pools.
        if not self.options.sanitized and min(self.rss[-3:]) > max(self.rss[1:4]) + 2:
            self.fail(f"memory grows: {self.rss}")

    # ---- the end ----

    def stop_amid_streams(self, known):
        """Those under way are answered, and the exit status is 0."""
        long_ones = [k for k in known if k[1]["max_tokens"] >= 20] or known
        results = []

        def one(i):
            path, body, answer = long_ones[i % len(long_ones)]
            try:
                results.append(clients.ask(self.server, path, body, True) == answer)
            except clients.Wrong as wrong: # it came too late
                results.append(503 in wrong.args)
            except OSError:
                results.append(True)

        threads = [threading.Thread(target=one, args=(i,)) for i in range(40)]
        for t in threads:
            t.start()
        time.sleep(0.05)
        start = time.monotonic()
        try:
            self.server.stop()
        except (AssertionError, subprocess.TimeoutExpired) as error:
            self.fail(f"the end: {error}")
        for t in threads:
            t.join()
        if not all(results):
            self.fail(f"{results.count(False)} of {len(results)} streams were not answered as they should be at the end")
        print(f"SIGTERM amid {len(threads)} requests: exit status {self.server.process.returncode} after {time.monotonic() - start:.2f} s")

    def check_log(self, n_responses):
        odd = [line for line in self.server.log if not LOG_LINES.match(line)]
        for line in odd[:40]:
            print(f"LOG: {line}")
        if odd:
            self.fail(f"{len(odd)} lines of the log are not as they should be")
        statuses = Counter(m.group(2) for m in map(LOG_LINES.match, self.server.log) if m and m.group(2))
        print(f"requests by status: {dict(sorted(statuses.items()))}")
        if n_responses > sum(statuses.values()):
            self.fail(f"{n_responses} answers were counted, {sum(statuses.values())} logged")

    def run(self):
        known = clients.make_known(self.server, self.options.seed, 24)
        if self.options.bench:
            self.many_streams()
        self.rounds(known)
        n_responses = 0
        if self.server.process.poll() is None:
            m = self.metrics()
            n_responses = sum(v for k, v in m.items() if k.startswith("m40llm_http_responses_total"))
            print(f"actions: {dict(self.counts)}")
            print(f"preemptions {m['m40llm_preemptions_total']:.0f}, evicted pages {m['m40llm_prefix_cache_evicted_pages_total']:.0f}, tokens {m['m40llm_generated_tokens_total']:.0f}, "
                  f"prefix hits {m['m40llm_prefix_cache_hits_total']:.0f} of {m['m40llm_prefix_cache_lookups_total']:.0f}")
            self.stop_amid_streams(known)
        self.check_log(n_responses)
        print(f"{len(self.failures)} failures")
        return 1 if self.failures else 0


sys.exit(Soak(parse()).run())
