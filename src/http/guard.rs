//! Guard of `/external/*`: only tokens with the app role `ExternalApi` are admitted, in every spelling of the path.

use super::{bearer, endpoint::Endpoint, error::Refusal, framing::ValidRequest};
use crate::{
    authz::policy::{Admission, Policy},
    clock,
    control::external_access::ExternalAccess,
    entra::Entra,
    flask::{
        forms::{FormReader, SubjectBinding, SubjectFault},
        path::Target,
    },
    h1::message::Length,
};

/// Proof that a request may be proxied: its path is not guarded, or it was admitted. Carries the inspector of
/// the request body, if one is needed.
#[derive(Debug)]
pub(crate) struct Passage {
    reader: Option<Box<FormReader>>,
}

impl Passage {
    const OPEN: Self = Self { reader: None };

    /// Inspector of the request body.
    pub(crate) fn into_reader(self) -> Option<Box<FormReader>> {
        self.reader
    }

    /// Passage of an admitted request. Every user id in its head must be the token's subject.
    fn admitted(admission: Admission, request: &ValidRequest<'_>) -> Result<Self, SubjectFault> {
        let Some(subject) = admission.into_bound_subject() else { return Ok(Self::OPEN) };
        let binding = SubjectBinding::to(subject);
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
    let token = bearer::parse_lines(head.fields.all("authorization"))?;
    let identity = entra.identify(&token, clock::now()).await?;
    let admission = policy.admit(&identity)?;
    external_access.check(identity.subject(), identity.client())?;
    Ok(Passage::admitted(admission, request)?)
}
