"""WebSocket server that echoes what it receives; it prints its port."""

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.websocket.compress import PerMessageDeflateOffer, PerMessageDeflateOfferAccept
from twisted.internet import reactor


class Echo(WebSocketServerProtocol):
    def onMessage(self, payload, isBinary):
        self.sendMessage(payload, isBinary)


def accept(offers):
    deflate = (offer for offer in offers if isinstance(offer, PerMessageDeflateOffer))
    return next(map(PerMessageDeflateOfferAccept, deflate), None)


factory = WebSocketServerFactory(debug=False, debugCodePaths=False)
factory.protocol = Echo
factory.setProtocolOptions(failByDrop=False, perMessageCompressionAccept=accept)
listening = reactor.listenTCP(0, factory, interface="127.0.0.1")
print("listening on", listening.getHost().port, flush=True)
reactor.run()
