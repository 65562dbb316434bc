//! Worker threads: one listener, one connection pool and one service each.

use std::{rc::Rc, thread, time::Duration};

use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::{JoinHandle, spawn_blocking, spawn_local},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{internal, runtime};
use crate::{
    activity::Activity,
    build_info,
    cli::{exit::Failure, output::announce},
    config::Config,
    h1::listener::{self, ServeOptions},
    server::{app::App, service::WorkerService},
    timeouts,
    upstream::{ConnectionPool, Upstream},
};

/// All workers: this thread and the others.
pub(super) struct Workers {
    own: Option<JoinHandle<Result<(), Failure>>>,
    pub(super) threads: Vec<thread::JoinHandle<Result<(), Failure>>>,
    /// Closed once all other threads have stopped serving.
    served: mpsc::Receiver<()>,
}

impl Workers {
    /// Starts a thread for each listener but one, which this thread serves, and announces the address.
    pub(super) fn start(
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
                runtime.shutdown_timeout(timeouts::BLOCKING_TIMEOUT);
                served
            });
            threads.push(thread.map_err(internal)?);
        }
        let own = own.map(|socket| spawn_local(worker.serve(socket)));
        if let Some(address) = address {
            // Part of the contract: tests and scripts read this line.
            let _ = announce(&format!("listening on http://{address}"));
            let (version, fips) = (env!("CARGO_PKG_VERSION"), build_info::is_fips());
            let (workers, memory_limit) = (config.workers, config.memory_limit);
            tracing::info!(address = %address, version, fips, workers, memory_limit, connections, "listening");
        }
        Ok(Self { own, threads, served })
    }

    /// Waits until all workers have stopped serving, then at the same time for the threads, for `tasks` and for queued
    /// records. Returns the first failure of a thread.
    pub(super) async fn end(
        mut self,
        tasks: &TaskTracker,
        activity: &Activity,
    ) -> Result<(), Failure> {
        let own = match self.own {
            Some(own) => own.await.unwrap_or_else(|error| Err(internal(error.into()))),
            None => Ok(()),
        };
        let _ = self.served.recv().await;
        let joined = spawn_blocking(|| join(self.threads));
        tasks.close();
        let (joined, _, ()) = tokio::join!(
            timeout(timeouts::RECORDS_TIMEOUT, joined),
            timeout(timeouts::RECORDS_TIMEOUT, tasks.wait()),
            activity.end(timeouts::RECORDS_TIMEOUT)
        );
        let Ok(Ok(joined)) = joined else {
            return Err(Failure::Internal("a thread does not end".to_owned()));
        };
        own.and(joined)
    }
}

pub(super) fn join(threads: Vec<thread::JoinHandle<Result<(), Failure>>>) -> Result<(), Failure> {
    let panicked = |_| Err(Failure::Internal("a thread panicked".to_owned()));
    threads.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(panicked))
}

/// Parts of a worker.
#[derive(Clone)]
pub(super) struct Worker {
    pub(super) apps: watch::Receiver<App>,
    pub(super) upstream: Upstream,
    pub(super) limits: ServeOptions,
    pub(super) drain: Duration,
    pub(super) stopping: CancellationToken,
}

impl Worker {
    /// Serves on this thread until `stopping` is cancelled.
    pub(super) async fn serve(mut self, socket: std::net::TcpListener) -> Result<(), Failure> {
        let listener = TcpListener::from_std(socket).map_err(internal)?;
        let pool = Rc::new(ConnectionPool::new(self.upstream));
        spawn_local(Rc::clone(&pool).evict_idle_loop());
        let app = self.apps.borrow_and_update().clone();
        let front = Rc::new(WorkerService::new(app, pool, self.limits.limit));
        spawn_local(Rc::clone(&front).follow(self.apps));
        // A child token: threads must not contend for one lock.
        let stopping = self.stopping.child_token();
        listener::serve(listener, front, self.limits, self.drain, stopping).await;
        Ok(())
    }
}
