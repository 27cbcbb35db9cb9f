"""What loads a server: clients of framelet with and without acknowledgements, short connections, and a client that
measures how long each message takes."""

import random
import secrets
import signal
import socket
import ssl
import struct
import subprocess
import tempfile
import threading
import time

from watch import Job, line

PATIENCE = 180  # seconds, after which something hangs
TRY_AGAIN = {3, 5, 6}  # refusals


class Load:
    """The jobs of one server, and the threads that do them. Each job has a name of its own."""

    def __init__(self, framelet, server, seed):
        self.framelet, self.server = framelet, server
        self.random = random.Random(seed)
        self.jobs = {}
        self.broken = []  # what should not have happened
        self.clients = {}  # those that run, by their process
        self.lock = threading.Lock()
        self.ending = threading.Event()
        self.counts = {"connections": 0, "acked": 0, "plain": 0, "unsure": 0, "killed": 0}
        self.latencies = []  # (when sent, seconds)
        self.slowest_connect = 0.0
        self.threads = [
            threading.Thread(target=target, args=(random.Random(f"{seed} {number}"),), daemon=True)
            for number, target in enumerate(
                [self.acked, self.acked, self.plain, self.short, self.probe]
            )
        ]

    def start(self):
        for thread in self.threads:
            thread.start()

    def stop(self):
        """Waits until each thread has done what it is at."""
        self.ending.set()
        for thread in self.threads:
            thread.join(2 * PATIENCE)
            if thread.is_alive():
                self.broken.append(f"a client did not end within {2 * PATIENCE} s")

    def job(self, kind):
        with self.lock:
            job = Job(f"{kind}{len(self.jobs)}")
            self.jobs[job.name] = job
        return job

    def count(self, what, more=1):
        with self.lock:
            self.counts[what] += more

    def every(self, seconds):
        """Yields that often, or as often as there is time, until the end."""
        due = time.monotonic()
        while not self.ending.wait(max(0, due - time.monotonic())):
            due = max(due + seconds, time.monotonic())
            yield

    # ---- clients of framelet

    def send(self, arguments, port, file, stop_after=None):
        """Runs `framelet send`; returns its exit code and what it said. One that was killed has the code -9."""
        file.seek(0)
        address = f"127.0.0.1:{port}"
        command = [self.framelet, "send", address, "--input", "lines"] + arguments
        command += self.server.client_arguments
        client = subprocess.Popen(
            command, stdin=file, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        with self.lock:
            self.clients[client.pid] = client
        try:
            if stop_after is not None:
                self.ending.wait(stop_after)
                client.kill()
            said = client.communicate(timeout=PATIENCE)[1]
        except subprocess.TimeoutExpired:
            client.kill()
            said = client.communicate()[1] + b"; and it hung"
        finally:
            with self.lock:
                del self.clients[client.pid]
        self.count("connections")
        return client.returncode, said.decode(errors="replace").strip()

    def some_client(self, send_signal):
        """Sends a signal to a client, once one runs; returns it, if there was one in time."""
        for _ in range(5000):
            with self.lock:
                if self.clients:
                    client = self.random.choice(list(self.clients.values()))
                    client.send_signal(send_signal)
                    return client
            self.ending.wait(0.001)
        return None

    @staticmethod
    def messages(job, count):
        file = tempfile.TemporaryFile()
        file.write("".join(f"{line(job.name, number)}\n" for number in range(1, count + 1)).encode())
        file.flush()
        return file

    def acked(self, choose):
        """Acknowledged: everything is there, once, also if the client is killed and resumes."""
        for _ in self.every(1.6):
            job, count = self.job("a"), choose.randint(200, 2000)
            port = choose.choice([self.server.port, self.server.port, self.server.proxy_port])
            arguments = ["--ack", "--sender", secrets.token_hex(16), "--resume", "--retry", "120s"]
            arguments += ["--window", choose.choice(["50", "1000", "4000"])]
            kill = choose.uniform(0, 0.04) if choose.random() < 0.3 else None
            with self.messages(job, count) as file:
                for _ in range(20):
                    code, said = self.send(arguments, port, file, kill)
                    kill = None
                    if code != -signal.SIGKILL:
                        break
                    self.count("killed")
            if code == 0:
                job.promised = count
                self.count("acked", count)
            else:
                self.broken.append(f"send --ack ended with {code}: {said}")

    def plain(self, choose):
        """Without acknowledgements: exit code 0 means that everything is there. Now and then a flood."""
        for _ in self.every(1.6):
            job = self.job("p")
            count = 5000 if choose.random() < 0.1 else choose.randint(100, 1500)
            with self.messages(job, count) as file:
                code, said = self.send(["--timeout", "60s", "--retry", "20s"], self.server.port, file)
            if code == 0:
                job.promised = count
                self.count("plain", count)
            else:
                self.count("unsure", count)
                if code != -signal.SIGKILL and not self.server.is_killed:
                    self.broken.append(f"send ended with {code}: {said}")

    # ---- short connections

    def short(self, choose):
        for _ in self.every(1):
            for _ in range(12):
                self.connect(choose)

    def open(self, timeout):
        """Returns a connection, with TLS if the server has it."""
        before = time.monotonic()
        connection = socket.create_connection(("127.0.0.1", self.server.port), timeout=timeout)
        if not self.server.at_fault(before):
            self.slowest_connect = max(self.slowest_connect, time.monotonic() - before)
        self.count("connections")
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.server.tls is None:
            return connection
        return self.server.tls.wrap_socket(connection, server_hostname="localhost")

    def connect(self, choose):
        """Connects, sends up to three messages, and leaves in one of several ways."""
        job, count = self.job("s"), choose.randint(0, 3)
        ending = choose.choice(["orderly", "close", "partial", "reset"])
        promised = 0
        try:
            with self.open(60) as connection:
                connection.sendall(b"".join(frame(line(job.name, n + 1)) for n in range(count)))
                if ending == "orderly":
                    if self.server.tls is None:
                        connection.shutdown(socket.SHUT_WR)
                    else:
                        connection = connection.unwrap()
                    if connection.recv(1) == b"":
                        promised = count
                elif ending == "partial":
                    connection.sendall(frame("never complete")[: choose.randint(1, 17)])
                elif ending == "reset":
                    linger = struct.pack("ii", 1, 0)
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            # A server that goes on reads what was sent before the end, whatever the end is.
            if ending in ("close", "partial") and not self.server.is_killed:
                promised = count
        except OSError as error:
            if not self.server.is_killed:
                self.broken.append(f"a short connection ({ending}): {error}")
        job.promised = promised
        self.count("plain", promised)
        self.count("unsure", count - promised)

    # ---- the client that measures

    def probe(self, choose):
        """Sends a message ten times a second and waits for its acknowledgement, whatever that takes."""
        job, sender, connection = self.job("l"), choose.randbytes(16), None
        for _ in self.every(0.1):
            number = job.promised + 1
            sent = time.monotonic()
            while job.promised < number:
                try:
                    if connection is None:
                        connection, committed = self.hello(sender, number)
                        job.promised = max(job.promised, committed)
                        if committed >= number:
                            break
                    connection.sendall(frame(line(job.name, number)))
                    while job.promised < number:
                        job.promised = read_count(connection)
                except OSError as error:
                    connection = None
                    if time.monotonic() - sent > PATIENCE:
                        self.broken.append(f"a message was not acknowledged in {PATIENCE} s: {error}")
                        return
                    time.sleep(0.02)
            self.latencies.append((sent, time.monotonic() - sent))
            self.count("acked")
        if connection is not None:
            connection.close()

    def hello(self, sender, first):
        connection = self.open(10)
        connection.sendall(b"\xff" * 4 + frame(struct.pack(">B16sQ", 1, sender, first)))
        return connection, read_count(connection)


def frame(payload):
    data = payload if isinstance(payload, bytes) else payload.encode()
    return struct.pack(">I", len(data)) + data


def read(connection, length):
    data = b""
    while len(data) < length:
        piece = connection.recv(length - len(data))
        if not piece:
            raise ConnectionError("the server closed the connection")
        data += piece
    return data


def read_count(connection):
    """Returns how many messages are committed."""
    answer = b""
    while not answer:  # an empty frame is a heartbeat
        answer = read(connection, *struct.unpack(">I", read(connection, 4)))
    if len(answer) > 8 and answer[8] not in TRY_AGAIN:
        raise RuntimeError(f"refused: {answer[9:]!r}")
    if len(answer) > 8:
        raise ConnectionError(answer[9:].decode())
    return int.from_bytes(answer, "big")


def trusting(authority):
    """Returns what a client needs for TLS."""
    return ssl.create_default_context(cafile=authority)
