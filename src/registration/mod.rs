//! Required content of the Entra app registration and of App Service authentication, derived from the settings
//! without Microsoft Graph.

mod easy_auth;
mod entries;
mod graph;
mod identifier_uri;
mod inputs;
pub(crate) mod public_url_probe;
mod token_version_probe;

use serde_json::{Value, json};
use uuid::Uuid;

use self::{
    entries::{role_entry, scope_entry, scope_id},
    graph::commands,
    identifier_uri::{PATHS, refusal},
};
pub(crate) use self::{
    graph::Command, inputs::RegistrationInputs, token_version_probe::requires_version_1,
};

/// SimpleChat's other app roles. Entra allows no scope with the name of a role, unless both are identical.
const OTHER_ROLES: [&str; 8] = [
    "User",
    "Admin",
    "FeedbackAdmin",
    "SafetyViolationAdmin",
    "CreateGroups",
    "ControlCenterAdmin",
    "ControlCenterDashboardReader",
    "DeepResearchUser",
];
/// Clients that are suggested for pre-authorization: name and client id.
const SUGGESTED_CLIENTS: [(&str, Uuid); 2] = [
    ("Visual Studio Code", Uuid::from_u128(0xaebc_6443_996d_45c2_90f0_388f_f96f_aa56)),
    ("the Azure CLI", Uuid::from_u128(0x04b0_7795_8ddb_461a_bbee_02f9_e1bf_7b46)),
];
/// Scopes of OpenID Connect, which no app exposes.
const OF_OPENID: [&str; 4] = ["openid", "profile", "email", "offline_access"];

/// Required content of the app registration, commands that create it, and findings for the operator.
pub(crate) struct Registration {
    /// Version of the access tokens that Entra should issue: 1 or 2.
    pub(crate) version: u8,
    /// Required manifest entries, in addition to existing ones.
    pub(crate) manifest: Value,
    /// Equivalent commands, in the order that Entra requires.
    pub(crate) commands: Vec<Command>,
    /// Checks that passed.
    pub(crate) passed: Vec<String>,
    /// Recommendations.
    pub(crate) advice: Vec<String>,
    /// Checks that need Microsoft Graph.
    pub(crate) skipped: Vec<String>,
}

impl Registration {
    pub(crate) fn new(inputs: &RegistrationInputs) -> Self {
        let mut findings = Findings::default();
        let uris = identifier_uris(inputs, &mut findings);
        let version = version(inputs, &uris, &mut findings);
        let scopes = exposed_scopes(inputs, &mut findings);
        let clients = pre_authorized(inputs, &scopes, &mut findings);
        check_advertised_scopes(inputs, &uris, &scopes, &mut findings);
        check_audiences(inputs, version, &uris, &mut findings);
        findings.skipped.push(
            "current app registration: the gateway has no access to Microsoft Graph; compare it with the manifest entries below".to_owned(),
        );
        let manifest = json!({
            "identifierUris": uris,
            "api": {
                "requestedAccessTokenVersion": version,
                "oauth2PermissionScopes": scopes.iter().map(|scope| scope_entry(scope, inputs.client)).collect::<Vec<_>>(),
                "preAuthorizedApplications": clients.iter().map(|client| json!({
                    "appId": client,
                    "delegatedPermissionIds": scopes.iter().map(|scope| scope_id(scope, inputs.client)).collect::<Vec<_>>(),
                })).collect::<Vec<_>>(),
            },
            "appRoles": [role_entry()],
        });
        let commands = commands(inputs, version, &uris, &scopes, &clients);
        let Findings { passed, advice, skipped } = findings;
        Self { version, manifest, commands, passed, advice, skipped }
    }

