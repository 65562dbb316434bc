//! Request bodies, read into memory up to a limit before they are forwarded.

use std::{future::poll_fn, task::Poll, time::Duration};

use super::{ExchangeError, MAX_UP};
use crate::{
    h1::{
        caller::Caller,
        flow::FlowError,
        inspected_body::InspectedBody,
        memory::Exhausted,
        message::{Body, Length},
        min_rate::MinBodyRate,
    },
    upstream::UpstreamError,
};

/// Minimum for the size limit of one read of a request body.
const MIN_UP: usize = 16 * 1024;

/// Request body as far as it has been read.
#[derive(Debug)]
pub(crate) struct Gathered {
    pub(crate) body: InspectedBody,
    /// Length of the buffered bytes that belong to the body.
    pub(crate) accepted: usize,
    pub(crate) rate: MinBodyRate,
}

impl Gathered {
    /// The value for a request without a body.
    pub(crate) fn empty(silence: Duration) -> Self {
        let body = Body::new(Length::None, |_| true).into();
        Self { body, accepted: 0, rate: MinBodyRate::new(silence) }
    }
}

/// Reads a request body until it ends or `max` bytes are buffered. `grow` receives the number of buffered bytes and
/// may refuse more.
///
/// # Errors
/// When the body is malformed, truncated or too slow, `grow` refuses, memory is exhausted, or the caller
/// disconnects.
pub(crate) async fn gather(
    caller: &mut Caller,
    mut body: InspectedBody,
    max: usize,
    mut grow: impl FnMut(usize) -> Result<(), UpstreamError>,
) -> Result<Gathered, ExchangeError> {
    let mut rate = MinBodyRate::new(caller.timeouts.idle);
    let (mut accepted, mut scanned) = (0, 0);
    let gathered = poll_fn(|context| {
        loop {
            if caller.buffered.filled.len() > scanned {
                let taken = body.take(&caller.buffered.filled[accepted..]);
                accepted += taken.map_err(|fault| ExchangeError::Body(fault.into()))?;
                scanned = caller.buffered.filled.len();
                grow(accepted)?;
            }
            let mut buffers = caller.buffers.borrow_mut();
            if body.is_done() || accepted >= max {
                return Poll::Ready(caller.buffered.charge(&mut buffers).map_err(over_capacity));
            }
            let missing = (max - accepted).clamp(MIN_UP, MAX_UP);
            match caller.buffered.poll_fill(context, &mut buffers, missing) {
                Poll::Ready(Ok(0)) => {
                    caller.has_ended = true;
                    return Poll::Ready(Err(ExchangeError::Body(FlowError::CutShort)));
                }
                Poll::Ready(Ok(read)) => rate.earn(read as u64),
                Poll::Ready(Err(error)) => {
                    return Poll::Ready(Err(ExchangeError::CallerDisconnected(error)));
                }
                Poll::Pending if caller.timer.is_past(context, rate.deadline()) => {
                    return Poll::Ready(Err(ExchangeError::BodyTooSlow));
                }
                Poll::Pending => {
                    caller.buffered.charge(&mut buffers).map_err(over_capacity)?;
                    caller.waits_since.set(Some(rate.waits_since()));
                    return Poll::Pending;
                }
            }
        }
    })
    .await;
    caller.waits_since.set(None);
    gathered?;
    rate.stop();
    Ok(Gathered { body, accepted, rate })
}

fn over_capacity(_: Exhausted) -> ExchangeError {
    UpstreamError::HoldIsFull.into()
}
