//! Connections to Flask: kept while they live, and noticed when they do not.

use std::{
    any::Any,
    collections::VecDeque,
    fmt, io,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, Uri, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{Either, Empty};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
    time::{sleep, timeout},
};
use tokio_rustls::TlsConnector;

use crate::{
    config::{UpstreamConfig, UpstreamTarget},
    stream::{Attended, Reading},
    tls,
};

/// How long a connection may lie idle. Far below gunicorn's 75 s: a gunicorn worker that recycles
/// waits for idle connections, and serves nobody meanwhile.
const IDLE: Duration = Duration::from_secs(5);
/// Idle connections kept; more are closed.
const MOST_IDLE: usize = 64;

/// Why upstream did not answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamError {
    #[error("upstream cannot be reached")]
    Connect(#[source] io::Error),
    #[error("upstream did not take the connection in time")]
    ConnectTimeout,
    #[error("upstream did not answer in time")]
    ResponseTimeout,
    #[error("upstream broke off before its answer")]
    BrokeOff(#[source] hyper::Error),
    /// The caller's fault.
    #[error("the request's body is malformed or was cut off")]
    Body(#[source] hyper::Error),
}

impl From<hyper::Error> for UpstreamError {
    fn from(error: hyper::Error) -> Self {
        // "User" is whoever gave hyper the body.
        if error.is_user() { Self::Body(error) } else { Self::BrokeOff(error) }
    }
}

/// A request's body on its way up.
pub(crate) type Outgoing = Either<Watched, Empty<Bytes>>;

/// SimpleChat. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Upstream(Arc<Inner>);

/// A connection that takes requests.
struct Connection {
    sender: SendRequest<Outgoing>,
    /// Whether upstream has said anything since this was last set to false.
    heard: Arc<AtomicBool>,
}

struct Inner {
    config: UpstreamConfig,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    idle: Mutex<VecDeque<(Connection, Instant)>>,
    has_answered: AtomicBool,
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
        let (idle, has_answered) = (Mutex::default(), AtomicBool::new(false));
        Ok(Self(Arc::new(Inner { config, tls, idle, has_answered })))
    }

    /// `Host` for upstream, where it is not the caller's.
    pub(crate) fn host(&self) -> Option<HeaderValue> {
        self.0.config.host.as_deref().and_then(|host| HeaderValue::from_str(host).ok())
    }

    /// Whether upstream has ever answered.
    pub(crate) fn has_answered(&self) -> bool {
        self.0.has_answered.load(Ordering::Relaxed)
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

    /// Closes connections that lie idle too long; to be spawned.
    pub(crate) async fn keep_tidy(self) {
        loop {
            sleep(IDLE / 5).await;
            drop(self.usable_connections());
        }
    }

    /// A light request that App Service sends too.
    pub(crate) async fn probe(&self) -> Result<(), UpstreamError> {
        let mut request = Request::new(Either::Right(Empty::new()));
        *request.uri_mut() = Uri::from_static("/robots933456.txt");
        let host = self.host().unwrap_or_else(|| HeaderValue::from_static("localhost"));
        request.headers_mut().insert(header::HOST, host);
        request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        let patience = Duration::from_secs(5);
        match timeout(patience, async {
            self.connect().await?.sender.send_request(request).await.map_err(UpstreamError::from)
        })
        .await
        {
            Ok(Ok(_)) => {
                self.0.has_answered.store(true, Ordering::Relaxed);
                Ok(())
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Err(UpstreamError::ResponseTimeout),
        }
    }

    /// Sends a request and waits for the head of the answer. The time allowed begins anew with every
    /// part of the body that upstream takes; while the caller is slow to send one it stands still.
    ///
    /// Sent again, once: a `GET`, `HEAD` or `OPTIONS` without a body, on a kept connection that
    /// closed before any byte of an answer. A request of which nothing was sent goes out on another
    /// connection, whatever it is.
    pub(crate) async fn send(
        &self,
        request: Request<Outgoing>,
        body: Option<Arc<Sending>>,
    ) -> Result<Response<Incoming>, UpstreamError> {
        let allowed = self.0.config.response_timeout;
        let deadline = async {
            loop {
                let before = body.as_ref().map(|body| body.parts.load(Ordering::Relaxed));
                sleep(allowed).await;
                let Some(body) = &body else { break };
                let is_stuck = before == Some(body.parts.load(Ordering::Relaxed));
                if is_stuck && !body.waits_for_caller.load(Ordering::Relaxed) {
                    break;
                }
            }
        };
        tokio::select! {
            answer = self.send_somewhere(request) => {
                if answer.is_ok() {
                    self.0.has_answered.store(true, Ordering::Relaxed);
                }
                answer
            }
            () = deadline => Err(UpstreamError::ResponseTimeout),
        }
    }

    async fn send_somewhere(
        &self,
        mut request: Request<Outgoing>,
    ) -> Result<Response<Incoming>, UpstreamError> {
        let again = may_be_sent_again(&request).then(|| copy_of(&request));
        if let Some(mut connection) = self.idle_connection() {
            connection.heard.store(false, Ordering::Relaxed);
            match connection.sender.try_send_request(request).await {
                Ok(answer) => {
                    self.keep_when_done(connection);
                    return Ok(answer);
                }
                // Either nothing of it was sent, or it may be sent again and nothing was answered.
                Err(mut failed) => match failed
                    .take_message()
                    .or_else(|| again.filter(|_| !connection.heard.load(Ordering::Relaxed)))
                {
                    Some(unsent) => request = unsent,
                    None => return Err(UpstreamError::from(failed.into_error())),
                },
            }
        }
        let mut connection = self.connect().await?;
        let answer = connection.sender.send_request(request).await?;
        self.keep_when_done(connection);
        Ok(answer)
    }

    /// The connection used last that still lives.
    fn idle_connection(&self) -> Option<Connection> {
        self.usable_connections().pop_back().map(|(connection, _)| connection)
    }

    /// The kept connections, without those that died or lay idle too long.
    fn usable_connections(&self) -> MutexGuard<'_, VecDeque<(Connection, Instant)>> {
        let mut idle = self.0.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(connection, since)| connection.sender.is_ready() && since.elapsed() < IDLE);
        idle
    }

    fn keep_when_done(&self, mut connection: Connection) {
        let inner = Arc::clone(&self.0);
        tokio::spawn(async move {
            if connection.sender.ready().await.is_err() {
                return;
            }
            let mut idle = inner.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.push_back((connection, Instant::now()));
            if idle.len() > MOST_IDLE {
                idle.pop_front();
            }
        });
    }

    async fn connect(&self) -> Result<Connection, UpstreamError> {
        let connecting = async {
            match &self.0.config.target {
                UpstreamTarget::Unix(path) => handshake(UnixStream::connect(path).await?).await,
                UpstreamTarget::Tcp { host, port, .. } => {
                    let stream = TcpStream::connect((host.as_str(), *port)).await?;
                    stream.set_nodelay(true)?;
                    match &self.0.tls {
                        Some((connector, name)) => {
                            handshake(connector.connect(name.clone(), stream).await?).await
                        }
                        None => handshake(stream).await,
                    }
                }
            }
        };
        match timeout(self.0.config.connect_timeout, connecting).await {
            Ok(connected) => connected.map_err(UpstreamError::Connect),
            Err(_) => Err(UpstreamError::ConnectTimeout),
        }
    }
}

async fn handshake<S>(stream: S) -> io::Result<Connection>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let heard = Arc::new(AtomicBool::new(false));
    let stream = Attended::new(stream, Listening { heard: Arc::clone(&heard) });
    let (sender, connection) = http1::Builder::new()
        .preserve_header_case(true)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(error = %crate::telemetry::chain(&error), "a connection to upstream ended badly");
        }
    });
    Ok(Connection { sender, heard })
}

