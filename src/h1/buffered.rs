//! Stream with its read buffer (bytes read but not consumed), and the pool of read buffers of one thread.

use std::{
    io,
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, BufMut, BytesMut};
use socket2::TcpKeepalive;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::memory::{Exhausted, MemoryBudget, Reservation};

/// Size of a read buffer in bytes: one read of a body, the largest read, behind a head. A connection has such a
/// buffer only while the buffer is not empty; an idle connection has none.
const BUFFER_SIZE: usize = (256 + 64) * 1024;
/// Maximum number of spare buffers of one thread.
const MAX_SPARE: usize = 16;
/// Bytes that each connection may buffer without a share of the budget.
pub(crate) const FREE: usize = 4 * 1024;
/// Minimum free space in a fitted buffer, in bytes.
const SLACK: usize = 512;

/// Pool of read buffers of one thread. Connections borrow one while they have unconsumed bytes.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    spare: Vec<BytesMut>,
    memory: MemoryBudget,
}

impl Buffers {
    /// A pool whose connections charge the bytes that they buffer to `memory`.
    pub(crate) fn of(memory: MemoryBudget) -> Self {
        Self { spare: Vec::new(), memory }
    }

    /// The budget that connections charge.
    pub(crate) fn memory(&self) -> &MemoryBudget {
        &self.memory
    }

    fn acquire(&mut self) -> BytesMut {
        self.spare.pop().unwrap_or_else(|| BytesMut::with_capacity(BUFFER_SIZE))
    }

    fn recycle(&mut self, mut buffer: BytesMut) {
        buffer.clear();
        let is_reusable = buffer.try_reclaim(BUFFER_SIZE) && buffer.capacity() <= 2 * BUFFER_SIZE;
        if self.spare.len() < MAX_SPARE && is_reusable {
            self.spare.push(buffer);
        }
    }
}

/// TCP keepalive that detects within two minutes that the peer has vanished without closing.
pub(crate) fn keepalive() -> TcpKeepalive {
    TcpKeepalive::new()
        .with_time(Duration::from_mins(1))
        .with_interval(Duration::from_secs(10))
        .with_retries(6)
}

/// A stream and the bytes read from it but not consumed.
#[derive(Debug)]
pub(crate) struct Buffered<S> {
    pub(crate) stream: S,
    /// Bytes read and not consumed.
    pub(crate) filled: BytesMut,
    /// True: `filled` is a buffer fitted to its content. False: it is borrowed from the pool, and any of its pages
    /// may be resident.
    is_fitted: bool,
    /// Charged for `filled`.
    share: Reservation,
}

impl<S> Buffered<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, filled: BytesMut::new(), is_fitted: false, share: Reservation::default() }
    }

    /// Discards the first `length` bytes of the buffer. An empty buffer goes back to the pool.
    pub(crate) fn consume(&mut self, length: usize, buffers: &mut Buffers) {
        self.filled.advance(length);
        if self.filled.is_empty() && (self.filled.capacity() > 0 || self.is_fitted) {
            self.return_buffer(buffers);
        }
    }

    fn return_buffer(&mut self, buffers: &mut Buffers) {
        let buffer = std::mem::take(&mut self.filled);
        if !std::mem::take(&mut self.is_fitted) {
            buffers.recycle(buffer);
        }
        self.share.release();
    }

    /// Charges the budget for the bytes that stay buffered after this poll. Up to [`FREE`] bytes are free of
    /// charge.
    ///
    /// # Errors
    /// When the budget is exhausted.
    pub(crate) fn charge(&mut self, buffers: &mut Buffers) -> Result<(), Exhausted> {
        let size = self.settle(buffers);
        self.share.grow_to(size, &buffers.memory)
    }

    /// As [`Self::charge`], but may exceed the budget: for bytes that must not be lost.
    pub(crate) fn charge_unchecked(&mut self, buffers: &mut Buffers) {
        let size = self.settle(buffers);
        self.share.grow_unchecked(size, &buffers.memory);
    }

    /// Moves the buffered bytes into a fitted buffer if they are few or memory is scarce. Returns the number of
    /// bytes to charge.
    fn settle(&mut self, buffers: &mut Buffers) -> usize {
        let length = self.filled.len();
        if length == 0 {
            return 0;
        }
        let is_small = length <= FREE;
        if !self.is_fitted && (is_small || length <= BUFFER_SIZE / 2 && buffers.memory.is_scarce())
        {
            let mut fitted = BytesMut::with_capacity(fitted_size(length));
            fitted.extend_from_slice(&self.filled);
            buffers.recycle(std::mem::replace(&mut self.filled, fitted));
            self.is_fitted = true;
            self.share.release();
        }
        match self.filled.capacity() {
            size if self.is_fitted && size <= fitted_size(FREE) => 0,
            size if self.is_fitted => size,
            size => size.max(BUFFER_SIZE),
        }
    }
}

/// Size of a fitted buffer for `length` bytes. It has space for more, so that bytes that arrive singly are not
/// copied each time.
fn fitted_size(length: usize) -> usize {
    (length + length / 4 + SLACK).next_multiple_of(SLACK)
}

impl<S: AsyncRead + Unpin> Buffered<S> {
    /// Reads once, at most `max` bytes. Result 0: end of the stream.
    pub(crate) fn poll_fill(
        &mut self,
        context: &mut Context<'_>,
        buffers: &mut Buffers,
        max: usize,
    ) -> Poll<io::Result<usize>> {
        if self.is_fitted {
            if self.filled.capacity() - self.filled.len() < SLACK {
                let mut larger = buffers.acquire();
                larger.extend_from_slice(&self.filled);
                self.filled = larger;
                self.is_fitted = false;
            }
        } else if self.filled.capacity() == 0 {
            self.filled = buffers.acquire();
        } else if self.filled.capacity() - self.filled.len() < max.min(BUFFER_SIZE) / 16 {
            self.filled.reserve(max.min(BUFFER_SIZE));
        }
        let read = {
            let mut into = (&mut self.filled).limit(max);
            pin!(self.stream.read_buf(&mut into)).poll(context)
        };
        if self.filled.is_empty() {
            self.return_buffer(buffers);
        }
        read
    }

    /// True if no bytes are available and the peer has not closed, as far as the kernel knows.
    pub(crate) fn is_idle(&mut self) -> bool {
        let mut byte = [0];
        let mut into = tokio::io::ReadBuf::new(&mut byte);
        let mut context = Context::from_waker(std::task::Waker::noop());
        self.filled.is_empty()
            && Pin::new(&mut self.stream).poll_read(&mut context, &mut into).is_pending()
    }
}
