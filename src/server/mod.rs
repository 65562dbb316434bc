//! `serve`: bind, serve, drain.

mod app;
mod ops;
mod reload;
mod routes;
mod service;

use std::{net::SocketAddr, rc::Rc, thread, time::Duration};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    net::TcpListener,
    runtime::{LocalOptions, LocalRuntime},
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    task::{JoinHandle, spawn_blocking, spawn_local},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{app::App, ops::Ops, reload::reload, service::WorkerService};
use crate::{
    activity::Activity,
    build_info, canary,
    cli::{exit::Failure, output::announce},
    config::{Config, ExternalAccessMode, Problems},
    control::{external_access::ExternalAccess, revocation, startup_audit},
    gateway::Gateway,
    h1::{
        caller::Timeouts,
        connection_limit::{Capacity, ConnectionLimit},
        listener::{self, ServeOptions},
        memory::Memory,
    },
    telemetry::{self, Telemetry},
    timeouts::{self, StopSignals},
    upstream::{ConnectionPool, Upstream},
};

/// How long the start may wait for the set of ended sessions. Until it has been read, requests that
/// bear a minted session are answered 503.
const START_TIMEOUT: Duration = Duration::from_millis(500);

/// How long the settings may take to be read again.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs the gateway until SIGTERM or SIGINT. This thread serves, and does what is done once for all;
/// the others serve alone. At SIGHUP `read` reads the settings again.
///
/// # Errors
/// When an address cannot be bound or the session store can never be used as configured.
pub fn serve(
    config: Config,
    read: impl Fn() -> Result<Config, Problems> + Clone + Send + 'static,
) -> Result<(), Failure> {
    let runtime = runtime()?;
    // First of all: before that SIGTERM has no effect on the first process of a container.
    let signals = runtime.block_on(async { StopSignals::install() }).map_err(internal)?;
    let telemetry = Telemetry::start(&config)?;
    let ended = if build_info::is_as_promised() {
        runtime.block_on(run(config, read, &telemetry, signals))
    } else {
        Err(Failure::Internal("the FIPS module is not in use".to_owned()))
    };
    runtime.shutdown_timeout(timeouts::BLOCKING);
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
    tokio::select! {
        prepared = prepare(&gateway, &config) => prepared?,
        () = signals.next() => {
            tracing::info!("stopping before the first request");
            let Gateway { activity, external_access, .. } = gateway;
            let deregistered = timeout(timeouts::RECORDS, external_access.deregister());
            let _ = tokio::join!(deregistered, activity.end(timeouts::RECORDS));
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
        limits: ServeOptions { timeouts: timeouts(&config), limit, memory: capacity.budget() },
        drain: config.drain_timeout,
        stopping: stopping.clone(),
    };
    let serving = Serving::start(callers, worker, &config)?;

    let renewing = Renewing { apps, telemetry, activity: activity.clone(), external_access };
    let delay = renewing.until_stopped(config, read, &mut signals).await?;
    tracing::info!("draining");
    draining.begin();
    // The platform needs a moment to see that we are not ready; a second signal cuts it short.
    let _ = timeout(delay, signals.next()).await;
    stopping.cancel();
    let ended = serving.end(&tasks, &activity).await;
    tracing::info!("stopped");
    ended
}

/// What counts anew after SIGHUP.
struct Renewing<'a> {
    apps: watch::Sender<App>,
    telemetry: &'a Telemetry,
    activity: Activity,
    external_access: ExternalAccess,
}

