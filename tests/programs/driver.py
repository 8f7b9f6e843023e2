"""An operator: sends a command every so often, each with its number and when it was sent, by the clock of all programs here.

driver.py WEBSOCKET-URL COMMANDS-A-SECOND     It connects anew for as long as it runs, and tells each command that it sent.
"""

import asyncio
import json
import sys
import time

import websockets


async def main(url, rate):
    number = 0
    while True:
        try:
            async with websockets.connect(url, open_timeout=1, close_timeout=0.1, proxy=None) as socket:
                reading = asyncio.create_task(read(socket))
                while True:
                    number += 1
                    at = time.monotonic()
                    command = {"linear": {"x": 0.5}, "angular": {"z": 0.1}, "number": number, "at": at}
                    await asyncio.wait_for(socket.send(json.dumps(command)), 1)
                    print(json.dumps({"number": number, "at": at}), flush=True)
                    await asyncio.sleep(1 / rate)
                    if reading.done():
                        break
        except (OSError, asyncio.TimeoutError, websockets.WebSocketException):
            pass
        await asyncio.sleep(0.1)


async def read(socket):
    """The server says something once a second; who hears nothing connects anew."""
    try:
        while True:
            await asyncio.wait_for(socket.recv(), 2)
    except (asyncio.TimeoutError, websockets.WebSocketException):
        pass


asyncio.run(main(sys.argv[1], float(sys.argv[2])))
