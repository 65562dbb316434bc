//! Connections to Flask, and what protects its few threads.

mod connection;
pub(crate) mod exchange;
mod field_limit;
mod metrics;
mod pool;

use std::{
    fmt, io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use rustls::pki_types::ServerName;
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
    sync::{Mutex, Notify, Semaphore, SemaphorePermit},
    time::{sleep, timeout},
};
use tokio_rustls::TlsConnector;

pub(crate) use self::{
    connection::{Connection, Stream},
    field_limit::{LONGEST as LONGEST_FIELD, field_length},
    pool::ConnectionPool,
};
use self::{field_limit::FieldLimit, metrics::UpstreamMetrics};
use crate::{
    config::{UpstreamConfig, UpstreamTarget},
    connect_fault::ConnectFault,
    h1::{
        buffered::keepalive,
        message::{self, HeadError, Malformed, ResponseHead},
    },
    tls,
};

/// Target of a request that costs upstream next to nothing; App Service asks for it too.
const PROBE: &str = "/robots933456.txt";
/// How long a probe may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// Why upstream did not answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamError {
    #[error("upstream cannot be reached")]
    Connect(#[source] ConnectError),
    #[error("upstream did not take the connection in time")]
    ConnectTimeout,
    #[error("upstream did not answer in time")]
    ResponseTimeout,
    #[error("upstream broke off before its answer")]
    BrokeOff(#[source] io::Error),
    #[error("upstream's answer is malformed")]
    Malformed(#[from] HeadError),
    #[error("uploads are at their limit")]
    NoUploadSlot,
    #[error("bodies held are at their limit")]
    HoldIsFull,
}

/// Failure to connect: `HOST:PORT: cause`. For operators alone.
#[derive(Debug, thiserror::Error)]
#[error("{address}: {}", .fault.map_or_else(|| .source.to_string(), |fault| fault.to_string()))]
pub(crate) struct ConnectError {
    address: String,
    fault: Option<ConnectFault>,
    source: io::Error,
}

impl ConnectError {
    /// The cause, where it is a usual one.
    pub(crate) fn fault(&self) -> Option<ConnectFault> {
        self.fault
    }
}

impl UpstreamError {
    /// In one of a few words, for metrics and traces.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Connect(_) => "upstream_connect",
            Self::ConnectTimeout => "upstream_connect_timeout",
            Self::ResponseTimeout => "upstream_response_timeout",
            Self::BrokeOff(_) => "upstream_broke_off",
            Self::Malformed(_) => "upstream_malformed",
            Self::NoUploadSlot => "no_upload_slot",
            Self::HoldIsFull => "hold_is_full",
        }
    }
}

impl From<Malformed> for UpstreamError {
    fn from(error: Malformed) -> Self {
        Self::Malformed(error.into())
    }
}

/// SimpleChat. Cheap to clone; shared by all threads.
#[derive(Clone)]
pub(crate) struct Upstream(Arc<Inner>);

struct Inner {
    config: UpstreamConfig,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    has_answered: AtomicBool,
    first_answer: Notify,
    /// Bytes of request bodies held.
    held: AtomicUsize,
    uploads: Semaphore,
    field_limit: Mutex<FieldLimit>,
    metrics: UpstreamMetrics,
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Upstream").field(&self.0.config.target).finish()
    }
}

impl Upstream {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// When TLS is asked for and cannot be set up.
    pub(crate) fn new(config: UpstreamConfig) -> io::Result<Self> {
        let tls = match &config.target {
            UpstreamTarget::Tcp { host, tls: true, .. } => {
                let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
                Some((TlsConnector::from(Arc::new(tls::client(None)?)), name))
            }
            _ => None,
        };
        Ok(Self(Arc::new(Inner {
            uploads: Semaphore::new(config.streaming_uploads),
            config,
            tls,
            has_answered: AtomicBool::new(false),
            first_answer: Notify::new(),
            held: AtomicUsize::new(0),
            field_limit: Mutex::default(),
            metrics: UpstreamMetrics::new(),
        })))
    }

    /// How it is reached, and what it is spared.
    pub(crate) fn config(&self) -> &UpstreamConfig {
        &self.0.config
    }

    /// `HOST:PORT`, or the path of the Unix socket.
    pub(crate) fn address(&self) -> String {
        match &self.config().target {
            UpstreamTarget::Tcp { .. } => self.config().authority.clone(),
            UpstreamTarget::Unix(path) => path.display().to_string(),
        }
    }

    /// Whether upstream has ever answered.
    pub(crate) fn has_answered(&self) -> bool {
        self.0.has_answered.load(Ordering::Relaxed)
    }

    /// Notes that it has.
    pub(crate) fn answered(&self) {
        if !self.has_answered() {
            self.0.has_answered.store(true, Ordering::Relaxed);
            self.0.first_answer.notify_waiters();
        }
    }

    /// Waits until it has.
    pub(crate) async fn first_answer(&self) {
        let notified = self.0.first_answer.notified();
        if !self.has_answered() {
            notified.await;
        }
    }

