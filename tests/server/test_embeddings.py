#!/usr/bin/env python3
"""Embeddings: shapes, both encodings, every kind of input, equality alone and beside others, bad input, clients that leave."""
import base64
import json
import math
import socket
import struct
import threading

from client import Server, run, until

PATH = "/v1/embeddings"
TEXTS = ["The old man sat by the fire", "and", "She said nothing, and looked at the sea for a long time. " * 3, "Once upon a time there was", "Ünïcödé 日本 🙂"]

server = Server("--parallel", "4", "--max-requests", "24", "--max-body", "1M")


def embed(value, **fields):
    reply = server.post(PATH, {"model": "demo", "input": value, **fields})
    assert reply.status == 200, (reply.status, reply.body)
    return reply.json()


def vectors(answer):
    return [d["embedding"] for d in answer["data"]]


def tokens(text):
    return server.post("/tokenize", {"text": text}).json()["tokens"]


def test_shape():
    answer = embed(TEXTS)
    assert set(answer) == {"object", "data", "model", "usage"} and answer["object"] == "list" and answer["model"] == "demo"
    assert [d["index"] for d in answer["data"]] == list(range(len(TEXTS)))
    assert all(set(d) == {"object", "index", "embedding"} and d["object"] == "embedding" for d in answer["data"])
    n_tokens = sum(len(tokens(t)) for t in TEXTS)
    assert answer["usage"] == {"prompt_tokens": n_tokens, "total_tokens": n_tokens}
    for v in vectors(answer):
        assert len(v) == len(vectors(answer)[0]) > 8 and abs(math.fsum(x * x for x in v) - 1) < 1e-5
    assert len({tuple(v) for v in vectors(answer)}) == len(TEXTS)


def test_every_kind_of_input():
    whole = vectors(embed(TEXTS))
    assert vectors(embed([tokens(t) for t in TEXTS])) == whole
    for text, vector in zip(TEXTS, whole):
        assert vectors(embed(text)) == [vector] == vectors(embed([text])) == vectors(embed(tokens(text))) == vectors(embed([tokens(text)]))


def test_base64():
    numbers = embed(TEXTS, encoding_format="float", user="somebody")
    coded = embed(TEXTS, encoding_format="base64")
    for v, c in zip(vectors(numbers), vectors(coded)):
        data = base64.b64decode(c, validate=True)
        assert len(data) == 4 * len(v)
        assert [struct.unpack("<f", struct.pack("<f", x))[0] for x in v] == list(struct.unpack(f"<{len(v)}f", data))  # to the bit
    assert coded["usage"] == numbers["usage"]


def test_pooling():
    mean, last = (vectors(embed(TEXTS, pooling=p)) for p in ("mean", "last"))
    assert vectors(embed(TEXTS)) == mean  # the demo model names none
    assert all(a != b for a, b in zip(mean, last))
    assert vectors(embed(TEXTS, pooling="last")) == last  # now from the prefix cache
    one = tokens(TEXTS[0])[:1]
    assert vectors(embed(one, pooling="mean")) == vectors(embed(one, pooling="last"))
    assert vectors(embed(TEXTS, pooling=None, dimensions=len(mean[0]))) == mean


def test_the_same_beside_others():
    alone = {(t, p): vectors(embed(t, pooling=p))[0] for t in TEXTS for p in ("mean", "last")}
    failures = []

    def ask(pooling):
        try:
            for _ in range(2):
                assert vectors(embed(TEXTS * 2, pooling=pooling)) == [alone[t, pooling] for t in TEXTS * 2]
        except Exception as e:  # pylint: disable=broad-except
            failures.append(e)

    def generate():
        reply = server.post("/v1/completions", {"prompt": TEXTS[0], "max_tokens": 24, "n": 2, "seed": 1})
        if reply.status != 200:
            failures.append(reply.body)

    threads = [threading.Thread(target=f, args=a) for f, a in [(ask, ("mean",)), (ask, ("last",)), (generate, ()), (generate, ())]]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failures, failures


def test_bad_input():
    def refused(param, status=400, **fields):
        return server.refused(status, param, PATH, {"model": "demo", "input": "x", **fields})

    assert "input" in server.refused(400, "input", PATH, {"model": "demo"})
    for value in (None, 7, {}, True, [], [{}], [None], 1.5):
        refused("input", input=value)
    refused("input", input="")
    refused("input[1]", input=["x", ""])
    refused("input[1]", input=[[1], []])
    refused("input[2]", input=["x", "y", [1]])
    refused("input[1]", input=[[1], "x"])
    refused("input[0]", input=[[1, -1]])
    refused("input", input=[1, 10**9])
    refused("input", input=[1, "x"])
    refused("input", input=["x"] * 2049)
    refused("encoding_format", encoding_format="int8")
    refused("encoding_format", encoding_format=3)
    refused("pooling", pooling="cls")
    refused("dimensions", dimensions=3)
    refused("dimensions", dimensions=0)
    refused("no_such", no_such=1)
    refused("model", status=404, model="other")
    message = refused("input", input=["x", "word " * 3000])
    assert "text 2 of 2" in message and "context" in message
    assert server.get(PATH).status == 405
    assert server.request("POST", PATH, b"{").status == 400


def running():
    metrics = server.get("/metrics").body.decode()
    return {line.split()[0]: float(line.split()[1]) for line in metrics.splitlines() if line.startswith("m40llm_") and "{" not in line}


def test_a_client_that_leaves():
    body = json.dumps({"input": ["long " * 400] * 200}).encode()
    with socket.create_connection(("127.0.0.1", server.port)) as s:
        s.sendall(b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        until(lambda: running()["m40llm_running"] > 0)
    until(lambda: running()["m40llm_running"] + running()["m40llm_waiting"] == 0, 5)


def test_stop():
    server.stop()


if __name__ == "__main__":
    run([test_shape, test_every_kind_of_input, test_base64, test_pooling, test_the_same_beside_others, test_bad_input, test_a_client_that_leaves, test_stop])
