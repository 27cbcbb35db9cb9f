"""What is watched from outside while a server runs: what its database holds, its memory and its descriptors."""

import collections
import os
import sqlite3
import statistics
import threading
import time

FILLER = "x" * 5000


def line(name, number):
    """Returns the message with this number of a job."""
    length = 5000 if number % 100 == 0 else number * 37 % 200
    return f"{name} {number} {FILLER[:length]}"


class Job:
    """Messages 1 to `count`, sent by one client or by several in turn."""

    def __init__(self, name):
        self.name = name
        self.promised = 0  # so many have to be there
        self.seen = 0  # so many are there
        self.doubled = 0
        self.missing = 0  # known to be missing, as a later one is there


class Reader(threading.Thread):
    """Reads each new row of a database, as a consumer does that remembers the last id it has read."""

    def __init__(self, path, jobs):
        super().__init__(daemon=True)
        self.path, self.jobs = path, jobs
        self.last = self.rows = self.unread = 0
        self.wrong = []
        self.connection = None
        self.ending = threading.Event()

    def run(self):
        while not self.ending.is_set():
            if self.step() == 0:
                self.ending.wait(0.05)

    def step(self):
        """Returns how many rows there were."""
        try:
            if self.connection is None:
                address = f"file:{self.path}?mode=ro"
                self.connection = sqlite3.connect(address, uri=True, check_same_thread=False)
            query = "SELECT id, payload FROM messages WHERE id > ? ORDER BY id LIMIT 5000"
            rows = self.connection.execute(query, (self.last,)).fetchall()
        except sqlite3.OperationalError:
            return 0  # a server that was killed is not back yet
        for number, payload in rows:
            # Ids have no gaps but those of rows that were removed.
            self.unread += number - self.last - 1
            self.last = number
            self.check(payload)
        self.rows += len(rows)
        return len(rows)

    def check(self, payload):
        name, number, _ = payload.split(" ", 2)
        number, job = int(number), self.jobs.get(name)
        if job is None or payload != line(name, number):
            self.wrong.append(payload[:60])
        elif number <= job.seen:
            job.doubled += 1
        else:
            job.missing += number - job.seen - 1
            job.seen = number


def descriptors(pid):
    """Returns what the open descriptors are, and how many there are of each kind."""
    found = collections.Counter()
    for number in os.listdir(f"/proc/{pid}/fd"):
        try:
            found[os.readlink(f"/proc/{pid}/fd/{number}").split(":[")[0]] += 1
        except FileNotFoundError:
            pass  # it has been closed since
    return found


def memory(pid):
    """Returns the memory that the process itself has taken, without files it has mapped, in bytes."""
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        for entry in status:
            if entry.startswith("RssAnon:"):
                return int(entry.split()[1]) * 1024
    raise OSError("no RssAnon in the status of a process")


class Memory(threading.Thread):
    """Notes the memory of a process twice a second."""

    WINDOWS = 20

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid = pid
        self.samples = []  # (time in seconds, bytes)
        self.ending = threading.Event()

    def run(self):
        while not self.ending.wait(0.5):
            try:
                self.samples.append((time.monotonic(), memory(self.pid)))
            except OSError:
                return

    def slope(self):
        """Returns the slope in bytes per second.

        Load makes memory rise and fall again, a leak raises what it falls to: so this is the slope of the lowest
        memory in each of 20 windows, without the first fifth of the time, in which caches fill. It is the median of
        the slopes between each two of them, as a line of least squares follows single values that stand out.
        """
        first, last = self.samples[0][0], self.samples[-1][0]
        points = self.lowest(first + (last - first) / 5, self.WINDOWS)
        slopes = [
            (b[1] - a[1]) / (b[0] - a[0]) for i, a in enumerate(points) for b in points[i + 1 :]
        ]
        return statistics.median(slopes)

    def lowest(self, start, windows):
        """Returns the lowest samples in so many parts of the time since `start`, in order."""
        last = self.samples[-1][0]
        lowest = {}
        for at, size in self.samples:
            window = int((at - start) / (last - start) * windows)
            if start <= at < last and (window not in lowest or size < lowest[window][1]):
                lowest[window] = (at, size)
        return sorted(lowest.values())

    def lowest_in_fifths(self):
        return [size for _, size in self.lowest(self.samples[0][0], 5)]
