#!/usr/bin/env python3
"""The server through OpenAI's own Python client (tests/server/openai.txt; `make check-openai` installs it beside the build). Without it the tests are skipped."""
import base64
import math
import struct
import tempfile

from client import Server, run

try:
    import openai
except ImportError:
    print("1..1\nok 1 - OpenAI's Python client # SKIP it is not installed: make check-openai")
    raise SystemExit from None

KEY = "a-key-for-the-test"
TEMPLATE = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}The old man"
MESSAGES = [{"role": "system", "content": "Tell a story."}, {"role": "user", "content": "Hello there"}]
PROMPT = "The old man sat by the fire and"

with tempfile.NamedTemporaryFile("w", suffix=".jinja") as f, tempfile.NamedTemporaryFile("w") as key:
    f.write(TEMPLATE)
    f.flush()
    key.write(KEY)
    key.flush()
    server = Server("--chat-template", f.name, "--api-key-file", key.name)
client = openai.OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key=KEY, max_retries=0, timeout=60)


def chat(**fields):
    return client.chat.completions.create(model="demo", messages=MESSAGES, **{"max_tokens": 16, "temperature": 0, **fields})


def raises(kind, call):
    """The error of the given class that the call raises."""
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")


def test_models():
    (model,) = client.models.list().data
    assert model.id == "demo" and model.object == "model" and model.owned_by == "m40llm" and model.created > 0
    assert model.model_extra["meta"]["n_ctx"] == 1024


def test_chat():
    answer = chat(user="me", metadata={"a": "b"})
    assert answer.object == "chat.completion" and answer.model == "demo" and answer.id.startswith("chatcmpl-")
    (choice,) = answer.choices
    assert choice.message.role == "assistant" and choice.message.content and choice.message.refusal is None and choice.finish_reason == "length"
    assert chat().choices == answer.choices
    assert chat(max_tokens=openai.omit, max_completion_tokens=16).choices == answer.choices


def test_usage():
    usage = chat().usage
    assert usage.completion_tokens == 16 and usage.prompt_tokens > 10 and usage.total_tokens == usage.prompt_tokens + 16
    assert usage.prompt_tokens_details.cached_tokens >= 0


def test_stream():
    whole = chat(max_tokens=40).choices[0]
    parts = list(chat(max_tokens=40, stream=True, stream_options={"include_usage": True}))
    assert parts[0].choices[0].delta.role == "assistant" and parts[0].object == "chat.completion.chunk"
    assert "".join(p.choices[0].delta.content or "" for p in parts[:-1]) == whole.message.content
    assert parts[-2].choices[0].finish_reason == "length" and len(parts) > 20
    assert parts[-1].choices == [] and parts[-1].usage.completion_tokens == 40
    assert all(p.usage is None for p in parts[:-1]) and len({p.id for p in parts}) == 1


def test_stream_helper():
    """The client's own gathering of a stream comes to the whole answer. (It takes none that was cut by max_tokens.)"""
    stop = chat(max_tokens=40).choices[0].message.content[25:30]
    with client.chat.completions.stream(model="demo", messages=MESSAGES, max_tokens=40, temperature=0, stop=stop) as stream:
        assert {"chunk", "content.delta", "content.done"} == {event.type for event in stream}
        gathered = stream.get_final_completion().choices[0]
    whole = chat(max_tokens=40, stop=stop).choices[0]
    assert gathered.message.content == whole.message.content and gathered.finish_reason == whole.finish_reason == "stop"


def test_stream_that_is_left():
    """Closing it ends the request."""
    stream = chat(max_tokens=900, stream=True)
    next(iter(stream))
    stream.close()
    server.wait_for(" gone")


def test_logprobs():
    choice = chat(logprobs=True, top_logprobs=4).choices[0]
    assert len(choice.logprobs.content) == 16
    for token in choice.logprobs.content:
        assert token.logprob <= 0 and len(token.top_logprobs) == 4 and token.top_logprobs[0].token == token.token
        assert sum(math.exp(t.logprob) for t in token.top_logprobs) <= 1.0001 and bytes(token.bytes).decode() == token.token
    streamed = [t for p in chat(logprobs=True, top_logprobs=4, stream=True) if p.choices[0].logprobs for t in p.choices[0].logprobs.content]
    assert streamed == choice.logprobs.content


