#!/usr/bin/env python3
"""Measures framelet side by side with its peers. scripts/bench.sh builds them all and runs this.

Every server faces the same generator, `framelet bench`, on the loopback interface. A round measures
each server once, scenario by scenario; the next round repeats that. So other load on the machine
affects all servers alike. A ratio compares two figures of one round, measured seconds apart; the
table shows the median over the rounds.

Each server must have counted exactly the messages that were sent to it, and written as many lines;
otherwise the whole run fails.
"""

import argparse
import ctypes
import datetime
import importlib.util
import json
import os
import platform
import queue
import re
import resource
import shlex
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import report

TOP = Path(__file__).resolve().parent.parent
OURS = "framelet"
CONNECTIONS = 4  # while it is about throughput
LIMIT = 60  # seconds, for whatever should take far less


class Failed(Exception):
    """A figure that cannot be measured, or cannot be trusted."""


@dataclass
class Effort:
    rounds: int
    seconds: float  # of load, per server and scenario
    lines: int  # messages, where they are written to a file
    idle: int  # connections, for the memory of one
    handshakes: int  # TLS connections, for the time of one and the memory of one
    starts: int  # in each round


# ---- the servers


class Server:
    """A server while it runs. It is ended by its process id, also when something fails."""

    def __init__(self, name, command, counts=True, core=None, output=subprocess.DEVNULL):
        self.name, self.command, self.counts = name, command, counts
        self.core, self.output = core, output

    def __enter__(self):
        self.said = queue.Queue()
        began = time.perf_counter()
        try:
            self.process = subprocess.Popen(
                pinned(self.core, self.command),
                stdin=subprocess.DEVNULL,
                stdout=self.output,
                stderr=subprocess.PIPE,
                text=True,
            )
        except OSError as error:
            raise Failed(f"{self.name} does not start: {error}") from error
        self.pid = self.process.pid
        self.listener = threading.Thread(target=self._listen)
        self.listener.start()
        try:
            self.address = self._wait_for(r"listening on (\S+)")
        except BaseException:
            self.__exit__()
            raise
        self.start_seconds = time.perf_counter() - began
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.listener.join()
        self.process.stderr.close()

    def _listen(self):
        for line in self.process.stderr:
            self.said.put(line.rstrip())
        self.said.put(None)

    def _wait_for(self, pattern):
        """Returns the first group of the pattern in a line of its output."""
        last = "nothing"
        try:
            while (line := self.said.get(timeout=LIMIT)) is not None:
                if found := re.search(pattern, line):
                    return found[1]
                last = line
        except queue.Empty:
            pass
        raise Failed(f'{self.name} did not say "{pattern}"; the last it said: {last}')

    def end(self, sent):
        """Ends it, and compares what it has counted with what was sent."""
        self.process.terminate()
        if self.counts:
            counted = int(self._wait_for(r"(\d+) messages"))
            if counted != sent:
                raise Failed(f"{self.name} counted {counted} messages; {sent} were sent")
        try:
            code = self.process.wait(LIMIT)
        except subprocess.TimeoutExpired as error:
            raise Failed(f"{self.name} does not end") from error
        # A server that does not count does not handle SIGTERM either.
        if code != (0 if self.counts else -signal.SIGTERM):
            raise Failed(f"{self.name} ended with exit code {code}")

    def cpu_seconds(self):
        """What all of its threads have used, in user and in kernel mode, to the nanosecond."""
        clock = ctypes.c_int()
        error = ctypes.CDLL(None).clock_getcpuclockid(self.pid, ctypes.byref(clock))
        if error:
            raise Failed(f"{self.name}: no CPU clock: {os.strerror(error)}")
        return time.clock_gettime(clock.value)

    def resident_bytes(self):
        status = Path(f"/proc/{self.pid}/status").read_text()
        return 1024 * int(re.search(r"VmRSS:\s+(\d+) kB", status)[1])


def pinned(core, command):
    return command if core is None else ["taskset", "--cpu-list", str(core), *command]


