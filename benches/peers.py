#!/usr/bin/env python3
"""Measures the server side by side with programs that could do its work, in one run on one machine.

How to run it, from the project's root:

    apt-get install -y redis-server webdis nginx-light libnginx-mod-nchan wrk
    cargo build --release
    python3 benches/peers.py                       # everything, as a text table
    python3 benches/peers.py --markdown            # the same for docs/BENCHMARKS.md
    python3 benches/peers.py --seconds 1 --rounds 1 --only redis
    python3 benches/peers.py --rss                 # only the memory section

What is compared, for pictures of 10 KiB, 100 KiB and 1 MiB, each time with `wrk -t1 -c8`:

* On Redis: this server and webdis, each with a Redis of its own and the same settings.
  A push is `POST /image/s` here and `PUT /RPUSH/s` there; a take is `GET /image/s` here and `GET /LPOP/s.jpg` there,
  which answers with the picture's bytes and nothing around them. `redis-benchmark` shows what Redis itself could do:
  LPUSH and LPOP with values of the same size and as many connections, without any HTTP.
* In memory: this server's memory store and nginx. Pushes are compared with nchan's publisher, whose buffer is bounded
  to as many messages as the queue here; takes are compared with a static file of the same size, which nothing removes:
  as nginx serves it unless told otherwise, by reading it and writing what it has read, and besides with `sendfile on`,
  where the kernel sends the file's pages and nobody reads them. The same ratio is asked for against both.
* The memory that this server needs: idle, with 1,000 idle connections, with frames held, and after those have expired.

How it is made fair:

* Every sample starts its programs anew, so nothing of the one before is left in them.
* The two sides of a pair take turns, and the side that begins changes with every round. Reported are the medians, with
  minimum and maximum.
* A sample counts only if every answer was a success, if every take carried a whole picture, and if the queue still held
  frames at the end. One that does not count is repeated twice at most, which is told; after that its row is invalid.
* How long a sample may be depends on memory: webdis' list grows with every push, and takes need a queue that was filled
  before. A short trial of both sides tells how many frames that makes; where they would not fit into FRAME_BUDGET, both
  sides are measured for a shorter time.

What is not the same on both sides, by design:

* This server keeps a taken frame in Redis for another 2 s, so Redis frees the frames of the last 2 s of takes after the
  sample; for webdis it frees each at once.
* This server's queue is bounded, so Redis gets to use memory again during pushes; the lists of webdis and of
  redis-benchmark only grow into new memory. With large frames redis-benchmark can therefore be the slower one.

Exit code: 0 when every row is valid, whether or not it reaches what is required; 1 when a row is invalid; 2 when
something that is needed is missing. All traffic stays on the loopback interface.
"""

from __future__ import annotations

import argparse
import contextlib
import grp
import http.client
import json
import math
import os
import platform
import pwd
import random
import re
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

INSTALL_LINE = "apt-get install -y redis-server webdis nginx-light libnginx-mod-nchan wrk"
BUILD_LINE = "cargo build --release"
HOST = "127.0.0.1"
CORES = len(os.sched_getaffinity(0))

KIB, MIB = 1 << 10, 1 << 20
CONNECTIONS = 8
PUSH, TAKE = "push", "take"
REDIS, MEMORY, RSS = "redis", "memory", "rss"
LIMIT = "redis-benchmark"

# What this server has to reach, as a multiple of its peer's rate. Other sizes can be measured, but nothing is required.
REQUIRED = {
    (REDIS, PUSH): {10 * KIB: 0.7, 100 * KIB: 1.1, MIB: 1.6},
    (REDIS, TAKE): {10 * KIB: 1.0, 100 * KIB: 1.6, MIB: 2.0},
    (MEMORY, PUSH): {10 * KIB: 1.1, 100 * KIB: 1.1, MIB: 1.1},
    (MEMORY, TAKE): {10 * KIB: 1.1, 100 * KIB: 1.1, MIB: 1.1},
}
LIMIT_AIM = 1.5

# Bytes of frames held at once, so that everything together stays below 9 GB. Redis needs up to a quarter more for them:
# a 1 MiB string with its header takes 1.25 MiB from its allocator.
FRAME_BUDGET = {REDIS: 11 << 29, MEMORY: 15 << 29}
# How many times more frames are laid in than the fastest rate that was seen would use up.
FRAME_MARGIN = 1.5
TRIAL_FRAMES = 30_000
ATTEMPTS = 3

# The server's own limits: MAX_QUEUE at its largest for takes, at its default for pushes to Redis.
LARGEST_QUEUE = 1_000_000
REDIS_PUSH_QUEUE = 1000
# Frames that both sides hold while pushes to memory are measured. Nchan keeps them in shared memory, whose allocator
# gets slower with every large message in it: few messages and room for many show it at its best.
MEMORY_PUSH_QUEUE = 10
NCHAN_SHARED_MEMORY = "1g"

# The memory section, and what it requires.
IDLE_CONNECTIONS = 1000
IDLE_LIMIT_BYTES = 60_000_000
HELD_FRAMES = 2000
HELD_SIZE = 100 * KIB
HELD_EXPIRE_SECONDS = 5
HELD_LIMIT = 1.25
RETURN_SECONDS = 15
RETURN_LIMIT = 0.25

START_SECONDS = 15
STOP_SECONDS = 20
FILL_SECONDS = 300
# What a measuring tool may take beyond the time it was asked to measure.
TOOL_GRACE_SECONDS = 60
HTTP_SECONDS = 10
ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

