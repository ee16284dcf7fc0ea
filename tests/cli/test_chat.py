#!/usr/bin/env python3
"""The chat in a terminal: a pseudo-terminal types, and looks at what a person would see. The demo model has no chat template: it is given one."""
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../server"))
from client import BIN, MODEL, run  # pylint: disable=wrong-import-position

TEMPLATE = "{% for m in messages %}{% if m.content == 'raise' %}{{ raise_exception('no such thing') }}{% endif %}[{{ m.role }}]{{ m.content }}{{ eos_token }}{% endfor %}" \
           "[assistant]{% if enable_thinking %}<think>\n{% endif %}"
FOLDER = tempfile.TemporaryDirectory()
TEMPLATE_FILE = os.path.join(FOLDER.name, "chat.jinja")
with open(TEMPLATE_FILE, "w", encoding="utf-8") as file:
    file.write(TEMPLATE)
CTRL_C, CTRL_D, UP = "\x03", "\x04", "\x1b[A"
LIBEDIT = b"libedit.so" in open(BIN, "rb").read()
FLAGS = ("--chat-template", TEMPLATE_FILE, "--device", "cpu", "--threads", "1", "--ignore-eos", "--seed", "7")


def environment(**more):
    names = {k: v for k, v in os.environ.items() if not k.startswith("M40LLM_") and k != "NO_COLOR"}
    return {**names, "TERM": "xterm", "LC_ALL": "C.UTF-8", "HOME": FOLDER.name, "XDG_STATE_HOME": os.path.join(FOLDER.name, "state"), **more}


class Chat:
    def __init__(self, *flags, **more):
        self.seen = self.all = ""
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            os.execve(BIN, [BIN, "run", MODEL, *FLAGS, *flags], environment(**more))
        fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
        self.until("> ")

    def read(self, seconds):
        if not select.select([self.terminal], [], [], seconds)[0]:
            return False
        try:
            piece = os.read(self.terminal, 65536).decode(errors="replace")
        except OSError: # the other end is closed
            return False
        self.seen += piece
        self.all += piece
        return piece != ""

    def until(self, end, seconds=60):
        """What is seen up to `end`, a text, without escape sequences; what comes behind it is for the next call."""
        limit = time.monotonic() + seconds
        while end not in self.seen:
            assert time.monotonic() < limit and (self.read(1) or end in self.seen or self.is_running()), f"no {end!r} in {self.seen!r}"
        at = self.seen.index(end) + len(end)
        seen, self.seen = self.seen[:at], self.seen[at:]
        return re.sub(r"\x1b\[[?0-9;]*[a-zA-Z]", "", seen).replace("\r", "")

    def is_running(self):
        return os.waitpid(self.pid, os.WNOHANG) == (0, 0)

    def send(self, text):
        os.write(self.terminal, text.encode())

    def say(self, line, end="\n> "):
        """Types the line; what comes up to the next prompt, without the line."""
        self.send(line + "\r")
        if LIBEDIT:
            self.until("\x1b[?2004l") # it has been read
        seen = self.until("> " if LIBEDIT else end)
        return seen.removesuffix("> ")

    def figures(self, line):
        """Those of the line behind an answer: tokens, prompt, cached, context."""
        seen = self.say(line)
        found = re.search(r"\[(\d+) tokens, [\d.]+ tok/s \| prompt (\d+), (\d+) of it cached \| context (\d+) of 1024", seen)
        assert found, seen
        return [int(n) for n in found.groups()]

    def leave(self, how=CTRL_D, status=0):
        if how:
            self.send(how)
        limit = time.monotonic() + 30
        while time.monotonic() < limit:
            self.read(0.05)
            pid, got = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                assert os.waitstatus_to_exitcode(got) == status, (got, self.all)
                os.close(self.terminal)
                return
        raise AssertionError(f"still there: {self.all!r}")


def test_a_conversation():
    chat = Chat("-n", "40", "--temp", "3") # at which the text would seldom give the same tokens again
    tokens, prompt, cached, context = chat.figures("Hello there, old man of the sea")
    assert tokens == 40 and cached == 0 and context == prompt + 40
    for _ in range(3): # all full pages of what was said before are there already
        seen = context
        tokens, prompt, cached, context = chat.figures("And then?")
        assert cached >= (seen - 1) // 32 * 32 > 0, (seen, prompt, cached)
        assert seen < prompt < seen + 30
    again = chat.figures("/regen")
    assert again[1] == prompt and again[2] >= (prompt - 1) // 32 * 32
    stats = chat.say("/stats")
    cached = again[2]
    assert f"{prompt} tokens, {cached} of them cached" in stats and "8 messages" in stats and "cpu" in stats, stats
    chat.leave()