class Certificates:
    """An authority, and a server's certificate for 127.0.0.1."""

    def __init__(self, directory):
        self.ca, self.certificate, self.key = (
            str(Path(directory) / name) for name in ("ca.pem", "server.pem", "server.key")
        )
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-days", "2"]
        authority = ["-subj", "/CN=Example CA", "-keyout", f"{directory}/ca.key", "-out", self.ca]
        self._make("req", "-x509", *key, *authority)
        server = ["-subj", "/CN=server", "-addext", "subjectAltName=IP:127.0.0.1"]
        by = ["-CA", self.ca, "-CAkey", f"{directory}/ca.key", "-addext", "basicConstraints=CA:FALSE"]
        self._make("req", "-x509", *key, *server, *by, "-keyout", self.key, "-out", self.certificate)

    def _make(self, *command):
        done = subprocess.run(["openssl", *command], capture_output=True, text=True, timeout=LIMIT)
        if done.returncode != 0:
            raise Failed(f"openssl makes no certificate: {done.stderr.strip()}")


def commands(built, files):
    """For each server, how it is told to count, to echo, to print each message as a line, and to count over TLS."""
    framelet = [f"{built}/framelet", "serve", "127.0.0.1:0", "--output"]
    servers = {
        OURS: {
            "count": [*framelet, "none"],
            "echo": [*framelet, "none", "--echo"],
            "lines": [*framelet, "lines"],
            "tls": [*framelet, "none", "--tls-cert", files.certificate, "--tls-key", files.key],
        }
    }

    def peer(name, *program, options=()):
        servers[name] = {mode: [*program, mode, *options] for mode in ["count", "echo"]}

    peer("C, epoll", f"{built}/peer-epoll")
    peer("tokio", f"{built}/peer-tokio")
    peer("tokio, 64 KiB", f"{built}/peer-tokio", options=("--buffer", "65536"))
    for name in ["tokio", "tokio, 64 KiB"]:
        servers[name]["tls"] = [*servers[name]["count"], "--tls", files.certificate, files.key]
    if importlib.util.find_spec("twisted"):
        peer("Twisted", sys.executable, f"{TOP}/benches/peers/twisted_count.py")
    # It can neither echo nor count without printing.
    servers["smol tutorial"] = {"lines": [f"{built}/examples/tutorial_server", "127.0.0.1:0"]}
    return servers


# ---- the scenarios: each returns figures by the keys of report.MEASURES


