"""The driver of scripts/soak.sh, which says what it is for.

    soak.py FRAMELET MINUTES DIRECTORY SEED

DIRECTORY is empty but for the certificates of scripts/soak.sh.
"""

import os
import random
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import traceback
import urllib.request

from load import Load, trusting
from watch import Memory, Reader, descriptors

KEEP = 50_000  # messages that stay in each database
MESSAGES = 2_000_000 / 30  # a minute: P21
CONNECTIONS = 10_000 / 30
MIB = 1 << 20
HERE = os.path.dirname(os.path.abspath(__file__))


class Server:
    """A server, its database, and the faults that it has to bear."""

    def __init__(self, name, framelet, directory, seed, tls=False, is_killed=False):
        self.name, self.framelet, self.is_killed = name, framelet, is_killed
        self.directory = os.path.join(directory, name)
        self.database = os.path.join(self.directory, "messages.db")
        self.log = os.path.join(directory, f"{name}.log")
        self.random = random.Random(f"{seed} {name}")
        self.port, self.metrics = free_ports(self.random)
        self.process = self.proxy = self.proxy_port = self.tls = None
        self.client_arguments, self.server_arguments = [], []
        if tls:
            authority = os.path.join(directory, "ca.pem")
            self.tls = trusting(authority)
            self.client_arguments = ["--tls", "--tls-ca", authority, "--tls-name", "localhost"]
            for option in ("cert", "key"):
                file = os.path.join(directory, f"server-{option}.pem")
                self.server_arguments += [f"--tls-{option}", file]
        self.faults = []  # (what, start, end), the end is infinite while it lasts
        self.broken = []
        self.load = Load(framelet, self, self.random.random())
        self.reader = Reader(self.database, self.load.jobs)
        self.memory = None
        self.ending = threading.Event()
        os.mkdir(self.directory)
        self.has_mount = not is_killed and mount(self.directory)
        self.thread = threading.Thread(target=self.be_faulty, daemon=True)

    # ---- its life

    def start(self):
        command = [self.framelet, "serve", f"127.0.0.1:{self.port}", "--to", f"sqlite:{self.database}"]
        command += ["--keep", str(KEEP), "--metrics", f"127.0.0.1:{self.metrics}"]
        with open(self.log, "ab") as log:
            begin = log.tell()
            self.process = subprocess.Popen(command + self.server_arguments, stderr=log)
        for _ in range(3000):
            with open(self.log, "rb") as log:
                log.seek(begin)
                said = log.read()
            if b"listening on" in said:
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.01)
        raise RuntimeError(f"the server {self.name} does not start: {said.decode()}")

    def begin(self, seed):
        """Starts everything. The first message has the server open all that it keeps open."""
        self.start()
        command = [sys.executable, os.path.join(HERE, "proxy.py"), f"127.0.0.1:{self.port}"]
        command += ["60000", str(seed)]
        self.proxy = subprocess.Popen(command, stdout=subprocess.PIPE)
        self.proxy_port = int(self.proxy.stdout.readline().rsplit(b":", 1)[1])
        self.load.connect(random.Random(1))
        self.figures()
        self.descriptors_before = self.at_rest()
        self.memory = Memory(self.process.pid)
        for thread in (self.reader, self.memory, self.thread):
            thread.start()
        self.load.start()

    def end(self):
        """Ends the load, then the server, and reads what is left in the database."""
        self.ending.set()
        self.thread.join(60)
        self.load.stop()
        self.figures_at_end = self.figures()
        self.descriptors_after = self.at_rest(self.descriptors_before)
        self.memory.ending.set()
        self.proxy.kill()
        self.proxy.wait()
        self.process.send_signal(signal.SIGTERM)
        if self.process.wait(60) != 0:
            self.broken.append(f"the server ended with exit code {self.process.returncode}")
        self.reader.ending.set()
        self.reader.join(60)
        while self.reader.step() > 0:
            pass
        with sqlite3.connect(self.database) as connection:
            found = connection.execute("PRAGMA integrity_check").fetchone()[0]
        if found != "ok":
            self.broken.append(f"the database is damaged: {found}")

    def at_rest(self, expected=None):
        """Returns the descriptors once no connection is open, and there are as many as expected."""
        for _ in range(100):
            quiet = self.figures().get("connections_open") == 0
            time.sleep(0.2)  # the connection of the figures closes, too
            now = descriptors(self.process.pid)
            if quiet and expected in (None, now):
                break
        return now

    def figures(self):
        """Returns the figures that have no labels."""
        address = f"http://127.0.0.1:{self.metrics}/metrics"
        with urllib.request.urlopen(address, timeout=30) as answer:
            text = answer.read().decode()
        found = re.findall(r"^framelet_(\w+) ([0-9.]+)$", text, re.MULTILINE)
        return {name: float(value) for name, value in found}

    # ---- faults

    def be_faulty(self):
        """All faults in random order, again and again."""
        kinds = [self.stop, self.lock, self.stop_client, self.kill_client]
        if self.is_killed:
            kinds += [self.crash] * 8
        else:
            kinds += [self.report]
        if self.tls:
            kinds += [self.reload]
        if self.has_mount:
            kinds += [self.fill]
        while True:
            for fault in self.random.sample(kinds, len(kinds)):
                if self.ending.wait(self.random.uniform(1, 5)):
                    return
                name = fault.__name__.replace("_", " ")
                self.faults.append([name, time.monotonic(), float("inf")])
                try:
                    fault()
                except Exception as error:  # the run is worth nothing without its faults
                    self.broken.append(f"{name}: {error}")
                    return
                finally:
                    self.faults[-1][2] = time.monotonic()

    def stop(self):
        """Long enough to be taken for lost by some."""
        self.process.send_signal(signal.SIGSTOP)
        time.sleep(self.random.choice([0.2, 1, 4, 12]))
        self.process.send_signal(signal.SIGCONT)

    def crash(self):
        self.process.kill()
        self.process.wait()
        time.sleep(self.random.choice([0, 0.1, 1]))
        self.start()

    def lock(self):
        """For longer than the server waits in silence."""
        connection = sqlite3.connect(self.database, timeout=20, isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        time.sleep(self.random.uniform(2, 5))
        connection.execute("ROLLBACK")
        connection.close()

    def fill(self):
        """No room is left on the disk."""
        path = os.path.join(self.directory, "filler")
        with open(path, "wb", buffering=0) as file:
            for size in (MIB, 4096):
                try:
                    while file.write(b"\0" * size) == size:
                        pass
                except OSError:
                    pass
            time.sleep(self.random.uniform(2, 5))
        os.remove(path)

    def stop_client(self):
        client = self.load.some_client(signal.SIGSTOP)
        time.sleep(self.random.uniform(0.2, 3))
        if client is not None:
            client.send_signal(signal.SIGCONT)

    def kill_client(self):
        self.load.some_client(signal.SIGKILL)

    def report(self):
        self.process.send_signal(signal.SIGUSR1)

    def reload(self):
        self.process.send_signal(signal.SIGHUP)

    def at_fault(self, sent, until=None):
        """Returns the fault that a message sent then has to do with, if any. Its consequences last a while."""
        until = time.monotonic() if until is None else until
        for name, start, end in reversed(self.faults):
            if start <= until and sent <= end + 2:
                return name
        return None

    # ---- what came of it

    def row(self, minutes):
        """Returns the column of the table, and adds what is broken."""
        jobs = list(self.load.jobs.values())
        counts, broken = self.load.counts, self.broken
        broken += self.load.broken
        lost = sum(job.missing + max(0, job.promised - job.seen) for job in jobs)
        doubled = sum(job.doubled for job in jobs)
        sent = counts["acked"] + counts["plain"] + counts["unsure"]
        for what, number in (
            ("messages lost", lost),
            ("messages doubled", doubled),
            ("messages that nobody sent", len(self.reader.wrong)),
            ("rows removed before they were read: this machine is too slow for this test", self.reader.unread),
        ):
            if number:
                broken.append(f"{number} {what}")
        with open(self.log, encoding="utf-8", errors="replace") as log:
            broken += [f"the log: {entry.strip()}" for entry in log if "panicked" in entry]
        quiet, faulty = (0, None), (0, None)
        for at, took in self.load.latencies:
            fault = self.at_fault(at, at + took)
            if fault is None:
                quiet = max(quiet, (took, ""))
            else:
                faulty = max(faulty, (took, fault))
        table = {
            "messages sent": f"{sent:,}",
            "of them acknowledged": f"{counts['acked']:,}",
            "connections of clients": f"{counts['connections']:,}",
            "clients killed": f"{counts['killed']:,}",
            "faults": len(self.faults),
            "messages lost": lost,
            "messages doubled": doubled,
            "messages pruned": f"{self.figures_at_end['messages_pruned_total']:,.0f}",
            "slowest connect": f"{self.load.slowest_connect * 1000:.0f} ms",
            "slowest acknowledgement": f"{quiet[0] * 1000:.0f} ms",
            "the same in a fault": f"{faulty[0]:.1f} s ({faulty[1]})",
        }
        if self.is_killed:
            table["messages pruned"] += " (since the last kill)"
            return table
        rate = min(sent / MESSAGES, counts["connections"] / CONNECTIONS)
        if rate < minutes:
            broken.append(f"too little load: as much as P21 has in {rate:.1f} minutes")
        slope = self.memory.slope()
        over_run = slope * 60 * minutes
        if over_run >= MIB:
            broken.append(f"memory grew by {over_run / MIB:.2f} MiB over the run")
        if self.descriptors_before != self.descriptors_after:
            more = dict(self.descriptors_after - self.descriptors_before)
            fewer = dict(self.descriptors_before - self.descriptors_after)
            broken.append(f"descriptors at the end that were not there at the start: {more}; missing: {fewer}")
        fifths = ", ".join(f"{size / MIB:.1f}" for size in self.memory.lowest_in_fifths())
        table["lowest memory in each fifth of the time"] = f"{fifths} MiB"
        table["highest memory"] = f"{max(size for _, size in self.memory.samples) / MIB:.1f} MiB"
        table["memory slope over the run"] = f"{over_run / MIB:+.2f} MiB"
        if minutes >= 10:  # otherwise it says little
            table["memory slope in an hour"] = f"{slope * 3600 / MIB:+.2f} MiB"
        table["descriptors, start and end"] = " and ".join(
            str(sum(found.values())) for found in (self.descriptors_before, self.descriptors_after)
        )
        return table


def mount(directory):
    """Mounts a file system of its own, so that it can be full; returns whether that worked."""
    command = ["mount", "-t", "tmpfs", "-o", "size=128m", "none", directory]
    return subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode == 0


def free_ports(choose):
    """Returns two ports that are free now. They are none of those that the system gives to clients: otherwise one that
    connects again and again while its server is down could be given the port of the server, and meet itself."""
    found = []
    for _ in range(1000):
        port = choose.randint(20_000, 30_000)
        with socket.socket() as attempt:
            try:
                attempt.bind(("127.0.0.1", port))
                found.append(port)
            except OSError:
                continue
        if len(set(found)) == 2:
            return sorted(set(found))
    raise RuntimeError("no port is free between 20000 and 30000")


def show(tables):
    names = {name: None for table in tables.values() for name in table}
    rows = [["", *tables]] + [[name, *(str(t.get(name, "")) for t in tables.values())] for name in names]
    rows.insert(1, ["---"] * len(rows[0]))
    for row in rows:
        print("| " + " | ".join(row) + " |")


def main():
    framelet, minutes, directory, seed = sys.argv[1], float(sys.argv[2]), sys.argv[3], sys.argv[4]
    if minutes < 0.3:
        sys.exit("soak.py: nothing shows in less than 0.3 minutes")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(143))
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)
    servers = []
    try:
        for name, tls, is_killed in (("plain", False, False), ("TLS", True, False), ("killed", False, True)):
            servers.append(Server(name, framelet, directory, seed, tls, is_killed))
        if not servers[0].has_mount:
            print("NOT RUN: full disks, because no file system can be mounted here", flush=True)
        for server in servers:
            server.begin(seed)
        until = time.monotonic() + 60 * minutes
        while time.monotonic() < until:
            time.sleep(min(60, max(0, until - time.monotonic())))
            rows = ", ".join(f"{s.reader.rows:,} into {s.name}" for s in servers)
            print(f"{max(0, until - time.monotonic()) / 60:.0f} minutes left; messages: {rows}", flush=True)
        for server in servers:
            server.ending.set()
            server.load.ending.set()
        for server in servers:
            server.end()
        tables = {server.name: server.row(minutes) for server in servers}
        print(f"\nsoak: {minutes:g} minutes, seed {seed}\n")
        show(tables)
        broken = [f"{server.name}: {what}" for server in servers for what in server.broken]
        for what in broken[:40]:
            print(f"BROKEN: {what}")
        print("every promise was kept" if not broken else f"{len(broken)} promises were broken")
        sys.exit(1 if broken else 0)
    finally:
        for server in servers:
            if server.has_mount:
                subprocess.run(["umount", "--lazy", server.directory], check=False)
        if "broken" not in locals():
            # It ended early: so does all that the threads have started, and what they would still start.
            if not isinstance(sys.exc_info()[1], SystemExit):
                traceback.print_exc()
            os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
