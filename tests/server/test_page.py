#!/usr/bin/env python3
"""The chat page in a real browser: sending, streaming, stopping, what is kept, Markdown, hostile text, keys, keyboard, phones.
M40LLM_SCREENSHOTS=FOLDER: pictures of it are left there, to be looked at. Skipped where there is no Chromium."""
import atexit
import json
import os
import sys
import tempfile

import browser
from client import Server, run, until
from page_cases import CONVERSATION, FLOODS, HOSTILE, MARKDOWN

TEMPLATE = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}The old man{% if enable_thinking %}<think>\n{% endif %}"
IDLE = "state.props && state.runs.size === 0"
LAST = "state.chat.messages.at(-1)"

if not browser.PROGRAM:
    print("1..1\nok 1 - the chat page # SKIP there is no Chromium (CHROMIUM names one)")
    sys.exit(0)


def start(*flags, with_template=True):
    with tempfile.NamedTemporaryFile("w", suffix=".jinja") as template:
        template.write(TEMPLATE)
        template.flush()
        # The browser wants a core, too.
        started = Server("--threads", "1", *flags, *(("--chat-template", template.name) if with_template else ()))
    atexit.register(started.process.kill)
    return started


server = start()
page = browser.Browser()
atexit.register(page.close)
page.resize(1280, 900)


def url(s):
    return f"http://127.0.0.1:{s.port}/"


def fresh(settings=None, s=server):
    """A page that remembers nothing but these settings."""
    page.load(url(s))
    page.js(f"localStorage.clear(); sessionStorage.clear(); localStorage.setItem('m40llm.settings', {json.dumps(json.dumps(settings or {}))}); state.runs.clear()")
    page.load()
    page.until("state.props")


def send(text, wait=True):
    n = page.js("state.chat.messages.length")
    page.type(text)
    page.key("Enter")
    page.until(f"state.chat.messages.length === {n + 2}")
    if wait:
        page.until(IDLE)


def shot(name):
    folder = os.environ.get("M40LLM_SCREENSHOTS")
    if folder:
        os.makedirs(folder, exist_ok=True)
        page.js("new Promise((done) => setTimeout(done, 300))")  # transitions
        page.screenshot(os.path.join(folder, f"{name}.png"))


def ask_api(messages, **fields):
    reply = server.post("/v1/chat/completions", {"messages": messages, **fields})
    assert reply.status == 200, reply.body
    return reply.json()


def ask_for_long_answers():
    """Long enough to be stopped. A user has no field for it."""
    page.js("SETTINGS.push({name: 'min_tokens', kind: 'number'}); state.chat.settings = {min_tokens: 400, temperature: 0}")


def test_needs_nothing_from_elsewhere():
    fresh()
    assert all(r.startswith((url(server), "data:")) for r in page.requests), page.requests
    assert page.js("byId('model').textContent") == "demo" and page.js("byId('device').textContent").startswith("cpu")
    shot("empty-light")


def test_send_and_stream():
    settings = {"temperature": 0, "max_tokens": 100, "system": "You are kind"}
    fresh(settings)
    page.js("""window.lengths = new Set(); new MutationObserver(() => lengths.add(document.querySelector('.assistant .content')?.textContent.length ?? 0))
            .observe(byId('messages'), {childList: true, subtree: true, characterData: true})""")
    send("Hello there")
    whole = ask_api([{"role": "system", "content": "You are kind"}, {"role": "user", "content": "Hello there"}], temperature=0, max_tokens=100)
    assert page.js(f"{LAST}.content") == whole["choices"][0]["message"]["content"]
    assert page.js("lengths.size") > 2  # it grew before the reader's eyes
    usage = whole["usage"]
    figures = page.js("document.querySelector('.figures').textContent")
    assert figures.startswith("100 tokens · ") and "tok/s" in figures and "first after" in figures and figures.endswith("token limit"), figures
    assert page.js("byId('context-text').textContent") == f"context {usage['total_tokens']} of 1,024"
    assert page.js("byId('spoken').textContent.length") > 20 and page.js("document.activeElement.id") == "draft"

    send("And then?")  # the whole conversation goes with it
    messages = page.js("state.chat.messages.slice(0, 3).map(({role, content}) => ({role, content}))")
    whole = ask_api([{"role": "system", "content": "You are kind"}, *messages], temperature=0, max_tokens=100)
    assert page.js(f"{LAST}.content") == whole["choices"][0]["message"]["content"]


