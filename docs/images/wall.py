#!/usr/bin/env python3
"""Takes the README's picture: the wall of a real server, with FFmpeg's test sources as cameras, in Chromium.

    docs/images/wall.py [FILE]

It starts all of that and ends it again, and installs nothing. It needs `cargo build --release`, ffmpeg, chromium and
chromedriver.
"""

import base64
import contextlib
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

HERE = pathlib.Path(__file__).parent
REPOSITORY = HERE.parent.parent
SIZE = (1280, 890)
# How long the wall may take until it is as it is to be, in seconds.
PATIENCE = 60
CAT = REPOSITORY / "tests/pictures/chelsea.jpg"
# Sessions and what their cameras see: arguments of ffmpeg. All move, but the one that falls silent.
CAMERAS = {
    "cat": ["-loop", "1", "-i", CAT, "-vf", "zoompan=z='1.2+0.2*sin(on/40)':d=1:s=640x360:fps=10"],
    "colour-bars": ["-f", "lavfi", "-i", "smptehdbars=size=640x360:rate=10"],
    "counter": ["-f", "lavfi", "-i", "testsrc=size=640x360:rate=10"],
    "fractal": ["-f", "lavfi", "-i", "mandelbrot=size=640x360:rate=10:start_scale=0.4:end_pts=90"],
    "gradients": ["-f", "lavfi", "-i", "gradients=size=640x360:rate=15:speed=0.05"],
    "life": ["-f", "lavfi", "-i", "life=size=320x180:rate=5:mold=10:ratio=0.2:death_color=#1f5fbf:life_color=#ffffff"],
    "noise": ["-f", "lavfi", "-i", "cellauto=size=640x360:rate=5:rule=110"],
    "sierpinski": ["-f", "lavfi", "-i", "sierpinski=size=640x360:rate=10"],
    "spectrum": ["-f", "lavfi", "-i", "colorspectrum=size=640x360:rate=5"],
    "test-pattern": ["-f", "lavfi", "-i", "testsrc2=size=640x360:rate=25"],
}
SILENT = "porch"
IS_READY = """
const states = [...document.querySelectorAll('.tile')].map((tile) => tile.dataset.state);
return states.filter((state) => state === 'live').length === arguments[0] && states.includes('stale')
    && document.querySelector('#count').textContent.includes(`${arguments[0]} live`)
    && [...document.querySelectorAll('.viewers')].every((viewers) => viewers.textContent.startsWith('1 '));
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@contextlib.contextmanager
def running(*command: object, **options: object):
    process = subprocess.Popen([str(part) for part in command], **options)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


class Browser:
    """Chromium, asked through its chromedriver (https://www.w3.org/TR/webdriver2/)."""

    def __init__(self, port: int, profile: str) -> None:
        self.url = f"http://127.0.0.1:{port}"
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-proxy-server", f"--user-data-dir={profile}"]
        options = {"capabilities": {"alwaysMatch": {"goog:chromeOptions": {"args": flags}}}}
        session = eventually(lambda: self.ask("POST", "/session", options))
        self.url += f"/session/{session['sessionId']}"

    def ask(self, method: str, path: str, body: object = None) -> object:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, method=method)
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)["value"]

    def command(self, name: str, **parameters: object) -> object:
        return self.ask("POST", "/goog/cdp/execute", {"cmd": name, "params": parameters})


def eventually(look):
    end = time.monotonic() + PATIENCE
    while True:
        try:
            found = look()
        except OSError:
            found = None
        if found:
            return found
        if time.monotonic() > end:
            sys.exit(f"not within {PATIENCE} s: {look.__name__}")
        time.sleep(0.1)


def main() -> None:
    target = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "wall.png"
    with contextlib.ExitStack() as stack:
        server = REPOSITORY / "target/release/image-streamer"
        variables = {"PATH": os.environ["PATH"], "EXPIRE": "600", "STALE_AFTER": "5"}
        process = stack.enter_context(
            running(server, "--ip", "127.0.0.1", "--port", 0, "demo", env=variables, text=True,
                    stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        )
        address = next(found.group(1) for line in process.stderr if (found := re.search(r"(http://127\.\S+?)\"?$", line)))
        push = urllib.request.Request(f"{address}/image/{SILENT}", data=CAT.read_bytes(), method="POST")
        urllib.request.urlopen(push).close()
        for session, source in CAMERAS.items():
            output = ["-c:v", "mjpeg", "-q:v", 4, "-threads", 1, "-f", "mpjpeg", f"{address}/stream/{session}"]
            stack.enter_context(running("ffmpeg", "-loglevel", "error", "-re", *source, *output))
        port = free_port()
        stack.enter_context(running("chromedriver", f"--port={port}", stdout=subprocess.DEVNULL))
        browser = Browser(port, stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        stack.callback(browser.ask, "DELETE", "")
        width, height = SIZE
        browser.command("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        browser.ask("POST", "/url", {"url": f"{address}/"})

        def wall_is_live():
            return browser.ask("POST", "/execute/sync", {"script": IS_READY, "args": [len(CAMERAS) + 1]})

        eventually(wall_is_live)
        target.write_bytes(base64.b64decode(browser.ask("GET", "/screenshot")))
        print(f"{target}: {target.stat().st_size} bytes")


main()