impl Renewing<'_> {
    /// Reloads the settings at each SIGHUP until a signal stops the gateway; returns `GATEWAY_DRAIN_DELAY`.
    async fn until_stopped(
        self,
        mut config: Config,
        read: impl Fn() -> Result<Config, Problems> + Clone + Send + 'static,
        signals: &mut StopSignals,
    ) -> Result<Duration, Failure> {
        let mut hang_up = signal(SignalKind::hangup()).map_err(internal)?;
        let (anew, mut renewed) = mpsc::channel(1);
        let stopped = signals.next();
        tokio::pin!(stopped);
        loop {
            tokio::select! {
                () = &mut stopped => break,
                _ = hang_up.recv() => drop(spawn_local(read_anew(read.clone(), anew.clone()))),
                Some(read) = renewed.recv() => {
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

/// The threads that serve, this one among them.
struct Serving {
    own: Option<JoinHandle<Result<(), Failure>>>,
    threads: Vec<thread::JoinHandle<Result<(), Failure>>>,
    /// Closed once no other thread serves any more.
    served: mpsc::Receiver<()>,
}

impl Serving {
    /// Starts a thread for each listener but one, which this thread serves, and announces the address.
    fn start(
        mut callers: Vec<std::net::TcpListener>,
        worker: Worker,
        config: &Config,
    ) -> Result<Self, Failure> {
        let address = callers.first().and_then(|socket| socket.local_addr().ok());
        let connections = worker.limits.limit.connections(config.workers);
        let own = callers.pop();
        let (serving, served) = mpsc::channel(1);
        let mut threads = Vec::new();
        for socket in callers {
            let (worker, serving) = (worker.clone(), serving.clone());
            let thread = thread::Builder::new().name("worker".to_owned());
            let thread = thread.spawn(move || {
                let runtime = runtime()?;
                let served = runtime.block_on(worker.serve(socket));
                drop(serving);
                runtime.shutdown_timeout(timeouts::BLOCKING);
                served
            });
            threads.push(thread.map_err(internal)?);
        }
        let own = own.map(|socket| spawn_local(worker.serve(socket)));
        if let Some(address) = address {
            // Relied on by tests and scripts.
            let _ = announce(&format!("listening on http://{address}"));
            let (version, fips) = (env!("CARGO_PKG_VERSION"), build_info::is_fips());
            let (workers, memory_limit) = (config.workers, config.memory_limit);
            tracing::info!(address = %address, version, fips, workers, memory_limit, connections, "listening");
        }
        Ok(Self { own, threads, served })
    }

    /// Waits for the threads to have served, then for these tasks to end and records to be written, all at
    /// once. Returns the first failure of a thread.
    async fn end(mut self, tasks: &TaskTracker, activity: &Activity) -> Result<(), Failure> {
        let own = match self.own {
            Some(own) => own.await.unwrap_or_else(|error| Err(internal(error.into()))),
            None => Ok(()),
        };
        let _ = self.served.recv().await;
        let joined = spawn_blocking(|| join(self.threads));
        tasks.close();
        let (joined, _, ()) = tokio::join!(
            timeout(timeouts::RECORDS, joined),
            timeout(timeouts::RECORDS, tasks.wait()),
            activity.end(timeouts::RECORDS)
        );
        let Ok(Ok(joined)) = joined else {
            return Err(Failure::Internal("a thread does not end".to_owned()));
        };
        own.and(joined)
    }
}

fn join(threads: Vec<thread::JoinHandle<Result<(), Failure>>>) -> Result<(), Failure> {
    let panicked = |_| Err(Failure::Internal("a thread panicked".to_owned()));
    threads.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(panicked))
}

/// Reads what must be known before anybody is let in, and records the settings.
async fn prepare(gateway: &Gateway, config: &Config) -> Result<(), Failure> {
    let Gateway { sessions, activity, external_access, .. } = gateway;
    if !matches!(timeout(START_TIMEOUT, sessions.read_revocations()).await, Ok(Ok(()))) {
        tracing::warn!(
            "the session store does not answer: minted sessions are refused until it does"
        );
    }
    if activity.has_database() {
        let _ = timeout(START_TIMEOUT, external_access.restrictions().follow()).await;
        try_database(external_access).await?;
    }
    startup_audit::record(activity, config, external_access.instance()).await;
    Ok(())
}

/// Starts the background tasks. The one that registers this instance in the database deregisters it when `stopping`
/// is cancelled; `tasks` waits for it.
fn run_in_background(gateway: &Gateway, tasks: &TaskTracker, stopping: CancellationToken) {
    let Gateway { sessions, entra, upstream, activity, external_access, .. } = gateway;
    if activity.has_database() {
        tokio::spawn(external_access.clone().run());
        tokio::spawn(external_access.clone().follow_restrictions());
        tokio::spawn(external_access.clone().record_restrictions());
        tokio::spawn(external_access.clone().prune_loop());
        tokio::spawn(external_access.clone().enforce_size_loop());
        tasks.spawn(external_access.clone().heartbeat_loop(stopping));
    }
    tokio::spawn(sessions.clone().sync_loop());
    tokio::spawn(revocation::record_expired_loop(activity.clone(), sessions.clone()));
    tokio::spawn(sessions.clone().sweep_loop());
    tokio::spawn(entra.clone().refresh_loop());
    tokio::spawn(upstream.clone().wait_for_first_answer());
}

/// Reads and writes it once. One that is away may come back; one that cannot be used ends the start.
async fn try_database(external_access: &ExternalAccess) -> Result<(), Failure> {
    let usable = async {
        external_access.read().await?;
        external_access.heartbeat().await
    };
    match usable.await {
        Ok(()) => Ok(()),
        Err(error) if error.is_lasting() => Err(error.into_failure()),
        Err(error) => {
            let error = telemetry::chain(&error);
            tracing::warn!(
                error,
                "the database is away: external access under managed is off, and nobody may sign in until it has been read"
            );
            Ok(())
        }
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
    // A budget of their own: what callers take must not hide what operators look for.
    let limits = ServeOptions {
        timeouts: timeouts(config),
        limit: ConnectionLimit::SMALL,
        memory: Memory::default(),
    };
    spawn_local(listener::serve(operators, ops, limits, Duration::ZERO, stopping));
    Ok(())
}

/// Reads the settings beside everything else: a file may lie on a volume that does not answer.
async fn read_anew(
    read: impl FnOnce() -> Result<Config, Problems> + Send + 'static,
    anew: mpsc::Sender<Result<Config, Problems>>,
) {
    let in_time = timeout(READ_TIMEOUT, spawn_blocking(read)).await;
    let read = match in_time {
        Ok(Ok(read)) => read,
        Ok(Err(_)) | Err(_) => Err(Problems::one("the settings could not be read in time")),
    };
    let _ = anew.send(read).await;
}

/// What every thread serves with.
#[derive(Clone)]
struct Worker {
    apps: watch::Receiver<App>,
    upstream: Upstream,
    limits: ServeOptions,
    drain: Duration,
    stopping: CancellationToken,
}

impl Worker {
    /// Serves on this thread until told to stop.
    async fn serve(mut self, socket: std::net::TcpListener) -> Result<(), Failure> {
        let listener = TcpListener::from_std(socket).map_err(internal)?;
        let pool = Rc::new(ConnectionPool::new(self.upstream));
        spawn_local(Rc::clone(&pool).evict_idle_loop());
        let app = self.apps.borrow_and_update().clone();
        let front = Rc::new(WorkerService::new(app, pool, self.limits.limit));
        spawn_local(Rc::clone(&front).follow(self.apps));
        // A token of its own: threads must not contend for one lock.
        let stopping = self.stopping.child_token();
        listener::serve(listener, front, self.limits, self.drain, stopping).await;
        Ok(())
    }
}

/// The OpenAPI document, as text.
pub(crate) fn openapi_text() -> String {
    crate::openapi::text(&routes::routes().1)
}

fn timeouts(config: &Config) -> Timeouts {
    Timeouts { head: config.timeout_head, idle: config.timeout_idle, send: config.timeout_send }
}

/// Lets this process have as many descriptors as it may, as servers do; how many it has.
fn raise_descriptor_limit() -> u64 {
    let now = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: now.maximum, maximum: now.maximum };
    let _ = setrlimit(Resource::Nofile, raised);
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

fn log_warnings(config: &Config) {
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    config.external_access.warn();
    let may_be_on = config.external_access != ExternalAccessMode::Off;
    if may_be_on && config.edge.public_urls.is_empty() {
        tracing::warn!(
            "GATEWAY_PUBLIC_URLS is empty: public URLs are derived from each request's Host"
        );
    }
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