def test_stop():
    fresh()
    ask_for_long_answers()
    for n, stop in enumerate((lambda: page.key("Escape"), lambda: page.click("#stop")), 1):
        send("Tell me a long story", wait=False)
        page.until(f"{LAST}.content.length > 20")
        assert page.js("byId('send').hidden && !byId('stop').hidden")
        stop()
        page.until(IDLE, 2)
        assert page.js(f"{LAST}.finish") == "stopped" and "stopped" in page.js(f"messageViews.get({LAST}).figures.textContent")
        assert page.js("!byId('send').hidden && byId('stop').hidden && document.activeElement.id === 'draft'")
        until(lambda: sum(" gone" in line for line in server.log) >= n)  # the server has seen it, too


def test_reload_keeps_the_conversation():
    fresh({"temperature": 0, "max_tokens": 12})
    send("Hello there")
    before = page.js("[state.chat.messages, byId('messages').innerText, state.chat.settings]")
    page.load()
    page.until("state.props")
    assert page.js("[state.chat.messages, byId('messages').innerText, state.chat.settings]") == before
    assert page.js("byId('chat-list').innerText.trim()") == "Hello there"
    ask_for_long_answers()
    send("Tell me more", wait=False)
    page.until(f"{LAST}.content.length > 20")
    page.load()
    page.until("state.props")
    page.until(f"{LAST}.finish === 'stopped' && {LAST}.content.length > 20", 5)  # what was written last may come as an event


def test_edit_and_regenerate():
    fresh({"max_tokens": 12})
    send("One")
    send("Two")
    first = page.js(f"{LAST}.content")
    page.click(".assistant:last-child .foot button:nth-of-type(2)")
    page.until(f"{IDLE} && {LAST}.content && {LAST}.content !== {json.dumps(first)}")
    assert page.js("state.chat.messages.length") == 4
    page.click(".user .foot button")
    page.type(" and a half")
    page.key("Escape")
    assert page.js("state.chat.messages[2].content") == "Two" and page.js("document.activeElement.textContent") == "Edit"
    page.key("Enter")
    page.type(" and a half")
    page.key("Enter")
    page.until(f"{IDLE} && state.chat.messages[2].content === 'Two and a half'")
    assert page.js("state.chat.messages.map(({content}) => content.length > 0)") == [True] * 4


def test_several_conversations():
    fresh({"max_tokens": 8})
    send("The first")
    page.click("#new-chat")
    send("The second")
    titles = "[...document.querySelectorAll('.open-chat')].map((b) => b.textContent)"
    assert page.js(titles) == ["The second", "The first"]
    page.click("#chat-list li:nth-child(2) .open-chat")
    assert page.js("state.chat.messages[0].content") == "The first" and page.js("document.querySelectorAll('.message').length") == 2
    page.js("document.querySelectorAll('.remove-chat')[1].focus()")
    page.key("Enter")
    assert page.js(titles) == ["The second"] and page.js("state.chat.messages.length") == 0
    assert page.js("readChats().length") == 1
    page.click("#notice-button")
    assert page.js(titles) == ["The second", "The first"] and page.js("state.chat.messages.length") == 2 and page.js("readChats().length") == 2