class Bench:
    def __init__(self, built, effort, work):
        self.files = Certificates(work)
        self.servers, self.effort, self.work = commands(built, self.files), effort, work
        self.generator = [f"{built}/framelet", "bench"]
        self.core = max(os.sched_getaffinity(0))  # core 0 is where most interrupts go
        self.runs, self.generators = [], {}

    def run(self):
        scenarios = [
            *(("count", self.ingest(size, length)) for size, length in report.SIZES.items()),
            ("lines", self.lines_to_file),
            ("lines", self.lines_to_pipe),
            ("echo", self.echo_one),
            ("echo", self.echo_many),
            *(("tls", self.tls_ingest(size, length)) for size, length in report.SIZES.items()),
            ("tls", self.handshakes),
            ("tls", self.tls_idle),
            ("count", self.idle),
            ("count", self.start),
        ]
        for turn in range(1, self.effort.rounds + 1):
            print(f"round {turn} of {self.effort.rounds}", file=sys.stderr)
            for mode, scenario in scenarios:
                for name in [name for name, can in self.servers.items() if mode in can]:
                    self.loaded = None
                    run = {"round": turn, "server": name, "figures": scenario(name, mode)}
                    self.runs.append({**run, "generator": self.loaded})

    def server(self, name, mode, **more):
        return Server(name, self.servers[name][mode], counts=name != "smol tutorial", **more)

    def load(self, scenario, server, *options, core=None):
        """Puts load on a server until the generator is done; returns what that says and the CPU
        time that the server took for it."""
        options = [*options, "--warm-up", "0s", "--json"]
        self.generators[scenario] = shown(pinned(core, [*self.generator, "ADDR", *options]))
        command = pinned(core, [*self.generator, server.address, *options])
        before = server.cpu_seconds()
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT + self.effort.seconds)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Failed(f"the generator, against {server.name}: {error}") from error
        cpu = server.cpu_seconds() - before
        if done.returncode != 0:
            raise Failed(f"the generator, against {server.name}: {done.stderr.strip()}")
        result = json.loads(done.stdout)
        if result["errors"] or not result["messages"]:
            raise Failed(f"the generator, against {server.name}: {result['errors']} errors")
        self.loaded = result
        server.end(result["messages"])
        return result, cpu

    def seconds(self):
        return ["--duration", f"{round(1000 * self.effort.seconds)}ms"]

    def ingest(self, size, length):
        def scenario(name, mode):
            options = ["--connections", str(CONNECTIONS), "--size", str(length), *self.seconds()]
            with self.server(name, mode) as server:
                result, cpu = self.load(f"ingest {size}", server, *options)
            return {
                f"ingest {size} cpu": 1e9 * cpu / result["messages"],
                f"ingest {size} rate": result["messages_per_s"],
            }

        return scenario

    def over_tls(self):
        return ["--tls", "--tls-ca", self.files.ca]

    def tls_ingest(self, size, length):
        def scenario(name, mode):
            options = ["--connections", str(CONNECTIONS), "--size", str(length), *self.seconds()]
            with self.server(name, mode) as server:
                result, cpu = self.load(f"tls {size}", server, *options, *self.over_tls())
            return {f"tls {size} cpu": 1e9 * cpu / result["messages"]}

        return scenario

    def handshakes(self, name, mode):
        # A message on each connection: next to a handshake it costs nothing.
        number = str(self.effort.handshakes)
        options = ["--connections", number, "--count", number, "--size", "64"]
        with self.server(name, mode) as server:
            _, cpu = self.load("tls handshake", server, *options, *self.over_tls())
        return {"tls handshake cpu": 1e6 * cpu / self.effort.handshakes}

    def tls_idle(self, name, mode):
        context = ssl.create_default_context(cafile=self.files.ca)
        connect = lambda address: context.wrap_socket(
            socket.create_connection(address, LIMIT), server_hostname="127.0.0.1"
        )
        per_connection, _ = self.idle_memory(name, mode, self.effort.handshakes, connect)
        return {"tls idle memory": per_connection}

    def lines(self, server, key):
        # By number: in the same time, a fast server would write files of gigabytes.
        options = ["--connections", str(CONNECTIONS), "--size", "64", "--count", str(self.effort.lines)]
        result, cpu = self.load("lines", server, *options)
        return {key: 1e9 * cpu / result["messages"]}

    def lines_to_file(self, name, mode):
        with tempfile.TemporaryFile(dir=self.work) as file:
            with self.server(name, mode, output=file) as server:
                figures = self.lines(server, "lines file cpu")
            file.seek(0)
            written = sum(piece.count(b"\n") for piece in iter(lambda: file.read(1 << 20), b""))
        if written != self.loaded["messages"]:
            raise Failed(f"{name} wrote {written} lines; {self.loaded['messages']} messages were sent")
        return figures

    def lines_to_pipe(self, name, mode):
        with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as cat:
            try:
                with self.server(name, mode, output=cat.stdin) as server:
                    cat.stdin.close()  # the server's own end is what keeps it open
                    return self.lines(server, "lines pipe cpu")
            finally:
                cat.kill()

    def echo_one(self, name, mode):
        # Both on one core: on two, it is the wake-ups of the other core that are measured.
        with self.server(name, mode, core=self.core) as server:
            options = ["--echo", "--connections", "1", "--size", "64", *self.seconds()]
            result, _ = self.load("echo 1", server, *options, core=self.core)
        return {"echo 1 rate": result["messages_per_s"], "echo 1 p50": result["latency_us"]["p50"]}

    def echo_many(self, name, mode):
        with self.server(name, mode) as server:
            options = ["--echo", "--connections", "64", "--size", "64", *self.seconds()]
            result, cpu = self.load("echo 64", server, *options)
        return {
            "echo 64 rate": result["messages_per_s"],
            "echo 64 cpu": 1e9 * cpu / result["messages"],
        }

    def idle(self, name, mode):
        connect = lambda address: socket.create_connection(address, LIMIT)
        per_connection, base = self.idle_memory(name, mode, self.effort.idle, connect)
        return {"idle memory": per_connection, "base memory": base / 1024}

    def idle_memory(self, name, mode, number, connect):
        """Returns how much memory an idle connection takes, and how much the server takes without any."""
        with self.server(name, mode) as server:
            host, port = server.address.rsplit(":", 1)
            base = server.resident_bytes()
            clients = []
            try:
                for _ in range(number):
                    clients.append(connect((host, int(port))))
                    clients[-1].sendall(b"\0\0\0\x40" + 64 * b"x")
                self.settled(server)
                resident = server.resident_bytes()
            finally:
                for client in clients:
                    client.close()
            self.settled(server)
            server.end(number)
        return (resident - base) / number, base

    def settled(self, server):
        """Waits until a server has nothing left to do."""
        deadline = time.monotonic() + LIMIT
        before = server.cpu_seconds()
        while time.monotonic() < deadline:
            time.sleep(0.2)
            now = server.cpu_seconds()
            if now - before < 0.001:
                return
            before = now
        raise Failed(f"{server.name} has no peace although nobody sends")

    def start(self, name, mode):
        times = []
        for _ in range(self.effort.starts):
            with self.server(name, mode) as server:
                times.append(1000 * server.start_seconds)
                server.end(0)
        return {"start time": statistics.median(times)}


