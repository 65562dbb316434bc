//! `serve`: bind, serve, drain.

use std::{io::Write as _, net::SocketAddr, time::Duration};

use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::{sleep, timeout},
};

use crate::{
    config::{Config, ExternalAccess},
    failure::Failure,
    gateway::Gateway,
    http::{
        Front, Ops,
        listener::{self, Patience},
    },
    telemetry,
};

/// How long the start may wait for the set of ended sessions. Until it has been read, requests that
/// bear a minted session are answered 503.
const START_PATIENCE: Duration = Duration::from_millis(500);

/// Runs the gateway until SIGTERM or SIGINT.
///
/// # Errors
/// When an address cannot be bound or the session store can never be used as configured.
pub fn serve(config: Config) -> Result<(), Failure> {
    telemetry::start(&config.log_filter);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(config.workers)
        .enable_all()
        .build()
        .map_err(|error| Failure::Internal(format!("cannot start threads: {error}")))?;
    let ended = runtime.block_on(run(config));
    runtime.shutdown_timeout(Duration::from_secs(1));
    ended
}

async fn run(config: Config) -> Result<(), Failure> {
    tell(&config);
    let gateway =
        Gateway::build(&config).map_err(|error| Failure::Unavailable(telemetry::chain(&error)))?;
    let callers = bind(config.listen, "GATEWAY_LISTEN").await?;
    let operators = match config.ops_listen {
        Some(address) => Some(bind(address, "GATEWAY_OPS_LISTEN").await?),
        None => None,
    };
    let mut terminate = signal(SignalKind::terminate()).map_err(of_signal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(of_signal)?;

    if !matches!(timeout(START_PATIENCE, gateway.sessions.read_ended()).await, Ok(Ok(()))) {
        tracing::warn!(
            "the session store does not answer: minted sessions are refused until it does"
        );
    }
    tokio::spawn(gateway.sessions.clone().keep_in_step());
    tokio::spawn(gateway.sessions.clone().keep_swept());
    tokio::spawn(gateway.entra.clone().keep_fresh());
    tokio::spawn(gateway.upstream.clone().wait_for_first_answer());
    tokio::spawn(gateway.upstream.clone().keep_tidy());

    let address = callers.local_addr().map_err(of_signal)?;
    // Relied on by tests and scripts.
    let _ = writeln!(std::io::stdout(), "listening on http://{address}");
    tracing::info!(address = %address, version = env!("CARGO_PKG_VERSION"), "listening");

    let (stop, stopping) = watch::channel(false);
    let patience = Patience {
        head: config.timeout_head,
        idle: config.timeout_idle,
        drain: config.drain_timeout,
    };
    let draining = gateway.draining.clone();
    if let Some(operators) = operators {
        let address = operators.local_addr().map_err(of_signal)?;
        tracing::info!(address = %address, "operators' listener");
        let ops = Ops::new(gateway.clone());
        let answer = move |request, peer| ops.clone().answer(request, peer);
        let patience = Patience { drain: Duration::ZERO, ..patience };
        tokio::spawn(listener::serve(operators, patience, stopping.clone(), answer));
    }
    let front = Front::new(gateway);
    let answer = move |request, peer| front.clone().answer(request, peer);
    let serving = tokio::spawn(listener::serve(callers, patience, stopping, answer));

    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("draining");
    draining.begin();
    // The platform needs a moment to see that we are not ready; a second signal cuts it short.
    tokio::select! {
        () = sleep(config.drain_delay) => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    let _ = stop.send(true);
    serving.await.map_err(|error| Failure::Internal(error.to_string()))?;
    tracing::info!("stopped");
    Ok(())
}

fn tell(config: &Config) {
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    match &config.external_access {
        ExternalAccess::Off => tracing::info!("external access is off"),
        ExternalAccess::On { accepted_by } => {
            tracing::info!(accepted_by, "external access is on: tenant and app ids are public");
            if config.surroundings.public_urls.is_empty() {
                tracing::warn!(
                    "GATEWAY_PUBLIC_URLS is empty: public URLs are derived from each request's Host"
                );
            }
        }
    }
}

async fn bind(address: SocketAddr, setting: &str) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| {
        Failure::Unavailable(format!("{setting}: cannot listen on {address}: {error}"))
    })
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn of_signal(error: std::io::Error) -> Failure {
    Failure::Internal(error.to_string())
}
