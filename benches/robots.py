#!/usr/bin/python3
"""Measures the bridge from ROS beside the way of image_stream_server, in one run on one machine.

How to run it, from the project's root:

    make bench-robots                               # builds, installs, and prints the table of docs/BENCHMARKS.md
    /usr/bin/python3 benches/robots.py --seconds 5 --rounds 1

A node publishes pictures; a viewer watches them over HTTP as MJPEG. Between them is, in turn:

* **bridge**: image-streamer-ros and the server. The CPU of both is counted.
* **original**: a node in Python as image_stream_server has it: rospy and cv_bridge turn each message into an array, and a
  generator for each viewer encodes what is newest with cv2.imencode for as long as it is sent, again and again.
* **once**: the same with what anybody would mend first: each picture is encoded once, when it comes.

Neither of the Python nodes is behind a login or TLS here, and http.server takes Flask's place, which costs less. All make
JPEGs of the quality that is theirs by default: 80 and 95; `--quality` sets both.

Told are CPU time for each picture that was published, and how long after it a viewer has the picture: each picture shows the
time at which it was published, as black and white squares. Medians of all rounds; the order changes with every round.
All traffic stays on the loopback interface.
"""
import argparse
import http.client
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CASES = [("raw", 640, 480, 30), ("raw", 1920, 1080, 10), ("compressed", 640, 480, 30), ("compressed", 1920, 1080, 10)]
WAYS = ["bridge", "original", "once"]
TOPIC = "/camera/image"
BITS, SQUARE = 40, 16  # Milliseconds since 1970, without those from before BITS of them.


