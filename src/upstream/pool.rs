//! Pool of the idle connections of one thread. Closed connections are detected before use.

use std::{cell::RefCell, collections::VecDeque, rc::Rc, time::Duration};

use tokio::time::{Instant, sleep};

use super::{Connection, Upstream, UpstreamError};

/// Maximum idle time of a connection. Far below gunicorn's 75 s: a gunicorn worker that restarts waits for idle
/// connections, and accepts no new ones meanwhile.
const IDLE: Duration = Duration::from_secs(5);
/// Maximum number of idle connections of a thread; the oldest is closed first.
const MAX_IDLE: usize = 64;

/// Idle connections of one thread.
#[derive(Debug)]
pub(crate) struct ConnectionPool {
    pub(crate) upstream: Upstream,
    /// Most recently used at the back.
    idle: RefCell<VecDeque<(Connection, Instant)>>,
}

impl ConnectionPool {
    pub(crate) fn new(upstream: Upstream) -> Self {
        Self { upstream, idle: RefCell::default() }
    }

    /// An idle connection that upstream has not closed as far as the kernel knows, else a new one. For requests
    /// that may be repeated: upstream may be closing an idle connection. All others use
    /// [`Upstream::fresh_connection`].
    pub(crate) async fn connection(&self) -> Result<Connection, UpstreamError> {
        match self.idle_connection() {
            Some(connection) => Ok(connection),
            None => Box::pin(self.upstream.fresh_connection()).await,
        }
    }

    fn idle_connection(&self) -> Option<Connection> {
        let mut idle = self.idle.borrow_mut();
        while let Some((mut connection, since)) = idle.pop_back() {
            if since.elapsed() < IDLE && connection.buffered.is_idle() {
                connection.open.set_idle(false);
                return Some(connection);
            }
        }
        None
    }

    /// Adds a connection whose last response has been read completely.
    pub(crate) fn put(&self, mut connection: Connection) {
        connection.is_reused = true;
        connection.open.set_idle(true);
        let mut idle = self.idle.borrow_mut();
        idle.push_back((connection, Instant::now()));
        if idle.len() > MAX_IDLE {
            idle.pop_front();
        }
    }

    /// Closes connections that are idle too long or that upstream has closed; to be spawned.
    pub(crate) async fn evict_idle_loop(self: Rc<Self>) {
        loop {
            sleep(IDLE / 5).await;
            self.idle.borrow_mut().retain_mut(|(connection, since)| {
                since.elapsed() < IDLE && connection.buffered.is_idle()
            });
        }
    }
}
