//! Client connection: reads request heads and writes responses, in order.

mod closing;

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    io,
    net::IpAddr,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use axum::body::{Body, to_bytes};
use bytes::Bytes;
use http::{Response, StatusCode, header};
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

pub(crate) use self::closing::{Disposition, Unread};
use super::{
    buffered::{Buffered, Buffers, FREE},
    memory::{Exhausted, Reservation},
    message::{self, HeadError, Malformed, RequestHead, Version},
    timer::Timer,
};
use crate::clock;

/// Timeouts for clients.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timeouts {
    /// From the first byte of a request head to its end (`GATEWAY_TIMEOUT_HEAD`).
    pub(crate) head: Duration,
    /// Between requests (`GATEWAY_TIMEOUT_IDLE`). Also bounds the wait for more of a body, and an unused tunnel.
    pub(crate) idle: Duration,
    /// Between two successful writes of a response (`GATEWAY_TIMEOUT_SEND`).
    pub(crate) send: Duration,
}

/// Time without a byte after which a connection is idle: its task then drops the state that serves requests.
const IDLE_AFTER: Duration = Duration::from_secs(1);
/// Maximum of pipelined bytes, read before the current response is complete.
const MAX_AHEAD: usize = message::MAX_HEAD;
/// Bytes that need no share of the budget: of a complete head and its copy, or of the gateway's own response.
const UNCHARGED_BYTES: usize = 16 * 1024;

/// Maximum size of the body of the gateway's own response, in bytes.
const MAX_OWN: usize = 16 * 1024 * 1024;

/// Reasons for rejecting a request head.
#[derive(Debug, Clone, Copy, thiserror::Error)]
pub(crate) enum HeadFault {
    #[error(transparent)]
    Head(#[from] HeadError),
    #[error("The request head is longer than 64 KiB")]
    TooLong,
    #[error("The request target is longer than 64 KiB")]
    TargetTooLong,
    #[error("The request head was not received in time")]
    TooSlow,
    /// The head is incomplete, and the memory for incomplete requests is exhausted.
    #[error("The memory for unfinished requests is exhausted; try again later")]
    OverCapacity,
}

/// Result of waiting for the next request head.
pub(crate) enum NextHead {
    Head(Result<RequestHead, HeadFault>),
    /// No byte for a while; the connection is idle.
    Idle,
    /// End of the stream.
    Nothing,
}

/// Client connection.
pub(crate) struct Caller {
    pub(crate) buffered: Buffered<TcpStream>,
    pub(crate) peer: IpAddr,
    pub(crate) buffers: Rc<RefCell<Buffers>>,
    pub(crate) timer: Timer,
    pub(crate) timeouts: Timeouts,
    /// The client has shut down its sending side; it may still read.
    pub(crate) has_ended: bool,
    /// The connection limit is reached: only health probes are answered.
    pub(crate) is_over_capacity: bool,
    /// Start of the current wait for a request, or for the rest of a head or a body; `None`: no such wait.
    pub(crate) waits_since: Rc<Cell<Option<Instant>>>,
    stop: CancellationToken,
}

impl Caller {
    pub(crate) fn new(
        stream: TcpStream,
        peer: IpAddr,
        buffers: Rc<RefCell<Buffers>>,
        timeouts: Timeouts,
        waits_since: Rc<Cell<Option<Instant>>>,
        stop: CancellationToken,
        is_over_capacity: bool,
    ) -> Self {
        let (buffered, timer) = (Buffered::new(stream), Timer::new(timeouts.idle));
        Self {
            buffered,
            peer,
            buffers,
            timer,
            timeouts,
            has_ended: false,
            is_over_capacity,
            waits_since,
            stop,
        }
    }

    /// True if the connection closes after this request: end of the stream, limit reached, or stop.
    pub(crate) fn is_last(&self) -> bool {
        self.has_ended && self.buffered.filled.is_empty()
            || self.is_over_capacity
            || self.stop.is_cancelled()
    }

    /// Takes a share of the budget for a request head and its copy, or for the gateway's own response. Up to
    /// [`UNCHARGED_BYTES`] bytes need none.
    pub(crate) fn share(&self, bytes: usize) -> Result<Reservation, Exhausted> {
        let mut share = Reservation::default();
        if bytes > UNCHARGED_BYTES {
            share.grow_to(bytes, self.buffers.borrow().memory())?;
        }
        Ok(share)
    }

