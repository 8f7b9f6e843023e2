"""ws.py URL: a WebSocket client.

Each line of the standard input is sent as a text, or, as @FILE, what is in the file as a binary message. Each message that
comes is printed as a line of JSON: a text as {"text": …}, a frame of /ws/view taken apart. The end of the input closes."""

import json
import struct
import sys
import threading

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect


def frame(message):
    length = message[0]
    session, rest = message[1 : 1 + length].decode(), message[1 + length :]
    seq, captured = struct.unpack_from(">Qd", rest)
    return {"session": session, "seq": seq, "captured": captured, "picture": rest[16:].hex()}


def send(socket):
    for line in sys.stdin:
        line = line.rstrip("\n")
        if line.startswith("@"):
            with open(line[1:], "rb") as file:
                socket.send(file.read())
        else:
            socket.send(line)
    socket.close()


with connect(sys.argv[1], max_size=None, compression=None, proxy=None, open_timeout=10, close_timeout=10) as socket:
    threading.Thread(target=send, args=(socket,), daemon=True).start()
    try:
        while True:
            message = socket.recv()
            print(json.dumps({"text": message} if isinstance(message, str) else frame(message)), flush=True)
    except ConnectionClosed as closed:
        print(json.dumps({"closed": closed.rcvd.code if closed.rcvd else None}), flush=True)
