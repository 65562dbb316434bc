//! `/external/*`: for tokens with the role `ExternalApi`, and nobody else, in every spelling.

use super::{bearer, error::Refusal, framing::Judged};
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
    judged: &Judged<'_>,
    entra: &Entra,
    policy: &Policy,
) -> Result<Passage, Refusal> {
    let Judged { head, path, .. } = judged;
    match Target::read(path) {
        Target::Open => return Ok(Passage(())),
        Target::GuardedOddly => return Err(Refusal::OddSpelling),
        Target::Guarded => {}
    }
    if path == HEALTHCHECK && matches!(head.method(), "GET" | "HEAD") {
        return Ok(Passage(()));
    }
    let token = bearer::of_lines(head.fields.all("authorization"))?;
    let identity = entra.identify(&token, clock::now()).await?;
    Ok(policy.admit(&identity)?.into())
}