def test_answers_stream_and_stop():
    chat = Chat()
    chat.send("Tell me a long story\r")
    chat.until("\x1b[?2004l" if LIBEDIT else "story")
    limit = time.monotonic() + 30
    sizes = set() # of what is seen as it grows: it comes in pieces
    while len(sizes) < 5 or len(chat.seen) < 300:
        assert time.monotonic() < limit
        chat.read(1)
        sizes.add(len(chat.seen))
    assert "tok/s" not in chat.seen
    chat.send(CTRL_C)
    assert "| stopped]" in chat.until("]") + chat.until("> ")
    assert "user: Tell me a long story\nassistant: " in chat.say("/show") # what there is of it is kept
    assert "max-tokens: 8" in chat.say("/set max-tokens 8")
    tokens, _, cached, _ = chat.figures("Go on")
    assert tokens == 8 and cached > 0
    chat.leave()


def test_ctrl_c_at_the_prompt():
    chat = Chat()
    if LIBEDIT:
        chat.send("never sent" + CTRL_C)
        chat.until("> ")
    chat.send(CTRL_C)
    assert "Ctrl-C again" in chat.until("\x1b[?2004h" if LIBEDIT else "> ")
    assert "Nothing was said" in chat.say("/show") # the second must follow at once
    chat.send(CTRL_C)
    chat.until("Ctrl-C again")
    chat.leave(CTRL_C)


def test_ways_to_leave():
    for line in ("/exit\r", "/quit\r", "/bye\r", CTRL_D):
        Chat("--no-history").leave(line)
    chat = Chat("--no-history")
    os.kill(chat.pid, signal.SIGTERM)
    chat.leave(None)
    chat = Chat("--no-history")
    chat.send("Tell me a long story\r")
    chat.until("\x1b[?2004l" if LIBEDIT else "story")
    os.kill(chat.pid, signal.SIGTERM)
    chat.leave(None)


def test_commands():
    chat = Chat("-n", "4", "--system", "You are a sailor.", "--temp", "9")
    assert "/regen" in chat.say("/help")
    assert "You are a sailor." in chat.say("/system")
    assert "There is no command '/frob'" in chat.say("/frob")
    assert "must be from 0" in chat.say("/set temperature -4")
    chat.say("Hello")
    first = chat.say("/show")
    chat.say("/regen")
    assert chat.say("/show") != first # another seed
    path = os.path.join(FOLDER.name, "saved.json")
    assert "2 messages saved" in chat.say(f"/save {path}")
    assert "Taken back: Hello" in chat.say("/undo")
    assert "not overwritten" in chat.say(f"/save {TEMPLATE_FILE}")
    assert "2 messages loaded" in chat.say("/load")
    with open(path, encoding="utf-8") as saved:
        assert [m["role"] for m in json.load(saved)["messages"]] == ["system", "user", "assistant"]
    assert "no such thing" in chat.say("raise")
    assert "sailor" in chat.say("/new") + chat.say("/system")
    chat.leave()


def test_lines_that_go_on():
    chat = Chat("-n", "2")
    chat.send("one \\\r")
    chat.until(". ")
    chat.say("two")
    chat.send('"""\r')
    chat.until(". ")
    chat.send("/exit\r")
    chat.until(". ")
    chat.say('is no command"""')
    seen = chat.say("/show")
    assert "user: one \ntwo\n" in seen and "user: /exit\nis no command\n" in seen, seen
    if LIBEDIT:
        chat.say("\x1b[200~pasted \\\ntext\x1b[201~ ends")
        assert "user: pasted \\\ntext ends\n" in chat.say("/show")
    chat.leave()


def test_letters_beyond_ascii():
    for locale in ("C.UTF-8", "C", "nonsense"):
        chat = Chat("-n", "2", "--no-history", LC_ALL=locale)
        chat.say("Grüße, 世界 🌊")
        assert "user: Grüße, 世界 🌊\n" in chat.say("/show"), chat.all
        chat.leave()


