//! Tunnels: bytes both ways after 101 Switching Protocols.

use std::{
    future::poll_fn,
    io,
    task::{Context, Poll},
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};

use super::{Exchange, MAX_DOWN};
use crate::h1::{
    buffered::{Buffered, Buffers},
    caller::{Caller, Disposition},
    flow::{Flow, FlowError, PendingOn},
    message::Body,
};

/// One direction of a tunnel.
struct TunnelDirection {
    pub(super) flow: Flow,
    /// The end of the source has been forwarded.
    is_shut: bool,
    /// Time since which the sink has accepted no byte of those available.
    stalled: Option<Instant>,
}

impl TunnelDirection {
    pub(super) fn new(prefix: Bytes) -> Self {
        let flow = Flow::new(prefix, Body::UntilClose, 0, MAX_DOWN);
        Self { flow, is_shut: false, stalled: None }
    }

    pub(super) fn poll<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
        &mut self,
        context: &mut Context<'_>,
        from: &mut Buffered<R>,
        to: &mut W,
        buffers: &mut Buffers,
    ) -> Result<(), FlowError> {
        if self.is_shut {
            return Ok(());
        }
        let before = self.flow.written;
        let mut waits_for_sink = true;
        match self.flow.poll(context, from, to, buffers) {
            Poll::Ready(ended) => {
                ended?;
                self.is_shut = shut(context, to)?;
            }
            Poll::Pending => waits_for_sink = self.flow.waits == PendingOn::Sink,
        }
        if self.is_shut || !waits_for_sink {
            self.stalled = None;
        } else if self.stalled.is_none() || self.flow.written != before {
            self.stalled = Some(Instant::now());
        }
        Ok(())
    }
}

/// Shuts down the sending side. True: done; false: pending.
fn shut<W: AsyncWrite + Unpin>(
    context: &mut Context<'_>,
    writer: &mut W,
) -> Result<bool, FlowError> {
    match std::pin::Pin::new(writer).poll_shutdown(context) {
        Poll::Ready(Ok(())) => Ok(true),
        Poll::Ready(Err(error)) => Err(FlowError::Sink(error)),
        Poll::Pending => Ok(false),
    }
}

impl Exchange<'_> {
    /// Forwards bytes in both directions after 101, until both sides have closed, or neither has sent a byte for the
    /// idle timeout. `out`: the response head.
    pub(crate) async fn tunnel(self, out: Vec<u8>) -> Disposition {
        let Self { caller, mut connection, .. } = self;
        let Caller { buffered, buffers, timer, timeouts, .. } = caller;
        let mut down = TunnelDirection::new(out.into());
        let mut up = TunnelDirection::new(Bytes::new());
        let mut moved = (0, Instant::now());
        let ended = poll_fn(|context| {
            let buffers = &mut buffers.borrow_mut();
            let (theirs, ours) = (&mut connection.buffered, &mut *buffered);
            down.poll(context, theirs, &mut ours.stream, buffers)?;
            up.poll(context, ours, &mut theirs.stream, buffers)?;
            if up.is_shut && down.is_shut {
                return Poll::Ready(Ok(()));
            }
            let written = down.flow.written + up.flow.written;
            if written != moved.0 {
                moved = (written, Instant::now());
            }
            let stalled = [up.stalled, down.stalled].into_iter().flatten();
            // An unused tunnel must close, too.
            let idle = moved.1 + timeouts.idle;
            let deadline = stalled.map(|since| since + timeouts.send).fold(idle, Instant::min);
            if timer.is_past(context, deadline) {
                return Poll::Ready(Err(FlowError::Sink(io::ErrorKind::TimedOut.into())));
            }
            Poll::Pending
        })
        .await;
        if ended.is_ok() { Disposition::Close } else { Disposition::Abort }
    }
}
