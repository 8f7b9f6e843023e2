"""phone.py OPTIONS: phones that send pictures by Socket.IO, with python-socketio 4.6 (Engine.IO 3).

OPTIONS is one JSON object:

  url         where the server is, without a path        path        /socket.io/, where nothing is said
  transports  ["polling", "websocket"], where nothing is said, or one of them
  user        whom to authenticate as; with several phones, user-1, user-2 and so on. Any JSON will do
  password    the same for all; where it is missing, nobody authenticates
  callback    the event that tells the outcome, onAuthentication where nothing is said
  phones      how many of them, 1 where nothing is said
  frames      how many each sends                        bytes       how large each is
  fps         how many a second; 0: as fast as they go, with `ack` one after the other
  ack         ask for an acknowledgement of each
  wait        send only when authentication has succeeded, otherwise as soon as there is a connection
  hold        send only after a line "go" on the standard input
  stay        seconds to stay after the last frame       reconnect   connect again, as this client does by itself
  ca          file with the authority that servers are trusted by

Prints a line of JSON for each thing that happens: connect, authenticated, upgrade, ack, disconnect and error, sent when all
frames have left, and a summary at the end. The end of the input hangs up."""

import json
import os
import sys
import threading
import time
import warnings

# eventlet, which socketio imports where it is installed, tells everybody not to use it for anything new.
warnings.showwarning = lambda *_, **__: None
options = json.loads(sys.argv[1])
# Straight to the server, however the machine reaches the world.
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "*"
if "ca" in options:
    os.environ["REQUESTS_CA_BUNDLE"] = os.environ["WEBSOCKET_CLIENT_CA_BUNDLE"] = options["ca"]

import socketio

FRAMES, FPS, BYTES = options.get("frames", 0), options.get("fps", 0), options.get("bytes", 10240)
PHONES, STAY = options.get("phones", 1), options.get("stay", 0)
TRANSPORTS = options.get("transports", ["polling", "websocket"])
CALLBACK = options.get("callback", "onAuthentication")
# How far frames may run ahead of the network, in packets.
MAX_AHEAD = 8
# How long saying goodbye may take, in seconds.
GOODBYE = 2
# How long a thread may take from one step to the next, in seconds.
PAUSE = 0.02
# How long a request may take, in seconds: one with large pictures takes a while on a busy machine.
REQUEST_TIMEOUT = 30

printing = threading.Lock()
begun, closed = threading.Event(), threading.Event()
if not options.get("hold"):
    begun.set()


def show(line):
    with printing:
        print(json.dumps(line), flush=True)


def made_filler():
    """What pictures are filled with, over and over."""
    filler, state = bytearray(65521), 0x9E3779B9
    for at in range(len(filler)):
        state ^= state << 13 & 0xFFFFFFFF
        state ^= state >> 17
        state ^= state << 5 & 0xFFFFFFFF
        filler[at] = state & 0xFF
    return bytes(filler)


FILLER = made_filler()


