//! End of a connection: draining, lingering, closing.

use std::{future::poll_fn, task::Poll, time::Duration};

use bytes::Bytes;
use tokio::{
    io::AsyncWriteExt,
    time::{Instant, timeout},
};

use super::Caller;
use crate::h1::{flow::Flow, message::Body as WireBody};

/// Lingering close: time in which the rest of a request is read and discarded, so that the client can read the
/// response.
const LINGER: Duration = Duration::from_secs(2);

/// The same while the connection limit is reached.
const LINGER_OVER_CAPACITY: Duration = Duration::from_millis(100);

/// Lingering close: maximum of bytes read and discarded.
const MAX_LINGERED: usize = 64 * 1024 * 1024;

/// Maximum of body bytes that are read and discarded so that the connection can be reused.
const MAX_DRAINED: usize = 64 * 1024;

/// Time for reading and discarding them.
const DRAIN: Duration = Duration::from_secs(1);

/// Fate of a connection after a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Disposition {
    /// Persistent: the next request may follow.
    Next,
    /// Close; the client has sent no unread bytes.
    Close,
    /// Lingering close: the client may still be sending.
    Linger,
    /// Reset (RST), so that the client notices that the response is incomplete.
    Abort,
}

/// Unread part of a request body.
pub(crate) enum Unread {
    Nothing,
    /// Short enough to be read and discarded, so that the connection can be reused.
    Drainable(WireBody),
    Unbounded,
}

impl Unread {
    /// `body`: a body of which no byte has been read.
    pub(crate) fn of(body: WireBody, awaits_continue: bool) -> Self {
        match body {
            body if body.is_done() => Self::Nothing,
            // The client may send the body or not, so that the start of the next request is unknown.
            _ if awaits_continue => Self::Unbounded,
            WireBody::Sized(length) if length > MAX_DRAINED as u64 => Self::Unbounded,
            WireBody::UntilClose => Self::Unbounded,
            body => Self::Drainable(body),
        }
    }
}

impl Caller {
    /// Reads and discards the rest of a body. True if it ended within the limits.
    pub(super) async fn drain(&mut self, body: WireBody) -> bool {
        let mut flow = Flow::new(Bytes::new(), body, 0, MAX_DRAINED);
        let Self { buffered, buffers, .. } = self;
        let draining = poll_fn(|context| {
            flow.poll(context, buffered, &mut tokio::io::sink(), &mut buffers.borrow_mut())
        });
        matches!(timeout(DRAIN, draining).await, Ok(Ok(())))
    }

    /// Ends the connection.
    pub(crate) async fn end(mut self, disposition: Disposition) {
        match disposition {
            Disposition::Next | Disposition::Close => {}
            Disposition::Abort => {
                let _ = self.buffered.stream.set_zero_linger();
            }
            Disposition::Linger => {
                // A close with unread bytes sends RST, and the client might lose the response. A connection that
                // has its response is closed first when the connection limit is reached.
                let now = Instant::now();
                self.waits_since.set(Some(now.checked_sub(self.timeouts.idle).unwrap_or(now)));
                let _ = self.buffered.stream.shutdown().await;
                let Self { buffered, buffers, is_over_capacity, .. } = &mut self;
                let mut left = MAX_LINGERED;
                let discard = poll_fn(|context| {
                    loop {
                        let buffers = &mut buffers.borrow_mut();
                        buffered.consume(buffered.filled.len(), buffers);
                        match buffered.poll_fill(context, buffers, MAX_DRAINED) {
                            Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                            Poll::Ready(Ok(read)) if read >= left => return Poll::Ready(()),
                            Poll::Ready(Ok(read)) => left -= read,
                            Poll::Pending => return Poll::Pending,
                        }
                    }
                });
                let linger = if *is_over_capacity { LINGER_OVER_CAPACITY } else { LINGER };
                let _ = timeout(linger, discard).await;
            }
        }
    }
}
