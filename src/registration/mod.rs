//! What the Entra app registration and App Service must hold, from the settings alone: nobody asks Microsoft
//! Graph.

mod easy_auth;
mod entries;
mod graph;
mod identifier_uri;
mod inputs;
mod own_check;
pub(crate) mod public_url_probe;

use serde_json::{Value, json};
use uuid::Uuid;

use self::{
    entries::{role_entry, scope_entry, scope_id},
    graph::commands,
    identifier_uri::{PATHS, refusal},
};
pub(crate) use self::{
    graph::Command, inputs::RegistrationInputs, own_check::takes_version_1_alone,
};

/// SimpleChat's other app roles. Roles and scopes of one app share their names.
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
/// Visual Studio Code's client id.
const VS_CODE: Uuid = Uuid::from_u128(0xaebc_6443_996d_45c2_90f0_388f_f96f_aa56);
/// Scopes of OpenID Connect, which no app exposes.
const OF_OPENID: [&str; 4] = ["openid", "profile", "email", "offline_access"];

/// What the registration must hold, how it gets there, and what there is to say.
pub(crate) struct Registration {
    /// Of the access tokens that it should give out.
    pub(crate) version: u8,
    /// The part of its manifest that the gateway needs, beside what is there.
    pub(crate) manifest: Value,
    /// The same by commands, in the order that Entra needs.
    pub(crate) commands: Vec<Command>,
    pub(crate) fine: Vec<String>,
    pub(crate) advice: Vec<String>,
    pub(crate) untried: Vec<String>,
}

impl Registration {
    pub(crate) fn new(wanted: &RegistrationInputs) -> Self {
        let mut findings = Findings::default();
        let uris = identifier_uris(wanted, &mut findings);
        let version = version(wanted, &uris, &mut findings);
        let scopes = exposed_scopes(wanted, &mut findings);
        let clients = pre_authorized(wanted, &scopes, &mut findings);
        check_advertised_scopes(wanted, &uris, &scopes, &mut findings);
        check_audiences(wanted, version, &uris, &mut findings);
        findings.untried.push(
            "the app registration itself: the gateway has no access to Microsoft Graph; compare with the manifest below".to_owned(),
        );
        let manifest = json!({
            "identifierUris": uris,
            "api": {
                "requestedAccessTokenVersion": version,
                "oauth2PermissionScopes": scopes.iter().map(|scope| scope_entry(scope, wanted.client)).collect::<Vec<_>>(),
                "preAuthorizedApplications": clients.iter().map(|client| json!({
                    "appId": client,
                    "delegatedPermissionIds": scopes.iter().map(|scope| scope_id(scope, wanted.client)).collect::<Vec<_>>(),
                })).collect::<Vec<_>>(),
            },
            "appRoles": [role_entry()],
        });
        let commands = commands(wanted, version, &uris, &scopes, &clients);
        let Findings { fine, advice, untried } = findings;
        Self { version, manifest, commands, fine, advice, untried }
    }

    /// The commands as text, each below why it comes where it does.
    pub(crate) fn commands_as_text(&self) -> String {
        let lines = self.commands.iter().map(|Command { why, line }| format!("# {why}\n{line}"));
        lines.collect::<Vec<_>>().join("\n")
    }

    /// The part of App Service's sign-in settings (authsettingsV2) that the gateway needs.
    pub(crate) fn easy_auth(&self, wanted: &RegistrationInputs) -> Value {
        easy_auth::settings(wanted, &wanted.issuer(self.version))
    }
}

/// What there is to say.
#[derive(Default)]
struct Findings {
    fine: Vec<String>,
    advice: Vec<String>,
    untried: Vec<String>,
}

fn identifier_uris(wanted: &RegistrationInputs, findings: &mut Findings) -> Vec<String> {
    let mut uris = vec![format!("api://{}", wanted.client)];
    let mut refused = Vec::new();
    for origin in &wanted.public_urls {
        if let Some(reason) = refusal(origin) {
            refused.push(format!("Entra takes no identifier URI {reason} ({origin})"));
            continue;
        }
        for path in PATHS {
            let uri = format!("{origin}{path}");
            if !uris.contains(&uri) {
                uris.push(uri);
            }
        }
    }
    let without = format!(
        "clients ask for api://{}/.default or a scope below it, spelled in full, and send no `resource` (or can be told so, like mcp-remote with --disable-resource-parameter)",
        wanted.client
    );
    if wanted.public_urls.is_empty() {
        findings.advice.push(format!(
            "GATEWAY_PUBLIC_URLS: without it nobody can say which identifier URIs clients will send. What works without them: {without}"
        ));
    }
    if !refused.is_empty() {
        findings.advice.push(format!(
            "{}. Without identifier URIs this works: {without}. A domain of your own, verified in the tenant and without a port, needs none of that",
            refused.join(". ")
        ));
    }
    if uris.len() > 1 {
        findings.fine.push(format!(
            "identifier URIs: clients that send a `resource` send one of {}; Entra compares byte for byte, so each stands in the manifest, without a slash at its end",
            uris[1..].join(", ")
        ));
        findings.untried.push(format!(
            "whether the domains of {} are verified in tenant {}: Entra refuses their identifier URIs otherwise",
            uris[1..].join(", "),
            wanted.tenant
        ));
    }
    uris
}