WRK_SCRIPT = """\
-- Arguments: method, file with the body or "-", number of successes after which to end or 0.
-- Without a number no Lua runs per request, so that wrk itself is not what is measured.
function init(args)
  wrk.method = args[1]
  if args[2] ~= "-" then
    local file = assert(io.open(args[2], "rb"))
    wrk.body = file:read("*a")
    file:close()
  end
  local left = tonumber(args[3])
  if left > 0 then
    response = function(status)
      if status < 200 or status > 299 then os.exit(3) end
      left = left - 1
      if left == 0 then os.exit(0) end
    end
  end
end

function done(summary)
  local errors = summary.errors
  io.write(string.format(
    '{"requests":%d,"microseconds":%d,"bytes":%d,"connect":%d,"read":%d,"write":%d,"timeout":%d,"status":%d}\\n',
    summary.requests, summary.duration, summary.bytes,
    errors.connect, errors.read, errors.write, errors.timeout, errors.status))
end
"""

# Within Redis, because it is much quicker than sending every frame; what the list holds is the same either way.
FILL_LIST_SCRIPT = """\
for _ = 1, tonumber(ARGV[1]) do redis.call('RPUSH', KEYS[1], ARGV[2]) end
return redis.call('LLEN', KEYS[1])
"""
FILL_LIST_BYTES = 256 * MIB

NGINX_CONFIG = """\
load_module {module};
{user}
worker_processes {workers};
daemon off;
pid nginx.pid;
error_log error.log;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    sendfile {sendfile};
    keepalive_requests 1000000000;
    client_max_body_size {body_limit};
    client_body_buffer_size {body_limit};
    client_body_in_single_buffer on;
    client_body_temp_path temp;
    proxy_temp_path temp;
    fastcgi_temp_path temp;
    uwsgi_temp_path temp;
    scgi_temp_path temp;
    types {{ image/jpeg jpg; }}
    nchan_shared_memory_size {shared_memory};
    server {{
        listen {host}:{port};
        root www;
        location = /pub {{
            nchan_publisher;
            nchan_channel_id $arg_id;
            nchan_message_buffer_length {queue};
            nchan_message_timeout 600s;
        }}
    }}
}}
"""


class BenchError(Exception):
    """Something that makes a sample impossible or worthless."""


# What makes a row invalid and leaves the others as they are: a program that fails, hangs, or answers with nonsense.
FAILURES = (BenchError, OSError, ValueError, http.client.HTTPException, subprocess.SubprocessError)


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def parse_size(text: str) -> int:
    match = re.fullmatch(r"\s*(\d+)\s*(KiB|MiB)?\s*", text)
    size = int(match[1]) * {"KiB": KIB, "MiB": MIB, None: 1}[match[2]] if match else 0
    if not 16 <= size <= 16 * MIB:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a size from 16 bytes to 16MiB, like 10KiB or 1MiB")
    return size


def size_name(size: int) -> str:
    for unit, name in ((MIB, "MiB"), (KIB, "KiB")):
        if size % unit == 0:
            return f"{size // unit} {name}"
    return f"{size} B"


# --- Programs -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Programs:
    """Where everything is that is started."""

    paths: dict[str, str]
    nchan_module: str
    server: Path

    def __getitem__(self, name: str) -> str:
        return self.paths[name]


def find_program(name: str) -> str | None:
    # Debian keeps nginx where only root's PATH leads.
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"]))


def find_nchan(nginx: str | None) -> str | None:
    if nginx is None:
        return None
    build = subprocess.run([nginx, "-V"], capture_output=True, text=True, timeout=HTTP_SECONDS, check=False).stderr
    match = re.search(r"--modules-path=(\S+)", build)
    module = Path(match[1] if match else "/usr/lib/nginx/modules") / "ngx_nchan_module.so"
    return str(module) if module.is_file() else None


def find_programs(sections: list[str], server: Path) -> Programs:
    """Looks for all that the sections need; names everything that is missing at once and exits with 2."""
    needed = ["wrk"]
    if REDIS in sections:
        needed += ["redis-server", "redis-cli", LIMIT, "webdis"]
    if MEMORY in sections:
        needed += ["nginx"]
    paths = {name: find_program(name) for name in needed}
    missing = [name for name, path in paths.items() if path is None]
    nchan_module = find_nchan(paths["nginx"]) if MEMORY in sections else ""
    if nchan_module is None:
        missing.append("ngx_nchan_module.so")
    if missing:
        progress(f"Missing: {', '.join(missing)}. To install:\n{INSTALL_LINE}")
    if not os.access(server, os.X_OK):
        progress(f"Missing: {server}. To build:\n{BUILD_LINE}")
        missing.append(str(server))
    if missing:
        sys.exit(2)
    return Programs({name: path for name, path in paths.items() if path}, nchan_module or "", server.resolve())


def end_process(process: subprocess.Popen) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        # It leads a process group of its own, so this reaches its workers too, and nothing else.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(STOP_SECONDS)


@contextmanager
def running(
    command: list[str], directory: Path, environment: dict[str, str] | None = None
) -> Iterator[subprocess.Popen]:
    """A process that is ended with the block. Its output is in `output.log`, which errors quote."""
    with open(directory / "output.log", "ab") as log:
        process = subprocess.Popen(
            command,
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            # Ctrl-C is for this script alone, which then ends the process in order.
            start_new_session=True,
        )
    try:
        yield process
    finally:
        end_process(process)