# ---- what comes out


def measures(runs):
    """For each measure and server the figures in the order of the rounds, their median, and for
    each peer how many times better framelet is: the median of the rounds' ratios."""
    found = {}
    for key, measure in report.MEASURES.items():
        servers = {}
        for run in runs:
            if key in run["figures"]:
                servers.setdefault(run["server"], []).append(run["figures"][key])
        found[key] = {
            name: {
                "figures": figures,
                "median": statistics.median(figures),
                "ratio": statistics.median(map(measure.ratio, servers[OURS], figures)),
            }
            for name, figures in servers.items()
        }
    return found


def machine():
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return {
        "cpu": cpu[1] if cpu else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": f"{platform.system()} {platform.release()}",
        "congestion_control": congestion_control(),
    }


def congestion_control():
    """Where the system does not say, that is None."""
    try:
        return Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()
    except OSError:
        return None


def version(*command):
    try:
        said = subprocess.run(command, cwd=TOP, capture_output=True, text=True).stdout
    except OSError:
        return None
    return said.split("\n")[0]


def shown(command):
    """A command without the directories of this machine."""
    return shlex.join(Path(part).name if part.startswith("/") else part for part in command)


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench.sh", description="Measures framelet against its peers.")
    parser.add_argument("--built", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, metavar="DIR", help="where bench.json, table.md and bench.svg go")
    parser.add_argument("--rounds", type=int, metavar="N", help="how often each server is measured (default: 5)")
    parser.add_argument("--quick", action="store_true", help="one short round: does it all work?")
    arguments = parser.parse_args()
    if arguments.rounds is not None and arguments.rounds < 1:
        parser.error("--rounds: at least 1")

    # Each connection is an open file, here and, by inheritance, in the servers.
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    idle = 5000 if files == resource.RLIM_INFINITY else min(5000, files - 64)
    if arguments.quick:
        effort = Effort(arguments.rounds or 1, seconds=0.3, lines=200_000, idle=min(200, idle), handshakes=50, starts=3)
    else:
        rounds = arguments.rounds or 5
        effort = Effort(rounds, seconds=2, lines=2_000_000, idle=idle, handshakes=min(1000, idle), starts=-(-20 // rounds))

    # If it is ended from outside, it still ends the programs it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="framelet.") as work:
        bench = Bench(arguments.built, effort, work)
        bench.run()

    results = {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": {
            "framelet": version("git", "describe", "--always", "--dirty"),
            "rustc": version("rustc", "--version"),
            "cc": version("cc", "--version"),
            "python": platform.python_version(),
        },
        "effort": asdict(effort),
        "servers": {
            name: {mode: shown(command) for mode, command in can.items()}
            for name, can in bench.servers.items()
        },
        "generator": bench.generators,
        "measures": measures(bench.runs),
        "runs": bench.runs,
    }
    out = arguments.out or arguments.built.parent / "bench"
    out.mkdir(parents=True, exist_ok=True)
    (out / "bench.json").write_text(json.dumps(results, indent=1) + "\n")
    report.write(out)
    print((out / "table.md").read_text(), end="")


if __name__ == "__main__":
    try:
        main()
    except Failed as failure:
        sys.exit(f"compare.py: {failure}")
    except KeyboardInterrupt:
        sys.exit(130)
