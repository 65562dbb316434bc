"""Runs the Autobahn suite's cases against a WebSocket server that echoes.

    fuzz.py PORTED ws://HOST:PORT/PATH VERDICTS.json GROUP…

PORTED is the output of `port.py`. A group is the beginning of a case's number: `1`, `6.4`, `7.7.10`.
"""

import json
import sys
import time

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol, connectWS
from autobahn.websocket.protocol import WebSocketProtocol
from twisted.internet import reactor


def octets(text):
    return text.encode("latin-1") if isinstance(text, str) else text


class Player(WebSocketClientProtocol):
    """Runs one case, with the attributes and methods that cases use of the suite's own client."""

    def __init__(self, factory, number, case):
        super().__init__()
        self.factory = factory
        self.number = number
        self.createWirelog = self.connectionWasOpen = False
        self.trafficStats = None
        self.txFrameStats = {}
        self.caseStart = time.time()
        # These cases compare bytes; the others strings.
        self.takes_bytes = number.startswith(("12.", "13."))
        self.runCase = case(self)

    def onOpen(self):
        self.connectionWasOpen = True
        self.runCase.onOpen()

    def onMessage(self, payload, isBinary):
        message = payload if self.takes_bytes else payload.decode("latin-1")
        self.runCase.onMessage(message, isBinary)

    def onPing(self, payload):
        super().onPing(payload)
        self.runCase.onPing(payload.decode("latin-1"))

    def onPong(self, payload):
        self.runCase.onPong(payload.decode("latin-1"))

    def onClose(self, wasClean, code, reason):
        self.runCase.onClose(wasClean, code, reason)

    def sendFrame(self, opcode, payload=b"", payload_len=None, mask=None, **more):
        payload = octets(payload)
        if payload_len is not None and payload:
            times, rest = divmod(payload_len, len(payload))
            payload = payload * times + payload[:rest]
        super().sendFrame(opcode, payload, mask=octets(mask) if mask else mask, **more)

    def sendMessage(self, payload, *args, **more):
        super().sendMessage(octets(payload), *args, **more)

    def sendMessageFrame(self, payload, *args, **more):
        return super().sendMessageFrame(octets(payload), *args, **more)

    def sendMessageFrameData(self, payload, *args, **more):
        return super().sendMessageFrameData(octets(payload), *args, **more)

    def sendCloseFrame(self, code=None, reasonUtf8=None, isReply=False):
        super().sendCloseFrame(code, octets(reasonUtf8), isReply)

    def logTxFrame(self, header, payload, *args):
        self.txFrameStats[header.opcode] = self.txFrameStats.get(header.opcode, 0) + 1

    def enableWirelog(self, enable):
        pass

    logRxFrame = logRxOctets = logTxOctets = lambda self, *args: None

    def after(self, delay, act):
        def unless_closed():
            if self.state != WebSocketProtocol.STATE_CLOSED:
                act()

        reactor.callLater(delay, unless_closed)

    def continueLater(self, delay, act, tag=None):
        self.after(delay, act)

    def killAfter(self, delay):
        self.after(delay, self.failConnection)

    def closeAfter(self, delay):
        self.after(delay, self.sendClose)

    def connectionLost(self, reason):
        super().connectionLost(reason)
        case = self.runCase
        case.onConnectionLost(self.failedByMe)
        self.factory.verdicts[self.number] = {
            "behavior": case.behavior,
            "behaviorClose": case.behaviorClose,
            "remoteCloseCode": self.remoteCloseCode,
        }


class Suite(WebSocketClientFactory):
    """Runs one connection per case, one after the other."""

    def __init__(self, url, cases):
        super().__init__(url, debug=False, debugCodePaths=False)
        self.setProtocolOptions(failByDrop=False)
        self.logOctets, self.logFrames = False, True
        self.cases = cases
        self.verdicts = {}

    def buildProtocol(self, address):
        return Player(self, *self.cases[len(self.verdicts)])

    def clientConnectionLost(self, connector, reason):
        if len(self.verdicts) < len(self.cases):
            connector.connect()
        else:
            reactor.stop()

    def clientConnectionFailed(self, connector, reason):
        print("cannot connect:", reason.getErrorMessage(), file=sys.stderr)
        reactor.stop()


def main(ported, url, target, *groups):
    sys.path.insert(0, ported)
    import cases

    named = [(".".join(case.__name__[4:].split("_")), case) for case in cases.Cases]
    chosen = [
        (number, case)
        for number, case in named
        if any(f"{number}.".startswith(f"{group}.") for group in groups)
    ]
    suite = Suite(url, chosen)
    connectWS(suite, timeout=10)
    reactor.run()
    with open(target, "w", encoding="utf-8") as file:
        json.dump(suite.verdicts, file, indent=1)


main(*sys.argv[1:])