    /// Asks until upstream has answered once; to be spawned.
    pub(crate) async fn wait_for_first_answer(self) {
        while !self.has_answered() {
            if let Err(error) = self.probe().await {
                tracing::debug!(error = %crate::telemetry::chain(&error), "upstream is not there yet");
                sleep(Duration::from_millis(500)).await;
            }
        }
        tracing::info!("upstream answers");
    }

    /// A light request that App Service sends too.
    pub(crate) async fn probe(&self) -> Result<(), UpstreamError> {
        let asking = self.ask("GET", PROBE, "");
        timeout(PROBE_TIMEOUT, asking).await.map_err(|_| UpstreamError::ResponseTimeout)??;
        self.answered();
        Ok(())
    }

    /// Asks on a connection of its own, which then ends, and reads the head of the answer. `fields`:
    /// further lines of the request's head, each with its CRLF.
    pub(crate) async fn ask(
        &self,
        method: &str,
        target: &str,
        fields: &str,
    ) -> Result<ResponseHead, UpstreamError> {
        let host = self.config().host.as_deref().unwrap_or("localhost");
        let request = format!(
            "{method} {target} HTTP/1.1\r\nHost: {host}\r\n{fields}Connection: close\r\n\r\n"
        );
        let mut buffered = self.fresh_connection().await?.buffered;
        buffered.stream.write_all(request.as_bytes()).await.map_err(UpstreamError::BrokeOff)?;
        buffered.stream.flush().await.map_err(UpstreamError::BrokeOff)?;
        loop {
            if let Some(end) = message::find_end(&buffered.held, 0)? {
                let head = Bytes::copy_from_slice(&buffered.held[..end]);
                return ResponseHead::parse(head).map_err(UpstreamError::from);
            }
            let read = buffered.stream.read_buf(&mut buffered.held).await;
            let broke_off = match read {
                Ok(1..) if buffered.held.len() < message::MAX_HEAD => continue,
                Ok(_) => io::ErrorKind::UnexpectedEof.into(),
                Err(error) => error,
            };
            return Err(UpstreamError::BrokeOff(broke_off));
        }
    }

    /// A new connection.
    pub(crate) async fn fresh_connection(&self) -> Result<Connection, UpstreamError> {
        let connecting = async {
            Ok(match &self.0.config.target {
                UpstreamTarget::Unix(path) => Stream::Unix(UnixStream::connect(path).await?),
                UpstreamTarget::Tcp { host, port, .. } => {
                    let stream = TcpStream::connect((host.as_str(), *port)).await?;
                    // Without it a request's end would wait for the acknowledgement of its beginning.
                    stream.set_nodelay(true)?;
                    SockRef::from(&stream).set_tcp_keepalive(&keepalive())?;
                    match &self.0.tls {
                        Some((connector, name)) => {
                            let stream = connector.connect(name.clone(), stream).await?;
                            Stream::Tls(Box::new(stream))
                        }
                        None => Stream::Tcp(stream),
                    }
                }
            })
        };
        let metrics = &self.0.metrics;
        let begun = Instant::now();
        let connected = match timeout(self.0.config.connect_timeout, connecting).await {
            Ok(connected) => connected.map_err(|source| {
                let fault = ConnectFault::of(&source);
                let address = self.address();
                UpstreamError::Connect(ConnectError { address, fault, source })
            }),
            Err(_) => Err(UpstreamError::ConnectTimeout),
        };
        metrics.connected(begun.elapsed(), &connected);
        connected.map(|stream| Connection::new(stream, metrics.open()))
    }

    /// Leave to pass on a body that is too long to be held.
    pub(crate) async fn upload_slot(&self) -> Result<SemaphorePermit<'_>, UpstreamError> {
        let begun = Instant::now();
        let slot = match timeout(self.0.config.slot_timeout, self.0.uploads.acquire()).await {
            Ok(Ok(slot)) => Ok(slot),
            Ok(Err(_)) | Err(_) => Err(UpstreamError::NoUploadSlot),
        };
        self.0.metrics.waited_for_slot(begun.elapsed(), &slot);
        slot
    }

    /// Begins to hold a request's body.
    pub(crate) fn hold(&self) -> BodyHold<'_> {
        BodyHold { total: &self.0.held, max: self.0.config.request_hold_total, bytes: 0 }
    }
}

/// Bytes of one body that are held; counted in the total until it is dropped.
#[derive(Debug)]
pub(crate) struct BodyHold<'a> {
    total: &'a AtomicUsize,
    max: usize,
    bytes: usize,
}

impl BodyHold<'_> {
    /// So many bytes are held of this body by now.
    pub(crate) fn grow_to(&mut self, bytes: usize) -> Result<(), UpstreamError> {
        let more = bytes.saturating_sub(self.bytes);
        if self.total.fetch_add(more, Ordering::Relaxed) + more > self.max && more > 0 {
            self.total.fetch_sub(more, Ordering::Relaxed);
            return Err(UpstreamError::HoldIsFull);
        }
        self.bytes += more;
        Ok(())
    }

    /// They are on their way.
    pub(crate) fn release(&mut self) {
        self.total.fetch_sub(std::mem::take(&mut self.bytes), Ordering::Relaxed);
    }
}

impl Drop for BodyHold<'_> {
    fn drop(&mut self) {
        self.release();
    }
}