    /// Waits for the first byte of a request. False: end of the stream, idle timeout or stop.
    pub(crate) async fn wait_for_request(&mut self) -> bool {
        let Self { buffered, buffers, timer, timeouts, has_ended, waits_since, stop, .. } = self;
        if !buffered.filled.is_empty() {
            return true;
        }
        let mut stopped = std::pin::pin!(stop.cancelled());
        let since = waits_since.get().unwrap_or_else(Instant::now);
        waits_since.set(Some(since));
        poll_fn(|context| {
            match buffered.poll_fill(context, &mut buffers.borrow_mut(), message::MAX_HEAD) {
                Poll::Ready(Ok(0) | Err(_)) => *has_ended = true,
                Poll::Ready(Ok(_)) => return Poll::Ready(true),
                Poll::Pending => {}
            }
            let ends = *has_ended
                || stopped.as_mut().poll(context).is_ready()
                || timer.is_past(context, since + timeouts.idle);
            if ends { Poll::Ready(false) } else { Poll::Pending }
        })
        .await
    }

    /// Reads the next request head.
    pub(crate) async fn next_head(&mut self) -> NextHead {
        match self.head_bytes().await {
            Some(Ok(bytes)) => NextHead::Head(RequestHead::parse(bytes).map_err(HeadFault::from)),
            Some(Err(fault)) => NextHead::Head(Err(fault)),
            None if self.has_ended => NextHead::Nothing,
            None => NextHead::Idle,
        }
    }

    async fn head_bytes(&mut self) -> Option<Result<Bytes, HeadFault>> {
        let Self { buffered, buffers, timer, timeouts, has_ended, waits_since, .. } = self;
        let mut since: Option<Instant> = None;
        let mut scanned = 0;
        poll_fn(|context| {
            loop {
                // RFC 9112 §2.2.
                while message::is_blank_line(&buffered.filled) == Some(true) {
                    buffered.consume(2, &mut buffers.borrow_mut());
                }
                match message::find_end(&buffered.filled, scanned) {
                    Ok(Some(end)) if end <= message::MAX_HEAD => {
                        waits_since.set(None);
                        let bytes = Bytes::copy_from_slice(&buffered.filled[..end]);
                        let buffers = &mut buffers.borrow_mut();
                        buffered.consume(end, buffers);
                        let charged =
                            buffered.charge(buffers).map_err(|Exhausted| HeadFault::OverCapacity);
                        return Poll::Ready(Some(charged.map(|()| bytes)));
                    }
                    Ok(_) if buffered.filled.len() >= message::MAX_HEAD => {
                        let has_target = buffered.filled[..message::MAX_HEAD].contains(&b'\r');
                        let fault =
                            if has_target { HeadFault::TooLong } else { HeadFault::TargetTooLong };
                        return Poll::Ready(Some(Err(fault)));
                    }
                    Ok(_) => scanned = buffered.filled.len(),
                    Err(malformed) => {
                        let fault = HeadFault::Head(HeadError::Malformed(malformed));
                        return Poll::Ready(Some(Err(fault)));
                    }
                }
                if *has_ended {
                    let cut = HeadFault::Head(Malformed("the head is incomplete").into());
                    return Poll::Ready((!buffered.filled.is_empty()).then_some(Err(cut)));
                }
                let has_begun = !buffered.filled.is_empty();
                let buffers = &mut buffers.borrow_mut();
                match buffered.poll_fill(context, buffers, message::MAX_HEAD) {
                    Poll::Ready(Ok(0) | Err(_)) => *has_ended = true,
                    Poll::Ready(Ok(_)) if has_begun => {}
                    Poll::Ready(Ok(_)) => since = None,
                    Poll::Pending => {
                        if buffered.charge(buffers).is_err() {
                            return Poll::Ready(Some(Err(HeadFault::OverCapacity)));
                        }
                        let since = *since.get_or_insert_with(Instant::now);
                        waits_since.set(Some(since));
                        let wait =
                            if has_begun { timeouts.head } else { IDLE_AFTER.min(timeouts.idle) };
                        if !timer.is_past(context, since + wait) {
                            return Poll::Pending;
                        }
                        return Poll::Ready(has_begun.then_some(Err(HeadFault::TooSlow)));
                    }
                }
            }
        })
        .await
    }

