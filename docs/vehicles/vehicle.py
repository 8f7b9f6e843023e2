"""vehicle.py [URL [KEY]]: obeys what an operator sends, and stands still whenever that may come too late."""
import base64, json, math, select, signal, socket, ssl, sys, time
from urllib.parse import urlsplit

URL = urlsplit(sys.argv[1] if len(sys.argv) > 1 else "http://localhost:3000/control/car")
KEY = f"Authorization: Bearer {sys.argv[2]}\r\n" if len(sys.argv) > 2 else ""
TLS, PORT = URL.scheme == "https", URL.port or {"http": 80, "https": 443}[URL.scheme]
LEASE, PAUSE, CONNECTING = 0.25, 0.25, 3  # Seconds of silence after which it stops, before it tries again, to connect.
MAX_EVENT = 512 * 1024  # Bytes. A command has up to 64 KiB, and each of its lines is sent with 6 more.
CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # On Linux, one that goes on while the machine sleeps.
def drive(x, z, why):  # Metres and radians per second. Put your motors here: this is to set them and return at once.
    print(f"drive {x:.2f} {z:.2f} {why}", flush=True)
def obey(event, latest):
    lines = event.split(b"\n")
    data = b"\n".join(line[6:] for line in lines if line.startswith(b"data: "))
    text = (base64.b64decode(data) if b"event: binary" in lines else data).decode(errors="backslashreplace")
    try:
        twist = {"linear": {"x": 0}, "angular": {"z": 0}} if text == "STOP" else json.loads(text)
        x, z = twist["linear"]["x"] + 0.0, twist["angular"]["z"] + 0.0
    except (ArithmeticError, LookupError, RecursionError, TypeError, ValueError):
        x = z = math.nan  # It is no Twist.
    if time.clock_gettime(CLOCK) > latest:  # Looked at last of all: this program may have been frozen since it read it.
        raise TimeoutError("what has come may be too old")
    if math.isfinite(x + z):
        drive(x, z, text.replace("\n", " "))
    elif text:
        print("command", text.replace("\n", " "), flush=True)
def listen():
    link = socket.create_connection((URL.hostname, PORT), CONNECTING)
    with ssl.create_default_context().wrap_socket(link, server_hostname=URL.hostname) if TLS else link as link:
        query = f"{URL.query}&lease={LEASE * 1000:.0f}&stop=STOP"
        since, rest, is_open = time.clock_gettime(CLOCK), b"", False  # Whatever had come by `since` has been obeyed.
        link.sendall(f"GET {URL.path}?{query} HTTP/1.0\r\nHost: {URL.netloc}\r\n{KEY}\r\n".encode())
        while True:
            link.settimeout(max(since + LEASE - time.clock_gettime(CLOCK), 0.001))
            data, now = link.recv(65536), time.clock_gettime(CLOCK)
            *events, rest = (rest + data).split(b"\n\n")
            for event in events:
                is_open = is_open or (b" 200 " in event and b"text/event-stream" in event)  # The first is the head.
                ...
