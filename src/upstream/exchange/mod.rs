//! Exchange with upstream: one request and its response, streamed in both directions at once.

mod gather;
mod tunnel;

use std::{
    future::poll_fn,
    io,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::Instant;

pub(crate) use self::gather::{Gathered, gather};
use super::{Connection, ConnectionPool, UpstreamError};
use crate::h1::{
    caller::{Caller, Disposition},
    flow::{Flow, FlowError, PendingOn},
    message::{self, Body, Length, ResponseHead},
    min_rate::MinBodyRate,
};

/// Maximum of bytes in one read of a response: 64 KiB and a head. A slow client pins so many bytes.
const MAX_DOWN: usize = 80 * 1024;
/// Maximum of bytes in one read of a request body.
const MAX_UP: usize = 256 * 1024;

/// Maximum of body bytes that are copied behind the head, to be written with it.
const MAX_COPIED: usize = 8 * 1024;

/// Reasons for no response to a request.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExchangeError {
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// The request body is malformed or truncated.
    #[error("the request body is malformed or truncated")]
    Body(#[source] FlowError),
    #[error("the request body was sent too slowly")]
    BodyTooSlow,
    /// The caller cannot receive a response.
    #[error("the caller disconnected")]
    CallerDisconnected(#[source] io::Error),
}

/// A request in transit to upstream, and its response.
pub(crate) struct Exchange<'a> {
    caller: &'a mut Caller,
    connection: Connection,
    up: Flow,
    /// Writing to upstream failed; its response may arrive nevertheless.
    up_broke: Option<io::Error>,
    rate: MinBodyRate,
    /// Time of the last progress in writing to upstream, and the bytes written then.
    progress: Option<(Instant, u64)>,
    response_timeout: Duration,
}

/// Failed attempt, and the state for another one.
pub(crate) struct Failed {
    pub(crate) error: ExchangeError,
    /// The connection was a reused one and closed before any byte of the response.
    pub(crate) was_stale: bool,
    /// The request body, complete if no byte of it was sent.
    pub(crate) gathered: Gathered,
}

impl<'a> Exchange<'a> {
    pub(crate) fn new(
        caller: &'a mut Caller,
        connection: Connection,
        head: Bytes,
        gathered: Gathered,
        response_timeout: Duration,
    ) -> Self {
        let Gathered { body, accepted, rate } = gathered;
        Self {
            caller,
            connection,
            up: Flow::new(head, body, accepted, MAX_UP),
            up_broke: None,
            rate,
            progress: None,
            response_timeout,
        }
    }

    /// Forwards the request; ready when all of it has been sent, or writing to upstream has failed.
    fn poll_up(&mut self, context: &mut Context<'_>) -> Poll<Result<(), FlowError>> {
        if self.up_broke.is_some() || self.up.is_done() {
            return Poll::Ready(Ok(()));
        }
        let Caller { buffered, buffers, .. } = &mut *self.caller;
        let before = self.up.read;
        let to = &mut self.connection.buffered.stream;
        let polled = self.up.poll(context, buffered, to, &mut buffers.borrow_mut());
        if self.up.read > before {
            self.rate.earn(self.up.read - before);
        }
        match polled {
            Poll::Pending => {
                if self.up.waits == PendingOn::Sink {
                    self.rate.stop();
                }
                Poll::Pending
            }
            Poll::Ready(Err(FlowError::Sink(error))) => {
                self.up_broke = Some(error);
                Poll::Ready(Ok(()))
            }
            ended @ Poll::Ready(_) => ended,
        }
    }

    /// Deadline for the next progress, and true if the gateway waits for the caller (else for upstream).
    fn deadline_up(&mut self) -> (Instant, bool) {
        let waits_for_caller =
            self.up_broke.is_none() && !self.up.is_done() && self.up.waits == PendingOn::Source;
        if waits_for_caller {
            (self.rate.deadline(), true)
        } else {
            let taken = self.up.written;
            let since = match self.progress {
                Some((since, before)) if before == taken => since,
                _ => Instant::now(),
            };
            self.progress = Some((since, taken));
            (since + self.response_timeout, false)
        }
    }

    /// Forwards the request and reads the next response head, 1xx included.
    ///
    /// # Errors
    /// When either side fails, sends malformed bytes or exceeds its timeout.
    pub(crate) async fn next_head(&mut self) -> Result<ResponseHead, ExchangeError> {
        let mut scanned = 0;
        poll_fn(|context| {
            let up = self.poll_up(context);
            if let Poll::Ready(Err(error)) = up {
                return Poll::Ready(Err(ExchangeError::Body(error)));
            }
            loop {
                let filled = &self.connection.buffered.filled;
                match message::find_end(filled, scanned) {
                    Ok(Some(end)) if end <= message::MAX_HEAD => {
                        let bytes = Bytes::copy_from_slice(&filled[..end]);
                        let buffers = &mut self.caller.buffers.borrow_mut();
                        self.connection.buffered.consume(end, buffers);
                        // A response arrived: the connection was not stale.
                        self.connection.is_reused = false;
                        let answer = ResponseHead::parse(bytes).map_err(UpstreamError::from);
                        return Poll::Ready(answer.map_err(ExchangeError::from));
                    }
                    Ok(_) if filled.len() >= message::MAX_HEAD => {
                        let error = message::Malformed("the head is longer than 64 KiB");
                        return Poll::Ready(Err(UpstreamError::from(error).into()));
                    }
                    Ok(_) => scanned = filled.len(),
                    Err(error) => return Poll::Ready(Err(UpstreamError::from(error).into())),
                }
                let buffers = &mut self.caller.buffers.borrow_mut();
                let failure = match self.connection.buffered.poll_fill(context, buffers, MAX_DOWN) {
                    Poll::Ready(Ok(0)) => io::ErrorKind::UnexpectedEof.into(),
                    Poll::Ready(Ok(_)) => continue,
                    Poll::Ready(Err(error)) => error,
                    Poll::Pending => break,
                };
                return Poll::Ready(Err(UpstreamError::ClosedEarly(failure).into()));
            }
            if up.is_ready()
                && let Poll::Ready(error) = self.caller.poll_closed(context)
            {
                return Poll::Ready(Err(ExchangeError::CallerDisconnected(error)));
            }
            let (deadline, of_caller) = self.deadline_up();
            if !self.caller.timer.is_past(context, deadline) {
                return Poll::Pending;
            }
            Poll::Ready(Err(if of_caller {
                ExchangeError::BodyTooSlow
            } else {
                UpstreamError::ResponseTimeout.into()
            }))
        })
        .await
    }

    /// Converts an exchange that failed before any response head.
    pub(crate) fn failed(self, error: ExchangeError) -> Failed {
        let broke_off = matches!(error, ExchangeError::Upstream(UpstreamError::ClosedEarly(_)));
        let was_stale =
            broke_off && self.connection.is_reused && self.connection.buffered.filled.is_empty();
        let (body, accepted) = self.up.into_rest();
        Failed { error, was_stale, gathered: Gathered { body, accepted, rate: self.rate } }
    }

    /// Sends an interim response (1xx) to the caller.
    pub(crate) async fn send_interim(&mut self, head: &[u8]) -> Result<(), ExchangeError> {
        self.caller.write(head).await.map_err(ExchangeError::CallerDisconnected)
    }

    /// True if all of the request has been sent, so that the connection may be reused.
    pub(crate) fn is_sent(&self) -> bool {
        self.up.is_done() && self.up_broke.is_none()
    }

    /// True if the caller's connection must close after this response, as far as known.
    pub(crate) fn is_callers_last(&self) -> bool {
        self.caller.is_last() || !self.up.is_read()
    }

    /// Reads a response body of at most `max` bytes within one second. `None`: it is longer, delimited by the close,
    /// malformed or late; the bytes then stay in the buffer.
    pub(crate) async fn small_body(&mut self, length: Length, max: usize) -> Option<Vec<u8>> {
        if length == Length::UntilClose {
            return None;
        }
        let mut body = Body::new(length, |_| true);
        let (mut taken, mut scanned) = (0, 0);
        let read = poll_fn(|context| {
            loop {
                let buffered = &mut self.connection.buffered;
                if buffered.filled.len() > scanned {
                    let Ok(more) = body.take(&buffered.filled[taken..]) else {
                        return Poll::Ready(None);
                    };
                    taken += more;
                    scanned = buffered.filled.len();
                }
                if body.is_done() {
                    return Poll::Ready(Some(()));
                }
                if taken > max {
                    return Poll::Ready(None);
                }
                match buffered.poll_fill(context, &mut self.caller.buffers.borrow_mut(), max) {
                    Poll::Ready(Ok(1..)) => {}
                    Poll::Ready(_) => return Poll::Ready(None),
                    Poll::Pending => return Poll::Pending,
                }
            }
        });
        tokio::time::timeout(Duration::from_secs(1), read).await.ok().flatten()?;
        let bytes = self.connection.buffered.filled[..taken].to_vec();
        self.connection.buffered.consume(taken, &mut self.caller.buffers.borrow_mut());
        Some(bytes)
    }

    /// The connection after a complete exchange, and the rest of the request body.
    pub(crate) fn into_parts(self) -> (Connection, Gathered) {
        let (body, accepted) = self.up.into_rest();
        (self.connection, Gathered { body, accepted, rate: self.rate })
    }

    /// Streams the response to the caller: its head (`out`), then its body. The exchange ends with the response: the
    /// unsent rest of the request is discarded. Returns the fate of the caller's connection; upstream's goes back to
    /// the pool if it is reusable.
    ///
    /// # Errors
    /// When the response body is malformed before any byte has been sent to the caller.
    pub(crate) async fn finish(
        mut self,
        mut out: Vec<u8>,
        length: Length,
        decodes: bool,
        reuses_upstream: bool,
        pool: &ConnectionPool,
    ) -> Result<Disposition, UpstreamError> {
        let mut body = Body::new(length, |_| true);
        let from = &mut self.connection.buffered;
        if !decodes && from.filled.len() <= MAX_COPIED {
            // One contiguous write costs less than a vectored one.
            let taken = body.take(&from.filled)?;
            out.extend_from_slice(&from.filled[..taken]);
            from.consume(taken, &mut self.caller.buffers.borrow_mut());
        }
        let mut down = Flow::new(out.into(), body, 0, MAX_DOWN);
        if decodes {
            down = down.decoding();
        }
        let mut down_stalled: Option<Instant> = None;
        let mut is_callers_fault = false;
        let ended = poll_fn(|context| {
            let up = self.poll_up(context);
            if !down.is_done() {
                let Caller { buffered: to, buffers, .. } = &mut *self.caller;
                let from = &mut self.connection.buffered;
                let before = down.written;
                match down.poll(context, from, &mut to.stream, &mut buffers.borrow_mut()) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending if down.waits == PendingOn::Sink => {
                        if down_stalled.is_none() || down.written != before {
                            down_stalled = Some(Instant::now());
                        }
                    }
                    Poll::Pending => down_stalled = None,
                }
            }
            if down.is_done() {
                return Poll::Ready(Ok(()));
            }
            match up {
                Poll::Ready(Err(error)) => {
                    is_callers_fault = true;
                    return Poll::Ready(Err(error));
                }
                Poll::Ready(Ok(())) if down_stalled.is_none() => {
                    // No timeout between bytes of a response: only the caller's disconnect ends the wait.
                    return match self.caller.poll_closed(context) {
                        Poll::Ready(error) => Poll::Ready(Err(FlowError::Sink(error))),
                        Poll::Pending => Poll::Pending,
                    };
                }
                Poll::Ready(Ok(())) | Poll::Pending => {}
            }
            let stalled = down_stalled.map(|since| since + self.caller.timeouts.send);
            let up_until = match up {
                Poll::Pending => {
                    let (deadline, of_caller) = self.deadline_up();
                    // While upstream responds, it may read the rest of the request at any rate.
                    of_caller.then_some(deadline)
                }
                Poll::Ready(_) => None,
            };
            let Some(deadline) = stalled.into_iter().chain(up_until).min() else {
                return Poll::Pending;
            };
            if self.caller.timer.is_past(context, deadline) {
                return Poll::Ready(Err(FlowError::Sink(io::ErrorKind::TimedOut.into())));
            }
            Poll::Pending
        })
        .await;
        match ended {
            Ok(()) => {
                let is_sent = self.is_sent();
                let Self { caller, connection, up, .. } = self;
                if reuses_upstream && is_sent && connection.buffered.filled.is_empty() {
                    pool.put(connection);
                }
                let (rest, accepted) = up.into_rest();
                if !rest.is_done() {
                    return Ok(Disposition::Linger);
                }
                // Body bytes that upstream did not accept must not be parsed as the next request.
                caller.buffered.consume(accepted, &mut caller.buffers.borrow_mut());
                Ok(Disposition::Next)
            }
            Err(error) => {
                let chain = crate::telemetry::chain(&error);
                if is_callers_fault || matches!(error, FlowError::Sink(_)) {
                    tracing::debug!(
                        error = chain,
                        "the caller did not receive the complete response"
                    );
                } else {
                    tracing::warn!(error = chain, "upstream sent an incomplete response");
                }
                // A truncated body that is delimited by the close must not look complete.
                let is_delimited_by_length = !decodes && length != Length::UntilClose;
                Ok(if is_delimited_by_length { Disposition::Close } else { Disposition::Abort })
            }
        }
    }
}