def test_choices():
    answer = chat(n=2, temperature=1, seed=7)
    assert [c.index for c in answer.choices] == [0, 1] and answer.choices[0].message.content != answer.choices[1].message.content
    assert chat(n=2, temperature=1, seed=7).choices == answer.choices and answer.usage.completion_tokens == 32
    texts = ["", ""]
    for part in chat(n=2, temperature=1, seed=7, stream=True):
        for choice in part.choices:
            texts[choice.index] += choice.delta.content or ""
    assert texts == [c.message.content for c in answer.choices]


def test_stop():
    whole = chat(max_tokens=40).choices[0].message.content
    stop = whole[25:30]
    for given in (stop, ["no such text", stop]):
        choice = chat(max_tokens=40, stop=given).choices[0]
        assert choice.finish_reason == "stop" and choice.message.content == whole[: whole.index(stop)]


def test_completions():
    answer = client.completions.create(model="demo", prompt=PROMPT, max_tokens=12, temperature=0, logprobs=2)
    (choice,) = answer.choices
    assert answer.object == "text_completion" and choice.finish_reason == "length" and answer.usage.completion_tokens == 12
    assert "".join(choice.logprobs.tokens) == choice.text and len(choice.logprobs.top_logprobs[0]) == 2 and choice.logprobs.text_offset[0] == 0
    parts = client.completions.create(model="demo", prompt=PROMPT, max_tokens=12, temperature=0, stream=True)
    assert "".join(p.choices[0].text for p in parts) == choice.text
    pair = client.completions.create(model="demo", prompt=PROMPT, max_tokens=8, n=2, seed=3)
    assert len(pair.choices) == 2 and pair.choices[0].text != pair.choices[1].text


def test_embeddings():
    """Asked for as the client asks by itself, in base64, and as numbers."""
    answer = client.embeddings.create(model="demo", input=["The old man", "The sea"])
    assert [e.index for e in answer.data] == [0, 1] and answer.usage.prompt_tokens > 2 and answer.data[0].object == "embedding"
    first, second = (e.embedding for e in answer.data)
    assert len(first) == len(second) and first != second
    assert all(abs(math.fsum(x * x for x in e) - 1) < 1e-4 for e in (first, second))
    alone = client.embeddings.create(model="demo", input="The old man", encoding_format="float").data[0].embedding
    assert all(abs(x - y) < 1e-6 for x, y in zip(alone, first, strict=True))
    packed = client.embeddings.create(model="demo", input="The old man", encoding_format="base64").data[0].embedding
    if isinstance(packed, str): # as it came
        packed = struct.unpack(f"<{len(first)}f", base64.b64decode(packed))
    assert all(abs(x - y) < 1e-6 for x, y in zip(packed, first, strict=True))


def test_bad_requests():
    for fields, param in (({"temperature": 5}, "temperature"), ({"n": 0}, "n"), ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
                          ({"response_format": {"type": "json_object"}}, "response_format"), ({"top_logprobs": 2}, "top_logprobs"), ({"extra_body": {"no_such": 1}}, "no_such")):
        error = raises(openai.BadRequestError, lambda fields=fields: chat(**fields))
        assert error.param == param and error.type == "invalid_request_error" and error.status_code == 400 and param in error.message, (error, param)
    error = raises(openai.BadRequestError, lambda: client.chat.completions.create(model="demo", messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "a"}}]}]))
    assert error.param == "messages[0].content[0]"
    error = raises(openai.BadRequestError, lambda: client.completions.create(model="demo", prompt=[5] * 1100))
    assert error.param == "prompt" and error.code == "context_length_exceeded"


def test_other_errors():
    error = raises(openai.NotFoundError, lambda: client.chat.completions.create(model="no-such-model", messages=MESSAGES))
    assert error.param == "model" and error.code == "model_not_found"
    error = raises(openai.AuthenticationError, client.with_options(api_key="wrong").models.list)
    assert error.code == "invalid_api_key" and error.status_code == 401 and error.request_id
    raises(openai.NotFoundError, lambda: client.post("/nothing", cast_to=object))


def test_stop_of_the_server():
    server.stop()
    raises(openai.APIConnectionError, client.models.list)


run([f for name, f in list(globals().items()) if name.startswith("test_")])
