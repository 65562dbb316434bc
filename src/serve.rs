//! `serve`: bind, serve, drain.

use std::{net::SocketAddr, rc::Rc, thread, time::Duration};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    net::TcpListener,
    runtime::{LocalOptions, LocalRuntime},
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    task::{JoinHandle, spawn_blocking, spawn_local},
    time::{sleep, timeout},
};

use crate::{
    about, canary,
    config::{Config, ExternalAccess, Problems},
    ending,
    failure::Failure,
    gateway::Gateway,
    http::{Front, Ops, Patience, Room, Site, listener},
    output::announce,
    reload::reload,
    seen,
    switch::Switch,
    telemetry::{self, Telemetry},
    upstream::{Kept, Upstream},
};

/// How long the start may wait for the set of ended sessions. Until it has been read, requests that
/// bear a minted session are answered 503.
const START_PATIENCE: Duration = Duration::from_millis(500);

/// How long the settings may take to be read again.
const READ_PATIENCE: Duration = Duration::from_secs(5);
/// How long activity records may take to be written at the end.
const ACTIVITY_PATIENCE: Duration = Duration::from_secs(5);
/// How long the canary may take to go.
const CANARY_PATIENCE: Duration = Duration::from_secs(2);

/// Runs the gateway until SIGTERM or SIGINT. This thread serves, and does what is done once for all;
/// the others serve alone. At SIGHUP `read` reads the settings again.
///
/// # Errors
/// When an address cannot be bound or the session store can never be used as configured.
pub fn serve(
    config: Config,
    read: impl Fn() -> Result<Config, Problems> + Clone + Send + 'static,
) -> Result<(), Failure> {
    let telemetry = Telemetry::start(&config)?;
    if !about::is_as_promised() {
        return Err(Failure::Internal("the FIPS module is not in use".to_owned()));
    }
    let runtime = runtime()?;
    let ended = runtime.block_on(run(config, read, &telemetry));
    runtime.shutdown_timeout(Duration::from_secs(1));
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
    mut config: Config,
    read: impl Fn() -> Result<Config, Problems> + Clone + Send + 'static,
    telemetry: &Telemetry,
) -> Result<(), Failure> {
    tell(&config);
    let descriptors = raise_descriptor_limit();
    let gateway =
        Gateway::build(&config).map_err(|error| Failure::Unavailable(telemetry::chain(&error)))?;
    let mut callers = bind(config.listen, config.workers, "GATEWAY_LISTEN")?;
    let operators = match config.ops_listen {
        Some(address) => bind(address, 1, "GATEWAY_OPS_LISTEN")?.pop(),
        None => None,
    };
    let mut terminate = signal(SignalKind::terminate()).map_err(internal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(internal)?;
    let mut hang_up = signal(SignalKind::hangup()).map_err(internal)?;

    let (stop, stopping) = watch::channel(false);
    let seen_to_run = begin(&gateway, &config, stopping.clone()).await?;
    let draining = gateway.draining.clone();
    if let Some(operators) = operators {
        serve_operators(operators, &gateway, &config, telemetry, stopping.clone())?;
    }

    let upstream = gateway.upstream.clone();
    let (activity, switch) = (gateway.activity.clone(), gateway.switch.clone());
    let canary = canary::Watch::of(&config)
        .map(|canary| spawn_local(canary.keep(gateway.clone(), stopping.clone())));
    let (sites, site) = watch::channel(Site::new(gateway, telemetry.tracer()));
    let crew = Crew {
        upstream,
        sites: site,
        patience: patience(&config),
        room: Room::of(descriptors, config.workers),
        drain: config.drain_timeout,
        stopping,
    };
    let address = callers.first().and_then(|socket| socket.local_addr().ok());
    let own = callers.pop();
    let mut threads = Vec::new();
    for socket in callers {
        let crew = crew.clone();
        let thread = thread::Builder::new().name("worker".to_owned());
        let thread = thread.spawn(move || {
            let runtime = runtime()?;
            let served = runtime.block_on(crew.serve(socket));
            // Not for ever, whatever a file system or a name server does.
            runtime.shutdown_timeout(Duration::from_secs(1));
            served
        });
        threads.push(thread.map_err(internal)?);
    }
    let serving = own.map(|socket| spawn_local(crew.serve(socket)));

    if let Some(address) = address {
        // Relied on by tests and scripts.
        let _ = announce(&format!("listening on http://{address}"));
        let (version, fips) = (env!("CARGO_PKG_VERSION"), about::is_fips());
        tracing::info!(address = %address, version, fips, workers = config.workers, "listening");
    }

    let (anew, mut renewed) = mpsc::channel(1);
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hang_up.recv() => drop(spawn_local(read_anew(read.clone(), anew.clone()))),
            Some(read) = renewed.recv() => {
                config = reload(config, read, &sites, telemetry);
                seen::record(&activity, &config, switch.instance()).await;
            }
        }
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
    if let Some(serving) = serving {
        serving.await.map_err(|error| Failure::Internal(error.to_string()))??;
    }
    for thread in threads {
        let joined = spawn_blocking(move || thread.join()).await;
        let panicked = || Failure::Internal("a thread panicked".to_owned());
        joined.map_err(|_| panicked())?.map_err(|_| panicked())??;
    }
    if let Some(canary) = canary {
        // It removes what it has minted.
        let _ = timeout(CANARY_PATIENCE, canary).await;
    }
    if let Some(seen_to_run) = seen_to_run {
        let _ = timeout(ACTIVITY_PATIENCE, seen_to_run).await;
    }
    activity.end(ACTIVITY_PATIENCE).await;
    tracing::info!("stopped");
    Ok(())
}

