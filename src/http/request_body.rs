//! Request bodies that the gateway reads itself: decisions of administrators, at most 64 KiB, read completely.

use super::{error::Refusal, framing::ValidRequest, proxy};
use crate::{
    h1::{
        caller::{Caller, Unread},
        flow::FlowError,
        hop_headers,
        message::{Body, Length, Malformed},
    },
    upstream::exchange::{ExchangeError, gather},
};

/// Maximum size of a body in bytes.
const MAX: usize = 64 * 1024;
/// Maximum size in bytes including chunk framing.
const MAX_FRAMED: usize = 2 * MAX;

/// Reads the body. The error is the refusal, and the unread rest of the body.
pub(crate) async fn read(
    caller: &mut Caller,
    request: &ValidRequest<'_>,
) -> Result<Vec<u8>, (Refusal, Unread)> {
    let body = || Body::new(request.length, hop_headers::may_trail);
    let awaits_continue = proxy::awaits_continue(request);
    if matches!(request.length, Length::Sized(length) if length > MAX as u64) {
        return Err((Refusal::BodyTooLarge, Unread::of(body(), awaits_continue)));
    }
    if request.length == Length::None {
        return Ok(Vec::new());
    }
    read_all(caller, body(), awaits_continue).await.map_err(|refusal| (refusal, Unread::Unbounded))
}

async fn read_all(
    caller: &mut Caller,
    body: Body,
    awaits_continue: bool,
) -> Result<Vec<u8>, Refusal> {
    if awaits_continue && caller.buffered.filled.is_empty() && !body.is_done() {
        let sent = caller.write(b"HTTP/1.1 100 Continue\r\n\r\n").await;
        sent.map_err(ExchangeError::CallerDisconnected)?;
    }
    let mut decoder = match &body {
        Body::Sized(length) => Body::Sized(*length),
        Body::Chunked(_) => Body::new(Length::Chunked, hop_headers::may_trail),
        Body::UntilClose => Body::UntilClose,
    };
    let gathered = gather(caller, body.into(), MAX_FRAMED, |_| Ok(())).await?;
    let mut data = Vec::new();
    let outcome = decoder.take_with(&caller.buffered.filled[..gathered.accepted], |more| {
        data.extend_from_slice(more);
        Ok::<(), Malformed>(())
    });
    outcome.map_err(|fault| ExchangeError::Body(FlowError::Body(fault.into())))?;
    if !gathered.body.is_done() || data.len() > MAX {
        return Err(Refusal::BodyTooLarge);
    }
    caller.buffered.consume(gathered.accepted, &mut caller.buffers.borrow_mut());
    Ok(data)
}
