//! Timer of a connection, rescheduled as rarely as possible.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep};

/// Deadline check. A deadline later than the scheduled time costs nothing: the timer fires and is then
/// rescheduled.
#[derive(Debug)]
pub(crate) struct Timer(Pin<Box<Sleep>>);

impl Timer {
    pub(crate) fn new(first: Duration) -> Self {
        Self(Box::pin(sleep(first)))
    }

    /// True if `deadline` has passed; else the task is woken when it has.
    pub(crate) fn is_past(&mut self, context: &mut Context<'_>, deadline: Instant) -> bool {
        if deadline < self.0.deadline() {
            self.0.as_mut().reset(deadline);
        }
        loop {
            match self.0.as_mut().poll(context) {
                Poll::Pending => return false,
                Poll::Ready(()) if Instant::now() >= deadline => return true,
                Poll::Ready(()) => self.0.as_mut().reset(deadline),
            }
        }
    }
}
