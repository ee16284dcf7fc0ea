"""A headless Chromium, driven through the DevTools protocol over a pair of pipes. Python's standard library alone."""
import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import tempfile
import time

PROGRAM = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
KEYS = {"Enter": 13, "Escape": 27, "Tab": 9}


class Browser:
    """One page of it. `requests` are the addresses it asked for, `faults` what its console complained of."""

    def __init__(self):
        self.profile = tempfile.mkdtemp(prefix="m40llm-browser-")
        theirs_in, self.to = os.pipe()
        self.back, theirs_out = os.pipe()
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 20) for fd in (theirs_in, theirs_out)]  # out of the way of 3 and 4
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-extensions", "--disable-background-networking",
                 "--disable-component-update", "--hide-scrollbars", "--blink-settings=primaryHoverType=2,availableHoverTypes=2,primaryPointerType=4,availablePointerTypes=4",  # a mouse
                 "--remote-debugging-pipe", f"--user-data-dir={self.profile}", "about:blank"]
        self.process = subprocess.Popen(["bash", "-c", f'exec "$@" 3<&{high[0]} 4>&{high[1]}', "bash", PROGRAM, *flags], pass_fds=high, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for fd in (theirs_in, theirs_out, *high):
            os.close(fd)
        self.n_sent = 0
        self.unread = b""
        self.requests, self.faults, self.n_loads = [], [], 0
        self.session = None
        target = next(t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page")
        self.session = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        self.call("Emulation.setFocusEmulationEnabled", enabled=True)
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def read_message(self, deadline):
        while b"\0" not in self.unread:
            if not select.select([self.back], [], [], max(0, deadline - time.monotonic()))[0]:
                return None
            piece = os.read(self.back, 1 << 20)
            assert piece, "the browser has ended"
            self.unread += piece
        message, self.unread = self.unread.split(b"\0", 1)
        return json.loads(message)

    def take_event(self, message):
        params = message.get("params", {})
        if message.get("method") == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif message.get("method") == "Page.loadEventFired":
            self.n_loads += 1
        elif message.get("method") == "Runtime.exceptionThrown":
            self.faults.append(params["exceptionDetails"].get("exception", {}).get("description", str(params)))
        elif message.get("method") == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.faults.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")

    def call(self, method, **params):
        """The result of a command of the protocol."""
        self.n_sent += 1
        message = {"id": self.n_sent, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + 60
        while (reply := self.read_message(deadline)) is not None:
            if reply.get("id") == self.n_sent:
                assert "error" not in reply, (method, reply["error"])
                return reply["result"]
            self.take_event(reply)
        raise AssertionError(f"no answer to {method}")

    def js(self, expression):
        """The value of an expression (a promise's is awaited) in the page."""
        reply = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True, userGesture=True)
        assert "exceptionDetails" not in reply, reply["exceptionDetails"]["exception"].get("description", reply)
        return reply["result"].get("value")

    def until(self, expression, seconds=30):
        """Waits for it to be true, and returns its value."""
        end = time.monotonic() + seconds
        while not (value := self.js(expression)):
            assert time.monotonic() < end, f"not in {seconds} s: {expression}\npage: {self.js('document.body.innerText')}\nfaults: {self.faults}"
            time.sleep(0.02)
        return value

    def load(self, url=None):
        """None: the same again."""
        n = self.n_loads
        if url:
            self.call("Page.navigate", url=url)
        else:
            self.call("Page.reload")
        end = time.monotonic() + 30
        while self.n_loads == n:
            assert time.monotonic() < end, f"{url} does not load"
            self.take_event(self.read_message(end) or {})

    def key(self, name, shift=False):
        code = {"key": name, "code": name, "windowsVirtualKeyCode": KEYS[name], "modifiers": 8 if shift else 0}
        text = {"text": "\r"} if name == "Enter" else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", **code, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **code)

    def type(self, text):
        """Into what has the focus."""
        self.call("Input.insertText", text=text)

    def click(self, selector):
        """With the mouse, in its middle: it must be there to be hit."""
        at = self.until(f"""(() => {{ const e = document.querySelector({json.dumps(selector)}); if (!e) return null; e.scrollIntoViewIfNeeded?.();
                         const r = e.getBoundingClientRect(), x = r.x + r.width / 2, y = r.y + r.height / 2, hit = document.elementFromPoint(x, y);
                         return hit && (e.contains(hit) || hit.contains(e)) ? [x, y] : null; }})()""", 10)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=at[0], y=at[1], button="left", clickCount=1)

    def resize(self, width, height, phone=False):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=2 if phone else 1, mobile=phone)
        if phone:  # for good: switched off again, there would be neither finger nor mouse
            self.call("Emulation.setTouchEmulationEnabled", enabled=True)

    def prefer(self, scheme):
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def screenshot(self, path):
        with open(path, "wb") as f:
            f.write(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def close(self):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self.to)
        os.close(self.back)
        for _ in range(20):  # its children write a little longer
            shutil.rmtree(self.profile, ignore_errors=True)
            if not os.path.exists(self.profile):
                break
            time.sleep(0.1)