fn version(wanted: &RegistrationInputs, uris: &[String], findings: &mut Findings) -> u8 {
    let has_https = uris.len() > 1;
    match (wanted.version_1_only, has_https) {
        (Some(true), false) => {
            findings.fine.push(
                "access tokens: version 1, since SimpleChat's own check under /external/public_documents takes no other".to_owned(),
            );
            1
        }
        (Some(true), true) => {
            findings.advice.push(format!(
                "access tokens: identifier URIs with https:// need version 2, but SimpleChat's own check under /external/public_documents takes version 1 alone (audience api://{}, issuer of sts.windows.net): its callers would get 401 from SimpleChat. Choose: version 2 and do without those routes, or version 1 and leave the https:// URIs out",
                wanted.client
            ));
            2
        }
        (None, _) => {
            findings.untried.push(
                "whether SimpleChat has its own check under /external/public_documents, which takes version 1 tokens alone".to_owned(),
            );
            2
        }
        (Some(false), _) => 2,
    }
}

/// The scopes of `GATEWAY_LOGIN_SCOPES` that Entra lets an app expose.
fn exposed_scopes(wanted: &RegistrationInputs, findings: &mut Findings) -> Vec<String> {
    let mut exposed: Vec<String> = Vec::new();
    for scope in &wanted.login_scopes {
        let is_taken_as_name = scope.len() <= 120
            && !scope.starts_with('.')
            && scope.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.:".contains(&b));
        if !is_taken_as_name {
            findings.advice.push(format!(
                "GATEWAY_LOGIN_SCOPES: {scope:?} is left out below: letters, digits, and _ - . : are sure to be taken by Entra, up to 120 of them"
            ));
        } else if OTHER_ROLES.contains(&scope.as_str()) {
            findings.advice.push(format!(
                "GATEWAY_LOGIN_SCOPES: {scope} is left out below: SimpleChat has an app role of that name, and Entra takes no scope beside it; choose another name"
            ));
        } else if !exposed.contains(scope) {
            exposed.push(scope.clone());
        }
    }
    exposed
}

fn pre_authorized(
    wanted: &RegistrationInputs,
    scopes: &[String],
    findings: &mut Findings,
) -> Vec<Uuid> {
    let mut clients = wanted.allowed_clients.clone();
    clients.retain(|client| *client != wanted.client);
    clients.sort_unstable();
    clients.dedup();
    if scopes.is_empty() {
        return Vec::new();
    }
    if !clients.contains(&VS_CODE) {
        let how =
            if wanted.allowed_clients.is_empty() { "" } else { "and to GATEWAY_ALLOWED_CLIENTS " };
        findings.advice.push(format!(
            "Visual Studio Code signs in without a question once its client id {VS_CODE} is added {how}to api.preAuthorizedApplications"
        ));
    }
    clients
}

/// Scopes that Entra could not find, because their prefix is no identifier URI or their name is not
/// exposed.
fn check_advertised_scopes(
    wanted: &RegistrationInputs,
    uris: &[String],
    scopes: &[String],
    findings: &mut Findings,
) {
    let mut is_fine = true;
    for scope in &wanted.scopes {
        if OF_OPENID.contains(&scope.as_str()) {
            continue;
        }
        let advice = match scope.rsplit_once('/') {
            None => {
                "has no prefix: Entra takes it for one of Microsoft Graph's (AADSTS650053); write it as api://$CLIENT_ID/…"
            }
            Some((prefix, _))
                if !uris.iter().any(|uri| uri == prefix) && prefix != wanted.client.to_string() =>
            {
                "begins with no identifier URI of this app: Entra will not find the resource (AADSTS500011)"
            }
            Some((_, name)) if name != ".default" && !scopes.iter().any(|known| known == name) => {
                "names a scope that is not in GATEWAY_LOGIN_SCOPES: it does not admit to login, and must be exposed by itself"
            }
            Some(_) => continue,
        };
        is_fine = false;
        findings.advice.push(format!("GATEWAY_SCOPES: {scope} {advice}"));
    }
    if is_fine {
        findings
            .fine
            .push("GATEWAY_SCOPES: all begin with an identifier URI of this app".to_owned());
    }
}

fn check_audiences(
    wanted: &RegistrationInputs,
    version: u8,
    uris: &[String],
    findings: &mut Findings,
) {
    let client = wanted.client.to_string();
    let missing: Vec<&str> = uris
        .iter()
        .chain([&client])
        .filter(|audience| !wanted.audiences.contains(audience))
        .map(String::as_str)
        .collect();
    if missing.is_empty() {
        return;
    }
    let until = if version == 1 { "" } else { "until the registration gives out version 2, " };
    findings.advice.push(format!(
        "GATEWAY_AUDIENCES: {until}the audience of a version 1 token is the identifier URI it was asked for; it lacks {}",
        missing.join(", ")
    ));
}
