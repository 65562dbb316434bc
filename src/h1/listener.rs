//! Takes connections and serves HTTP/1.1 on them until told to stop.
//!
//! One runs on each thread, on a socket of its own: the kernel spreads connections over them
//! (`SO_REUSEPORT`), and no request changes threads.

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
    sync::{Notify, watch},
    task::{AbortHandle, spawn_local},
    time::{Instant, sleep, timeout},
};

use super::{
    buffered::{self, Buffers},
    caller::{Caller, Disposition, HeadFault, NextHead, Timeouts},
    connection_limit::ConnectionLimit,
    memory::Memory,
    message::RequestHead,
};

/// Connections that wait to be taken; the kernel may allow fewer (`net.core.somaxconn`).
const BACKLOG: u32 = 4096;
/// Most bytes that wait in the kernel to be sent to a caller; those under way are not counted.
const MAX_UNSENT: u32 = 256 * 1024;
/// How long to let be when a connection could not be taken.
const BACK_OFF: Duration = Duration::from_millis(100);

/// Bounds of the connections of one thread.
#[derive(Debug, Clone)]
pub(crate) struct ServeOptions {
    pub(crate) timeouts: Timeouts,
    pub(crate) limit: ConnectionLimit,
    /// Budget for what the connections of all threads hold.
    pub(crate) memory: Memory,
}

/// Answers requests, one after the other on each connection.
pub(crate) trait Service: 'static {
    /// Answers one request and says what becomes of the connection.
    fn answer(
        &self,
        caller: &mut Caller,
        head: Result<RequestHead, HeadFault>,
    ) -> impl Future<Output = Disposition>;
}

/// Sockets for an address, one a thread; port 0 picks one port for all.
///
/// # Errors
/// When the address cannot be had, also because another process has it.
pub(crate) fn bind(address: SocketAddr, threads: usize) -> io::Result<Vec<std::net::TcpListener>> {
    // Two processes could share the address unseen: this one finds out.
    let alone = std::net::TcpListener::bind(address)?;
    let address = alone.local_addr()?;
    drop(alone);
    (0..threads).map(|_| bind_shared(address)).collect()
}

fn bind_shared(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    // Connections inherit both. Small events must not wait for one another; peers that vanished are
    // found out.
    socket.set_nodelay(true)?;
    let of_tcp = SockRef::from(&socket);
    of_tcp.set_tcp_keepalive(&buffered::keepalive())?;
    // What the kernel takes beyond that, it takes for a caller that does not read: the caller's pace
    // could not be told.
    of_tcp.set_tcp_notsent_lowat(MAX_UNSENT)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)?.into_std()
}

/// The connections of one thread.
#[derive(Default)]
struct Connections {
    live: RefCell<HashMap<u64, Connected>>,
    next: Cell<u64>,
    ended: Notify,
}

struct Connected {
    task: Option<AbortHandle>,
    /// Since when it waits for a request, or for the rest of a head or a body, if it does.
    waits_since: Rc<Cell<Option<Instant>>>,
}

impl Connections {
    fn count(&self) -> usize {
        self.live.borrow().len()
    }