def wait_until_ready(process: subprocess.Popen, directory: Path, is_ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        # Not there yet: nothing listens, or it answers with something else.
        with contextlib.suppress(OSError, http.client.HTTPException):
            if is_ready():
                return
        time.sleep(0.02)
    logs = [path.read_text(errors="replace") for path in sorted(directory.glob("*.log"))]
    said = " ".join(logs).strip()[-500:] or "it said nothing"
    raise BenchError(f"{process.args[0]} did not start (exit code {process.poll()}): {said}")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        return listener.getsockname()[1]


def cpu_seconds(process: subprocess.Popen) -> float:
    """What the process and all that live below it have used in user and kernel mode."""
    parents, ticks = {}, {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            # The name before the last parenthesis may hold anything, blanks too.
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # It has ended since it was listed.
        pid = int(entry.name)
        parents[pid], ticks[pid] = int(fields[1]), int(fields[11]) + int(fields[12])
    total, family = 0, [process.pid]
    while family:
        member = family.pop()
        total += ticks.get(member, 0)
        family += [pid for pid, parent in parents.items() if parent == member]
    return total / os.sysconf("SC_CLK_TCK")


def resident_bytes(process: subprocess.Popen) -> int:
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)[1]) * KIB


def request(port: int, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(HOST, port, timeout=HTTP_SECONDS)
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


# --- wrk ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class WrkResult:
    requests: int
    seconds: float
    bytes: int
    errors: dict[str, int]

    def faults(self) -> list[str]:
        # These are the counters behind wrk's lines "Non-2xx or 3xx responses" and "Socket errors".
        return [f"wrk counted {count} {name} errors" for name, count in self.errors.items() if count]


@dataclass(frozen=True)
class Request:
    method: str
    path: str


class Workspace:
    """A directory for everything that is written, with the pictures and the means to send them."""

    def __init__(self, directory: Path, programs: Programs, workers: int | None, peer_workers: int):
        self.directory = directory
        self.programs = programs
        self.workers = workers
        self.peer_workers = peer_workers
        self.script = directory / "wrk.lua"
        self.script.write_text(WRK_SCRIPT)

    def body(self, size: int) -> Path:
        """A file that passes for a JPEG and that nothing on the way could make smaller."""
        path = self.directory / f"{size}.jpg"
        if not path.exists():
            head = b"\xff\xd8\xff\xe0"
            path.write_bytes(head + random.Random(size).randbytes(size - len(head)))
        return path

    @contextmanager
    def subdirectory(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(dir=self.directory) as name:
            yield Path(name)

    def _wrk(
        self, port: int, what: Request, body: Path | None, seconds: int, stop_after: int
    ) -> subprocess.CompletedProcess:
        return subprocess.run(
            [
                *(self.programs["wrk"], "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", str(self.script)),
                *(f"http://{HOST}:{port}{what.path}", "--", what.method, str(body or "-"), str(stop_after)),
            ],
            capture_output=True,
            text=True,
            timeout=seconds + TOOL_GRACE_SECONDS,
            check=False,
        )

    def measure(self, port: int, what: Request, body: Path | None, seconds: int) -> WrkResult:
        run = self._wrk(port, what, body, seconds, stop_after=0)
        lines = [line for line in run.stdout.splitlines() if line.startswith('{"requests"')]
        if run.returncode != 0 or not lines:
            raise BenchError(f"wrk failed: {(run.stderr or run.stdout).strip()[-300:]}")
        counts = json.loads(lines[-1])
        requests, microseconds, received = (counts.pop(key) for key in ("requests", "microseconds", "bytes"))
        if requests == 0:
            raise BenchError("no request was answered")
        return WrkResult(requests, microseconds / 1e6, received, counts)

    def send(self, port: int, what: Request, body: Path, times: int) -> None:
        """Sends the body this often, a few times more at most."""
        run = self._wrk(port, what, body, FILL_SECONDS, stop_after=times)
        # With a number of requests wrk ends by itself; when it comes to its report, the time was over before.
        if run.returncode != 0 or run.stdout.rstrip().endswith("}"):
            raise BenchError(f"{times} pushes did not succeed (wrk: exit code {run.returncode})")


# --- What is measured -----------------------------------------------------------------------------------------------


@dataclass
class Target:
    """A program that runs and can be measured."""

    port: int
    process: subprocess.Popen
    push: Request
    take: Request
    redis: Redis | None = None
    # Lays frames in for takes; None where a take removes nothing.
    fill: Callable[[int], None] | None = None
    # How many frames wait.
    queued: Callable[[], int] | None = None
    # How many frames it holds at most; None for as many as come.
    bound: int | None = None

    def cpu(self) -> tuple[float, float | None]:
        return cpu_seconds(self.process), cpu_seconds(self.redis.process) if self.redis else None


@dataclass(frozen=True)
class Redis:
    space: Workspace
    process: subprocess.Popen
    port: int

    def cli(self, *arguments: str, body: bytes | None = None) -> str:
        last_from_input = ["-x"] if body is not None else []
        run = subprocess.run(
            [self.space.programs["redis-cli"], "-h", HOST, "-p", str(self.port), *last_from_input, *arguments],
            input=body or b"",
            capture_output=True,
            timeout=TOOL_GRACE_SECONDS,
            check=False,
        )
        answer = run.stdout.decode(errors="replace").strip()
        if run.returncode != 0:
            raise BenchError(f"redis-cli {arguments[0]}: {answer or run.stderr.decode(errors='replace').strip()}")
        return answer

    def length(self, key: str) -> int:
        answer = self.cli("LLEN", key)
        if not answer.isdecimal():
            raise BenchError(f"LLEN: {answer}")
        return int(answer)

    def fill_list(self, key: str, size: int, frames: int) -> None:
        body = self.space.body(size).read_bytes()
        batch = max(1, FILL_LIST_BYTES // size)
        for start in range(0, frames, batch):
            count = min(batch, frames - start)
            length = self.cli("EVAL", FILL_LIST_SCRIPT, "1", key, str(count), body=body)
            if length != str(start + count):
                raise BenchError(f"a list of {start + count} frames could not be filled: {length}")


@contextmanager
def start_redis(space: Workspace) -> Iterator[Redis]:
    port = free_port()
    command = [space.programs["redis-server"], "--bind", HOST, "--port", str(port), "--save", "", "--appendonly", "no"]
    with space.subdirectory() as directory, running(command, directory) as process:

        def answers() -> bool:
            with socket.create_connection((HOST, port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")

        wait_until_ready(process, directory, answers)
        yield Redis(space, process, port)


@contextmanager
def start_image_streamer(
    space: Workspace, size: int, queue: int, redis: Redis | None = None, expire: int = 600
) -> Iterator[Target]:
    port = free_port()
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "RUST_LOG": "warn",
        "HOST": HOST,
        "PORT": str(port),
        "EXPIRE": str(expire),
        "MAX_QUEUE": str(queue),
        "MAX_MEMORY": "9GiB",
    }
    if space.workers:
        environment["WORKERS"] = str(space.workers)
    if redis:
        environment["REDIS_URL"] = f"redis://{HOST}:{redis.port}/"
    with space.subdirectory() as directory:
        with running([str(space.programs.server)], directory, environment) as process:
            wait_until_ready(process, directory, lambda: request(port, "GET", "/readyz")[0] == 200)
            push = Request("POST", "/image/s")

            def queued() -> int:
                return json.loads(request(port, "GET", "/stats")[1])["numImages"]

            yield Target(
                port=port,
                process=process,
                push=push,
                take=Request("GET", "/image/s"),
                redis=redis,
                fill=lambda frames: space.send(port, push, space.body(size), frames),
                queued=queued,
                bound=queue,
            )


@contextmanager
def start_image_streamer_on_redis(space: Workspace, size: int, queue: int) -> Iterator[Target]:
    with start_redis(space) as redis, start_image_streamer(space, size, queue, redis) as target:
        yield target


@contextmanager
def start_webdis(space: Workspace, size: int, _queue: int) -> Iterator[Target]:
    port = free_port()
    with start_redis(space) as redis, space.subdirectory() as directory:
        config = {
            "redis_host": HOST,
            "redis_port": redis.port,
            "http_host": HOST,
            "http_port": port,
            "threads": space.peer_workers,
            "daemonize": False,
            "verbosity": 0,
            "logfile": str(directory / "webdis.log"),
        }
        path = directory / "webdis.json"
        path.write_text(json.dumps(config))
        with running([space.programs["webdis"], str(path)], directory) as process:
            wait_until_ready(process, directory, lambda: request(port, "GET", "/PING")[0] == 200)
            yield Target(
                port=port,
                process=process,
                push=Request("PUT", "/RPUSH/s"),
                # The ending makes the answer the bare value; with .raw it would have Redis' protocol around it.
                take=Request("GET", "/LPOP/s.jpg"),
                redis=redis,
                fill=lambda frames: redis.fill_list("s", size, frames),
                queued=lambda: redis.length("s"),
            )


@contextmanager
def start_nginx(space: Workspace, size: int, queue: int, sendfile: str = "off") -> Iterator[Target]:
    """The peers of the memory store: nchan for pushes, a static file for takes."""
    port = free_port()
    with space.subdirectory() as directory:
        (directory / "www").mkdir()
        shutil.copyfile(space.body(size), directory / "www" / "frame.jpg")
        # Started by root its workers would be somebody who may not read this directory.
        user = f"user {pwd.getpwuid(os.geteuid()).pw_name} {grp.getgrgid(os.getegid()).gr_name};"
        config = NGINX_CONFIG.format(
            module=space.programs.nchan_module,
            user=user if os.geteuid() == 0 else "",
            host=HOST,
            port=port,
            queue=queue,
            sendfile=sendfile,
            workers=space.peer_workers,
            body_limit=2 * size,  # A body of the whole buffer's size still stays out of the file system.
            shared_memory=NCHAN_SHARED_MEMORY,
        )
        (directory / "nginx.conf").write_text(config)
        command = [space.programs["nginx"], "-p", str(directory), "-e", "error.log", "-c", "nginx.conf"]
        with running(command, directory) as process:
            wait_until_ready(process, directory, lambda: request(port, "GET", "/frame.jpg")[0] == 200)

            def queued() -> int:
                found = re.search(rb"queued messages: (\d+)", request(port, "GET", "/pub?id=s")[1])
                return int(found[1]) if found else 0

            yield Target(
                port=port,
                process=process,
                push=Request("POST", "/pub?id=s"),
                take=Request("GET", "/frame.jpg"),
                queued=queued,
                bound=queue,
            )


def start_nginx_with_sendfile(space: Workspace, size: int, queue: int) -> AbstractContextManager[Target]:
    return start_nginx(space, size, queue, sendfile="on")


# --- Samples --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """How long a sample is, and how many frames are laid in for it."""

    seconds: int
    frames: int


@dataclass(frozen=True)
class Sample:
    rate: float
    # CPU seconds per 1,000 operations.
    server_cpu: float | None
    redis_cpu: float | None
    faults: tuple[str, ...] = ()
    # Frames that were put into memory or used up per second; nothing for a side that does neither.
    frame_rate: float = 0.0


Start = Callable[[Workspace, int, int], AbstractContextManager[Target]]


@dataclass
class Row:
    """One operation at one size, on both sides."""

    store: str
    operation: str
    size: int
    peer_name: str
    start_peer: Start
    start_ours: Start
    queue: int
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    # The shortest sample.
    seconds: int = 0
    # What makes the row invalid.
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"{self.store} {self.operation} {size_name(self.size)} beside {self.peer_name}"

    @property
    def sides(self) -> dict[str, Start]:
        return {"ours": self.start_ours, self.peer_name: self.start_peer}

    @property
    def needs_frames(self) -> bool:
        """Whether the frames of a sample are in memory at once: those laid in for takes, or webdis' growing list."""
        return self.operation == TAKE or self.store == REDIS

    @property
    def required(self) -> float | None:
        return REQUIRED[self.store, self.operation].get(self.size)


def make_plan(row: Row, fastest: float, seconds: int) -> Plan:
    """The asked time, or as much of it as there are frames for at the fastest rate that was seen."""
    if not row.needs_frames:
        return Plan(seconds, 0)
    affordable = min(FRAME_BUDGET[row.store] // row.size, LARGEST_QUEUE)
    per_second = fastest * FRAME_MARGIN
    seconds = max(1, min(seconds, int(affordable / per_second)))
    return Plan(seconds, max(1, min(affordable, math.ceil(per_second * seconds))))


def trial_plan(row: Row) -> Plan:
    return Plan(1, min(FRAME_BUDGET[row.store] // row.size // 2, TRIAL_FRAMES))


def check_exchange(target: Target, operation: str, body: bytes) -> None:
    """One exchange that is looked at closely, because wrk looks at no body and takes redirects for successes."""
    what = target.push if operation == PUSH else target.take
    status, answer = request(target.port, what.method, what.path, body if operation == PUSH else None)
    if not 200 <= status <= 299:
        raise BenchError(f"{what.method} {what.path} answered {status}: {answer[:200]!r}")
    if operation == TAKE and answer != body:
        raise BenchError(f"{what.method} {what.path} answered with {len(answer)} bytes that are not the picture")


def take_faults(target: Target, result: WrkResult, size: int) -> list[str]:
    faults = []
    if result.bytes < result.requests * size:
        faults.append("takes came without a whole picture")
    if target.fill and target.queued and target.queued() == 0:
        faults.append("the queue ran empty")
    return faults


def push_faults(target: Target, result: WrkResult) -> list[str]:
    expected = min(result.requests, target.bound or result.requests)
    held = target.queued() if target.queued else expected
    return [f"only {held} of {expected} pushes were held"] if held < expected else []


def measure_target(space: Workspace, target: Target, row: Row, plan: Plan) -> Sample:
    if row.operation == TAKE and target.fill:
        target.fill(plan.frames)
    body = space.body(row.size)
    check_exchange(target, row.operation, body.read_bytes())
    server_before, redis_before = target.cpu()
    if row.operation == PUSH:
        result = space.measure(target.port, target.push, body, plan.seconds)
    else:
        result = space.measure(target.port, target.take, None, plan.seconds)
    server_after, redis_after = target.cpu()
    faults = result.faults()
    faults += push_faults(target, result) if row.operation == PUSH else take_faults(target, result, row.size)
    thousands = result.requests / 1000
    return Sample(
        rate=result.requests / result.seconds,
        server_cpu=(server_after - server_before) / thousands,
        redis_cpu=None if redis_after is None else (redis_after - redis_before) / thousands,
        faults=tuple(faults),
        frame_rate=frame_rate(target, row, result),
    )


def frame_rate(target: Target, row: Row, result: WrkResult) -> float:
    if row.operation == PUSH:
        return result.requests / result.seconds
    # By bytes, not by answers: those of an empty queue are quick, and would make the next plan too cautious.
    return result.bytes / result.seconds / row.size if target.fill else 0.0


def measure_side(space: Workspace, row: Row, side: str, plan: Plan) -> Sample:
    with row.sides[side](space, row.size, row.queue) as target:
        return measure_target(space, target, row, plan)


def measure_limit(space: Workspace, row: Row, plan: Plan) -> Sample:
    """What Redis does without anything in front of it."""
    test = "lpush" if row.operation == PUSH else "lpop"
    key = "mylist"  # The one that redis-benchmark works on.
    with start_redis(space) as redis:
        if row.operation == TAKE:
            redis.fill_list(key, row.size, plan.frames)
        before = cpu_seconds(redis.process)
        run = subprocess.run(
            [
                *(space.programs[LIMIT], "-h", HOST, "-p", str(redis.port), "-t", test, "--csv"),
                *("-c", str(CONNECTIONS), "-n", str(plan.frames), "-d", str(row.size)),
            ],
            capture_output=True,
            text=True,
            timeout=plan.seconds * 10 + TOOL_GRACE_SECONDS,
            check=False,
        )
        used = cpu_seconds(redis.process) - before
        left = redis.length(key)
    match = re.search(rf'^"{test.upper()}[^"]*","([\d.]+)"', run.stdout, re.MULTILINE)
    if run.returncode != 0 or not match:
        raise BenchError(f"redis-benchmark failed: {(run.stderr or run.stdout).strip()[-300:]}")
    expected = plan.frames if row.operation == PUSH else 0
    faults = (f"the list holds {left} instead of {expected}",) if left != expected else ()
    return Sample(float(match[1]), None, used / plan.frames * 1000, faults)


def measure_row(space: Workspace, row: Row, rounds: int, seconds: int) -> None:
    """Fills in the row's samples; what goes wrong is noted in it."""
    try:
        trials = [measure_side(space, row, side, trial_plan(row)) for side in row.sides]
        fastest = max(trial.frame_rate for trial in trials)
        for number in range(rounds):
            # Whoever is second runs on a machine that is warmer and perhaps busier, so both are second in turn.
            order = list(row.sides) if number % 2 == 0 else list(row.sides)[::-1]
            if row.store == REDIS:
                order.append(LIMIT)
            for side in order:
                fastest = measure_round(space, row, side, fastest, seconds, f"round {number + 1}/{rounds}")
    except FAILURES as error:
        row.faults.append(str(error) or type(error).__name__)
        progress(f"{row.name}: INVALID: {row.faults[-1]}")


def measure_round(space: Workspace, row: Row, side: str, fastest: float, seconds: int, when: str) -> float:
    """Takes one sample, in as many attempts as it may need. Returns the fastest rate that was seen so far."""
    for attempt in range(1, ATTEMPTS + 1):
        plan = make_plan(row, fastest, seconds)
        sample = measure_limit(space, row, plan) if side == LIMIT else measure_side(space, row, side, plan)
        progress(f"{row.name}: {when}: {side}: {sample.rate:,.0f}/s {'; '.join(sample.faults)}".rstrip())
        fastest = max(fastest, sample.frame_rate)
        if not sample.faults:
            row.samples.setdefault(side, []).append(sample)
            row.seconds = min(row.seconds or plan.seconds, plan.seconds)
            break
        what = f"{side}, {when}: {'; '.join(sample.faults)}"
        if attempt < ATTEMPTS:
            row.notes.append(f"{what} (repeated)")
            fastest *= FRAME_MARGIN if "the queue ran empty" in sample.faults else 1
        else:
            row.faults.append(what)
    return fastest


def redis_rows(sizes: list[int]) -> list[Row]:
    queues = {PUSH: REDIS_PUSH_QUEUE, TAKE: LARGEST_QUEUE}
    return [
        Row(REDIS, operation, size, "webdis", start_webdis, start_image_streamer_on_redis, queue)
        for operation, queue in queues.items()
        for size in sizes
    ]


def memory_rows(sizes: list[int]) -> list[Row]:
    peers = [
        (PUSH, "nchan", start_nginx, MEMORY_PUSH_QUEUE),
        (TAKE, "static file", start_nginx, LARGEST_QUEUE),
        (TAKE, "sendfile", start_nginx_with_sendfile, LARGEST_QUEUE),
    ]
    return [
        Row(MEMORY, operation, size, peer, start_peer, start_image_streamer, queue)
        for operation, peer, start_peer, queue in peers
        for size in sizes
    ]


# --- Memory use -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RssLine:
    what: str
    measured: str
    required: str
    is_met: bool | None


def allow_connections(count: int) -> None:
    """Raises the number of files that this process and those it starts may open, for both ends of the connections."""
    needed = count + 200
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        if hard != resource.RLIM_INFINITY and hard < needed:
            raise BenchError(f"{needed} open files are needed, and the limit is {hard} (ulimit -Hn)")
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


@contextmanager
def idle_connections(port: int, count: int) -> Iterator[None]:
    with contextlib.ExitStack() as open_connections:
        for _ in range(count):
            connection = http.client.HTTPConnection(HOST, port, timeout=HTTP_SECONDS)
            open_connections.callback(connection.close)
            connection.request("GET", "/healthz")
            response = connection.getresponse()
            response.read()
            if response.status != 200 or connection.sock is None:
                raise BenchError(f"a connection was not kept after GET /healthz ({response.status})")
        yield


def megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB"


def measure_idle(target: Target) -> list[RssLine]:
    lines = [RssLine("idle, just started", megabytes(resident_bytes(target.process)), "", None)]
    progress(f"memory use: {IDLE_CONNECTIONS:,} idle connections")
    with idle_connections(target.port, IDLE_CONNECTIONS):
        used = resident_bytes(target.process)
    limit = f"< {megabytes(IDLE_LIMIT_BYTES)}"
    what = f"with {IDLE_CONNECTIONS:,} idle keep-alive connections"
    return [*lines, RssLine(what, megabytes(used), limit, used < IDLE_LIMIT_BYTES)]


def measure_held(target: Target, start: int) -> tuple[RssLine, int]:
    """How much the frames need while they wait. Returns the bytes held too."""
    progress(f"memory use: {HELD_FRAMES:,} frames of {size_name(HELD_SIZE)}")
    began = time.monotonic()
    target.fill(HELD_FRAMES)
    # Growth is read while all of them wait: the count is taken after it, and none may have expired by then. It is over
    # the start, like the growth that may stay: what the closed connections left is not hidden by either.
    growth = resident_bytes(target.process) - start
    frames = target.queued()
    if frames < HELD_FRAMES:
        took = time.monotonic() - began
        raise BenchError(f"only {frames} of {HELD_FRAMES} frames were held after {took:.1f} s")
    held = frames * HELD_SIZE
    measured = f"{growth / held:.2f} x ({megabytes(growth)} for {megabytes(held)})"
    what = f"growth over the start, with {HELD_FRAMES:,} frames of {size_name(HELD_SIZE)}"
    return RssLine(what, measured, f"<= {HELD_LIMIT} x", growth <= HELD_LIMIT * held), held


def measure_return(target: Target, start: int, held: int) -> RssLine:
    """Waits for the memory to come back, without a request that would wake the server up to do it."""
    progress(f"memory use: up to {HELD_EXPIRE_SECONDS + RETURN_SECONDS} s for it to come back")
    expired_at = time.monotonic() + HELD_EXPIRE_SECONDS
    while True:
        growth = resident_bytes(target.process) - start
        after = time.monotonic() - expired_at
        has_come_back = growth < RETURN_LIMIT * held
        if has_come_back or after > RETURN_SECONDS:
            break
        time.sleep(0.1)
    measured = f"{growth / held:.2f} x ({megabytes(growth)}), {max(after, 0):.1f} s after expiry"
    what = f"growth over the start, within {RETURN_SECONDS} s of expiry"
    return RssLine(what, measured, f"< {RETURN_LIMIT} x", has_come_back)


def measure_rss(space: Workspace) -> list[RssLine]:
    allow_connections(IDLE_CONNECTIONS)
    with start_image_streamer(space, HELD_SIZE, 100_000, expire=HELD_EXPIRE_SECONDS) as target:
        start = resident_bytes(target.process)
        lines = measure_idle(target)
        line, held = measure_held(target, start)
        return [*lines, line, measure_return(target, start, held)]


# --- Report ---------------------------------------------------------------------------------------------------------


class Report:
    """Prints tables as text or as Markdown, both aligned."""

    def __init__(self, markdown: bool):
        self.markdown = markdown

    def heading(self, text: str) -> None:
        print(f"\n### {text}\n" if self.markdown else f"\n{text}\n{'=' * len(text)}")

    def lines(self, lines: list[str]) -> None:
        for line in lines:
            print(f"* {line}" if self.markdown else line, flush=True)

    def table(self, header: list[str], rows: list[list[str]], left: int) -> None:
        """Prints a table whose first `left` columns are text and whose others are numbers."""
        widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]

        def cells(row: list[str]) -> list[str]:
            pairs = enumerate(zip(row, widths, strict=True))
            return [cell.ljust(width) if column < left else cell.rjust(width) for column, (cell, width) in pairs]

        if self.markdown:
            rule = ["-" * width if column < left else "-" * (width - 1) + ":" for column, width in enumerate(widths)]
            printed = [f"| {' | '.join(line)} |" for line in (cells(header), rule, *map(cells, rows))]
        else:
            rule = ["-" * width for width in widths]
            printed = ["  ".join(line).rstrip() for line in (cells(header), rule, *map(cells, rows))]
        print("\n".join(printed), flush=True)


def median_rate(samples: list[Sample]) -> float:
    return statistics.median(sample.rate for sample in samples)


def rate_cell(samples: list[Sample]) -> str:
    if not samples:
        return "-"
    rates = [sample.rate for sample in samples]
    return f"{median_rate(samples):,.0f} ({min(rates):,.0f}-{max(rates):,.0f})"


def cpu_cell(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{statistics.median(known):.3f}" if known else "-"


def ratio(above: list[Sample], below: list[Sample]) -> float | None:
    return median_rate(above) / median_rate(below) if above and below else None


def ratio_cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def verdict(row: Row, value: float | None) -> str:
    if row.faults:
        return "INVALID"
    if row.required is None or value is None:
        return "-"
    return "ok" if value >= row.required else "BELOW"


def rates_line(row: Row) -> list[str]:
    ours, peer, limit = (row.samples.get(side, []) for side in ("ours", row.peer_name, LIMIT))
    value = ratio(ours, peer)
    line = [row.operation, size_name(row.size), row.peer_name, verdict(row, value)]
    line += [ratio_cell(value), ratio_cell(row.required), rate_cell(ours), rate_cell(peer)]
    line.append(f"{row.seconds} s" if row.seconds else "-")
    if row.store == REDIS:
        line += [rate_cell(limit), ratio_cell(ratio(limit, ours))]
    return line


def cpu_line(row: Row) -> list[str]:
    ours, peer, limit = (row.samples.get(side, []) for side in ("ours", row.peer_name, LIMIT))
    line = [row.operation, size_name(row.size), row.peer_name]
    line += [cpu_cell([sample.server_cpu for sample in side]) for side in (ours, peer)]
    if row.store == REDIS:
        line += [cpu_cell([sample.redis_cpu for sample in side]) for side in (ours, peer, limit)]
    return line


def report_rows(report: Report, title: str, rows: list[Row]) -> None:
    on_redis = rows[0].store == REDIS
    report.heading(f"{title}: requests per second")
    header = ["", "size", "peer", "verdict", "ours/peer", "required", "ours", "peer", "sample"]
    header += [LIMIT, f"limit/ours (aim: within {LIMIT_AIM})"] if on_redis else []
    report.table(header, [rates_line(row) for row in rows], left=4)
    report.heading(f"{title}: CPU seconds per 1,000 operations")
    header = ["", "size", "peer", "ours", "peer"]
    header += ["Redis under ours", "Redis under peer", f"Redis under {LIMIT}"] if on_redis else []
    report.table(header, [cpu_line(row) for row in rows], left=3)
    remarks = [f"{row.name}: {note}" for row in rows for note in row.notes]
    remarks += [f"INVALID {row.name}: {fault}" for row in rows for fault in row.faults]
    if remarks:
        print()
        report.lines(remarks)


def report_rss(report: Report, lines: list[RssLine], fault: str | None) -> None:
    report.heading("Memory store: resident memory of the server")
    words = {None: "", True: "ok", False: "OVER"}
    if fault:
        report.lines([f"INVALID: {fault}"])
        return
    rows = [[line.what, words[line.is_met], line.measured, line.required] for line in lines]
    report.table(["", "verdict", "measured", "required"], rows, left=2)


def first_match(pattern: str, path: str) -> str:
    match = re.search(pattern, Path(path).read_text(), re.MULTILINE)
    return match[1] if match else "unknown"


def version(command: list[str], pattern: str) -> str:
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=HTTP_SECONDS, check=False)
    except OSError:
        return "unknown"
    match = re.search(pattern, run.stdout + run.stderr)
    return match[1] if match else "unknown"


def package_version(package: str) -> str:
    # For what cannot tell its version itself: webdis takes every argument for a configuration file.
    return version(["dpkg-query", "-W", "-f", "${Version}", package], r"(\S+)")


def describe(programs: Programs, arguments: argparse.Namespace) -> list[str]:
    memory = int(first_match(r"^MemTotal:\s+(\d+)", "/proc/meminfo")) * KIB
    model = first_match(r"^model name\s*:\s*(.+)$", "/proc/cpuinfo")
    versions = {"image-streamer": version([str(programs.server), "--version"], r"(\d\S*)")}
    if "redis-server" in programs.paths:
        versions["redis"] = version([programs["redis-server"], "--version"], r"v=(\S+)")
        versions["webdis"] = package_version("webdis")
    if "nginx" in programs.paths:
        versions["nginx"] = version([programs["nginx"], "-v"], r"nginx/(\S+)")
        versions["nchan"] = package_version("libnginx-mod-nchan")
    versions["wrk"] = version([programs["wrk"], "-v"], r"wrk (.+?) \[")
    loads = ", ".join(f"{load:.2f}" for load in os.getloadavg())
    return [
        f"Machine: {model}, {CORES} cores, {memory / (1 << 30):.0f} GiB, Linux {platform.release()}",
        f"Load average before: {loads}",
        f"Versions: {', '.join(f'{name} {number}' for name, number in versions.items())}",
        f"Samples: median (minimum-maximum) of {arguments.rounds} of {arguments.seconds} s each, or as short as the "
        f"table says; wrk with 1 thread and {CONNECTIONS} connections; "
        f"peers with {arguments.peer_workers} workers, this server with {arguments.workers or 'as many as it chooses'}",
    ]


# --- Command line ---------------------------------------------------------------------------------------------------


def at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number of at least 1")
    return int(text)


def parse_arguments() -> argparse.Namespace:
    default_binary = Path(__file__).resolve().parent.parent / "target" / "release" / "image-streamer"
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], epilog="More at the top of this file.")
    parser.add_argument("--rounds", type=at_least_one, default=3, help="samples of each side [%(default)s]")
    parser.add_argument("--seconds", type=at_least_one, default=5, help="longest sample [%(default)s]")
    parser.add_argument(
        "--sizes",
        type=lambda text: [parse_size(part) for part in text.split(",")],
        default="10KiB,100KiB,1MiB",
        help="sizes of pictures, with commas between [%(default)s]",
    )
    parser.add_argument("--only", choices=[REDIS, MEMORY], help="measure rates only on this store, and no memory use")
    parser.add_argument("--workers", type=at_least_one, help="WORKERS of this server [as many as it chooses]")
    parser.add_argument(
        "--peer-workers",
        type=at_least_one,
        default=CORES,
        help="threads of webdis and workers of nginx; one a core is what nginx calls auto [%(default)s]",
    )
    parser.add_argument("--rss", action="store_true", help="measure memory use, and rates only where --only says so")
    parser.add_argument("--markdown", action="store_true", help="print Markdown")
    parser.add_argument(
        "--binary", type=Path, default=default_binary, help="the server [target/release/image-streamer]"
    )
    return parser.parse_args()


def chosen_sections(arguments: argparse.Namespace) -> list[str]:
    if not arguments.only and not arguments.rss:
        return [REDIS, MEMORY, RSS]
    return [section for section in (arguments.only, RSS if arguments.rss else None) if section]


def run_rates(space: Workspace, report: Report, title: str, rows: list[Row], arguments: argparse.Namespace) -> bool:
    for row in rows:
        measure_row(space, row, arguments.rounds, arguments.seconds)
    report_rows(report, title, rows)
    return not any(row.faults for row in rows)


def run_rss(space: Workspace, report: Report) -> bool:
    try:
        lines, fault = measure_rss(space), None
    except FAILURES as error:
        lines, fault = [], str(error) or type(error).__name__
    report_rss(report, lines, fault)
    return fault is None


def interrupt(_signal: int, _frame: object) -> None:
    # A second signal must not cut short what ends the processes; each step of that has a bound of its own.
    for number in ENDING_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def main() -> int:
    arguments = parse_arguments()
    sections = chosen_sections(arguments)
    programs = find_programs(sections, arguments.binary)
    for number in ENDING_SIGNALS:
        signal.signal(number, interrupt)
    report = Report(arguments.markdown)
    valid = True
    try:
        with tempfile.TemporaryDirectory(prefix="peers-") as directory:
            space = Workspace(Path(directory), programs, arguments.workers, arguments.peer_workers)
            report.lines(describe(programs, arguments))
            if REDIS in sections:
                valid &= run_rates(space, report, "On Redis", redis_rows(arguments.sizes), arguments)
            if MEMORY in sections:
                valid &= run_rates(space, report, "In memory", memory_rows(arguments.sizes), arguments)
            if RSS in sections:
                valid &= run_rss(space, report)
    except KeyboardInterrupt:
        progress("interrupted; everything that was started has been ended")
        return 130
    return 0 if valid else 1


if __name__ == "__main__":
    sys.exit(main())
