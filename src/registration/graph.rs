//! Commands that configure the app registration, in the order that Entra requires.
//!
//! Microsoft Graph replaces complete lists, and rejects the removal of entries that are in use: each command
//! adds to the existing entries.

use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    entries::{role_entry, scope_entry},
    inputs::RegistrationInputs,
};
use crate::{authz::policy::EXTERNAL_API, config::Cloud};

/// Command for a shell.
pub(crate) struct Command {
    /// Purpose, and the reason for its position.
    pub(crate) purpose: &'static str,
    pub(crate) line: String,
}

/// `uris`, `scopes` and `clients`: entries that Entra accepts.
pub(super) fn commands(
    inputs: &RegistrationInputs,
    version: u8,
    uris: &[String],
    scopes: &[String],
    clients: &[Uuid],
) -> Vec<Command> {
    let client = inputs.client;
    let (cloud, graph) = match inputs.cloud {
        Cloud::Public => ("az cloud set --name AzureCloud", "https://graph.microsoft.com"),
        Cloud::UsGovernment => {
            ("az cloud set --name AzureUSGovernment", "https://graph.microsoft.us")
        }
        Cloud::China => {
            ("az cloud set --name AzureChinaCloud", "https://microsoftgraph.chinacloudapi.cn")
        }
        Cloud::Custom => ("GRAPH=https://…  # Microsoft Graph of your cloud", "$GRAPH"),
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
            purpose: "select cloud and tenant",
            line: format!("{cloud}\naz login --tenant {} --allow-no-subscriptions", inputs.tenant),
        },
        Command {
            purpose: "back up the current registration",
            line: format!("az ad app show --id {client} > before.json"),
        },
        Command {
            purpose: "set the version of access tokens first: Entra accepts https:// identifier URIs with version 2 only, and SimpleChat's own check accepts version 1 only",
            line: patch(&format!("'{{\"api\":{{\"requestedAccessTokenVersion\":{version}}}}}'")),
        },
    ];
    if uris.len() > 1 {
        commands.push(Command {
            purpose: "list the verified domains: they must include the domains of the URIs in the next command, or parent domains",
            line: format!("az rest --method GET --url \"{graph}/v1.0/domains\" --query \"value[?isVerified].id\""),
        });
    }
    let uris = json!(uris);
    commands.push(Command {
        purpose: "add identifier URIs",
        line: format!("az ad app update --id {client} --identifier-uris $(az ad app show --id {client} | jq -r '.identifierUris + {uris} | unique | .[]')"),
    });
    let role = role_entry();
    let entries: Vec<Value> = scopes.iter().map(|scope| scope_entry(scope, client)).collect();
    let entries = json!(entries);
    commands.push(Command {
        purpose: "add app role and scopes together: a scope with the name of a role must have the same id and description",
        line: edit(&format!(
            "(.appRoles | map(del(.origin))) as $had | ($had + (if any($had[]; .value == \"{EXTERNAL_API}\") then [] else [{role}] end)) as $roles | ($roles[] | select(.value == \"{EXTERNAL_API}\")) as $role | .api.oauth2PermissionScopes as $old | {{appRoles: $roles, api: {{oauth2PermissionScopes: ($old + ({entries} | map(select(.value as $v | any($old[]; .value == $v) | not)) | map(if .value == $role.value then . + {{id: $role.id, isEnabled: $role.isEnabled, adminConsentDisplayName: $role.displayName, adminConsentDescription: $role.description}} else . end)))}}}}"
        ), "roles.json"),
    });
    if !clients.is_empty() {
        let (names, ids) = (json!(scopes), json!(clients));
        commands.push(Command {
            purpose: "pre-authorize clients that need no consent: the scopes must exist first",
            line: edit(&format!(
                "(.api.oauth2PermissionScopes | map(select(.value as $v | any({names}[]; . == $v)) | .id)) as $ids | {{api: {{preAuthorizedApplications: (.api.preAuthorizedApplications + ({ids} | map({{appId: ., delegatedPermissionIds: $ids}})) | group_by(.appId) | map({{appId: .[0].appId, delegatedPermissionIds: (map(.delegatedPermissionIds) | add | unique)}}))}}}}"
            ), "clients.json"),
        });
    }
    commands
}
