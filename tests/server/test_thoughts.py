#!/usr/bin/env python3
"""What a model thinks apart from what it says, where control tokens tell: the demo model, some of whose words are given the names of gpt-oss' marks."""
import os
import tempfile

import client
from gguf_edit import STRING, rewrite

CHAT = "/v1/chat/completions"
CONTROL = 3
# The demo goes on "Once upon a time" with " there was a man who had been a man of great wealth and had been a man of great wealth. He was a man of great wealth, ..."
NAMES = {"Ġthere": "<|channel|>", "Ġwas": "analysis", "Ġa": "<|message|>", "Ġhad": "<|end|>", "Ġafternoon": "<|start|>", "Ġnecessary": "<|return|>", "Ġimpossible": "<|call|>"}


def give_marks(metadata):
    (_, (_, tokens)), (_, (_, types)) = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    of, merges = metadata["tokenizer.ggml.merges"][1]
    for word, name in NAMES.items():
        i = tokens.index(word)
        tokens[i] = name
        types[i] = CONTROL if name.startswith("<|") else types[i]
    kept = [m for m in merges if not any(part in NAMES for part in (*m.split(" "), m.replace(" ", "")))]
    metadata["tokenizer.ggml.merges"] = (9, (of, kept))
    metadata["tokenizer.chat_template"] = (STRING, "<|begin_of_text|>Once upon<|message|> time{{ messages[0].content }}")


with tempfile.TemporaryDirectory() as folder:
    rewrite(client.MODEL, os.path.join(folder, "marked.gguf"), give_marks)
    client.MODEL = os.path.join(folder, "marked.gguf")
    server = client.Server()


def chat(content="", **fields):
    reply = server.post(CHAT, {"messages": [{"role": "user", "content": content}], "max_tokens": 19, "temperature": 0, **fields})
    assert reply.status == 200, (reply.status, reply.body)
    return reply


def test_messages_are_parted():
    choice = chat().json()["choices"][0]
    assert choice["message"] == {"role": "assistant", "content": " man of great wealth and\n man of great", "refusal": None,
                                 "reasoning_content": " man who"}, choice
    assert choice["finish_reason"] == "length"  # <|end|> ends none


def test_stream_has_the_same():
    message = chat().json()["choices"][0]["message"]
    for n in (1, 2):
        deltas = [(c["index"], c["delta"]) for e in chat(stream=True, n=n).events() for c in e["choices"]]
        for i in range(n):
            for part in ("content", "reasoning_content"):
                assert "".join(d.get(part, "") for index, d in deltas if index == i) == message[part]


def test_stop_strings_end_at_marks():
    choice = chat(stop=["who ha", "wealth an"]).json()["choices"][0]
    assert choice["message"]["reasoning_content"] == " man who" and choice["message"]["content"] == " man of great " and choice["finish_reason"] == "stop", choice


def test_prompt_may_begin_a_message():
    """What the prompt has of a message counts for what goes on with it."""
    for channel, part in (("analysis", "reasoning_content"), ("final", "content")):
        events = chat(f"<|start|>assistant<|channel|>{channel}<|message|>", stream=True).events()
        assert list(events[1]["choices"][0]["delta"]) == [part], events[1]


def test_logprobs_have_every_token():
    choice = chat(logprobs=True).json()["choices"][0]
    assert len(choice["logprobs"]["content"]) == 19


def test_end():
    server.stop()


client.run([f for name, f in list(globals().items()) if name.startswith("test_")])
