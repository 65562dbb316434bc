//! Request body with an optional inspector. Bytes are forwarded only after the inspector accepted them.

use super::message::{Body, Malformed};
use crate::flask::forms::{FormReader, SubjectFault};

/// Reasons for not forwarding a body.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyFault {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The inspector rejected it.
    #[error(transparent)]
    Subject(#[from] SubjectFault),
}

/// Body in transit with an optional inspector.
#[derive(Debug)]
pub(crate) struct InspectedBody {
    body: Body,
    reader: Option<Box<FormReader>>,
}

impl From<Body> for InspectedBody {
    fn from(body: Body) -> Self {
        Self { body, reader: None }
    }
}

impl InspectedBody {
    /// A body that `reader` inspects, if there is one.
    pub(crate) fn by(reader: Option<Box<FormReader>>, body: Body) -> Self {
        Self { body, reader }
    }

    /// True if all of the body has been taken.
    pub(crate) fn is_done(&self) -> bool {
        self.body.is_done()
    }

    /// True if the body is complete when the connection closes here.
    pub(crate) fn may_end_here(&self) -> bool {
        self.body.may_end_here()
    }

    /// Takes the leading bytes of `bytes` that belong to the body and may be forwarded; returns their number. See
    /// [`Body::take`].
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<usize, BodyFault> {
        self.take_with(bytes, |_| {})
    }

    /// As [`Self::take`]; passes the data, without framing, to `on_data`.
    pub(crate) fn take_with(
        &mut self,
        bytes: &[u8],
        mut on_data: impl FnMut(&[u8]),
    ) -> Result<usize, BodyFault> {
        let Self { body, reader } = self;
        let was_done = body.is_done();
        let taken = body.take_with(bytes, |data| {
            on_data(data);
            reader.as_mut().map_or(Ok(()), |reader| reader.read(data)).map_err(BodyFault::from)
        })?;
        // The last bytes would complete the request at upstream: they wait for the inspector's result.
        if let Some(reader) = reader
            && body.is_done()
            && !was_done
        {
            reader.end()?;
        }
        Ok(taken)
    }
}