    /// The commands as text, each below its purpose as a shell comment.
    pub(crate) fn commands_as_text(&self) -> String {
        let lines =
            self.commands.iter().map(|Command { purpose, line }| format!("# {purpose}\n{line}"));
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Required settings of App Service authentication (authsettingsV2).
    pub(crate) fn easy_auth(&self, inputs: &RegistrationInputs) -> Value {
        easy_auth::settings(inputs, &inputs.issuer(self.version))
    }
}

/// Findings, as in [`Registration`].
#[derive(Default)]
struct Findings {
    passed: Vec<String>,
    advice: Vec<String>,
    skipped: Vec<String>,
}

fn identifier_uris(inputs: &RegistrationInputs, findings: &mut Findings) -> Vec<String> {
    let mut uris = vec![format!("api://{}", inputs.client)];
    let mut refused = Vec::new();
    for origin in &inputs.public_urls {
        if let Some(reason) = refusal(origin) {
            refused.push(format!("Entra accepts no identifier URI {reason} ({origin})"));
            continue;
        }
        for path in PATHS {
            let uri = format!("{origin}{path}");
            if !uris.contains(&uri) {
                uris.push(uri);
            }
        }
    }
    let alternative = format!(
        "clients request api://{}/.default or a scope below it, with the complete name, and send no `resource` parameter (mcp-remote: --disable-resource-parameter)",
        inputs.client
    );
    if inputs.public_urls.is_empty() {
        findings.advice.push(format!(
            "GATEWAY_PUBLIC_URLS: is empty, so the identifier URIs that clients send are unknown. Works without identifier URIs: {alternative}"
        ));
    }
    if !refused.is_empty() {
        findings.advice.push(format!(
            "{}. Works without identifier URIs: {alternative}. Not needed with a domain that is verified in the tenant, without a port",
            refused.join(". ")
        ));
    }
    if uris.len() > 1 {
        findings.passed.push(format!(
            "identifier URIs: clients that send a `resource` parameter send one of {}; Entra compares byte for byte, so the manifest contains each of them without a trailing slash",
            uris[1..].join(", ")
        ));
        findings.skipped.push(format!(
            "domain verification: the domains of {} must be verified in tenant {}, or Entra rejects these identifier URIs",
            uris[1..].join(", "),
            inputs.tenant
        ));
    }
    uris
}

fn version(inputs: &RegistrationInputs, uris: &[String], findings: &mut Findings) -> u8 {
    let has_https = uris.len() > 1;
    match (inputs.version_1_only, has_https) {
        (Some(true), false) => {
            findings.passed.push(
                "access tokens: version 1, because SimpleChat's own check under /external/public_documents accepts no other version".to_owned(),
            );
            1
        }
        (Some(true), true) => {
            findings.advice.push(format!(
                "access tokens: identifier URIs with https:// require version 2, but SimpleChat's own check under /external/public_documents accepts version 1 only (audience api://{}, issuer sts.windows.net) and answers others with 401. Choose one: version 2 without those routes, or version 1 without the https:// URIs",
                inputs.client
            ));
            2
        }
        (None, _) => {
            findings.skipped.push(
                "SimpleChat's own check under /external/public_documents, which accepts version 1 tokens only: unknown whether this SimpleChat has it".to_owned(),
            );
            2
        }
        (Some(false), _) => 2,
    }
}

/// Scopes of `GATEWAY_LOGIN_SCOPES` that Entra allows an app to expose.
fn exposed_scopes(inputs: &RegistrationInputs, findings: &mut Findings) -> Vec<String> {
    let mut exposed: Vec<String> = Vec::new();
    for scope in &inputs.login_scopes {
        let is_valid_name = scope.len() <= 120
            && !scope.starts_with('.')
            && scope.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.:".contains(&b));
        if !is_valid_name {
            findings.advice.push(format!(
                "GATEWAY_LOGIN_SCOPES: {scope:?} is omitted below: Entra accepts up to 120 letters, digits and the characters _ - . :"
            ));
        } else if OTHER_ROLES.contains(&scope.as_str()) {
            findings.advice.push(format!(
                "GATEWAY_LOGIN_SCOPES: {scope} is omitted below: SimpleChat has an app role of that name, and Entra accepts no scope with the same name; choose another name"
            ));
        } else if !exposed.contains(scope) {
            exposed.push(scope.clone());
        }
    }
    exposed
}

fn pre_authorized(
    inputs: &RegistrationInputs,
    scopes: &[String],
    findings: &mut Findings,
) -> Vec<Uuid> {
    let mut clients = inputs.allowed_clients.clone();
    clients.retain(|client| *client != inputs.client);
    clients.sort_unstable();
    clients.dedup();
    if scopes.is_empty() {
        return Vec::new();
    }
    let also = if inputs.allowed_clients.is_empty() { "" } else { " and GATEWAY_ALLOWED_CLIENTS" };
    for (name, id) in SUGGESTED_CLIENTS.iter().filter(|(_, id)| !clients.contains(id)) {
        findings.advice.push(format!(
            "to sign in with {name} without a consent prompt (AADSTS65001), add its client id {id} to api.preAuthorizedApplications{also}"
        ));
    }
    clients
}

/// Reports advertised scopes that Entra cannot find, because their prefix is not an identifier URI or their
/// name is not exposed.
fn check_advertised_scopes(
    inputs: &RegistrationInputs,
    uris: &[String],
    scopes: &[String],
    findings: &mut Findings,
) {
    let mut all_found = true;
    for scope in &inputs.scopes {
        if OF_OPENID.contains(&scope.as_str()) {
            continue;
        }
        let advice = match scope.rsplit_once('/') {
            None => {
                "has no prefix: Entra searches it in Microsoft Graph (AADSTS650053); write it as api://$CLIENT_ID/…"
            }
            Some((prefix, _))
                if !uris.iter().any(|uri| uri == prefix) && prefix != inputs.client.to_string() =>
            {
                "does not begin with an identifier URI of this app: Entra cannot find the resource (AADSTS500011)"
            }
            Some((_, name)) if name != ".default" && !scopes.iter().any(|known| known == name) => {
                "names a scope that is not in GATEWAY_LOGIN_SCOPES: it does not allow sign-in, and must be exposed separately"
            }
            Some(_) => continue,
        };
        all_found = false;
        findings.advice.push(format!("GATEWAY_SCOPES: {scope} {advice}"));
    }
    if all_found {
        findings
            .passed
            .push("GATEWAY_SCOPES: all begin with an identifier URI of this app".to_owned());
    }
}

fn check_audiences(
    inputs: &RegistrationInputs,
    version: u8,
    uris: &[String],
    findings: &mut Findings,
) {
    let client = inputs.client.to_string();
    let missing: Vec<&str> = uris
        .iter()
        .chain([&client])
        .filter(|audience| !inputs.audiences.contains(audience))
        .map(String::as_str)
        .collect();
    if missing.is_empty() {
        return;
    }
    let until = if version == 1 { "" } else { "until Entra issues version 2 tokens, " };
    findings.advice.push(format!(
        "GATEWAY_AUDIENCES: {until}the audience of a version 1 token is the identifier URI that the client requested; add {}",
        missing.join(", ")
    ));
}
