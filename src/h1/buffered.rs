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

use super::memory::{Exhausted, Memory, Share};

/// ConnectionLimit for one read, the largest of a body behind a head. A connection has such a buffer only while
/// there is something in it: lying idle, it has none.
const ROOM: usize = (256 + 64) * 1024;
/// Buffers kept for the next read.
const MAX_KEPT: usize = 16;
/// Bytes that each connection may hold without a share of the budget.
pub(crate) const FREE: usize = 4 * 1024;
/// Least space behind what is held in a fitted buffer.
const SLACK: usize = 512;

/// Buffers of one thread, lent to connections that have something to read.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    spare: Vec<BytesMut>,
    memory: Memory,
}

impl Buffers {
    /// What connections hold is taken from `memory`.
    pub(crate) fn of(memory: Memory) -> Self {
        Self { spare: Vec::new(), memory }
    }

    /// The budget that connections take from.
    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    fn lend(&mut self) -> BytesMut {
        self.spare.pop().unwrap_or_else(|| BytesMut::with_capacity(ROOM))
    }

    fn take_back(&mut self, mut buffer: BytesMut) {
        buffer.clear();
        let is_as_lent = buffer.try_reclaim(ROOM) && buffer.capacity() <= 2 * ROOM;
        if self.spare.len() < MAX_KEPT && is_as_lent {
            self.spare.push(buffer);
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
pub(crate) struct Buffered<S> {
    pub(crate) stream: S,
    /// Read and not used.
    pub(crate) held: BytesMut,
    /// Whether `held` is a buffer of about its length. Else it is a lent one, of which any page may be
    /// resident.
    is_fitted: bool,
    /// Charged for `held`.
    share: Share,
}

impl<S> Buffered<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, held: BytesMut::new(), is_fitted: false, share: Share::default() }
    }

    /// Forgets the first bytes that are held, and gives the buffer back with the last of them.
    pub(crate) fn consume(&mut self, length: usize, buffers: &mut Buffers) {
        self.held.advance(length);
        if self.held.is_empty() && (self.held.capacity() > 0 || self.is_fitted) {
            self.give_back(buffers);
        }
    }

    fn give_back(&mut self, buffers: &mut Buffers) {
        let buffer = std::mem::take(&mut self.held);
        if !std::mem::take(&mut self.is_fitted) {
            buffers.take_back(buffer);
        }
        self.share.release();
    }

    /// Charges the budget for what is held beyond this poll. Up to [`FREE`] bytes are free of charge.
    ///
    /// # Errors
    /// When the budget has no room for it.
    pub(crate) fn charge(&mut self, buffers: &mut Buffers) -> Result<(), Exhausted> {
        let size = self.settle(buffers);
        self.share.grow_to(size, &buffers.memory)
    }

    /// The same beyond the budget, for bytes that must not be lost.
    pub(crate) fn charge_beyond(&mut self, buffers: &mut Buffers) {
        let size = self.settle(buffers);
        self.share.force_to(size, &buffers.memory);
    }

    /// Moves what is held into a buffer of its size, if it is little or memory is scarce. Returns the bytes
    /// to charge for it.
    fn settle(&mut self, buffers: &mut Buffers) -> usize {
        let length = self.held.len();
        if length == 0 {
            return 0;
        }
        let is_little = length <= FREE;
        if !self.is_fitted && (is_little || length <= ROOM / 2 && buffers.memory.is_scarce()) {
            let mut fitted = BytesMut::with_capacity(fitted_size(length));
            fitted.extend_from_slice(&self.held);
            buffers.take_back(std::mem::replace(&mut self.held, fitted));
            self.is_fitted = true;
            self.share.release();
        }
        match self.held.capacity() {
            size if self.is_fitted && size <= fitted_size(FREE) => 0,
            size if self.is_fitted => size,
            size => size.max(ROOM),
        }
    }
}

/// Size of a buffer for so many bytes: with space for some more, so that what drips in is not copied for
/// each byte.
fn fitted_size(length: usize) -> usize {
    (length + length / 4 + SLACK).next_multiple_of(SLACK)
}

impl<S: AsyncRead + Unpin> Buffered<S> {
    /// Reads once, at most `most` bytes; 0: the other side has ended.
    pub(crate) fn poll_fill(
        &mut self,
        context: &mut Context<'_>,
        buffers: &mut Buffers,
        max: usize,
    ) -> Poll<io::Result<usize>> {
        if self.is_fitted {
            if self.held.capacity() - self.held.len() < SLACK {
                let mut roomy = buffers.lend();
                roomy.extend_from_slice(&self.held);
                self.held = roomy;
                self.is_fitted = false;
            }
        } else if self.held.capacity() == 0 {
            self.held = buffers.lend();
        } else if self.held.capacity() - self.held.len() < max.min(ROOM) / 16 {
            self.held.reserve(max.min(ROOM));
        }
        let read = {
            let mut into = (&mut self.held).limit(max);
            pin!(self.stream.read_buf(&mut into)).poll(context)
        };
        if self.held.is_empty() {
            self.give_back(buffers);
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
