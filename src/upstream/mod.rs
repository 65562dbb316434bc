//! Connections to upstream (SimpleChat: gunicorn with Flask), and the limits that protect its few threads.
//!
//! | module | content |
//! |---|---|
//! | this one | [`Upstream`], shared by all threads: connector, probe, upload slots, request buffer, errors |
//! | `connection` | one connection: TCP, TLS over TCP, or a Unix socket |
//! | `pool` | [`ConnectionPool`]: idle connections of one thread |
//! | [`exchange`] | one request and its response on one connection, streamed in both directions; tunnels |
//! | `field_limit` | longest header field that upstream accepts, by measurement |
//! | `metrics` | metrics of connections and upload slots |
//!
//! # Life of a request (`crate::http::proxy`)
//!
//! 1. [`exchange::gather`] reads the request body until it ends or `GATEWAY_REQUEST_HOLD` bytes are buffered.
//!    All buffered bodies together are limited ([`BodyHold`], `GATEWAY_REQUEST_HOLD_TOTAL`).
//! 2. A longer body waits for an upload slot ([`Upstream::upload_slot`], `GATEWAY_STREAMING_UPLOADS`), at most
//!    `GATEWAY_TIMEOUT_SLOT`.
//! 3. A request that may be repeated (idempotent method, no body) takes a pooled connection; every other
//!    request opens a new one, because upstream may be closing a pooled one. Connecting, TLS included, is
//!    limited by `GATEWAY_TIMEOUT_CONNECT`.
//! 4. [`exchange::Exchange::next_head`] sends the request and reads response heads (1xx, then the final one);
//!    upstream may pause at most `GATEWAY_TIMEOUT_RESPONSE`. If a pooled connection closes before any byte of the
//!    response, a request that may be repeated is sent once more, on a new connection.
//! 5. [`exchange::Exchange::finish`] streams the response to the caller, or after 101
//!    [`exchange::Exchange::tunnel`] forwards bytes in both directions.
//! 6. A connection of a repeatable request goes back to the pool if both messages are complete and upstream
//!    leaves it open. The pool closes it after 5 s idle.
//!
//! # Terms
//!
//! | here | nginx | hyper |
//! |---|---|---|
//! | [`Upstream`] | `upstream` block with one `server` | `client::legacy::Client` |
//! | [`ConnectionPool`] | `keepalive`, `keepalive_timeout` of `upstream` | pool of `client::legacy::Client` |
//! | [`exchange::Exchange`] | `ngx_http_upstream_t` | `client::conn::http1::SendRequest` |
//! | repeated request | `proxy_next_upstream error` | `retry_canceled_requests` |
//! | `GATEWAY_TIMEOUT_CONNECT` | `proxy_connect_timeout` | connector timeout |
//! | `GATEWAY_TIMEOUT_RESPONSE` | `proxy_read_timeout`, `proxy_send_timeout` | |
//! | `GATEWAY_REQUEST_HOLD` | `proxy_request_buffering`, `client_body_buffer_size` | |

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