def test_settings():
    fresh()
    page.click("#open-settings")
    shot("settings-light")
    assert page.js("document.activeElement.id") == "setting-system"
    page.type("Be brief")
    values = {"temperature": "0.5", "top_k": "40", "top_p": "0.9", "min_p": "0.05", "max_tokens": "5", "seed": "7", "repetition_penalty": "1.1",
              "presence_penalty": "-0.5", "frequency_penalty": "0.25"}
    for name, value in values.items():
        page.js(f"byId('setting-{name}').focus()")
        page.type(value)
    page.js("byId('setting-stop').value = 'one\\ntwo'; byId('setting-thinking').value = 'off'")
    page.js("byId('setting-top_p').value = '1.5'")
    page.click("#settings .primary")
    assert page.js("byId('settings').open") and page.js("byId('settings-failure').textContent") == "Top p must be a number from 0 to 1, or nothing."
    page.js("byId('setting-top_p').value = '0.9'")
    page.click("#settings .primary")
    want = {"system": "Be brief", **{k: float(v) for k, v in values.items()}, "stop": ["one", "two"], "thinking": "off"}
    assert page.js("state.chat.settings") == want
    body = page.js("(state.chat.messages.push({role: 'user', content: 'Hi'}), answerRequest(state.chat, true).body)")
    assert body == {"stream": True, "stream_options": {"include_usage": True}, **{k: float(v) for k, v in values.items()}, "stop": ["one", "two"],
                    "chat_template_kwargs": {"enable_thinking": False},
                    "messages": [{"role": "system", "content": "Be brief"}, {"role": "user", "content": "Hi"}]}
    page.js("state.chat.messages.pop(); byId('draft').focus()")
    send("Hello")
    assert not page.js(f"{LAST}.error") and page.js(f"{LAST}.figures.nTokens") <= 5  # the server takes it all
    page.click("#open-settings")
    page.click("#settings-reset")
    page.key("Escape")
    assert not page.js("byId('settings').open") and page.js("state.chat.settings") == want


def test_reasoning():
    fresh({"max_tokens": 20, "temperature": 0, "thinking": "on"})
    send("Hello")
    message = page.js(LAST)
    assert message["reasoning"] and message["content"] == ""
    assert page.js("!document.querySelector('details').hidden && !document.querySelector('details').open")
    page.click("summary")
    assert page.js("document.querySelector('details').innerText").startswith("Thoughts")
    assert page.js("document.querySelector('details .markdown').textContent.length") > 20


def test_errors_are_shown():
    fresh()
    send("word " * 3000)
    text = page.js("document.querySelector('.assistant .failure').textContent")
    assert "context" in text and "1024" in text, text
    assert page.js("document.querySelector('.assistant .foot button').textContent") == "Try again"
    shot("error-light")
    page.faults.clear()  # the console tells of the 400

    brief = start("--drain", "0")
    fresh(s=brief)
    brief.stop()
    send("Hello?")
    assert page.js("document.querySelector('.assistant .failure').textContent") == "The server does not answer. Is it still running?"
    assert page.until("byId('device').textContent !== state.props.device + ' · ' + state.props.device_name && byId('device').textContent") == "the server does not answer"
    page.load(url(server))
    page.faults.clear()


def test_key():
    guarded = start("--api-key", "the-key", with_template=False)
    page.load(url(guarded))
    page.until("byId('key').open")
    assert page.js("byId('key-reason').textContent") == "This server wants a key."
    page.type("wrong")
    page.key("Enter")
    page.until("byId('key').open && byId('key-reason').textContent === 'The server does not accept this key.'")
    shot("key-light")
    page.key("Escape")
    assert page.until("!byId('failure').hidden && byId('failure').innerText").startswith("wrong API key")
    page.click("#failure button")
    page.until("byId('key').open")
    page.type("the-key")
    page.key("Enter")
    page.until("state.props")
    assert page.js("byId('failure').hidden && localStorage.getItem('m40llm.key') === null")
    page.load()
    page.until("state.props")  # the window remembers it
    page.js("writeKey('outdated', false); state.chat.settings = {max_tokens: 20}")
    send("Once upon a time", wait=False)
    page.until("byId('key').open")
    page.type("the-key")
    page.click("#key-keep")
    page.click("#key .primary")
    page.until(IDLE)
    # and it has no template: the text is continued
    assert page.js(f"{LAST}.content.length") > 20 and page.js("JSON.parse(localStorage.getItem('m40llm.key'))") == "the-key"
    until(lambda: guarded.line("POST /v1/completions 200"))
    page.faults.clear()  # the console tells of the 401s
    guarded.stop()


