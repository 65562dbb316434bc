//! Users signed in to SimpleChat itself, and a gateway that they administer.

use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Kind, World, client, gateway::Gateway, json, process::until, session_in};

/// Settings for `managed` external access, with an `SQLite` database in `folder`.
pub(crate) fn managed_in(folder: &TempDir) -> Vec<(String, String)> {
    let database = format!("sqlite:{}/gateway.db", folder.path().display());
    [("GATEWAY_EXTERNAL_ACCESS", "managed".to_owned()), ("DATABASE_URL", database)]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
}

/// World under `managed` external access with more settings, and the folder of its database.
pub(crate) async fn managed(kind: Kind, more: &[(&str, &str)]) -> (World, TempDir) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let settings = managed_in(&folder);
    let settings = settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let settings: Vec<_> = settings.chain(more.iter().copied()).collect();
    (World::with(kind, &settings).await, folder)
}

/// User signed in to SimpleChat in a browser: the session cookie.
pub(crate) struct Person {
    pub(crate) cookie: String,
}

impl Person {
    /// Signs in interactively, with these app roles (separated by commas).
    pub(crate) async fn with_roles(gateway: &Gateway, roles: &str) -> Self {
        let path = format!(
            "/getAToken?name=Grace+Hopper&preferred_username=grace%40contoso.example&oid=99999999-0000-0000-0000-000000000001&roles={roles}"
        );
        let answer = client().get(gateway.url(&path)).send().await.expect("an answer");
        Self { cookie: session_in(&answer) }
    }

    pub(crate) async fn admin(gateway: &Gateway) -> Self {
        Self::with_roles(gateway, "User,Admin").await
    }

    /// Signs in with arbitrary claims.
    pub(crate) async fn with_claims(gateway: &Gateway, claims: Value) -> Self {
        let request = client().post(gateway.url("/test/user"));
        let request = request.header("content-type", "application/json").body(claims.to_string());
        Self { cookie: session_in(&request.send().await.expect("an answer")) }
    }

    /// Request with this user's cookie.
    pub(crate) fn ask(&self, method: Method, url: String) -> RequestBuilder {
        client().request(method, url).header("cookie", format!("session={}", self.cookie))
    }

    pub(crate) async fn get(&self, gateway: &Gateway, path: &str) -> Response {
        self.ask(Method::GET, gateway.url(path)).send().await.expect("an answer")
    }

    pub(crate) async fn get_json(&self, gateway: &Gateway, path: &str) -> Value {
        let answer = self.get(gateway, path).await;
        assert_eq!(answer.status(), 200, "{path}");
        json(answer).await
    }

    pub(crate) async fn post(&self, gateway: &Gateway, path: &str, body: &Value) -> Response {
        let request = self.ask(Method::POST, gateway.url(path));
        let request = request.header("content-type", "application/json").body(body.to_string());
        request.send().await.expect("an answer")
    }

    pub(crate) async fn delete(&self, gateway: &Gateway, path: &str) -> Response {
        self.ask(Method::DELETE, gateway.url(path)).send().await.expect("an answer")
    }

    /// Enables external access.
    pub(crate) async fn enable(&self, gateway: &Gateway) {
        let decision = json!({"enabled": true, "exposure_accepted": true});
        let answer = self.post(gateway, "/gateway/api/access", &decision).await;
        assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap_or_default());
    }

    /// Reasons of recorded refusals of administrative access, newest first. Waits until there are
    /// `count`.
    pub(crate) async fn denials(&self, gateway: &Gateway, count: usize) -> Vec<Value> {
        let found = std::cell::RefCell::new(Vec::new());
        until("denials are recorded", async || {
            let path = "/gateway/api/activity?kind=admin_denied";
            let page = self.get_json(gateway, path).await;
            found.replace(page["records"].as_array().expect("a list").clone());
            found.borrow().len() >= count
        })
        .await;
        found.into_inner()
    }
}

/// Status of the metadata document that clients read first.
pub(crate) async fn metadata(gateway: &Gateway) -> u16 {
    let url = gateway.url("/.well-known/oauth-protected-resource/external/login");
    client().get(url).send().await.expect("an answer").status().as_u16()
}
