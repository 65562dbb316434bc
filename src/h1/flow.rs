//! Bytes one way through the gateway: as they come, never more than one read ahead.

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
    memory::Share,
};

/// Why a flow ended before its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FlowError {
    /// The reader's side broke.
    #[error("reading failed")]
    Source(#[source] io::Error),
    /// The reader's side ended in the middle.
    #[error("it ended in the middle")]
    CutShort,
    #[error(transparent)]
    Body(#[from] BodyFault),
    /// The writer's side broke.
    #[error("writing failed")]
    Sink(#[source] io::Error),
}

/// What a flow waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waits {
    /// Bytes to come in.
    Source,
    /// Bytes to be taken.
    Sink,
}

/// One way.
#[derive(Debug)]
pub(crate) struct Flow {
    /// Goes first: a head, or what was decoded.
    ahead: Bytes,
    body: InspectedBody,
    /// How many bytes of what is held are the body's and may go.
    cleared: usize,
    /// How many bytes of what is held have been looked at.
    scanned: usize,
    /// Whether chunks are undone.
    decodes: bool,
    /// Most bytes read at a time.
    max: usize,
    has_ended: bool,
    /// Whether the writer has let go of what it was given. TLS may hold bytes back; a socket does not.
    is_flushed: bool,
    /// Bytes read so far.
    pub(crate) read: u64,
    /// Valid while it is pending.
    pub(crate) waits: Waits,
    /// Bytes taken so far.
    pub(crate) written: u64,
    /// Charged for `ahead` where chunks are undone: those bytes are in no buffer of the source.
    share: Share,
}

impl Flow {
    /// `ahead` and then a body of which `cleared` bytes are known to be held.
    pub(crate) fn new(
        ahead: Bytes,
        body: impl Into<InspectedBody>,
        cleared: usize,
        max: usize,
    ) -> Self {
        Self {
            ahead,
            body: body.into(),
            cleared,
            scanned: cleared,
            decodes: false,
            max,
            has_ended: false,
            is_flushed: true,
            read: 0,
            waits: Waits::Sink,
            written: 0,
            share: Share::default(),
        }
    }

    /// The same with chunks undone: for peers that know none.
    pub(crate) fn decoding(self) -> Self {
        Self { decodes: true, ..self }
    }

    /// Whether all of it has gone.
    pub(crate) fn is_done(&self) -> bool {
        self.is_flushed && self.ahead.is_empty() && self.cleared == 0 && self.is_read()
    }

    /// Whether every byte of it has been read; it may not have gone yet.
    pub(crate) fn is_read(&self) -> bool {
        self.has_ended || self.body.is_done()
    }

    /// The body that is still to come, and how much of it is held.
    pub(crate) fn into_rest(self) -> (InspectedBody, usize) {
        (self.body, self.cleared)
    }

    /// Passes on what there is, until all of it has gone.
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
            while !(self.ahead.is_empty() && self.cleared == 0) {
                match self.poll_write(context, from, to, buffers) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(FlowError::Sink(error))),
                    Poll::Pending => {
                        from.charge_beyond(buffers);
                        if self.decodes && self.ahead.len() > FREE {
                            self.share.force_to(self.ahead.len(), buffers.memory());
                        }
                        self.waits = Waits::Sink;
                        return Poll::Pending;
                    }
                }
            }
            self.share.release();
            if !self.is_flushed {
                match Pin::new(&mut *to).poll_flush(context) {
                    Poll::Ready(Ok(())) => self.is_flushed = true,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(FlowError::Sink(error))),
                    // What comes in meanwhile may go on all the same.
                    Poll::Pending if !self.is_read() => {}
                    Poll::Pending => {
                        self.waits = Waits::Sink;
                        return Poll::Pending;
                    }
                }
            }
            if self.is_done() {
                return Poll::Ready(Ok(()));
            }
            // What cannot be passed on at once is held: little of it where memory is taken.
            let max = if buffers.memory().is_exhausted() { FREE } else { self.max };
            match from.poll_fill(context, buffers, max) {
                Poll::Ready(Ok(0)) if self.body.may_end_here() => self.has_ended = true,
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(FlowError::CutShort)),
                Poll::Ready(Ok(read)) => self.read += read as u64,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(FlowError::Source(error))),
                Poll::Pending => {
                    // The beginning of a chunk's line, for example.
                    from.charge_beyond(buffers);
                    self.waits = Waits::Source;
                    return Poll::Pending;
                }
            }
        }
    }

    /// Looks at what is held and was not looked at before.
    fn clear<R>(&mut self, from: &mut Buffered<R>, buffers: &mut Buffers) -> Result<(), FlowError> {
        if self.is_read() || from.held.len() == self.scanned {
            return Ok(());
        }
        if self.decodes {
            let mut data = self.ahead.to_vec();
            let taken = self.body.take_with(&from.held, |more| data.extend_from_slice(more))?;
            from.consume(taken, buffers);
            self.ahead = data.into();
        } else {
            self.cleared += self.body.take(&from.held[self.cleared..])?;
        }
        self.scanned = from.held.len();
        Ok(())
    }

    fn poll_write<R, W: AsyncWrite + Unpin>(
        &mut self,
        context: &mut Context<'_>,
        from: &mut Buffered<R>,
        to: &mut W,
        buffers: &mut Buffers,
    ) -> Poll<io::Result<()>> {
        let body = &from.held[..self.cleared];
        let to = Pin::new(to);
        let written = if body.is_empty() {
            to.poll_write(context, &self.ahead)
        } else if self.ahead.is_empty() {
            to.poll_write(context, body)
        } else {
            to.poll_write_vectored(context, &[IoSlice::new(&self.ahead), IoSlice::new(body)])
        };
        let written = match written {
            Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            Poll::Ready(Ok(written)) => written,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => return Poll::Pending,
        };
        self.is_flushed = false;
        self.written += written as u64;
        let of_ahead = written.min(self.ahead.len());
        self.ahead.advance(of_ahead);
        let of_body = written - of_ahead;
        if of_body > 0 {
            self.cleared -= of_body;
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
    async fn what_the_writer_keeps_back_has_not_gone() {
        let (near, mut far) = duplex(16);
        let mut to = BufWriter::with_capacity(1024, near);
        let mut flow = Flow::new(vec![b'x'; 100].into(), Body::new(Length::None, |_| true), 0, 16);
        let mut from = Buffered::new(tokio::io::empty());
        let mut buffers = Buffers::default();
        let mut going = poll_fn(|cx| flow.poll(cx, &mut from, &mut to, &mut buffers));
        let mut read = [0; 100];
        tokio::select! {
            biased;
            gone = &mut going => panic!("{gone:?} with a hundred bytes in the buffer"),
            () = std::future::ready(()) => {}
        }
        let (gone, all) = tokio::join!(going, far.read_exact(&mut read));
        assert!(gone.is_ok() && all.is_ok() && read == [b'x'; 100]);
    }
}