def test_markdown():
    fresh()
    for text, want in MARKDOWN:
        got = page.js(f"(() => {{ const root = make('div'); drawMarkdown(root, {json.dumps(text)}); return root.innerHTML; }})()")
        got = got.replace(' target="_blank" rel="noopener noreferrer nofollow"', "")
        assert got == want, f"{text!r}\n got {got}\nwant {want}"


def test_markdown_grows():
    fresh()
    text = "\n\n".join(text for text, _ in MARKDOWN)
    same = page.js(f"""(() => {{ const text = {json.dumps(text)}, grown = make('div'), whole = make('div'); let kept;
        for (let n = 1; n < text.length; n += 3) {{ drawMarkdown(grown, text.slice(0, n)); if (n < 100) kept = grown.firstChild; }}
        drawMarkdown(grown, text); drawMarkdown(whole, text);
        return [grown.innerHTML === whole.innerHTML, grown.firstChild === kept]; }})()""")
    assert same == [True, True]


CHECK_SAFE = """((root) => [...root.querySelectorAll('*')].flatMap((e) => [
    ...(/^(p|h[3-6]|ul|ol|li|strong|em|del|a|code|pre|div|span|button|table|thead|tbody|tr|th|td|blockquote|hr|br)$/.test(e.localName) ? [] : [e.localName]),
    ...[...e.attributes].filter((a) => !['class', 'href', 'title', 'target', 'rel', 'start', 'dir', 'type', 'aria-label'].includes(a.name)).map((a) => a.name),
    ...(e.localName === 'a' && !['http:', 'https:', 'mailto:'].includes(e.protocol) ? [e.href] : [])]))"""


def test_hostile_markdown():
    fresh()
    n = len(page.requests)
    for text in HOSTILE:
        bad = page.js(f"(() => {{ const root = make('div'); document.body.append(root); drawMarkdown(root, {json.dumps(text)}); const bad = {CHECK_SAFE}(root);"
                      " root.querySelectorAll('a').forEach((a) => { a.target = '_self'; if (!/^(https?|mailto):/.test(a.href)) a.click(); }); root.remove(); return bad; })()")
        assert bad == [], (text, bad)
    # and as messages, which come from the store
    everything = "\n\n".join(HOSTILE)
    chat = {"id": "x", "title": HOSTILE[0], "messages": [{"role": "user", "content": everything},
                                                         {"role": "assistant", "content": everything, "reasoning": everything, "finish": "stop", "error": HOSTILE[0]}]}
    page.js(f"localStorage.setItem('m40llm.chat.x', {json.dumps(json.dumps(chat))})")
    page.load()
    page.until("state.props && document.querySelectorAll('.message').length === 2")
    assert page.js("(() => { try { make('p').innerHTML = 'x'; return false; } catch (e) { return e instanceof TypeError; } })()")  # the policy's last line
    assert page.js("window.hit === undefined && document.querySelectorAll('body script').length === 1 && !document.querySelector('img, iframe, style ~ style')")
    assert page.js("document.querySelector('.user .content').textContent") == everything
    assert all(r.startswith((url(server), "data:")) for r in page.requests[n:]), page.requests[n:]


def test_floods():
    fresh()
    for piece in FLOODS:
        text = (piece * 100000)[:100000]
        ms, depth, kept = page.js(f"""(() => {{ const root = make('div'), text = {json.dumps(piece)}.repeat(100000).slice(0, 100000), start = performance.now();
            drawMarkdown(root, text); const ms = performance.now() - start; let depth = 0;
            for (const walk = document.createTreeWalker(root, NodeFilter.SHOW_ELEMENT); walk.nextNode();) {{
                if (walk.currentNode.firstElementChild) continue;
                let n = 0; for (let e = walk.currentNode; e !== root; e = e.parentNode) n++; depth = Math.max(depth, n); }}
            return [ms, depth, root.textContent.length]; }})()""")
        assert ms < 3000 and depth < 60 and kept <= len(text) + 10, (piece, ms, depth, kept)


