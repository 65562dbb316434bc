//! `/external/*`: for tokens with the role `ExternalApi`, and nobody else, in every spelling.

use http::{HeaderMap, Method};

use super::{bearer, error::Refusal};
use crate::{
    access::{
        policy::{Admission, Policy},
        target::Target,
    },
    clock,
    entra::Entra,
};

/// Upstream's health probe, open to all: App Service asks it without a token.
const HEALTHCHECK: &str = "/external/healthcheck";

/// Proof that a request may be proxied: it is not guarded, or it was admitted.
#[derive(Debug)]
pub(super) struct Passage(());

impl From<Admission> for Passage {
    fn from(_: Admission) -> Self {
        Self(())
    }
}

/// Judges a request by its method, its path and its token.
pub(super) async fn judge(
    method: &Method,
    path: &str,
    headers: &HeaderMap,
    entra: &Entra,
    policy: &Policy,
) -> Result<Passage, Refusal> {
    match Target::read(path) {
        Target::Open => return Ok(Passage(())),
        Target::GuardedOddly => return Err(Refusal::OddSpelling),
        Target::Guarded => {}
    }
    if path == HEALTHCHECK && matches!(*method, Method::GET | Method::HEAD) {
        return Ok(Passage(()));
    }
    let token = bearer::of(headers)?;
    let claims = entra.verify(&token, clock::now()).await?;
    Ok(policy.admit(&claims)?.into())
}
