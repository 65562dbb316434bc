//! Accept loop: accepts connections and serves HTTP/1.1 on them until a stop.
//!
//! Each thread has its own loop and its own socket: the kernel distributes connections (`SO_REUSEPORT`), and no
//! request changes threads.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    future::poll_fn,
    io,
    net::SocketAddr,
    rc::Rc,
    task::Poll,
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::Notify,
    task::{AbortHandle, spawn_local},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    buffered::{self, Buffers},
    caller::{Caller, Disposition, HeadFault, NextHead, Timeouts},
    connection_limit::ConnectionLimit,
    memory::MemoryBudget,
    message::RequestHead,
};

/// Maximum of connections that wait for `accept`; the kernel may allow fewer (`net.core.somaxconn`).
const BACKLOG: u32 = 4096;
/// Maximum of unsent bytes in the kernel's send buffer of a connection, without those in flight.
const MAX_UNSENT: u32 = 256 * 1024;
/// Pause after a failed `accept`.
const BACK_OFF: Duration = Duration::from_millis(100);

/// Limits for the connections of one thread.
#[derive(Debug, Clone)]
pub(crate) struct ServeOptions {
    pub(crate) timeouts: Timeouts,
    pub(crate) limit: ConnectionLimit,
    /// Budget for the bytes that the connections of all threads buffer.
    pub(crate) memory: MemoryBudget,
}

/// Request handler. Requests of one connection are answered in order.
pub(crate) trait Service: 'static {
    /// Answers one request and returns the fate of the connection.
    fn answer(
        &self,
        caller: &mut Caller,
        head: Result<RequestHead, HeadFault>,
    ) -> impl Future<Output = Disposition>;
}

/// Binds one socket for each thread to an address; port 0 picks one port for all.
///
/// # Errors
/// When the address cannot be bound, for example because another process uses it.
pub(crate) fn bind(address: SocketAddr, threads: usize) -> io::Result<Vec<std::net::TcpListener>> {
    // With SO_REUSEPORT two processes could share the address unnoticed; a bind without it fails then.
    let alone = std::net::TcpListener::bind(address)?;
    let address = alone.local_addr()?;
    drop(alone);
    (0..threads).map(|_| bind_shared(address)).collect()
}

fn bind_shared(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    // Connections inherit both options. Without Nagle's algorithm small events are sent at once; keepalive
    // detects peers that have vanished.
    socket.set_nodelay(true)?;
    let of_tcp = SockRef::from(&socket);
    of_tcp.set_tcp_keepalive(&buffered::keepalive())?;
    // A larger send buffer would accept bytes for a client that does not read, and hide that it is slow.
    of_tcp.set_tcp_notsent_lowat(MAX_UNSENT)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)?.into_std()
}

/// Register of the connections of one thread.
#[derive(Default)]
struct Connections {
    live: RefCell<HashMap<u64, Connected>>,
    next: Cell<u64>,
    ended: Notify,
}

struct Connected {
    task: Option<AbortHandle>,
    /// Start of the current wait for a request, or for the rest of a head or a body; `None`: no such wait.
    waits_since: Rc<Cell<Option<Instant>>>,
}

impl Connections {
    fn count(&self) -> usize {
        self.live.borrow().len()
    }

    /// Closes the connection with the longest wait for a request, or for the rest of a head or a body. False: none
    /// waits.
    fn close_longest_waiting(&self) -> bool {
        let mut live = self.live.borrow_mut();
        let longest = live
            .iter()
            .filter_map(|(id, connected)| Some((connected.waits_since.get()?, *id)))
            .min()
            .and_then(|(_, id)| live.remove(&id));
        let Some(task) = longest.and_then(|connected| connected.task) else { return false };
        task.abort();
        true
    }

    async fn all_ended(&self) {
        while self.count() > 0 {
            self.ended.notified().await;
        }
    }
}

/// Guard that removes its connection from the register.
struct Registered(Rc<Connections>, u64);

impl Drop for Registered {
    fn drop(&mut self) {
        self.0.live.borrow_mut().remove(&self.1);
        self.0.ended.notify_one();
    }
}