/// Target of a cheap request; App Service requests it too.
const PROBE: &str = "/robots933456.txt";
/// Maximum duration of a probe, connecting included.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// Reasons for no response of upstream. Callers read the texts, which therefore name SimpleChat.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamError {
    #[error("SimpleChat cannot be reached")]
    Connect(#[source] ConnectError),
    #[error("SimpleChat did not accept the connection in time")]
    ConnectTimeout,
    #[error("SimpleChat did not respond in time")]
    ResponseTimeout,
    #[error("SimpleChat closed the connection before responding")]
    ClosedEarly(#[source] io::Error),
    #[error("SimpleChat sent a malformed response")]
    Malformed(#[from] HeadError),
    #[error("Upload limit reached; try again later")]
    NoUploadSlot,
    #[error("Request buffer limit reached; try again later")]
    HoldIsFull,
}

/// Failure to connect: `HOST:PORT: cause`. For operators only.
#[derive(Debug, thiserror::Error)]
#[error("{address}: {}", .fault.map_or_else(|| .source.to_string(), |fault| fault.to_string()))]
pub(crate) struct ConnectError {
    address: String,
    fault: Option<ConnectFault>,
    source: io::Error,
}

impl ConnectError {
    /// The cause, if it is a common one.
    pub(crate) fn fault(&self) -> Option<ConnectFault> {
        self.fault
    }
}

impl UpstreamError {
    /// Low-cardinality name for metrics and traces (`error.type`).
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Connect(_) => "upstream_connect",
            Self::ConnectTimeout => "upstream_connect_timeout",
            Self::ResponseTimeout => "upstream_response_timeout",
            Self::ClosedEarly(_) => "upstream_broke_off",
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

/// Client for SimpleChat. Cheap to clone; shared by all threads.
#[derive(Clone)]
pub(crate) struct Upstream(Arc<Inner>);

struct Inner {
    config: UpstreamConfig,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    has_responded: AtomicBool,
    first_response: Notify,
    /// Bytes of buffered request bodies.
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
    /// A client that has no connection yet.
    ///
    /// # Errors
    /// When TLS is configured and cannot be set up.
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
            has_responded: AtomicBool::new(false),
            first_response: Notify::new(),
            held: AtomicUsize::new(0),
            field_limit: Mutex::default(),
            metrics: UpstreamMetrics::new(),
        })))
    }

    /// Address, timeouts and limits.
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

    /// True if upstream has responded since the start.
    pub(crate) fn has_responded(&self) -> bool {
        self.0.has_responded.load(Ordering::Relaxed)
    }

    /// Records a response.
    pub(crate) fn answered(&self) {
        if !self.has_responded() {
            self.0.has_responded.store(true, Ordering::Relaxed);
            self.0.first_response.notify_waiters();
        }
    }

    /// Waits for the first response.
    pub(crate) async fn first_response(&self) {
        let notified = self.0.first_response.notified();
        if !self.has_responded() {
            notified.await;
        }
    }

    /// Probes until the first response; to be spawned.
    pub(crate) async fn wait_for_first_response(self) {
        while !self.has_responded() {
            if let Err(error) = self.probe().await {
                tracing::debug!(error = %crate::telemetry::chain(&error), "upstream does not respond yet");
                sleep(Duration::from_millis(500)).await;
            }
        }
        tracing::info!("upstream answers");
    }

    /// Sends a cheap request, which App Service sends too.
    ///
    /// # Errors
    /// When upstream sends no well-formed response head within [`PROBE_TIMEOUT`].
    pub(crate) async fn probe(&self) -> Result<(), UpstreamError> {
        let asking = self.ask("GET", PROBE, "");
        timeout(PROBE_TIMEOUT, asking).await.map_err(|_| UpstreamError::ResponseTimeout)??;
        self.answered();
        Ok(())
    }

    /// Sends a request on a new connection, reads the response head and closes the connection. `fields`: further
    /// lines of the request head, each with its CRLF.
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
        buffered.stream.write_all(request.as_bytes()).await.map_err(UpstreamError::ClosedEarly)?;
        buffered.stream.flush().await.map_err(UpstreamError::ClosedEarly)?;
        loop {
            if let Some(end) = message::find_end(&buffered.filled, 0)? {
                let head = Bytes::copy_from_slice(&buffered.filled[..end]);
                return ResponseHead::parse(head).map_err(UpstreamError::from);
            }
            let read = buffered.stream.read_buf(&mut buffered.filled).await;
            let broke_off = match read {
                Ok(1..) if buffered.filled.len() < message::MAX_HEAD => continue,
                Ok(_) => io::ErrorKind::UnexpectedEof.into(),
                Err(error) => error,
            };
            return Err(UpstreamError::ClosedEarly(broke_off));
        }
    }

    /// Opens a new connection, TLS included, within `GATEWAY_TIMEOUT_CONNECT`.
    pub(crate) async fn fresh_connection(&self) -> Result<Connection, UpstreamError> {
        let connecting = async {
            Ok(match &self.0.config.target {
                UpstreamTarget::Unix(path) => Stream::Unix(UnixStream::connect(path).await?),
                UpstreamTarget::Tcp { host, port, .. } => {
                    let stream = TcpStream::connect((host.as_str(), *port)).await?;
                    // Nagle's algorithm would delay the end of a request until its start is acknowledged.
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

    /// Waits for a permit to stream a body that is too long to be buffered, at most `GATEWAY_TIMEOUT_SLOT`.
    pub(crate) async fn upload_slot(&self) -> Result<SemaphorePermit<'_>, UpstreamError> {
        let begun = Instant::now();
        let slot = match timeout(self.0.config.slot_timeout, self.0.uploads.acquire()).await {
            Ok(Ok(slot)) => Ok(slot),
            Ok(Err(_)) | Err(_) => Err(UpstreamError::NoUploadSlot),
        };
        self.0.metrics.waited_for_slot(begun.elapsed(), &slot);
        slot
    }

    /// Starts to count the buffered bytes of one request body.
    pub(crate) fn hold(&self) -> BodyHold<'_> {
        BodyHold { total: &self.0.held, max: self.0.config.request_hold_total, bytes: 0 }
    }
}

/// Buffered bytes of one body, counted in the total until drop.
#[derive(Debug)]
pub(crate) struct BodyHold<'a> {
    total: &'a AtomicUsize,
    max: usize,
    bytes: usize,
}

impl BodyHold<'_> {
    /// Sets the number of buffered bytes of this body. It never shrinks.
    ///
    /// # Errors
    /// When the total would exceed `GATEWAY_REQUEST_HOLD_TOTAL`.
    pub(crate) fn grow_to(&mut self, bytes: usize) -> Result<(), UpstreamError> {
        let more = bytes.saturating_sub(self.bytes);
        if self.total.fetch_add(more, Ordering::Relaxed) + more > self.max && more > 0 {
            self.total.fetch_sub(more, Ordering::Relaxed);
            return Err(UpstreamError::HoldIsFull);
        }
        self.bytes += more;
        Ok(())
    }

    /// Removes the bytes from the total: they have been sent.
    pub(crate) fn release(&mut self) {
        self.total.fetch_sub(std::mem::take(&mut self.bytes), Ordering::Relaxed);
    }
}

impl Drop for BodyHold<'_> {
    fn drop(&mut self) {
        self.release();
    }
}
