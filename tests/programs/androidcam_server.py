"""androidcam_server.py: what AndroidCamStream's own server does, with python-socketio 4.6 and eventlet.

It listens on a free port of the loopback, which it prints first. For each line of the standard input it prints how many
frames have come, and by user the SHA-256 of the newest. The end of the input ends it."""

import hashlib
import json
import os
import sys
import warnings
from threading import Thread

# eventlet tells everybody not to use it for anything new.
warnings.showwarning = lambda *_, **__: None

import eventlet
import eventlet.wsgi
import socketio
from engineio.payload import Payload

# As that server has it, since many frames come in one request while a client is not upgraded.
Payload.max_decode_packets = 256

# Larger than any picture of the tests, with what Base64 adds.
server = socketio.Server(async_mode="eventlet", max_http_buffer_size=100_000_000)
users, newest, frames = {}, {}, 0


@server.event
def authenticate(sid, user, password, callback):
    users[sid] = user
    # That server tells everybody; told is here who asked, which is less work.
    server.emit(callback, True, room=sid)


@server.event
def receiveImage(sid, picture):
    global frames
    newest[users.get(sid)] = picture
    frames += 1


@server.event
def disconnect(sid):
    users.pop(sid, None)


def answer():
    for _ in sys.stdin:
        pictures = {user: hashlib.sha256(picture).hexdigest() for user, picture in list(newest.items())}
        print(json.dumps({"frames": frames, "newest": pictures}), flush=True)
    os._exit(0)


listener = eventlet.listen(("127.0.0.1", 0), backlog=512)
print(json.dumps({"port": listener.getsockname()[1]}), flush=True)
Thread(target=answer, daemon=True).start()
eventlet.wsgi.server(listener, socketio.WSGIApp(server), log_output=False, max_size=4096)