    /// Detects that the client has disconnected, while the gateway waits for another peer. Pipelined bytes are
    /// buffered as far as the memory budget allows. Ready only with an error.
    pub(crate) fn poll_closed(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        let Self { buffered, buffers, has_ended, .. } = self;
        let buffers = &mut buffers.borrow_mut();
        let max = if buffers.memory().is_exhausted() { FREE } else { MAX_AHEAD };
        while !*has_ended && buffered.filled.len() < max {
            match buffered.poll_fill(context, buffers, max) {
                Poll::Ready(Ok(0)) => *has_ended = true,
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(error),
                Poll::Pending => break,
            }
        }
        buffered.charge_unchecked(buffers);
        Poll::Pending
    }

    /// Writes bytes that the gateway made itself.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match timeout(self.timeouts.send, self.buffered.stream.write_all(bytes)).await {
            Ok(written) => written,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// Writes the gateway's own response and returns the fate of the connection. `unread`: the unread part of the
    /// request body.
    pub(crate) async fn answer(
        &mut self,
        response: Response<Body>,
        request: Option<&RequestHead>,
        unread: Unread,
    ) -> Disposition {
        let has_close = response.headers().get(header::CONNECTION).is_some();
        let closes = has_close
            || !request.is_some_and(RequestHead::is_persistent)
            || matches!(unread, Unread::Unbounded)
            || self.is_last();
        // The response's extensions must live until it has been sent.
        let _extensions = response.extensions().clone();
        let Some(bytes) = serialize_response(response, request, closes).await else {
            return Disposition::Abort;
        };
        if self.write(&bytes).await.is_err() {
            return Disposition::Abort;
        }
        match unread {
            Unread::Nothing if closes && !has_close => Disposition::Close,
            Unread::Nothing if closes => Disposition::Linger,
            Unread::Nothing => Disposition::Next,
            Unread::Drainable(body) => {
                let is_read = self.drain(body).await;
                if is_read && !closes { Disposition::Next } else { Disposition::Linger }
            }
            Unread::Unbounded => Disposition::Linger,
        }
    }
}

/// Serializes the gateway's own response; `None`: its body failed.
async fn serialize_response(
    response: Response<Body>,
    request: Option<&RequestHead>,
    closes: bool,
) -> Option<Vec<u8>> {
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, MAX_OWN).await.ok()?;
    let mut bytes = Vec::with_capacity(512 + body.len());
    let reason = parts.status.canonical_reason().unwrap_or_default();
    bytes.extend_from_slice(format!("HTTP/1.1 {} {reason}\r\n", parts.status.as_u16()).as_bytes());
    for (name, value) in &parts.headers {
        if name != header::CONNECTION && name != header::CONTENT_LENGTH {
            line(&mut bytes, name.as_str(), value.as_bytes());
        }
    }
    // axum sets a length of 0 on every empty response. A 204 must have none, a 304 only that of the 200 it
    // replaces (RFC 9110 §8.6); a response to HEAD has that of the response to GET.
    let has_no_length =
        parts.status == StatusCode::NO_CONTENT || parts.status == StatusCode::NOT_MODIFIED;
    let given = parts.headers.get(header::CONTENT_LENGTH).filter(|_| body.is_empty());
    match given {
        _ if has_no_length => {}
        Some(length) => line(&mut bytes, "content-length", length.as_bytes()),
        None => line(&mut bytes, "content-length", body.len().to_string().as_bytes()),
    }
    line(&mut bytes, "date", clock::http_date().as_bytes());
    if closes {
        line(&mut bytes, "connection", b"close");
    } else if request.is_some_and(|head| head.version == Version::Http10) {
        line(&mut bytes, "connection", b"keep-alive");
    }
    bytes.extend_from_slice(b"\r\n");
    if request.is_none_or(|head| head.method() != "HEAD") {
        bytes.extend_from_slice(&body);
    }
    Some(bytes)
}

fn line(bytes: &mut Vec<u8>, name: &str, value: &[u8]) {
    bytes.extend_from_slice(name.as_bytes());
    bytes.extend_from_slice(b": ");
    bytes.extend_from_slice(value);
    bytes.extend_from_slice(b"\r\n");
}
