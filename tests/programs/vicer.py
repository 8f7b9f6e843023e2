"""Peers that speak VICER's wire, as its own programs do. One line of JSON for each thing that happens.

vicer.py vehicle|controller HOST PORT     vicer.py viewer|camera HOST PORT
A controller sends each line of its input as one command. A camera sends the files that its input names, each after its length.
"""

import json
import socket
import struct
import sys
import time


def say(**what):
    print(json.dumps(what), flush=True)


def exactly(connection, count):
    data = b""
    while len(data) < count:
        more = connection.recv(count - len(data))
        if not more:
            raise EOFError
        data += more
    return data


role, host, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
connection = socket.create_connection((host, port))
connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
say(connected=True)
try:
    if role == "vehicle":
        connection.sendall(b"K")
        while data := connection.recv(1024):
            say(command=data.decode(), at=time.monotonic())
    elif role == "controller":
        connection.sendall(b"controller")
        time.sleep(0.2)
        for line in sys.stdin:
            connection.sendall(line.strip().encode())
            say(sent=line.strip(), at=time.monotonic())
    elif role == "viewer":
        connection.sendall(b" ")
        while True:
            (length,) = struct.unpack("<I", exactly(connection, 4))
            picture = exactly(connection, length)
            say(bytes=length, starts=picture[:2].hex(), number=int.from_bytes(picture[4:12], "big"))
    elif role == "camera":
        connection.sendall(b"\x99")
        for line in sys.stdin:
            with open(line.strip(), "rb") as file:
                picture = file.read()
            connection.sendall(struct.pack("<I", len(picture)) + picture)
            say(sent=len(picture))
except (EOFError, ConnectionError):
    pass
say(ended=True)
