//! Command `serve`: listeners, workers, signals, reload, drain.

mod app;
mod ops;
mod reload;
mod routes;
mod service;
mod startup;
mod workers;

use std::{net::SocketAddr, rc::Rc, time::Duration};

use tokio::{
    net::TcpListener,
    runtime::{LocalOptions, LocalRuntime},
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    task::{spawn_blocking, spawn_local},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    app::App,
    ops::Ops,
    reload::reload,
    startup::{log_warnings, prepare, raise_descriptor_limit, run_in_background},
    workers::{Worker, Workers},
};
use crate::{
    activity::Activity,
    build_info, canary,
    cli::exit::Failure,
    config::{Config, Problems},
    control::{external_access::ExternalAccess, startup_audit},
    gateway::Gateway,
    h1::{
        caller::Timeouts,
        connection_limit::{Capacity, ConnectionLimit},
        listener::{self, ServeOptions},
        memory::MemoryBudget,
    },
    telemetry::{self, Telemetry},
    timeouts::{self, StopSignals},
};

/// Maximum time for reading the settings at a reload.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs the gateway until SIGTERM or SIGINT. This thread is a worker and runs the background tasks; the other threads
/// are workers only. `read` reads the settings at SIGHUP.
///
/// # Errors
/// When an address cannot be bound or the session store can never be used as configured.
pub fn serve(
    config: Config,
    read: impl Fn() -> Result<Config, Problems> + Clone + Send + 'static,
) -> Result<(), Failure> {
    let runtime = runtime()?;
    // Before anything else: without a handler, SIGTERM has no effect on the first process of a container.
    let signals = runtime.block_on(async { StopSignals::install() }).map_err(internal)?;
    let telemetry = Telemetry::start(&config)?;
    let ended = if build_info::is_consistent() {
        runtime.block_on(run(config, read, &telemetry, signals))
    } else {
        Err(Failure::Internal("the FIPS module is not in use".to_owned()))
    };
    runtime.shutdown_timeout(timeouts::BLOCKING_TIMEOUT);
    telemetry.end();
    ended
}

fn runtime() -> Result<LocalRuntime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .map_err(|error| Failure::Internal(format!("cannot start a thread: {error}")))
}

async fn run(
    config: Config,
    read: impl Fn() -> Result<Config, Problems> + Clone + Send + 'static,
    telemetry: &Telemetry,
    mut signals: StopSignals,
) -> Result<(), Failure> {
    log_warnings(&config);
    let descriptors = raise_descriptor_limit();
    let gateway =
        Gateway::build(&config).map_err(|error| Failure::Unavailable(telemetry::chain(&error)))?;
    let callers = bind(config.listen, config.workers, "GATEWAY_LISTEN")?;
    let operators = match config.ops_listen {
        Some(address) => bind(address, 1, "GATEWAY_OPS_LISTEN")?.pop(),
        None => None,
    };
    let stopping = CancellationToken::new();
    // Also on a failure below: no worker may go on without the others.
    let _stop_at_return = stopping.clone().drop_guard();
    tokio::select! {
        prepared = prepare(&gateway, &config) => prepared?,
        () = signals.next() => {
            tracing::info!("stopping before the first request");
            let Gateway { activity, external_access, .. } = gateway;
            let deregistered = timeout(timeouts::RECORDS_TIMEOUT, external_access.deregister());
            let _ = tokio::join!(deregistered, activity.end(timeouts::RECORDS_TIMEOUT));
            return Ok(());
        }
    }
    // Tasks that must end before the process does.
    let tasks = TaskTracker::new();
    run_in_background(&gateway, &tasks, stopping.clone());
    let draining = gateway.draining.clone();
    if let Some(operators) = operators {
        serve_operators(operators, &gateway, &config, telemetry, stopping.clone())?;
    }

    let upstream = gateway.upstream.clone();
    let (activity, external_access) = (gateway.activity.clone(), gateway.external_access.clone());
    if let Some(canary) = canary::Watch::of(&config) {
        tasks.spawn_local(canary.run(gateway.clone(), stopping.clone()));
    }
    let (apps, app) = watch::channel(App::new(gateway, telemetry.tracer()));
    let capacity = Capacity {
        descriptors,
        memory: config.memory_limit,
        threads: config.workers,
        has_tls: config.upstream.target.has_tls(),
    };
    let limit = ConnectionLimit::of(capacity);
    let worker = Worker {
        upstream,
        apps: app,
        limits: ServeOptions {
            timeouts: connection_timeouts(&config),
            limit,
            memory: capacity.budget(),
        },
        drain: config.drain_timeout,
        stopping: stopping.clone(),
    };
    let serving = Workers::start(callers, worker, &config)?;

    let reloader = Reloader { apps, telemetry, activity: activity.clone(), external_access };
    let delay = reloader.until_stopped(config, read, &mut signals).await?;
    tracing::info!("draining");
    draining.begin();
    // The platform needs time to notice that readiness fails; a second signal ends the wait.
    let _ = timeout(delay, signals.next()).await;
    stopping.cancel();
    let ended = serving.end(&tasks, &activity).await;
    tracing::info!("stopped");
    ended
}

