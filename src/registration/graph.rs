//! The commands that bring an app registration there, in the order that Entra needs.
//!
//! Microsoft Graph replaces lists as a whole, and refuses to drop what is in use: so each command
//! adds to what there is.

use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    entries::{role_entry, scope_entry},
    inputs::RegistrationInputs,
};
use crate::{authz::policy::EXTERNAL_API, config::Cloud};

/// One command, and why it comes where it does.
pub(crate) struct Command {
    pub(crate) why: &'static str,
    pub(crate) line: String,
}

/// `uris`, `scopes` and `clients`: those that Entra takes.
pub(super) fn commands(
    wanted: &RegistrationInputs,
    version: u8,
    uris: &[String],
    scopes: &[String],
    clients: &[Uuid],
) -> Vec<Command> {
    let client = wanted.client;
    let (cloud, graph) = match wanted.cloud {
        Cloud::Public => ("az cloud set --name AzureCloud", "https://graph.microsoft.com"),
        Cloud::UsGovernment => {
            ("az cloud set --name AzureUSGovernment", "https://graph.microsoft.us")
        }
        Cloud::China => {
            ("az cloud set --name AzureChinaCloud", "https://microsoftgraph.chinacloudapi.cn")
        }
        Cloud::Custom => ("GRAPH=https://…  # your cloud's Microsoft Graph", "$GRAPH"),
    };
    let patch = |file: &str| {
        format!(
            "az rest --method PATCH --url \"{graph}/v1.0/applications(appId='{client}')\" --headers Content-Type=application/json --body {file}"
        )
    };
    let edit = |program: &str, file: &str| {
        format!(
            "az ad app show --id {client} | jq '{program}' > {file} && {}",
            patch(&format!("@{file}"))
        )
    };
    let mut commands = vec![
        Command {
            why: "the cloud and the tenant",
            line: format!("{cloud}\naz login --tenant {} --allow-no-subscriptions", wanted.tenant),
        },
        Command {
            why: "keep what is there",
            line: format!("az ad app show --id {client} > before.json"),
        },
        Command {
            why: "the version of access tokens first: Entra takes https:// identifier URIs by version 2 alone, and SimpleChat's check reads version 1 alone",
            line: patch(&format!("'{{\"api\":{{\"requestedAccessTokenVersion\":{version}}}}}'")),
        },
    ];
    if uris.len() > 1 {
        commands.push(Command {
            why: "the domains of the next command's URIs, or ones above them, must be among these",
            line: format!("az rest --method GET --url \"{graph}/v1.0/domains\" --query \"value[?isVerified].id\""),
        });
    }
    let uris = json!(uris);
    commands.push(Command {
        why: "identifier URIs",
        line: format!("az ad app update --id {client} --identifier-uris $(az ad app show --id {client} | jq -r '.identifierUris + {uris} | unique | .[]')"),
    });
    let role = role_entry();
    let entries: Vec<Value> = scopes.iter().map(|scope| scope_entry(scope, client)).collect();
    let entries = json!(entries);
    commands.push(Command {
        why: "the app role and the scopes, together: a scope called like a role must have its id and its words",
        line: edit(&format!(
            "(.appRoles | map(del(.origin))) as $had | ($had + (if any($had[]; .value == \"{EXTERNAL_API}\") then [] else [{role}] end)) as $roles | ($roles[] | select(.value == \"{EXTERNAL_API}\")) as $role | .api.oauth2PermissionScopes as $old | {{appRoles: $roles, api: {{oauth2PermissionScopes: ($old + ({entries} | map(select(.value as $v | any($old[]; .value == $v) | not)) | map(if .value == $role.value then . + {{id: $role.id, isEnabled: $role.isEnabled, adminConsentDisplayName: $role.displayName, adminConsentDescription: $role.description}} else . end)))}}}}"
        ), "roles.json"),
    });
    if !clients.is_empty() {
        let (names, ids) = (json!(scopes), json!(clients));
        commands.push(Command {
            why: "clients that need no consent: only now that the scopes are there",
            line: edit(&format!(
                "(.api.oauth2PermissionScopes | map(select(.value as $v | any({names}[]; . == $v)) | .id)) as $ids | {{api: {{preAuthorizedApplications: (.api.preAuthorizedApplications + ({ids} | map({{appId: ., delegatedPermissionIds: $ids}})) | group_by(.appId) | map({{appId: .[0].appId, delegatedPermissionIds: (map(.delegatedPermissionIds) | add | unique)}}))}}}}"
            ), "clients.json"),
        });
    }
    commands
}