def squares():
    import numpy

    now = int(time.time() * 1000) % (1 << BITS)
    bits = numpy.array([now >> bit & 1 for bit in range(BITS)], numpy.uint8).reshape(2, BITS // 2) * 255
    return bits.repeat(SQUARE, 0).repeat(SQUARE, 1)[..., None]


def publish(kind, width, height, rate):
    """The robot."""
    import cv2
    import rospy
    from sensor_msgs.msg import CompressedImage, Image

    rospy.init_node("robot", disable_signals=True)
    photo = cv2.resize(cv2.imread(f"{ROOT}/tests/pictures/chelsea.jpg"), (width, height))
    publisher = rospy.Publisher(TOPIC, Image if kind == "raw" else CompressedImage, queue_size=2, tcp_nodelay=True)
    start, number = time.monotonic(), 0
    while True:
        stamp = squares()
        photo[:stamp.shape[0], :stamp.shape[1]] = stamp
        if kind == "raw":
            message = Image(height=height, width=width, encoding="bgr8", step=width * 3, data=photo.tobytes())
        else:
            message = CompressedImage(format="jpeg", data=cv2.imencode(".jpg", photo)[1].tobytes())
        message.header.stamp = rospy.Time.from_sec(time.time())
        publisher.publish(message)
        number += 1
        time.sleep(max(0, start + number / rate - time.monotonic()))


def serve(way, kind, port, quality):
    """The node in Python."""
    import threading
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    import cv2
    import rospy
    from cv_bridge import CvBridge
    from sensor_msgs.msg import CompressedImage, Image

    bridge, news, newest = CvBridge(), threading.Condition(), [0, None]
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if quality else []

    def encode(frame):
        return cv2.imencode(".jpg", frame, options)[1].tobytes()

    def arrived(message):
        turn = bridge.imgmsg_to_cv2 if kind == "raw" else bridge.compressed_imgmsg_to_cv2
        frame = turn(message, "bgr8")
        frame = encode(frame) if way == "once" else frame.copy()
        with news:
            newest[:] = newest[0] + 1, frame
            news.notify_all()

    def pictures():
        seen = 0
        while True:
            with news:
                if way == "once":
                    news.wait_for(lambda: newest[0] != seen)
                    seen, jpeg = newest
                elif newest[1] is None:
                    continue
                else:
                    jpeg = encode(newest[1])
            yield jpeg

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            # With the boundary behind each picture: one that waits for the next picture to begin would be seen late.
            self.wfile.write(b"--frame\r\n")
            for jpeg in pictures():
                self.wfile.write(b"Content-Type: image/jpeg\r\n\r\n" + jpeg + b"\r\n--frame\r\n")

        def log_message(self, *_):
            pass

    rospy.init_node("server", disable_signals=True)
    rospy.Subscriber(TOPIC, Image if kind == "raw" else CompressedImage, arrived, queue_size=1, buff_size=1 << 24)
    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


def view(port, path):
    """The viewer: tells how old each new picture is, in milliseconds."""
    import cv2
    import numpy

    answer = open_stream(port, path)
    rest, last = b"", None
    while data := answer.read1(1 << 20):
        now = time.time() * 1000
        *parts, rest = (rest + data).split(b"\r\n--")
        for part in parts:
            jpeg = part[part.find(b"\xff\xd8"):]
            if jpeg == last or not jpeg.startswith(b"\xff\xd8"):
                continue
            last = jpeg
            shown = cv2.imdecode(numpy.frombuffer(jpeg, numpy.uint8), cv2.IMREAD_GRAYSCALE)
            middle = shown[SQUARE // 2:SQUARE * 2:SQUARE, SQUARE // 2:SQUARE * BITS // 2:SQUARE].ravel()
            published = sum(1 << bit for bit in range(BITS) if middle[bit] > 127)
            print(now % (1 << BITS) - published, flush=True)


def open_stream(port, path):
    deadline = time.monotonic() + 20
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        try:
            connection.request("GET", path)
            return connection.getresponse()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


class Programs:
    """Those that were started, which end with this."""

    def __init__(self, variables):
        self.variables, self.running = variables, []

    def start(self, *command, **options):
        program = subprocess.Popen(command, env={**os.environ, **self.variables}, **options)
        self.running.append(program)
        return program

    def itself(self, *words, **options):
        return self.start("/usr/bin/python3", __file__, *map(str, words), **options)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for program in reversed(self.running):
            program.send_signal(signal.SIGKILL)
            program.wait()


def cpu(programs):
    """Milliseconds that they have used."""
    ticks = 0
    for program in programs:
        with open(f"/proc/{program.pid}/stat") as file:
            ticks += sum(map(int, file.read().rpartition(")")[2].split()[11:13]))
    return ticks * 1000 / os.sysconf("SC_CLK_TCK")


def sample(way, case, arguments):
    """CPU and delays for one case in one way, in milliseconds."""
    kind, width, height, rate = case
    master, port = free_port(), free_port()
    with tempfile.TemporaryDirectory() as home:
        variables = {"ROS_MASTER_URI": f"http://127.0.0.1:{master}", "ROS_IP": "127.0.0.1", "ROS_HOME": home, "ROS_LOG_DIR": home}
        with Programs(variables) as programs, open(os.devnull, "w") as nowhere:
            programs.start("/usr/bin/rosmaster", "--core", "-p", str(master), stdout=nowhere, stderr=nowhere)
            with socket.socket() as probe:
                while probe.connect_ex(("127.0.0.1", master)):
                    time.sleep(0.05)
            release = f"{ROOT}/target/release"
            if way == "bridge":
                server = programs.start(f"{release}/image-streamer", "-i", "127.0.0.1", "-p", str(port), stderr=nowhere)
                quality = ["--quality", str(arguments.quality)] if arguments.quality else []
                bridge = programs.start(f"{release}/image-streamer-ros", "ros1", "--topic", f"{TOPIC}=front",
                                        "--server", f"http://127.0.0.1:{port}", *quality, stderr=nowhere)
                measured, path = [server, bridge], "/stream/front"
            else:
                measured = [programs.itself("serve", way, kind, port, arguments.quality, stderr=nowhere)]
                path = "/video_feed"
            programs.itself("publish", kind, width, height, rate)
            viewer = programs.itself("view", port, path, stdout=subprocess.PIPE, text=True)
            for _ in range(10):
                viewer.stdout.readline()
            before, start, delays = cpu(measured), time.monotonic(), []
            while time.monotonic() < start + arguments.seconds:
                delays.append(float(viewer.stdout.readline()))
            used, lasted = cpu(measured) - before, time.monotonic() - start
            return used / (lasted * rate), delays, len(delays) / lasted / rate


def main():
    if len(sys.argv) > 1 and sys.argv[1] in ("publish", "serve", "view"):
        role, *words = sys.argv[1:]
        words = [int(word) if word.isdigit() else word for word in words]
        return {"publish": publish, "serve": serve, "view": view}[role](*words)
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=10, help="of each sample")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quality", type=int, default=0, help="of all JPEGs, in the place of each way's own")
    arguments = parser.parse_args()
    print(f"| topic | way | CPU ms for a picture | times the bridge's | delay ms, median | 99 % | pictures seen |\n|---|---|---|---|---|---|---|")
    for case in CASES:
        results = {way: [] for way in WAYS}
        for number in range(arguments.rounds):
            for way in WAYS[number % 3:] + WAYS[:number % 3]:
                results[way].append(sample(way, case, arguments))
        kind, width, height, rate = case
        least = statistics.median(used for used, *_ in results["bridge"])
        for way in WAYS:
            used = statistics.median(used for used, *_ in results[way])
            delays = sorted(delay for _, delays, _ in results[way] for delay in delays)
            seen = statistics.median(seen for *_, seen in results[way])
            print(f"| {kind} {width} x {height}, {rate} Hz | {way} | {used:.2f} | {used / least:.1f} "
                  f"| {statistics.median(delays):.1f} | {delays[len(delays) * 99 // 100]:.1f} | {seen:.0%} |", flush=True)


if __name__ == "__main__":
    main()