    /// Closes the one that has waited longest for a request, or for the rest of a head or a body.
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

/// Leaves the register when its connection ends.
struct Registered(Rc<Connections>, u64);

impl Drop for Registered {
    fn drop(&mut self) {
        self.0.live.borrow_mut().remove(&self.1);
        self.0.ended.notify_one();
    }
}

/// Serves on one thread until `stop` says so, and for `drain` longer what was begun.
pub(crate) async fn serve<S: Service>(
    listener: TcpListener,
    service: Rc<S>,
    limits: ServeOptions,
    drain: Duration,
    mut stop: watch::Receiver<bool>,
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
        let task = spawn_local(converse(caller, Rc::clone(&service), registered));
        if let Some(connected) = connections.live.borrow_mut().get_mut(&id) {
            connected.task = Some(task.abort_handle());
        }
    };
    loop {
        if connections.count() >= limit.with_reserve() && !connections.close_longest_waiting() {
            tokio::select! {
                () = connections.ended.notified() => {}
                // One may wait by then.
                () = sleep(BACK_OFF) => {}
                _ = stop.wait_for(|stopping| *stopping) => break,
            }
            continue;
        }
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stopping| *stopping) => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let is_full =
                    connections.count() >= limit.max && !connections.close_longest_waiting();
                begin(stream, peer, is_full);
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                // No descriptors left, perhaps: those in use will come free.
                tracing::error!(%error, "a connection could not be taken");
                connections.close_longest_waiting();
                sleep(BACK_OFF).await;
            }
        }
    }
    // The kernel has taken these already; closed unseen, they would be reset.
    while let Some((stream, peer)) = waiting(&listener).await {
        begin(stream, peer, false);
    }
    drop(listener);
    if timeout(drain, connections.all_ended()).await.is_err() {
        tracing::warn!("requests still in flight were cut off");
        // Also on the main thread, which does not end with them.
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

async fn converse<S: Service>(mut caller: Caller, service: Rc<S>, registered: Registered) {
    while caller.speaks().await {
        // Boxed: an idle connection does without the room that requests need.
        match Box::pin(serve_until_quiet(&mut caller, &*service)).await {
            Disposition::Next => {}
            disposition => {
                Box::pin(caller.end(disposition)).await;
                break;
            }
        }
    }
    drop(registered);
}

/// Serves requests until the caller is quiet, or the connection must end.
async fn serve_until_quiet<S: Service>(caller: &mut Caller, service: &S) -> Disposition {
    loop {
        match caller.next_head().await {
            NextHead::Head(head) => match service.answer(caller, head).await {
                Disposition::Next => {}
                disposition => return disposition,
            },
            NextHead::Quiet => return Disposition::Next,
            NextHead::Nothing => return Disposition::Close,
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
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

    /// Has a fault of its own at one target.
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

    /// What comes back on a connection; nothing: it ended.
    async fn ask(stream: &mut TcpStream, target: &str) -> String {
        let request = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = [0; 1024];
        let read = stream.read(&mut answer).await.unwrap_or(0);
        String::from_utf8_lossy(&answer[..read]).into_owned()
    }

    #[tokio::test]
    async fn a_request_that_panics_ends_its_own_connection_and_no_other() {
        let serving = async {
            let socket = bind("127.0.0.1:0".parse().expect("an address"), 1).expect("a port").pop();
            let socket = TcpListener::from_std(socket.expect("a socket")).expect("a socket");
            let address = socket.local_addr().expect("an address");
            let (second, (stop, stopping)) = (Duration::from_secs(1), watch::channel(false));
            let timeouts = Timeouts { head: second, idle: second * 30, send: second };
            let limits =
                ServeOptions { timeouts, limit: ConnectionLimit::SMALL, memory: Memory::default() };
            let drain = second * 30;
            let served = spawn_local(serve(socket, Rc::new(Faulty), limits, drain, stopping));

            let mut other = TcpStream::connect(address).await.expect("a connection");
            assert!(ask(&mut other, "/x").await.starts_with("HTTP/1.1 200 "));
            for _ in 0..40 {
                // More of them than there is room for: each has left the register.
                let mut one = TcpStream::connect(address).await.expect("a connection");
                assert_eq!(ask(&mut one, "/panic").await, "");
            }
            assert!(ask(&mut other, "/x").await.starts_with("HTTP/1.1 200 "));
            drop(other);
            stop.send(true).expect("it serves");
            timeout(second * 10, served)
                .await
                .expect("nothing is left to wait for")
                .expect("served");
        };
        let here = LocalSet::new();
        let in_time = timeout(Duration::from_secs(20), here.run_until(serving)).await;
        in_time.expect("nobody waits for room");
    }
}
