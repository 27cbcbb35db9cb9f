#!/usr/bin/env python3
"""What a Python programmer would plainly write with Twisted's Int32StringReceiver.

    twisted_count.py count|echo [ADDR:PORT]
"""

import sys

from twisted.internet import protocol, reactor
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.protocols.basic import Int32StringReceiver
from zope.interface import implementer

BACKLOG = 4096


class Count(Int32StringReceiver):
    MAX_LENGTH = 8 * 1024 * 1024
    messages = 0  # of all connections

    def connectionMade(self):
        self.transport.setTcpNoDelay(True)

    def stringReceived(self, string):
        Count.messages += 1


@implementer(IHalfCloseableProtocol)
class Echo(Count):
    def connectionMade(self):
        super().connectionMade()
        # The transport stops reading while it has much to write.
        self.transport.registerProducer(self.transport, True)

    def stringReceived(self, string):
        Count.messages += 1
        self.sendString(string)

    def readConnectionLost(self):
        self.transport.unregisterProducer()
        self.transport.loseConnection()  # once all is written

    def writeConnectionLost(self):
        pass


def main():
    modes = {"count": Count, "echo": Echo}
    if len(sys.argv) not in (2, 3) or sys.argv[1] not in modes:
        sys.exit("usage: twisted_count.py count|echo [ADDR:PORT]")
    host, _, port = (sys.argv[2] if len(sys.argv) > 2 else "127.0.0.1:0").rpartition(":")
    factory = protocol.Factory.forProtocol(modes[sys.argv[1]])
    factory.noisy = False
    listener = reactor.listenTCP(int(port), factory, backlog=BACKLOG, interface=host)
    address = listener.getHost()
    print(f"listening on {address.host}:{address.port}", file=sys.stderr, flush=True)
    reactor.run()  # until SIGTERM
    print(f"{Count.messages} messages", file=sys.stderr)


main()
