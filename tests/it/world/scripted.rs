//! Upstream and caller that a test plays by hand, byte for byte.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::Notify,
    time::timeout,
};

use super::{Kind, Store, alone, gateway::Gateway, process::TEST_TIMEOUT, process::until};
use crate::entra::Entra;

/// Time without an event after which a test assumes that none follows.
pub(crate) const QUIET: Duration = Duration::from_millis(150);

/// Connections that wait for the test.
#[derive(Default)]
struct Queue {
    connections: Mutex<VecDeque<Peer>>,
    arrived: Notify,
}

/// A scripted upstream with the gateway in front of it.
pub(crate) struct Scripted {
    pub(crate) gateway: Gateway,
    queue: Arc<Queue>,
    pub(crate) entra: Entra,
    _store: Store,
}

/// One end of a connection, played by the test.
pub(crate) struct Peer {
    stream: Box<dyn Duplex>,
    /// Read from the socket and not yet consumed.
    read: Vec<u8>,
}

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {
    /// Makes the next close a reset (RST).
    fn reset_on_close(&self);
}

impl Duplex for TcpStream {
    fn reset_on_close(&self) {
        self.set_zero_linger().expect("a socket");
    }
}

impl Duplex for UnixStream {
    fn reset_on_close(&self) {
        panic!("a Unix socket cannot be reset");
    }
}

/// An answer with two bytes of content.
pub(crate) const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

impl Scripted {
    /// One worker thread, so that connections to upstream can be counted.
    pub(crate) async fn start(more: &[(&str, &str)]) -> Self {
        Self::start_with(Kind::Files, more).await
    }

    /// Starts with this kind of store; with Redis, sessions can be minted without Flask.
    pub(crate) async fn start_with(kind: Kind, more: &[(&str, &str)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let queue = Arc::new(Queue::default());
        tokio::spawn(take_tcp(listener, Arc::clone(&queue)));
        Self::in_front_of(&url, queue, kind, more).await
    }

    /// Starts with upstream on a Unix socket.
    pub(crate) async fn start_unix(path: &std::path::Path) -> Self {
        let listener = UnixListener::bind(path).expect("a socket");
        let queue = Arc::new(Queue::default());
        let into = Arc::clone(&queue);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(Arc::clone(&into).receive(Peer::new(stream)));
            }
        });
        Self::in_front_of(&format!("unix:{}", path.display()), queue, Kind::Files, &[]).await
    }

    async fn in_front_of(url: &str, queue: Arc<Queue>, kind: Kind, more: &[(&str, &str)]) -> Self {
        let mut settings = vec![("GATEWAY_UPSTREAM_URL", url), ("GATEWAY_WORKERS", "1")];
        settings.extend_from_slice(more);
        let (gateway, entra, store) = alone(kind, &settings).await;
        until("upstream answered", async || gateway.is_ready().await).await;
        gateway.wait_until_it_has_keys().await;
        Self { gateway, queue, entra, _store: store }
    }

    /// A caller's connection.
    pub(crate) async fn caller(&self) -> Peer {
        Peer::connect(self.gateway.address()).await
    }

    /// The next connection that the gateway opens.
    pub(crate) async fn upstream(&self) -> Peer {
        loop {
            let arrived = self.queue.arrived.notified();
            if let Some(peer) = self.queue.pop() {
                return peer;
            }
            timeout(TEST_TIMEOUT, arrived).await.expect("the gateway connects to upstream");
        }
    }

    /// Asserts that the gateway opens no connection.
    pub(crate) async fn expect_no_connection(&self) {
        tokio::time::sleep(QUIET).await;
        assert!(self.queue.pop().is_none(), "the gateway has connected to upstream");
    }

    /// Request head that upstream receives for this caller's request, and the caller's answer when
    /// upstream sends `answer`.
    pub(crate) async fn exchange(&self, request: &[u8], answer: &[u8]) -> (String, String) {
        let mut caller = self.caller().await;
        caller.send(request).await;
        let mut upstream = self.upstream().await;
        let asked = upstream.head().await;
        upstream.send(answer).await;
        drop(upstream);
        (asked, caller.rest().await)
    }
}

async fn take_tcp(listener: TcpListener, queue: Arc<Queue>) {
    while let Ok((stream, _)) = listener.accept().await {
        stream.set_nodelay(true).expect("a socket");
        tokio::spawn(Arc::clone(&queue).receive(Peer::new(stream)));
    }
}

