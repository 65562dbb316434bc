//! TCP relay in front of a server. A test can interrupt the link.

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

/// State of the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RelayState {
    /// Bytes and connections pass.
    Open,
    /// New connections are refused, open ones reset.
    Cut,
    /// Connections are accepted, but nothing passes in either direction until the link opens again.
    /// Bytes sent meanwhile are then delivered, as with TCP.
    BlackHole,
    /// Open connections stay silent for ever, as after a lost NAT entry; new ones pass.
    Forgotten,
    /// Each read is delayed by this time.
    Slow(Duration),
}

/// The relay. It ends when it is dropped.
pub(crate) struct Relay {
    /// Reserves the port while no listener is open: bound but not listening, so connections are
    /// refused.
    _reserved: TcpSocket,
    address: SocketAddr,
    to: Arc<Mutex<String>>,
    orders: mpsc::Sender<(RelayState, oneshot::Sender<()>)>,
}

impl Relay {
    /// Starts in front of an address.
    pub(crate) async fn start(to: impl Into<String>) -> Self {
        let reserved = bound("127.0.0.1:0".parse().expect("an address"));
        let address = reserved.local_addr().expect("an address");
        let (orders, taken) = mpsc::channel(1);
        let to = Arc::new(Mutex::new(to.into()));
        tokio::spawn(run(address, Arc::clone(&to), taken));
        let relay = Self { _reserved: reserved, address, to, orders };
        relay.set(RelayState::Open).await;
        relay
    }

    /// Address of the relay.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends new connections to another address.
    pub(crate) fn retarget(&self, address: impl Into<String>) {
        *self.to.lock().unwrap_or_else(PoisonError::into_inner) = address.into();
    }

    /// Sets the state of the link; the state applies when this returns.
    pub(crate) async fn set(&self, link: RelayState) {
        let (done, is_done) = oneshot::channel();
        self.orders.send((link, done)).await.expect("the relay runs");
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
    mut orders: mpsc::Receiver<(RelayState, oneshot::Sender<()>)>,
) {
    let (mut link, _) = watch::channel(RelayState::Cut);
    let mut forgotten = Vec::new();
    let mut listener: Option<TcpListener> = None;
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(near) = accepted(listener.as_ref()) => {
                let to = to.lock().unwrap_or_else(PoisonError::into_inner).clone();
                connections.spawn(converse(near, to, link.subscribe()));
            }
            order = orders.recv() => {
                let Some((next, done)) = order else { return };
                if next == RelayState::Forgotten {
                    link.send_replace(RelayState::BlackHole);
                    forgotten.push(std::mem::replace(&mut link, watch::channel(RelayState::Open).0));
                } else {
                    link.send_replace(next);
                }
                if next == RelayState::Cut {
                    listener = None;
                    connections.shutdown().await;
                } else if listener.is_none() {
                    listener = Some(bound(address).listen(1024).expect("a listener"));
                }
                let _ = done.send(());
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn accepted(listener: Option<&TcpListener>) -> Option<TcpStream> {
    match listener {
        Some(listener) => listener.accept().await.ok().map(|(stream, _)| stream),
        None => std::future::pending().await,
    }
}

/// Relays until both directions have ended. If one side resets, the other is reset too.
async fn converse(mut near: TcpStream, to: String, mut link: watch::Receiver<RelayState>) {
    // With zero linger, an early drop resets the connection.
    near.set_zero_linger().expect("a socket");
    near.set_nodelay(true).expect("a socket");
    if link.wait_for(|link| *link != RelayState::BlackHole).await.is_err() {
        return;
    }
    let Ok(mut far) = TcpStream::connect(to).await else { return };
    far.set_zero_linger().expect("a socket");
    far.set_nodelay(true).expect("a socket");
    let ended = {
        let (from_near, to_near) = near.split();
        let (from_far, to_far) = far.split();
        let upload = pass(from_near, to_far, link.clone());
        tokio::try_join!(upload, pass(from_far, to_near, link))
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
    mut link: watch::Receiver<RelayState>,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = from.read(&mut buffer).await?;
        let now = *link.borrow();
        if let RelayState::Slow(pause) = now {
            tokio::time::sleep(pause).await;
        }
        let opened = link.wait_for(|link| *link != RelayState::BlackHole).await.map(|_| ());
        opened.map_err(io::Error::other)?;
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..read]).await?;
    }
}