/// Notes when upstream says something.
struct Listening {
    heard: Arc<AtomicBool>,
}

impl<S: AsyncRead + Unpin> Reading<S> for Listening {
    fn poll_read(
        &mut self,
        stream: &mut S,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.heard.store(true, Ordering::Relaxed);
        }
        read
    }
}

fn may_be_sent_again(request: &Request<Outgoing>) -> bool {
    matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS)
        && request.body().is_end_stream()
}

fn copy_of(request: &Request<Outgoing>) -> Request<Outgoing> {
    let mut copy = Request::new(Either::Right(Empty::new()));
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    *copy.extensions_mut() = request.extensions().clone();
    copy
}

/// How far a body has got.
#[derive(Debug, Default)]
pub(crate) struct Sending {
    /// Parts that upstream took, the end counted as one.
    parts: AtomicU64,
    /// Whether it is the caller who is waited for.
    waits_for_caller: AtomicBool,
}

/// A body that tells how far it has got.
pub(crate) struct Watched {
    body: Incoming,
    sending: Arc<Sending>,
    /// Let go with the body.
    _held: Box<dyn Any + Send + Sync>,
}

impl Watched {
    /// A caller's body, and how far it has got. `held` is dropped with it.
    pub(crate) fn new(body: Incoming, held: impl Any + Send + Sync) -> (Self, Arc<Sending>) {
        let sending = Arc::new(Sending::default());
        (Self { body, sending: Arc::clone(&sending), _held: Box::new(held) }, sending)
    }
}

impl Body for Watched {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        self.sending.waits_for_caller.store(frame.is_pending(), Ordering::Relaxed);
        if frame.is_ready() {
            self.sending.parts.fetch_add(1, Ordering::Relaxed);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
