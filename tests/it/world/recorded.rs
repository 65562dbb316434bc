//! Gateways over one database and one Redis, with an upstream that says yes to everything: enough to sign
//! in, and to look at what was written down of it.

use std::process::Output;

use axum::{Router, http::StatusCode, routing};
use serde_json::Value;
use tokio::net::TcpListener;

use super::{
    Kind, Store,
    database::{Database, DatabaseKind},
    gateway::{Gateway, run},
    process::until,
    settings,
    tools::told,
};
use crate::entra::Entra;

/// What gateways rest on.
pub(crate) struct Recorded {
    pub(crate) database: Database,
    pub(crate) store: Store,
    pub(crate) entra: Entra,
    upstream: String,
}

impl Recorded {
    pub(crate) async fn start(kind: DatabaseKind) -> Self {
        Self::over(Database::start(kind).await).await
    }

    pub(crate) async fn over(database: Database) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let upstream = format!("http://{}", listener.local_addr().expect("an address"));
        // While external access is off its answers there are what clients get.
        let yes = Router::new()
            .route("/.well-known/{*rest}", routing::any(async || StatusCode::NOT_FOUND))
            .fallback(async || "yes");
        tokio::spawn(async move { axum::serve(listener, yes).await });
        let (store, entra) = (Store::start(Kind::Redis).await, Entra::start().await);
        Self { database, store, entra, upstream }
    }

    /// Settings of a gateway here, and more; the last of a name counts.
    pub(crate) fn settings(&self, more: &[(&str, &str)]) -> Vec<(String, String)> {
        let url = self.database.url();
        let here = [("DATABASE_URL", url.as_str()), ("GATEWAY_UPSTREAM_URL", &self.upstream)];
        let all = here.into_iter().chain(more.iter().copied());
        let all: Vec<_> = all.map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
        let mut settings = settings(&self.entra, None, &self.store, &all);
        if more.contains(&MANAGED) {
            settings.retain(|(name, _)| name != "GATEWAY_EXPOSURE_ACCEPTED_BY");
        }
        settings
    }

    /// A gateway that is ready and has keys.
    pub(crate) async fn gateway(&self, more: &[(&str, &str)]) -> Gateway {
        let gateway = Gateway::start(&self.settings(more)).await;
        gateway.wait_until_it_has_keys().await;
        until("it is ready", async || gateway.is_ready().await).await;
        gateway
    }

    /// Runs a command: words, with one space between.
    pub(crate) async fn try_command(&self, line: &str, more: &[(&str, &str)]) -> Output {
        let arguments: Vec<_> = line.split(' ').collect();
        run(&self.settings(more), &arguments).await
    }

    /// What a command under `managed` prints when it ends well.
    pub(crate) async fn command(&self, line: &str) -> String {
        let output = self.try_command(line, &[MANAGED]).await;
        assert!(output.status.success(), "{line}: {}: {}", output.status, told(&output));
        String::from_utf8(output.stdout).expect("text")
    }

    /// What a command prints, a JSON document a line.
    pub(crate) async fn documents(&self, line: &str) -> Vec<Value> {
        let printed = self.command(line).await;
        let lines = printed.lines();
        lines.map(|line| serde_json::from_str(line).expect(line)).collect()
    }
}

/// Administrators decide.
pub(crate) const MANAGED: (&str, &str) = ("GATEWAY_EXTERNAL_ACCESS", "managed");
/// How an administrator lets machines in.
pub(crate) const ENABLE: &str = "access enable --accepted-by Ada --i-understand-ids-become-public";