/// Serves on one thread until `stop` is true; connections then have `drain` to finish their requests.
pub(crate) async fn serve<S: Service>(
    listener: TcpListener,
    service: Rc<S>,
    limits: ServeOptions,
    drain: Duration,
    stop: CancellationToken,
) {
    let ServeOptions { timeouts, limit, memory } = limits;
    let connections = Rc::new(Connections::default());
    let buffers = Rc::new(RefCell::new(Buffers::of(memory)));
    let stopping = stop.clone();
    let begin = |stream: TcpStream, peer: SocketAddr, is_over_capacity: bool| {
        let id = connections.next.get();
        connections.next.set(id + 1);
        let waits_since = Rc::new(Cell::new(None));
        let connected = Connected { task: None, waits_since: Rc::clone(&waits_since) };
        connections.live.borrow_mut().insert(id, connected);
        let registered = Registered(Rc::clone(&connections), id);
        let caller = Caller::new(
            stream,
            peer.ip(),
            Rc::clone(&buffers),
            timeouts,
            waits_since,
            stopping.clone(),
            is_over_capacity,
        );
        let task = spawn_local(serve_connection(caller, Rc::clone(&service), registered));
        if let Some(connected) = connections.live.borrow_mut().get_mut(&id) {
            connected.task = Some(task.abort_handle());
        }
    };
    loop {
        if connections.count() >= limit.with_reserve() && !connections.close_longest_waiting() {
            tokio::select! {
                () = connections.ended.notified() => {}
                // A connection may be waiting by then.
                () = sleep(BACK_OFF) => {}
                () = stop.cancelled() => break,
            }
            continue;
        }
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let is_full =
                    connections.count() >= limit.max && !connections.close_longest_waiting();
                begin(stream, peer, is_full);
            }
            Err(error) if is_per_connection_error(&error) => {}
            Err(error) => {
                // Possibly no free descriptors: a closed connection frees one.
                tracing::error!(%error, "accepting a connection failed");
                connections.close_longest_waiting();
                sleep(BACK_OFF).await;
            }
        }
    }
    // The kernel has completed the handshakes of these; closing the socket would reset them.
    while let Some((stream, peer)) = waiting(&listener).await {
        begin(stream, peer, false);
    }
    drop(listener);
    if timeout(drain, connections.all_ended()).await.is_err() {
        tracing::warn!("requests in flight were aborted after the drain timeout");
        // Needed on the main thread, which continues to run.
        for connected in connections.live.borrow().values() {
            if let Some(task) = &connected.task {
                task.abort();
            }
        }
    }
}

async fn waiting(listener: &TcpListener) -> Option<(TcpStream, SocketAddr)> {
    poll_fn(|context| match listener.poll_accept(context) {
        Poll::Ready(accepted) => Poll::Ready(accepted.ok()),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

async fn serve_connection<S: Service>(mut caller: Caller, service: Rc<S>, registered: Registered) {
    while caller.wait_for_request().await {
        // Boxed, so that an idle connection does not hold the state that requests need.
        match Box::pin(serve_until_idle(&mut caller, &*service)).await {
            Disposition::Next => {}
            disposition => {
                Box::pin(caller.end(disposition)).await;
                break;
            }
        }
    }
    drop(registered);
}

/// Serves requests until the connection is idle or must close.
async fn serve_until_idle<S: Service>(caller: &mut Caller, service: &S) -> Disposition {
    loop {
        match caller.next_head().await {
            NextHead::Head(head) => match service.answer(caller, head).await {
                Disposition::Next => {}
                disposition => return disposition,
            },
            NextHead::Idle => return Disposition::Next,
            NextHead::Nothing => return Disposition::Close,
        }
    }
}

fn is_per_connection_error(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
    )
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        task::LocalSet,
    };

    use super::*;

    /// Panics at one target.
    struct Faulty;

    impl Service for Faulty {
        async fn answer(
            &self,
            caller: &mut Caller,
            head: Result<RequestHead, HeadFault>,
        ) -> Disposition {
            let head = head.expect("a head");
            assert_ne!(head.target(), b"/panic");
            caller.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.expect("written");
            Disposition::Next
        }
    }

    /// Sends a request and returns the response; empty: the connection was closed.
    async fn ask(stream: &mut TcpStream, target: &str) -> String {
        let request = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = [0; 1024];
        let read = stream.read(&mut answer).await.unwrap_or(0);
        String::from_utf8_lossy(&answer[..read]).into_owned()
    }

    #[tokio::test]
    async fn a_panic_closes_only_its_own_connection() {
        let serving = async {
            let socket = bind("127.0.0.1:0".parse().expect("an address"), 1).expect("a port").pop();
            let socket = TcpListener::from_std(socket.expect("a socket")).expect("a socket");
            let address = socket.local_addr().expect("an address");
            let (second, stop) = (Duration::from_secs(1), CancellationToken::new());
            let stopping = stop.clone();
            let timeouts = Timeouts { head: second, idle: second * 30, send: second };
            let limits = ServeOptions {
                timeouts,
                limit: ConnectionLimit::SMALL,
                memory: MemoryBudget::default(),
            };
            let drain = second * 30;
            let served = spawn_local(serve(socket, Rc::new(Faulty), limits, drain, stopping));

            let mut other = TcpStream::connect(address).await.expect("a connection");
            assert!(ask(&mut other, "/x").await.starts_with("HTTP/1.1 200 "));
            for _ in 0..40 {
                // More than the connection limit: each has left the register.
                let mut one = TcpStream::connect(address).await.expect("a connection");
                assert_eq!(ask(&mut one, "/panic").await, "");
            }
            assert!(ask(&mut other, "/x").await.starts_with("HTTP/1.1 200 "));
            drop(other);
            stop.cancel();
            timeout(second * 10, served).await.expect("no connection is left").expect("served");
        };
        let here = LocalSet::new();
        let in_time = timeout(Duration::from_secs(20), here.run_until(serving)).await;
        in_time.expect("the connection limit is not reached");
    }
}
