"""A bad network between two network namespaces: it loses, delays, doubles and reorders packets.

    network.py PID ADDRESS PEER

Run in one network namespace, which gets ADDRESS; the one of process PID gets PEER. Both are IPv4 addresses.
SIGUSR1 cuts the network, without a word to either side, and SIGUSR2 mends it. At SIGTERM it prints how many packets
it has passed on, lost and doubled, and ends. It needs no kernel module: packets pass through this program.
"""

import asyncio
import fcntl
import os
import random
import signal
import struct
import subprocess
import sys

LOST, DOUBLED = 0.02, 0.02  # of all packets, in each direction
DELAY = (0.002, 0.02)  # seconds; packets overtake each other, as each has a delay of its own
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 1, 0x1000


def tunnel(name):
    """Returns the descriptor of a new interface, with a packet for each read and write."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    request = struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI)
    fcntl.ioctl(descriptor, TUNSETIFF, request)
    return descriptor


class Network:
    def __init__(self, loop, seed):
        self.loop, self.random = loop, random.Random(seed)
        self.is_cut = False
        self.passed = self.lost = self.doubled = 0

    def connect(self, one, other):
        for source, target in ((one, other), (other, one)):
            self.loop.add_reader(source, self.pass_on, source, target)

    def pass_on(self, source, target):
        packet = os.read(source, 65_536)
        if self.is_cut or self.random.random() < LOST:
            self.lost += 1
            return
        copies = 1 + (self.random.random() < DOUBLED)
        self.passed += 1
        self.doubled += copies - 1
        for _ in range(copies):
            self.loop.call_later(self.random.uniform(*DELAY), self.write, target, packet)

    def write(self, target, packet):
        try:
            os.write(target, packet)
        except OSError:
            self.lost += 1  # its queue is full

    def cut(self, is_cut):
        self.is_cut = is_cut


def main():
    pid, address, peer = sys.argv[1:]
    loop = asyncio.new_event_loop()
    network = Network(loop, 1)
    network.connect(tunnel("bad0"), tunnel("bad1"))
    there = ["nsenter", "--target", pid, "--net"]
    for command in (
        ["ip", "link", "set", "bad1", "netns", pid],
        ["ip", "address", "add", address, "peer", peer, "dev", "bad0"],
        ["ip", "link", "set", "bad0", "up"],
        [*there, "ip", "address", "add", peer, "peer", address, "dev", "bad1"],
        [*there, "ip", "link", "set", "bad1", "up"],
    ):
        subprocess.run(command, check=True)
    loop.add_signal_handler(signal.SIGUSR1, network.cut, True)
    loop.add_signal_handler(signal.SIGUSR2, network.cut, False)
    loop.add_signal_handler(signal.SIGTERM, loop.stop)
    print("ready", flush=True)
    loop.run_forever()
    print(f"passed {network.passed}, lost {network.lost}, doubled {network.doubled}", flush=True)


if __name__ == "__main__":
    main()
