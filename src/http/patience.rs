//! How long a caller may take: for a request's head, and between requests.
//!
//! hyper has one timer for both, which begins when a connection is idle. Kept for as long as proxies
//! keep idle connections, it would let heads drip in; kept short, it would close connections under
//! proxies that are about to use them. So hyper's timer is the long one, and the stream itself holds a
//! head that has begun to the short one. (A head that begins while the request before it is still in hand
//! has the long one.)

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use http_body::{Body, Frame, SizeHint};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

use crate::stream::Reading;

/// RFC 9110 §15.5.9.
const TOO_SLOW: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// What a connection is at; shared by its stream and its requests.
#[derive(Debug, Default)]
pub(super) struct Progress {
    is_busy: AtomicBool,
    requests: AtomicU64,
}

impl Progress {
    /// A head has been read; the request lasts until what is returned is dropped, and its copies.
    pub(super) fn begin(self: &Arc<Self>) -> Busy {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.is_busy.store(true, Ordering::Relaxed);
        Busy(Arc::new(Ending(Arc::clone(self))))
    }
}

/// A request in hand: until the last copy is dropped.
#[derive(Debug, Clone)]
pub(super) struct Busy(#[expect(dead_code, reason = "dropped, not read")] Arc<Ending>);

#[derive(Debug)]
struct Ending(Arc<Progress>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.is_busy.store(false, Ordering::Relaxed);
    }
}

/// Gives up on heads which take too long.
pub(super) struct Patient {
    progress: Arc<Progress>,
    head_timeout: Duration,
    /// Until when the head must be there, and how many requests came before it.
    head: Option<(Pin<Box<Sleep>>, u64)>,
}

impl Patient {
    pub(super) fn new(progress: Arc<Progress>, head_timeout: Duration) -> Self {
        Self { progress, head_timeout, head: None }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Reading<S> for Patient {
    fn poll_read(
        &mut self,
        stream: &mut S,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let requests = self.progress.requests.load(Ordering::Relaxed);
        let is_busy = self.progress.is_busy.load(Ordering::Relaxed);
        if is_busy || self.head.as_ref().is_some_and(|(_, before)| *before != requests) {
            self.head = None;
        }
        let filled = buffer.filled().len();
        let read = Pin::new(&mut *stream).poll_read(context, buffer);
        if is_busy {
            return read;
        }
        if read.is_ready() {
            if buffer.filled().len() > filled && self.head.is_none() {
                self.head = Some((Box::pin(sleep(self.head_timeout)), requests));
            }
            return read;
        }
        let is_late =
            self.head.as_mut().is_some_and(|(at, _)| at.as_mut().poll(context).is_ready());
        if !is_late {
            return Poll::Pending;
        }
        // Said if it goes out at once; a caller that slow gets nothing more.
        let _ = Pin::new(stream).poll_write(context, TOO_SLOW);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

/// An answer's body; the request lasts until it is dropped.
#[derive(Debug)]
pub(super) struct Lasting<B> {
    body: B,
    _busy: Busy,
}

impl<B> Lasting<B> {
    pub(super) fn new(body: B, busy: Busy) -> Self {
        Self { body, _busy: busy }
    }
}

impl<B: Body + Unpin> Body for Lasting<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