impl Queue {
    /// Answers the gateway's own probe; queues every other connection for the test.
    async fn receive(self: Arc<Self>, mut peer: Peer) {
        const PROBE: &[u8] = b"GET /robots933456.txt HTTP/1.1\r\nHost: localhost\r\nConn";
        while peer.read.len() < PROBE.len() && PROBE.starts_with(&peer.read) {
            // A connection may stay silent for long; the test must get it anyway.
            match timeout(Duration::from_millis(20), peer.fill()).await {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
        }
        if peer.read.starts_with(PROBE) {
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
            return;
        }
        self.connections.lock().unwrap_or_else(PoisonError::into_inner).push_back(peer);
        self.arrived.notify_one();
    }

    fn pop(&self) -> Option<Peer> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

impl Peer {
    fn new(stream: impl Duplex + 'static) -> Self {
        Self { stream: Box::new(stream), read: Vec::new() }
    }

    pub(crate) async fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).await.expect("a connection");
        stream.set_nodelay(true).expect("a socket");
        Self::new(stream)
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).await.expect("sent");
    }

    pub(crate) async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.stream.write_all(bytes.as_ref()).await?;
        self.stream.flush().await
    }

    /// Closes the sending side; reading stays open.
    pub(crate) async fn finish(&mut self) {
        self.try_finish().await.expect("half-closed");
    }

    pub(crate) async fn try_finish(&mut self) -> std::io::Result<()> {
        self.stream.shutdown().await
    }

    /// Resets the connection (RST).
    pub(crate) async fn reset(self) {
        // Lets earlier bytes leave first.
        tokio::time::sleep(Duration::from_millis(20)).await;
        self.stream.reset_on_close();
    }

    async fn fill(&mut self) -> usize {
        self.stream.read_buf(&mut self.read).await.unwrap_or(0)
    }

    /// Reads until `is_enough` returns the number of bytes to consume.
    async fn take(&mut self, is_enough: impl Fn(&[u8]) -> Option<usize>) -> String {
        loop {
            if let Some(length) = is_enough(&self.read) {
                let rest = self.read.split_off(length);
                let taken = std::mem::replace(&mut self.read, rest);
                return text(&taken);
            }
            let read = timeout(TEST_TIMEOUT, self.fill()).await;
            assert!(matches!(read, Ok(1..)), "{read:?} after {:?}", text(&self.read));
        }
    }

    /// A head, with its empty line.
    pub(crate) async fn head(&mut self) -> String {
        self.take(|read| read.windows(4).position(|w| w == b"\r\n\r\n").map(|at| at + 4)).await
    }

    /// A head, or the bytes received if the peer closes before its end.
    pub(crate) async fn rest_or_head(&mut self) -> String {
        while !self.read.windows(4).any(|w| w == b"\r\n\r\n") {
            match timeout(TEST_TIMEOUT, self.fill()).await {
                Ok(1..) => {}
                _ => break,
            }
        }
        text(&std::mem::take(&mut self.read))
    }

    /// The next `length` bytes.
    pub(crate) async fn bytes(&mut self, length: usize) -> String {
        self.take(|read| (read.len() >= length).then_some(length)).await
    }

    /// Everything up to and including `end`.
    pub(crate) async fn until(&mut self, end: &str) -> String {
        let end = end.as_bytes();
        self.take(|read| read.ends_with(end).then_some(read.len())).await
    }

    /// Everything until the peer closes or resets.
    pub(crate) async fn rest(&mut self) -> String {
        loop {
            let read = timeout(TEST_TIMEOUT, self.fill()).await;
            assert!(read.is_ok(), "stays open after {:?}", text(&self.read));
            if read == Ok(0) {
                return text(&std::mem::take(&mut self.read));
            }
        }
    }

    /// Asserts that nothing arrives, not even a close.
    pub(crate) async fn is_quiet(&mut self) {
        let read = timeout(QUIET, self.fill()).await;
        assert!(read.is_err() && self.read.is_empty(), "{read:?} {:?}", text(&self.read));
    }

    /// Asserts that the peer closes without another byte.
    pub(crate) async fn is_closed(&mut self) {
        let rest = self.rest().await;
        assert_eq!(rest, "", "closed");
    }
}

/// Bytes as text: UTF-8, or Latin-1 where they are not valid UTF-8.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec())
        .unwrap_or_else(|error| error.as_bytes().iter().map(|b| char::from(*b)).collect())
}
