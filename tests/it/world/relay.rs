//! A way to a neighbour that can be cut: over real sockets, in front of whatever listens somewhere.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
};

/// What becomes of bytes and connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// They pass.
    Open,
    /// Connections are refused; those that stood are reset.
    Cut,
    /// Connections are taken, and nothing passes either way until it opens again. What was sent
    /// meanwhile then arrives, as TCP would have it.
    BlackHole,
    /// Connections that stand fall silent for good, as when a way between has forgotten them; new ones pass.
    Forgotten,
    /// Each read takes so much longer.
    Slow(Duration),
}

/// The relay. It ends when it is dropped.
pub(crate) struct Relay {
    /// Keeps the port while nobody listens: it is bound, and connections to it are refused.
    _reserved: TcpSocket,
    address: SocketAddr,
    to: Arc<Mutex<String>>,
    orders: mpsc::Sender<(Way, oneshot::Sender<()>)>,
}

impl Relay {
    /// In front of an address.
    pub(crate) async fn start(to: impl Into<String>) -> Self {
        let reserved = bound("127.0.0.1:0".parse().expect("an address"));
        let address = reserved.local_addr().expect("an address");
        let (orders, taken) = mpsc::channel(1);
        let to = Arc::new(Mutex::new(to.into()));
        tokio::spawn(run(address, Arc::clone(&to), taken));
        let relay = Self { _reserved: reserved, address, to, orders };
        relay.set(Way::Open).await;
        relay
    }

    /// Where it is met.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Leads new connections to another address.
    pub(crate) fn lead_to(&self, address: impl Into<String>) {
        *self.to.lock().unwrap_or_else(PoisonError::into_inner) = address.into();
    }

    /// From now on it is so; it is by the time this returns.
    pub(crate) async fn set(&self, way: Way) {
        let (done, is_done) = oneshot::channel();
        self.orders.send((way, done)).await.expect("the relay runs");
        is_done.await.expect("the relay runs");
    }
}

fn bound(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_reuseport(true).expect("a socket");
    socket.set_reuseaddr(true).expect("a socket");
    socket.bind(address).expect("a port");
    socket
}

async fn run(
    address: SocketAddr,
    to: Arc<Mutex<String>>,
    mut orders: mpsc::Receiver<(Way, oneshot::Sender<()>)>,
) {
    let (mut way, _) = watch::channel(Way::Cut);
    let mut forgotten = Vec::new();
    let mut door: Option<TcpListener> = None;
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(near) = accepted(door.as_ref()) => {
                let to = to.lock().unwrap_or_else(PoisonError::into_inner).clone();
                connections.spawn(converse(near, to, way.subscribe()));
            }
            order = orders.recv() => {
                let Some((next, done)) = order else { return };
                if next == Way::Forgotten {
                    way.send_replace(Way::BlackHole);
                    forgotten.push(std::mem::replace(&mut way, watch::channel(Way::Open).0));
                } else {
                    way.send_replace(next);
                }
                if next == Way::Cut {
                    door = None;
                    connections.shutdown().await;
                } else if door.is_none() {
                    door = Some(bound(address).listen(1024).expect("a listener"));
                }
                let _ = done.send(());
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn accepted(door: Option<&TcpListener>) -> Option<TcpStream> {
    match door {
        Some(door) => door.accept().await.ok().map(|(stream, _)| stream),
        None => std::future::pending().await,
    }
}

/// Passes on until both sides have ended, or one breaks off: then the other side sees it break, too.
async fn converse(mut near: TcpStream, to: String, mut way: watch::Receiver<Way>) {
    // Whoever drops this before its end means a break.
    near.set_zero_linger().expect("a socket");
    near.set_nodelay(true).expect("a socket");
    if way.wait_for(|way| *way != Way::BlackHole).await.is_err() {
        return;
    }
    let Ok(mut far) = TcpStream::connect(to).await else { return };
    far.set_zero_linger().expect("a socket");
    far.set_nodelay(true).expect("a socket");
    let ended = {
        let (from_near, to_near) = near.split();
        let (from_far, to_far) = far.split();
        let there = pass(from_near, to_far, way.clone());
        tokio::try_join!(there, pass(from_far, to_near, way))
    };
    if ended.is_ok() {
        for stream in [&near, &far] {
            let _ = SockRef::from(stream).set_linger(None);
        }
    }
}

async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut way: watch::Receiver<Way>,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = from.read(&mut buffer).await?;
        let now = *way.borrow();
        if let Way::Slow(pause) = now {
            tokio::time::sleep(pause).await;
        }
        let opened = way.wait_for(|way| *way != Way::BlackHole).await.map(|_| ());
        opened.map_err(io::Error::other)?;
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..read]).await?;
    }
}