/// Parts that a reload replaces.
struct Reloader<'a> {
    apps: watch::Sender<App>,
    telemetry: &'a Telemetry,
    activity: Activity,
    external_access: ExternalAccess,
}

impl Reloader<'_> {
    /// Reloads the settings at each SIGHUP until a signal stops the gateway; returns `GATEWAY_DRAIN_DELAY`.
    async fn until_stopped(
        self,
        mut config: Config,
        read: impl Fn() -> Result<Config, Problems> + Clone + Send + 'static,
        signals: &mut StopSignals,
    ) -> Result<Duration, Failure> {
        let mut hang_up = signal(SignalKind::hangup()).map_err(internal)?;
        let (sender, mut reloaded) = mpsc::channel(1);
        let stopped = signals.next();
        tokio::pin!(stopped);
        loop {
            tokio::select! {
                () = &mut stopped => break,
                _ = hang_up.recv() => drop(spawn_local(read_settings(read.clone(), sender.clone()))),
                Some(read) = reloaded.recv() => {
                    config = reload(config, read, &self.apps, self.telemetry);
                    tokio::select! {
                        () = &mut stopped => break,
                        () = startup_audit::record(&self.activity, &config, self.external_access.instance()) => {}
                    }
                }
            }
        }
        Ok(config.drain_delay)
    }
}

fn serve_operators(
    operators: std::net::TcpListener,
    gateway: &Gateway,
    config: &Config,
    telemetry: &Telemetry,
    stopping: CancellationToken,
) -> Result<(), Failure> {
    let address = operators.local_addr().map_err(internal)?;
    tracing::info!(address = %address, "operators' listener");
    let ops = Rc::new(Ops::new(gateway.clone(), telemetry.scrape()));
    let operators = TcpListener::from_std(operators).map_err(internal)?;
    // A budget of its own: clients must not be able to make health and metrics unavailable.
    let limits = ServeOptions {
        timeouts: connection_timeouts(config),
        limit: ConnectionLimit::SMALL,
        memory: MemoryBudget::default(),
    };
    spawn_local(listener::serve(operators, ops, limits, Duration::ZERO, stopping));
    Ok(())
}

/// Reads the settings on a blocking thread: a file may be on a volume that does not respond.
async fn read_settings(
    read: impl FnOnce() -> Result<Config, Problems> + Send + 'static,
    sender: mpsc::Sender<Result<Config, Problems>>,
) {
    let in_time = timeout(READ_TIMEOUT, spawn_blocking(read)).await;
    let read = match in_time {
        Ok(Ok(read)) => read,
        Ok(Err(_)) | Err(_) => Err(Problems::one("the settings could not be read in time")),
    };
    let _ = sender.send(read).await;
}

/// The OpenAPI document, as text.
pub(crate) fn openapi_text() -> String {
    crate::openapi::text(&routes::routes().1)
}

fn connection_timeouts(config: &Config) -> Timeouts {
    Timeouts { head: config.timeout_head, idle: config.timeout_idle, send: config.timeout_send }
}

fn bind(
    address: SocketAddr,
    threads: usize,
    setting: &str,
) -> Result<Vec<std::net::TcpListener>, Failure> {
    listener::bind(address, threads).map_err(|error| {
        Failure::Unavailable(format!("{setting}: cannot listen on {address}: {error}"))
    })
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn internal(error: std::io::Error) -> Failure {
    Failure::Internal(error.to_string())
}