def picture(phone, number):
    """A picture of a phone: the first bytes of a JPEG, who and which it is, filler that begins elsewhere in each, the end."""
    head = b"\xff\xd8\xff\xe0" + f"phone {phone} frame {number};".encode()
    start, length = (phone * 7919 + number * 104729) % len(FILLER), BYTES - len(head) - 2
    filler = FILLER[start:] + FILLER * (length // len(FILLER) + 1)
    return head + filler[:length] + b"\xff\xd9"


class Phone:
    def __init__(self, number):
        self.number = number
        user = options.get("user")
        self.user = f"{user}-{number}" if PHONES > 1 and user else user
        self.next, self.sent, self.acked = 1, 0, 0
        self.unanswered = set()
        # Counts connections: whoever sends on an older one stops.
        self.connection = 0
        self.ready, self.over = threading.Event(), threading.Event()
        self.client = socketio.Client(
            reconnection=bool(options.get("reconnect")), reconnection_delay=0.5, request_timeout=REQUEST_TIMEOUT
        )
        self.client.on("connect", self.connected)
        self.client.on("disconnect", self.disconnected)
        self.client.on("connect_error", self.failed)
        self.client.on(CALLBACK, self.authenticated)

    def say(self, event, **more):
        show({"phone": self.number, "event": event, **more})

    def connected(self):
        self.connection += 1
        self.say("connect", transport=self.client.transport())
        if "password" in options:
            self.client.emit("authenticate", (self.user, options["password"], CALLBACK))
        if not options.get("wait"):
            self.ready.set()

    def authenticated(self, *values):
        self.say("authenticated", value=values[0] if values else None)
        if options.get("wait") and values and values[0] is True:
            self.ready.set()

    def disconnected(self):
        self.connection += 1
        self.ready.clear()
        self.say("disconnect", reason=None)
        if not options.get("reconnect"):
            self.over.set()

    def failed(self, *messages):
        self.say("error", message=str(messages[0]) if messages else None)

    def start(self):
        threading.Thread(target=self.connect, daemon=True).start()
        threading.Thread(target=self.run, daemon=True).start()

    def connect(self):
        while True:
            try:
                self.client.connect(options["url"], transports=TRANSPORTS, socketio_path=options.get("path", "socket.io"))
                break
            except socketio.exceptions.ConnectionError:
                # What it was, `failed` has told. The client tries again only where it has been connected.
                if not options.get("reconnect"):
                    return self.over.set()
                time.sleep(0.5)
        if len(TRANSPORTS) > 1 and self.client.transport() == "websocket":
            self.say("upgrade", transport="websocket", frames=self.next - 1)

    def run(self):
        begun.wait()
        while not self.over.is_set():
            self.ready.wait()
            connection = self.connection
            if self.send(lambda: self.connection == connection and not self.over.is_set()):
                self.over.set()

    def waiting(self):
        """How many packets have not been sent yet."""
        return self.client.eio.queue.unfinished_tasks

    def send(self, here):
        """Sends what is left, and stays. Whether all that was done on this connection."""
        begin = time.monotonic() + ((self.number - 1) / PHONES / FPS if FPS > 0 else 0)
        first = self.next
        while self.next <= FRAMES:
            if FPS > 0:
                time.sleep(max(0, begin + (self.next - first) / FPS - time.monotonic()))
            while here() and FPS <= 0 and (self.waiting() >= MAX_AHEAD or options.get("ack") and self.unanswered):
                time.sleep(0.001)
            if not here():
                return False
            number, self.next = self.next, self.next + 1
            frame = picture(self.number, number)
            if options.get("ack"):
                self.unanswered.add(number)
                self.client.emit("receiveImage", frame, callback=lambda *values, number=number: self.ack(number, values))
            else:
                self.client.emit("receiveImage", frame)
        while here() and self.waiting() > 0:
            time.sleep(0.001)
        if not here():
            return False
        self.sent = FRAMES
        self.say("sent", frames=FRAMES, transport=self.client.transport())
        while here() and self.unanswered:
            time.sleep(0.001)
        end = time.monotonic() + STAY
        while here() and time.monotonic() < end:
            time.sleep(0.01)
        return here()

    def ack(self, number, values):
        self.acked += 1
        self.say("ack", frame=number, value=values[0] if values else None)
        # Last: the client has a thread for each answer, and now the next frame is sent.
        self.unanswered.discard(number)

    def hang_up(self):
        """Ends the connection so that the server hears of it: the client drops its goodbye where a request is on its way."""
        self.over.set()
        self.client.reconnection = False
        self.settle()
        if self.client.connected:
            self.client.disconnect()
        self.settle()

    def settle(self):
        """Waits until the client has sent everything and is ready to send more."""
        end = time.monotonic() + GOODBYE
        writer = self.client.eio.write_loop_task
        # The pauses are for threads between two steps: the one that adds pictures, and the one that sends them.
        time.sleep(PAUSE)
        while self.waiting() > 0 and writer and writer.is_alive() and time.monotonic() < end:
            time.sleep(0.005)
        time.sleep(PAUSE)


def listen():
    for line in sys.stdin:
        if line.strip() == "go":
            begun.set()
    closed.set()


phones = [Phone(number) for number in range(1, PHONES + 1)]
began = time.monotonic()
threading.Thread(target=listen, daemon=True).start()
for phone in phones:
    phone.start()
while not closed.is_set() and not all(phone.over.is_set() for phone in phones):
    time.sleep(0.005)
# The client's own threads may still write to what it closes.
threading.excepthook = lambda _: None
for phone in phones:
    phone.hang_up()
show(
    {
        "event": "summary",
        "handed": sum(phone.next - 1 for phone in phones),
        "sent": sum(phone.sent for phone in phones),
        "acked": sum(phone.acked for phone in phones),
        "seconds": time.monotonic() - began,
    }
)
# Threads of the client that wait for a server would hold up the end.
os._exit(0)
