//! Takes connections and serves HTTP/1.1 on them until told to stop.

use std::{convert::Infallible, io, net::IpAddr, sync::Arc, time::Duration};

use http::{Request, Response};
use http_body::Body;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
};
use tokio::{
    net::TcpListener,
    sync::watch,
    time::{sleep, timeout},
};

use super::patience::{Lasting, Patient, Progress};
use crate::stream::Attended;

/// How long callers may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// To send a request's head, once it has begun.
    pub(crate) head: Duration,
    /// Between requests.
    pub(crate) idle: Duration,
    /// For requests in flight to finish when the gateway goes.
    pub(crate) drain: Duration,
}

/// Serves until `stop` says so.
pub(crate) async fn serve<A, F, B>(
    listener: TcpListener,
    patience: Patience,
    mut stop: watch::Receiver<bool>,
    answer: A,
) where
    A: Fn(Request<Incoming>, IpAddr) -> F + Clone + Send + 'static,
    F: Future<Output = Response<B>> + Send,
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(patience.idle).preserve_header_case(true);
    let in_flight = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stopping| *stopping) => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // No descriptors left, perhaps: those in use will come free.
                if !is_of_one_connection(&error) {
                    tracing::error!(%error, "a connection could not be taken");
                    sleep(Duration::from_millis(100)).await;
                }
                continue;
            }
        };
        // Without it a stream's small events would wait for one another.
        let _ = stream.set_nodelay(true);
        let progress = Arc::new(Progress::default());
        let patient = Patient::new(Arc::clone(&progress), patience.head);
        let stream = Attended::new(stream, patient);
        let answer = answer.clone();
        let service = service_fn(move |request| {
            let busy = progress.begin();
            let mut request: Request<Incoming> = request;
            request.extensions_mut().insert(busy.clone());
            let answered = answer(request, peer.ip());
            async { Ok::<_, Infallible>(answered.await.map(|body| Lasting::new(body, busy))) }
        });
        let connection = in_flight.watch(http.serve_connection(TokioIo::new(stream), service));
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error = %crate::telemetry::chain(&error), "a caller's connection ended badly");
            }
        });
    }
    drop(listener);
    if timeout(patience.drain, in_flight.shutdown()).await.is_err() {
        tracing::warn!("requests still in flight were cut off");
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
    )
}
