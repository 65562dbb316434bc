//! A body, and who reads along: nothing of it goes on that was not read without a fault.

use super::message::{Body, Malformed};
use crate::flask::forms::{FormReader, SubjectFault};

/// Why a body does not go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyFault {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// Who reads along does not let it go on.
    #[error(transparent)]
    Subject(#[from] SubjectFault),
}

/// A body on its way, perhaps with a reader.
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
    /// Read by `reader`, if there is one.
    pub(crate) fn by(reader: Option<Box<FormReader>>, body: Body) -> Self {
        Self { body, reader }
    }

    /// Whether all of it has been taken.
    pub(crate) fn is_done(&self) -> bool {
        self.body.is_done()
    }

    /// Whether it is whole if the connection ends here.
    pub(crate) fn may_end_here(&self) -> bool {
        self.body.may_end_here()
    }

    /// How many bytes at the front of `bytes` are the body's and may go: see [`Body::take`].
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<usize, BodyFault> {
        self.take_with(bytes, |_| {})
    }

    /// As [`Self::take`], and `see` is shown the data alone, without frames.
    pub(crate) fn take_with(
        &mut self,
        bytes: &[u8],
        mut see: impl FnMut(&[u8]),
    ) -> Result<usize, BodyFault> {
        let Self { body, reader } = self;
        let was_done = body.is_done();
        let taken = body.take_with(bytes, |data| {
            see(data);
            reader.as_mut().map_or(Ok(()), |reader| reader.read(data)).map_err(BodyFault::from)
        })?;
        // With its last bytes upstream has all of it: they wait for the verdict.
        if let Some(reader) = reader
            && body.is_done()
            && !was_done
        {
            reader.end()?;
        }
        Ok(taken)
    }
}
