"""A peer on Twisted's own Int32StringReceiver, which does all the framing here.
Called as contents.arguments says."""

import sys

from twisted.internet import protocol, reactor
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.testing import StringTransport
from twisted.protocols.basic import Int32StringReceiver
from zope.interface import implementer

from contents import LIMIT, PAUSE, Cutter, arguments, messages, write_frames

problem = None


def end(text=None):
    global problem
    problem = problem or text
    if reactor.running:
        reactor.stop()


# Without this interface Twisted closes the whole connection when the other side
# ends its half, and drops the replies that it has not yet written.
@implementer(IHalfCloseableProtocol)
class Peer(Int32StringReceiver):
    MAX_LENGTH = LIMIT
    complaint = None

    def connectionMade(self):
        self.transport.setTcpNoDelay(True)

    def lengthLimitExceeded(self, length):
        self.complain(f"a frame of {length} bytes")

    def readConnectionLost(self):
        if self._unprocessed:
            self.complain(f"the stream ends inside a frame ({len(self._unprocessed)} bytes of it)")
        self.transport.loseConnection()

    def writeConnectionLost(self):
        pass

    def complain(self, text):
        self.complaint = self.complaint or text
        self.transport.abortConnection()

    def connectionLost(self, reason):
        if self.complaint is None and not reason.check(ConnectionDone):
            self.complaint = reason.getErrorMessage()
        end(self.complaint)


class Client(Peer):
    def connectionMade(self):
        super().connectionMade()
        if self.factory.manner == "pieces":
            # Framed by Twisted all the same, only kept from leaving at once.
            kept = Int32StringReceiver()
            kept.makeConnection(StringTransport())
            for message in messages():
                kept.sendString(message)
            self.pieces = Cutter()(kept.transport.value())
            self.send_piece()
            return
        for message in messages():
            self.sendString(message)
        self.all_sent()

    def send_piece(self):
        for piece, single in self.pieces:
            self.transport.write(piece)
            reactor.callLater(PAUSE if single else 0, self.send_piece)
            return
        self.all_sent()

    def all_sent(self):
        if self.factory.manner == "close":
            self.transport.loseConnection()
        else:
            self.transport.loseWriteConnection()

    def stringReceived(self, payload):
        self.complain(f"the server wrote to a peer that asked nothing: {payload[:1000]!r}")


class Server(Peer):
    def stringReceived(self, payload):
        write_frames(self.factory.received, [payload])
        self.sendString(payload)

    def connectionLost(self, reason):
        self.factory.received.close()
        super().connectionLost(reason)


class ClientFactory(protocol.ClientFactory):
    protocol = Client

    def clientConnectionFailed(self, connector, reason):
        end(reason.getErrorMessage())


def main():
    role, where, manner = arguments()
    if role == "client":
        factory = ClientFactory()
        factory.manner = manner
        reactor.connectTCP(*where, factory)
    else:
        factory = protocol.Factory.forProtocol(Server)
        factory.received = open(where, "wb")
        port = reactor.listenTCP(0, factory, interface="127.0.0.1").getHost()
        print(f"listening on {port.host}:{port.port}", file=sys.stderr, flush=True)
    reactor.run()
    if problem:
        sys.exit(f"twisted_peer.py: {problem}")


if __name__ == "__main__":
    main()
