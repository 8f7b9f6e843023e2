"""vehicle.py [URL [HEADER]...]: obeys what an operator sends, and stands still whenever that may come too late."""
import atexit, http.client as web, json, math, signal, sys, time, urllib.parse
URL = urllib.parse.urlsplit(sys.argv[1] if len(sys.argv) > 1 else "http://localhost:3000/control/car")
LEASE, PAUSE, CONNECTING = 0.25, 0.25, 3  # Seconds: until it stops by itself, before it connects anew, for connecting.
ASK = [f"GET {URL.path}?{URL.query}&lease={LEASE * 1000:.0f}&stop=STOP HTTP/1.0", f"Host: {URL.netloc}", *sys.argv[2:]]
clock = (lambda: time.clock_gettime(time.CLOCK_BOOTTIME)) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic

def drive(x, z, why):  # In metres and radians a second. Put your motors here: this is to set them, and return at once.
    print(f"drive {x:.2f} {z:.2f} {why}", flush=True)

def read(event):  # When it was sent, and what it says. In JSON a line feed is a blank. What is no Twist has no speeds.
    sent = int((b"\n" + event).rpartition(b"\n:")[2].split(b"\n")[0][:15]) / 1000
    text = " ".join(line[6:] for line in event.decode(errors="replace").split("\n") if line.startswith("data: "))
    try:
        twist = {"linear": {"x": 0}, "angular": {"z": 0}} if text == "STOP" else json.loads(text)
        return sent, text, twist["linear"]["x"] + 0.0, twist["angular"]["z"] + 0.0
    except (ArithmeticError, LookupError, RecursionError, TypeError, ValueError):
        return sent, text, math.nan, math.nan

def listen():
    connection = (web.HTTPSConnection if URL.scheme == "https" else web.HTTPConnection)(URL.netloc, timeout=CONNECTING)
    connection.connect()
    with connection.sock as link:  # Read as it is: nothing else keeps what has come earlier.
        start, sent, head, rest = clock(), 0, b"", b""  # The server counts from its answer, so from `start` or later.
        link.sendall("\r\n".join([*ASK, "", ""]).encode())
        while True:
            link.settimeout(start + sent + LEASE - clock())  # If the lease is over, a ValueError.
            if not (data := link.recv(65536)): raise ConnectionError(rest or "closed")
            *events, rest = (rest + data).split(b"\n\n")
            for event in events:
                head, last, (sent, text, x, z) = head or event, sent, read(event)
                start = min(start + (sent - last) / 1000, clock() - sent)  # Clocks may drift by a millisecond a second.
                # The last look at the clock is right before it moves.
                if b"event-stream" not in head or clock() > start + sent + LEASE: raise ConnectionError("bad or late")
                if text: drive(x, z, text) if math.isfinite(x + z) else print("command", text, flush=True)

signal.signal(signal.SIGTERM, lambda *_: sys.exit())
atexit.register(drive, 0, 0, "at the end")
drive(0, 0, "at first")
while True:
    try:
        listen()
    except (OSError, ValueError) as error:
        drive(0, 0, repr(error))
    time.sleep(PAUSE)