/// Reads what must be known before anybody is let in, and begins what is done in the background. Handed back
/// is what says that this instance runs, and in the end that it does not.
async fn begin(
    gateway: &Gateway,
    config: &Config,
    stopping: watch::Receiver<bool>,
) -> Result<Option<JoinHandle<()>>, Failure> {
    let Gateway { sessions, entra, upstream, activity, switch, .. } = gateway;
    if !matches!(timeout(START_PATIENCE, sessions.read_ended()).await, Ok(Ok(()))) {
        tracing::warn!(
            "the session store does not answer: minted sessions are refused until it does"
        );
    }
    let mut seen_to_run = None;
    if activity.has_database() {
        try_database(switch).await?;
        tokio::spawn(switch.clone().keep());
        tokio::spawn(switch.clone().keep_pruned());
        seen_to_run = Some(tokio::spawn(switch.clone().keep_seen(stopping)));
    }
    seen::record(activity, config, switch.instance()).await;
    tokio::spawn(sessions.clone().keep_in_step());
    tokio::spawn(ending::keep_expired_told(activity.clone(), sessions.clone()));
    tokio::spawn(sessions.clone().keep_swept());
    tokio::spawn(entra.clone().keep_fresh());
    tokio::spawn(upstream.clone().wait_for_first_answer());
    Ok(seen_to_run)
}

/// Reads and writes it once. One that is away may come back; one that cannot be used ends the start.
async fn try_database(switch: &Switch) -> Result<(), Failure> {
    let usable = async {
        switch.read().await?;
        switch.say_that_it_runs().await
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
    stopping: watch::Receiver<bool>,
) -> Result<(), Failure> {
    let address = operators.local_addr().map_err(internal)?;
    tracing::info!(address = %address, "operators' listener");
    let ops = Rc::new(Ops::new(gateway.clone(), telemetry.scrape()));
    let operators = TcpListener::from_std(operators).map_err(internal)?;
    let (patience, none) = (patience(config), Duration::ZERO);
    spawn_local(listener::serve(operators, ops, patience, Room::SMALL, none, stopping));
    Ok(())
}

/// Reads the settings beside everything else: a file may lie on a volume that does not answer.
async fn read_anew(
    read: impl FnOnce() -> Result<Config, Problems> + Send + 'static,
    anew: mpsc::Sender<Result<Config, Problems>>,
) {
    let in_time = timeout(READ_PATIENCE, spawn_blocking(read)).await;
    let read = match in_time {
        Ok(Ok(read)) => read,
        Ok(Err(_)) | Err(_) => Err(Problems::one("the settings could not be read in time")),
    };
    let _ = anew.send(read).await;
}

/// What every thread serves with.
#[derive(Clone)]
struct Crew {
    sites: watch::Receiver<Site>,
    upstream: Upstream,
    patience: Patience,
    room: Room,
    drain: Duration,
    stopping: watch::Receiver<bool>,
}

impl Crew {
    /// Serves on this thread until told to stop.
    async fn serve(mut self, socket: std::net::TcpListener) -> Result<(), Failure> {
        let listener = TcpListener::from_std(socket).map_err(internal)?;
        let kept = Rc::new(Kept::new(self.upstream));
        spawn_local(Rc::clone(&kept).keep_tidy());
        let site = self.sites.borrow_and_update().clone();
        let front = Rc::new(Front::new(site, kept));
        spawn_local(Rc::clone(&front).follow(self.sites));
        listener::serve(listener, front, self.patience, self.room, self.drain, self.stopping).await;
        Ok(())
    }
}

fn patience(config: &Config) -> Patience {
    Patience { head: config.timeout_head, idle: config.timeout_idle, send: config.timeout_send }
}

/// Lets this process have as many descriptors as it may, as servers do; how many it has.
fn raise_descriptor_limit() -> u64 {
    let now = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: now.maximum, maximum: now.maximum };
    let _ = setrlimit(Resource::Nofile, raised);
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

fn tell(config: &Config) {
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    config.external_access.tell();
    let may_be_on = config.external_access != ExternalAccess::Off;
    if may_be_on && config.surroundings.public_urls.is_empty() {
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
