//! Gateways that share one database and one Redis, with an upstream that answers every request:
//! enough to log in and to check the records.

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
    tools::output_text,
};
use crate::entra::Entra;

/// Servers that the gateways use.
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
        // While external access is off, clients get upstream's answers at these paths.
        let router = Router::new()
            .route("/.well-known/{*rest}", routing::any(async || StatusCode::NOT_FOUND))
            .fallback(async || "yes");
        tokio::spawn(async move { axum::serve(listener, router).await });
        let (store, entra) = (Store::start(Kind::Redis).await, Entra::start().await);
        Self { database, store, entra, upstream }
    }

    /// Settings of a gateway here, followed by more; the last value of a name applies.
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

    /// Starts a gateway; waits until the gateway is ready and has keys.
    pub(crate) async fn gateway(&self, more: &[(&str, &str)]) -> Gateway {
        let gateway = Gateway::start(&self.settings(more)).await;
        gateway.wait_until_it_has_keys().await;
        until("the gateway is ready", async || gateway.is_ready().await).await;
        gateway
    }

    /// Runs a command; its words are separated by single spaces.
    pub(crate) async fn try_command(&self, line: &str, more: &[(&str, &str)]) -> Output {
        let arguments: Vec<_> = line.split(' ').collect();
        run(&self.settings(more), &arguments).await
    }

    /// Output of a command under `managed` that succeeds.
    pub(crate) async fn command(&self, line: &str) -> String {
        let output = self.try_command(line, &[MANAGED]).await;
        assert!(output.status.success(), "{line}: {}: {}", output.status, output_text(&output));
        String::from_utf8(output.stdout).expect("text")
    }

    /// Output of a command as JSON documents, one per line.
    pub(crate) async fn documents(&self, line: &str) -> Vec<Value> {
        let printed = self.command(line).await;
        let lines = printed.lines();
        lines.map(|line| serde_json::from_str(line).expect(line)).collect()
    }
}

/// Setting that lets administrators control external access.
pub(crate) const MANAGED: (&str, &str) = ("GATEWAY_EXTERNAL_ACCESS", "managed");
/// Command with which an administrator enables external access.
pub(crate) const ENABLE: &str = "access enable --accepted-by Ada --i-understand-ids-become-public";