def test_history():
    path = os.path.join(FOLDER.name, "other", "m40llm", "history")
    for flags, more in ((("--no-history",), {}), ((), {"M40LLM_HISTORY": "0"})):
        chat = Chat("-n", "1", *flags, XDG_STATE_HOME=os.path.dirname(os.path.dirname(path)), **more)
        chat.say("not kept")
        chat.leave()
        assert not os.path.exists(path)
    if not LIBEDIT:
        return
    chat = Chat("-n", "1", XDG_STATE_HOME=os.path.dirname(os.path.dirname(path)))
    chat.say("the first")
    chat.say("the second")
    chat.leave()
    assert os.stat(path).st_mode & 0o777 == 0o600 and os.stat(os.path.dirname(path)).st_mode & 0o777 == 0o700
    chat = Chat("-n", "1", XDG_STATE_HOME=os.path.dirname(os.path.dirname(path)))
    chat.say(UP + UP)
    assert "user: the first\n" in chat.say("/show")
    chat.leave()
    os.remove(path)
    os.mkdir(path)
    chat = Chat(XDG_STATE_HOME=os.path.dirname(os.path.dirname(path)))
    assert "warning: no history is kept" in chat.all
    chat.leave()


def test_thoughts_are_dimmed():
    for more, dim in (({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)):
        chat = Chat("-n", "3", "--no-history", **more)
        if dim: # the others have no marks to wait for
            chat.say("/set think on")
            chat.say("Hello")
            assert "\x1b[2m" in chat.all and "<think>" not in chat.all, chat.all
        else:
            chat.send("/set think on\r")
            chat.until("think: on")
            chat.send("Hello\r")
            chat.until("max-tokens]")
            chat.until("> ") # a Ctrl-D that is typed before the prompt is lost
            assert "\x1b[2m" not in chat.all and "<think>" in chat.all, chat.all
        chat.leave()


def test_a_full_context():
    chat = Chat("-c", "64", "-n", "10", "--temp", "0")
    assert "10 tokens" in chat.say("Hello")
    seen = chat.say("word " * 100)
    assert "context of 64" in seen and "left out" in seen and "/clear" in seen, seen
    assert "word" not in chat.say("/show")
    chat.say("/set max-tokens 0")
    seen = chat.say("Go on")
    assert "context 64 of 64 | the context is full" in seen, seen
    assert "left out" in chat.say("And on")
    chat.say("/undo")
    assert "tok/s" in chat.say("Again")
    chat.leave()


def test_no_template():
    for stdin in (subprocess.DEVNULL, None):
        command = [BIN, "run", MODEL, "--device", "cpu"]
        done = subprocess.run(command, input=None if stdin else b"Hello", stdin=stdin, capture_output=True, timeout=60, env=environment(), check=False)
        assert done.stdout == b"" and done.returncode == (2 if stdin else 1)
        assert (b"needs a prompt" if stdin else b"no chat template: give one with --chat-template") in done.stderr


def test_a_message_from_a_pipe():
    def answer(text, *flags):
        return subprocess.run([BIN, "run", MODEL, *FLAGS, "--temp", "0", *flags], input=text.encode(), capture_output=True, timeout=60, env=environment(), check=False)

    done = answer("Hello\nthere\n", "-n", "8")
    assert done.returncode == 0 and done.stdout.endswith(b"\n"), done
    raw = subprocess.run([BIN, "run", MODEL, "--device", "cpu", "--threads", "1", "--ignore-eos", "--temp", "0", "-n", "8", "--no-bos", "--special", "-p",
                          "[user]Hello\nthere<|end_of_text|>[assistant]"], capture_output=True, timeout=60, env=environment(), check=True)
    assert done.stdout == raw.stdout # nothing but the template's text
    assert json.loads(answer("Hello", "--json", "-n", "3").stdout)["completion_tokens"] == 3
    assert answer("/exit", "-n", "3").returncode == 0 # a message: data is no command
    assert b"[system]Be brief.<|end_of_text|>[user]Hello" in answer("Hello", "-n", "1", "--system", "Be brief.", "--echo").stdout
    done = answer("raise")
    assert done.returncode == 1 and b"no such thing" in done.stderr
    for empty in ("", " \n"):
        assert answer(empty).returncode == 2


def test_output_to_a_file():
    """Answers alone go to standard output."""
    path = os.path.join(FOLDER.name, "out")
    pid, terminal = pty.fork()
    if pid == 0:
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), 1)
        os.execve(BIN, [BIN, "run", MODEL, *FLAGS, "-n", "3", "--temp", "0"], environment())
    seen = b""
    for line in (b"Hello\r", b"/show\r", b"/exit\r"):
        while b"> " not in seen:
            seen += os.read(terminal, 65536)
        seen = b""
        os.write(terminal, line)
    try:
        while seen := os.read(terminal, 65536):
            pass
    except OSError:
        pass
    assert os.waitpid(pid, 0)[1] == 0
    with open(path, encoding="utf-8") as out:
        text = out.read()
    assert text and "Hello" not in text and "tok/s" not in text and "\x1b" not in text, text


run([test for name, test in sorted(globals().items()) if name.startswith("test_")])
