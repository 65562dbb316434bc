//! `/external/*`: for tokens with the role `ExternalApi`, and nobody else, in every spelling.

use super::{bearer, endpoint::Endpoint, error::Refusal, framing::ValidRequest};
use crate::{
    authz::policy::{Admission, Policy},
    clock,
    control::external_access::ExternalAccess,
    entra::Entra,
    flask::{
        forms::{FormReader, SubjectFault},
        path::Target,
    },
    h1::message::Length,
};

/// Proof that a request may be proxied: it is not guarded, or it was admitted. With it goes what must
/// read the request's body along the way.
#[derive(Debug)]
pub(crate) struct Passage {
    reader: Option<Box<FormReader>>,
}

impl Passage {
    const OPEN: Self = Self { reader: None };

    /// What must read the body.
    pub(crate) fn into_reader(self) -> Option<Box<FormReader>> {
        self.reader
    }

    /// An admitted request, all of whose users are its token's own as far as the head tells.
    fn admitted(admission: Admission, request: &ValidRequest<'_>) -> Result<Self, SubjectFault> {
        let Some(binding) = admission.into_binding() else { return Ok(Self::OPEN) };
        if let Some(at) = memchr::memchr(b'?', &request.target) {
            binding.check_query(&request.target[at + 1..])?;
        }
        if request.length == Length::None {
            return Ok(Self::OPEN);
        }
        let reader = binding.reader(request.head.fields.all("content-type"))?;
        Ok(Self { reader: reader.map(Box::new) })
    }
}

/// Authorizes a request by its method, its endpoint and its token.
pub(crate) async fn authorize(
    request: &ValidRequest<'_>,
    endpoint: Endpoint,
    entra: &Entra,
    policy: &Policy,
    external_access: &ExternalAccess,
) -> Result<Passage, Refusal> {
    match endpoint.target() {
        Target::Open => return Ok(Passage::OPEN),
        Target::NonCanonical => return Err(Refusal::NonCanonicalPath),
        Target::Guarded => {}
    }
    let head = request.head;
    if endpoint == Endpoint::Healthcheck && matches!(head.method(), "GET" | "HEAD") {
        return Ok(Passage::OPEN);
    }
    let token = bearer::of_lines(head.fields.all("authorization"))?;
    let identity = entra.identify(&token, clock::now()).await?;
    let admission = policy.admit(&identity)?;
    external_access.check(identity.subject(), identity.client())?;
    Ok(Passage::admitted(admission, request)?)
}