def test_keyboard_alone():
    fresh({"max_tokens": 8})
    send("Hello")
    page.type("a line")
    page.key("Enter", shift=True)
    page.type("another")
    assert page.js("byId('draft').value") == "a line\nanother" and page.js("state.chat.messages.length") == 2
    assert page.js("byId('draft').clientHeight") > 50
    names = []
    for _ in range(20):
        page.key("Tab")
        names.append(page.js("""(() => { const e = document.activeElement, r = e.getBoundingClientRect();
            return e === document.body ? 'end' : r.width && getComputedStyle(e).opacity > 0 ? e.ariaLabel || e.labels?.[0]?.textContent || e.innerText : 'unseen ' + e.id; })()"""))
    for name in ("Send", "New chat", "Hello", "Delete: Hello", "Settings", "Theme: automatic", "Edit your message", "Copy the answer", "Regenerate", "Message"):
        assert name in names, (name, names)
    assert not any(not n or n.startswith("unseen") for n in names), names
    unnamed = page.js("""[...document.querySelectorAll('button, input, textarea, select, dialog')]
        .filter((e) => !(e.ariaLabel || e.labels?.length || e.textContent.trim() || e.getAttribute('aria-labelledby')) && e.id !== 'notice-button').map((e) => e.outerHTML)""")
    assert unnamed == []


def test_theme():
    fresh()
    page.js(f"localStorage.setItem('m40llm.chat.y', {json.dumps(json.dumps(CONVERSATION))})")
    page.load()
    page.until("state.props")
    paper = "getComputedStyle(document.body).backgroundColor"
    shot("chat-light")
    light = page.js(paper)
    page.prefer("dark")
    dark = page.js(paper)
    assert dark != light
    shot("chat-dark")
    page.click("#open-settings")
    shot("settings-dark")
    page.key("Escape")
    page.click("#theme")
    assert page.js(paper) == light and page.js("byId('theme').ariaLabel") == "Theme: light"
    page.load()
    page.until("state.props")
    assert page.js(paper) == light
    page.prefer("light")
    page.click("#theme")
    assert page.js(paper) == dark
    page.click("#theme")
    assert page.js(paper) == light


def test_phone():  # the last one: a finger stays a finger
    page.resize(390, 844, phone=True)
    page.load()
    page.until("state.props")
    page.js("byId('scroller').scrollTop = 0")
    shot("phone-light")
    assert page.js("document.documentElement.scrollWidth") == 390 and page.js("byId('scroller').scrollWidth <= byId('scroller').clientWidth")
    hidden = "getComputedStyle(byId('sidebar')).visibility === 'hidden'"
    assert page.js(hidden) and page.js("document.activeElement.id") != "draft"
    page.click("#open-menu")
    page.until(f"!({hidden})")
    assert page.js("document.activeElement.id") == "new-chat" and page.js("document.querySelector('main').inert")
    shot("phone-menu-light")
    page.key("Escape")
    page.until(hidden)
    assert page.js("document.activeElement.id") == "open-menu"
    page.prefer("dark")
    page.js("byId('scroller').scrollTop = 1e6")
    shot("phone-dark")
    page.click("#open-settings")
    shot("phone-settings-dark")
    page.key("Escape")
    page.js("byId('draft').focus()")
    page.type("Hello")
    page.key("Enter")  # a new line
    assert page.js("byId('draft').value") == "Hello\n"
    page.js("state.chat.settings = {max_tokens: 8}")
    page.click("#send")
    page.until(f"{IDLE} && {LAST}.content")
    small = page.js("[...document.querySelectorAll('button')].filter((b) => b.offsetParent && b.getBoundingClientRect().height < 26).map((b) => b.outerHTML)")
    assert small == []


def test_no_fault_and_the_end():
    faults = [f for f in page.faults if "TrustedHTML" not in f]  # that was test_hostile_markdown's
    assert faults == [], faults
    server.stop()


run([f for name, f in list(globals().items()) if name.startswith("test_")])
