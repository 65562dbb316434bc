//! A stream, and what has been read of it but not used.

use std::{
    io,
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, BufMut, BytesMut};
use socket2::TcpKeepalive;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Room for one read, the largest of a body behind a head. A connection has such a buffer only while
/// there is something in it: lying idle, it has none.
const ROOM: usize = (256 + 64) * 1024;
/// Buffers kept for the next read.
const MOST_KEPT: usize = 16;

/// Buffers of one thread, lent to connections that have something to read.
#[derive(Debug, Default)]
pub(crate) struct Buffers(Vec<BytesMut>);

impl Buffers {
    fn lend(&mut self) -> BytesMut {
        self.0.pop().unwrap_or_else(|| BytesMut::with_capacity(ROOM))
    }

    fn take_back(&mut self, mut buffer: BytesMut) {
        buffer.clear();
        let is_as_lent = buffer.try_reclaim(ROOM) && buffer.capacity() <= 2 * ROOM;
        if self.0.len() < MOST_KEPT && is_as_lent {
            self.0.push(buffer);
        }
    }
}

/// Finds out within two minutes that the other side has vanished without a word.
pub(crate) fn keepalive() -> TcpKeepalive {
    TcpKeepalive::new()
        .with_time(Duration::from_mins(1))
        .with_interval(Duration::from_secs(10))
        .with_retries(6)
}

/// A stream with what has been read of it.
#[derive(Debug)]
pub(crate) struct Side<S> {
    pub(crate) stream: S,
    /// Read and not used.
    pub(crate) held: BytesMut,
}

impl<S> Side<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, held: BytesMut::new() }
    }

    /// Forgets the first bytes that are held, and gives the buffer back with the last of them.
    pub(crate) fn used(&mut self, length: usize, buffers: &mut Buffers) {
        self.held.advance(length);
        if self.held.is_empty() && self.held.capacity() > 0 {
            buffers.take_back(std::mem::take(&mut self.held));
        }
    }
}

impl<S: AsyncRead + Unpin> Side<S> {
    /// Reads once, at most `most` bytes; 0: the other side has ended.
    pub(crate) fn poll_fill(
        &mut self,
        context: &mut Context<'_>,
        buffers: &mut Buffers,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        if self.held.capacity() == 0 {
            self.held = buffers.lend();
        } else if self.held.capacity() - self.held.len() < most.min(ROOM) / 16 {
            self.held.reserve(most.min(ROOM));
        }
        let read = {
            let mut into = (&mut self.held).limit(most);
            pin!(self.stream.read_buf(&mut into)).poll(context)
        };
        if self.held.is_empty() {
            buffers.take_back(std::mem::take(&mut self.held));
        }
        read
    }

    /// Whether there is nothing to be read and the other side has not ended, as far as is known.
    pub(crate) fn is_quiet(&mut self) -> bool {
        let mut byte = [0];
        let mut into = tokio::io::ReadBuf::new(&mut byte);
        let mut context = Context::from_waker(std::task::Waker::noop());
        self.held.is_empty()
            && Pin::new(&mut self.stream).poll_read(&mut context, &mut into).is_pending()
    }
}
