//! Forwarding of a message in one direction: streamed, with at most one read in the buffer.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    buffered::{Buffered, Buffers, FREE},
    inspected_body::{BodyFault, InspectedBody},
    memory::Reservation,
};

/// Reasons for an incomplete flow.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FlowError {
    /// The source failed.
    #[error("read failed")]
    Source(#[source] io::Error),
    /// The source closed before the end of the body.
    #[error("the body is truncated")]
    CutShort,
    #[error(transparent)]
    Body(#[from] BodyFault),
    /// The sink failed.
    #[error("write failed")]
    Sink(#[source] io::Error),
}

/// Side that a pending flow waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PendingOn {
    /// The source has no bytes.
    Source,
    /// The sink accepts no bytes.
    Sink,
}

/// State of one direction.
#[derive(Debug)]
pub(crate) struct Flow {
    /// Written before the body: a head, or decoded data.
    prefix: Bytes,
    body: InspectedBody,
    /// Length of the buffered bytes that belong to the body and may be forwarded.
    accepted: usize,
    /// Length of the buffered bytes that have been parsed.
    scanned: usize,
    /// The chunked coding is removed.
    decodes: bool,
    /// Maximum of bytes in one read.
    max: usize,
    has_ended: bool,
    /// The sink has flushed all written bytes. TLS may buffer them; a socket does not.
    is_flushed: bool,
    /// Bytes read.
    pub(crate) read: u64,
    /// Valid while the flow is pending.
    pub(crate) waits: PendingOn,
    /// Bytes written.
    pub(crate) written: u64,
    /// Reservation for `prefix` while chunks are decoded: those bytes are in no buffer of the source.
    share: Reservation,
}

impl Flow {
    /// A flow of `prefix` and then a body, of which `accepted` parsed bytes are in the source's buffer.
    pub(crate) fn new(
        prefix: Bytes,
        body: impl Into<InspectedBody>,
        accepted: usize,
        max: usize,
    ) -> Self {
        Self {
            prefix,
            body: body.into(),
            accepted,
            scanned: accepted,
            decodes: false,
            max,
            has_ended: false,
            is_flushed: true,
            read: 0,
            waits: PendingOn::Sink,
            written: 0,
            share: Reservation::default(),
        }
    }

    /// The same without the chunked coding, for HTTP/1.0 clients.
    pub(crate) fn decoding(self) -> Self {
        Self { decodes: true, ..self }
    }

    /// True if all bytes have been written and flushed.
    pub(crate) fn is_done(&self) -> bool {
        self.is_flushed && self.prefix.is_empty() && self.accepted == 0 && self.is_read()
    }

    /// True if all bytes have been read; they may not be written yet.
    pub(crate) fn is_read(&self) -> bool {
        self.has_ended || self.body.is_done()
    }

    /// The unread rest of the body, and the length of its parsed bytes in the source's buffer.
    pub(crate) fn into_rest(self) -> (InspectedBody, usize) {
        (self.body, self.accepted)
    }

    /// Forwards the available bytes; ready when all have been written.
    pub(crate) fn poll<R, W>(
        &mut self,
        context: &mut Context<'_>,
        from: &mut Buffered<R>,
        to: &mut W,
        buffers: &mut Buffers,
    ) -> Poll<Result<(), FlowError>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            self.clear(from, buffers)?;
            while !(self.prefix.is_empty() && self.accepted == 0) {
                match self.poll_write(context, from, to, buffers) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(FlowError::Sink(error))),
                    Poll::Pending => {
                        from.charge_unchecked(buffers);
                        if self.decodes && self.prefix.len() > FREE {
                            self.share.grow_unchecked(self.prefix.len(), buffers.memory());
                        }
                        self.waits = PendingOn::Sink;
                        return Poll::Pending;
                    }
                }
            }
            self.share.release();
            if !self.is_flushed {
                match Pin::new(&mut *to).poll_flush(context) {
                    Poll::Ready(Ok(())) => self.is_flushed = true,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(FlowError::Sink(error))),
                    // Bytes that arrive meanwhile may be forwarded.
                    Poll::Pending if !self.is_read() => {}
                    Poll::Pending => {
                        self.waits = PendingOn::Sink;
                        return Poll::Pending;
                    }
                }
            }
            if self.is_done() {
                return Poll::Ready(Ok(()));
            }
            // Bytes that cannot be forwarded at once stay in the buffer: few of them if the budget is exhausted.
            let max = if buffers.memory().is_exhausted() { FREE } else { self.max };
            match from.poll_fill(context, buffers, max) {
                Poll::Ready(Ok(0)) if self.body.may_end_here() => self.has_ended = true,
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(FlowError::CutShort)),
                Poll::Ready(Ok(read)) => self.read += read as u64,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(FlowError::Source(error))),
                Poll::Pending => {
                    // For example the start of a chunk-size line.
                    from.charge_unchecked(buffers);
                    self.waits = PendingOn::Source;
                    return Poll::Pending;
                }
            }
        }
    }

    /// Parses the buffered bytes that have not been parsed.
    fn clear<R>(&mut self, from: &mut Buffered<R>, buffers: &mut Buffers) -> Result<(), FlowError> {
        if self.is_read() || from.filled.len() == self.scanned {
            return Ok(());
        }
        if self.decodes {
            let mut data = self.prefix.to_vec();
            let taken = self.body.take_with(&from.filled, |more| data.extend_from_slice(more))?;
            from.consume(taken, buffers);
            self.prefix = data.into();
        } else {
            self.accepted += self.body.take(&from.filled[self.accepted..])?;
        }
        self.scanned = from.filled.len();
        Ok(())
    }

    fn poll_write<R, W: AsyncWrite + Unpin>(
        &mut self,
        context: &mut Context<'_>,
        from: &mut Buffered<R>,
        to: &mut W,
        buffers: &mut Buffers,
    ) -> Poll<io::Result<()>> {
        let body = &from.filled[..self.accepted];
        let to = Pin::new(to);
        let written = if body.is_empty() {
            to.poll_write(context, &self.prefix)
        } else if self.prefix.is_empty() {
            to.poll_write(context, body)
        } else {
            to.poll_write_vectored(context, &[IoSlice::new(&self.prefix), IoSlice::new(body)])
        };
        let written = match written {
            Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            Poll::Ready(Ok(written)) => written,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => return Poll::Pending,
        };
        self.is_flushed = false;
        self.written += written as u64;
        let of_ahead = written.min(self.prefix.len());
        self.prefix.advance(of_ahead);
        let of_body = written - of_ahead;
        if of_body > 0 {
            self.accepted -= of_body;
            self.scanned -= of_body;
            from.consume(of_body, buffers);
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, BufWriter, duplex};

    use super::*;
    use crate::h1::message::{Body, Length};

    #[tokio::test]
    async fn a_flow_is_done_only_after_the_sink_has_flushed() {
        let (near, mut far) = duplex(16);
        let mut to = BufWriter::with_capacity(1024, near);
        let mut flow = Flow::new(vec![b'x'; 100].into(), Body::new(Length::None, |_| true), 0, 16);
        let mut from = Buffered::new(tokio::io::empty());
        let mut buffers = Buffers::default();
        let mut going = poll_fn(|cx| flow.poll(cx, &mut from, &mut to, &mut buffers));
        let mut read = [0; 100];
        tokio::select! {
            biased;
            done = &mut going => panic!("{done:?} with a hundred bytes in the buffer"),
            () = std::future::ready(()) => {}
        }
        let (done, all) = tokio::join!(going, far.read_exact(&mut read));
        assert!(done.is_ok() && all.is_ok() && read == [b'x'; 100]);
    }
}
