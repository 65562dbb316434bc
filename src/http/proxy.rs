//! Proxy to SimpleChat: streams requests and responses, unchanged except for the fields that
//! [`hop_headers`] and [`crate::flask::cookie`] rewrite.

use std::borrow::Cow;

use bytes::Bytes;
use opentelemetry_sdk::trace::SdkTracer;

use super::{
    binding::Binding, error::Refusal, framing::ValidRequest, guard::Passage, traces::UpstreamSpan,
};
use crate::{
    authz::{client_info::ClientInfo, session::SessionId},
    clock,
    config::CookieConfig,
    flask::{
        cookie::{Cookies, SessionCookie},
        path::upstream_path,
    },
    h1::{
        caller::{Caller, Disposition},
        connection_limit::UpstreamRequestLimit,
        hop_headers::{self, ClientHead, CookieLine, UpstreamHead},
        inspected_body::InspectedBody,
        message::{Body, Length, Malformed, ResponseHead, Version},
    },
    sessions::{SessionStatus, Sessions, SessionsError},
    upstream::{
        BodyHold, Connection, ConnectionPool, UpstreamError,
        exchange::{Exchange, ExchangeError, Gathered, gather},
    },
};

/// Maximum size in bytes of a response that is buffered while its request is retried.
const MAX_BUFFERED_RESPONSE: usize = 64 * 1024;
/// nginx's status for a caller that disconnected before its response.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// Parts that the proxy uses.
pub(crate) struct Proxy<'a> {
    pub(crate) pool: &'a ConnectionPool,
    pub(crate) sessions: &'a Sessions,
    pub(crate) cookie: &'a CookieConfig,
    pub(crate) binding: Binding<'a>,
    /// `None`: no traces are exported.
    pub(crate) tracer: Option<&'a SdkTracer>,
    /// Limit of this thread's requests in progress at upstream.
    pub(crate) requests: &'a UpstreamRequestLimit,
    /// Replaces upstream's responses that lead to a sign-in with 404.
    pub(crate) hides_sign_in: bool,
}

/// Status of a finished request, and the use of the caller's connection after it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ProxyOutcome {
    pub(crate) status: u16,
    pub(crate) disposition: Disposition,
}

/// Encoded request, and the ways in which it may be sent.
struct Sent<'a> {
    bytes: Bytes,
    cookies: Cookies<'a>,
    /// Requested protocols (`Upgrade`).
    upgrade: Option<&'a [u8]>,
    /// True if it may be sent on a reused connection, and again on a new one if that connection closes
    /// before any byte of a response: idempotent methods (RFC 9110 §9.2.2) without a body.
    may_repeat: bool,
    /// True if it may be sent again after a response that treats it as anonymous.
    may_retry_anonymous: bool,
}

/// Response that was read completely, to be sent if the retry fails.
struct BufferedResponse {
    head: ResponseHead,
    length: Length,
    body: Vec<u8>,
}

impl Proxy<'_> {
    /// Forwards a request and streams its response to the caller.
    pub(crate) async fn pass(
        &self,
        passage: Passage,
        request: &ValidRequest<'_>,
        client_info: &ClientInfo,
        caller: &mut Caller,
    ) -> Result<ProxyOutcome, Refusal> {
        let upstream = &self.pool.upstream;
        let config = upstream.config();
        let head = request.head;
        let cookies = self.valid_cookies(request).await?;
        let upgrade = hop_headers::upgrade(head, request.length);

        let mut hold = upstream.hold();
        let gathered = match self.body(passage, request, caller, &mut hold).await {
            Ok(gathered) => gathered,
            Err(error) => return disconnected_or_refused(error),
        };
        let _slot = if gathered.body.is_done() {
            None
        } else {
            Some(Box::pin(upstream.upload_slot()).await?)
        };
        // After the slot: uploads that wait for a slot do not use up the request limit.
        let _in_progress = self.requests.begin().ok_or(Refusal::AtCapacity)?;

        let mut span = UpstreamSpan::begin(self.tracer, head, config);
        let upstream_head = UpstreamHead {
            target: &request.target,
            client_info,
            cookie: cookies.line(),
            host: config.host.as_deref(),
            default_host: request.host.unwrap_or(config.authority.as_bytes()),
            upgrade,
            trace: span.context(),
        };
        let has_no_body = matches!(request.length, Length::None | Length::Sized(0));
        let sent = Sent {
            bytes: hop_headers::request(head, &upstream_head).into(),
            upgrade,
            may_repeat: has_no_body && is_idempotent(head.method()),
            may_retry_anonymous: has_no_body
                && config.retry_anonymous
                && cookies.active.is_some()
                && matches!(head.method(), "GET" | "HEAD"),
            cookies,
        };
        let result = self.exchange(&sent, request, gathered, &mut hold, caller, &mut span).await;
        match &result {
            Ok(outcome) => span.answered(outcome.status),
            Err(refusal) => span.failed(refusal.reason()),
        }
        result
    }

    /// Sends a request and returns its response to the caller.
    async fn exchange(
        &self,
        sent: &Sent<'_>,
        request: &ValidRequest<'_>,
        mut gathered: Gathered,
        hold: &mut BodyHold<'_>,
        caller: &mut Caller,
        span: &mut UpstreamSpan,
    ) -> Result<ProxyOutcome, Refusal> {
        let Sent { bytes, cookies, upgrade, may_repeat, may_retry_anonymous } = sent;
        let upstream = &self.pool.upstream;
        let (head, timeout) = (request.head, upstream.config().response_timeout);
        let mut connection = if *may_repeat {
            self.pool.connection().await?
        } else {
            // Upstream may be closing a reused connection; a request sent on it would be lost.
            Box::pin(upstream.fresh_connection()).await?
        };
        let mut was_repeated = false;
        let mut buffered: Option<BufferedResponse> = None;
        loop {
            let mut exchange =
                Exchange::new(&mut *caller, connection, bytes.clone(), gathered, timeout);
            let answer = match self.final_head(&mut exchange, request).await {
                Ok(answer) => answer,
                Err(error) => {
                    let failed = exchange.failed(error);
                    if let Some(buffered) = buffered {
                        return Box::pin(self.send(buffered, request, cookies, caller)).await;
                    }
                    if !(*may_repeat && failed.was_stale) || was_repeated {
                        return disconnected_or_refused(failed.error);
                    }
                    // Other pooled connections may be stale too: the one retry uses a new connection.
                    was_repeated = true;
                    span.resent();
                    gathered = failed.gathered;
                    connection = Box::pin(upstream.fresh_connection()).await?;
                    continue;
                }
            };
            upstream.answered();
            if exchange.is_sent() {
                hold.release();
            }
            let length =
                Length::of_response(&answer, head.method()).map_err(UpstreamError::from)?;
            if answer.status == 101 {
                check_upgrade(*upgrade, &answer)?;
                let out = self.write_head(&answer, length, head.version, None, cookies);
                let disposition = Box::pin(exchange.tunnel(out)).await;
                return Ok(ProxyOutcome { status: 101, disposition });
            }
            let decodes = length == Length::Chunked && head.version == Version::Http10;
            if *may_retry_anonymous
                && buffered.is_none()
                && exchange.is_sent()
                && !decodes
                && is_anonymous_response(&answer)
                && let Some(body) =
                    Box::pin(exchange.small_body(length, MAX_BUFFERED_RESPONSE)).await
            {
                let anonymous = BufferedResponse { head: answer, length, body };
                let (used, rest) = exchange.into_parts();
                match self.retry_connection(used, &anonymous).await {
                    Ok(next) => {
                        span.resent();
                        (connection, gathered, buffered) = (next, rest, Some(anonymous));
                    }
                    Err(error) => {
                        let error = crate::telemetry::chain(&error);
                        tracing::debug!(
                            error,
                            "the request could not be retried; the anonymous response is returned"
                        );
                        return Box::pin(self.send(anonymous, request, cookies, caller)).await;
                    }
                }
                continue;
            }
            self.check_sign_in(&answer)?;
            let closes = !head.is_persistent()
                || exchange.is_callers_last()
                || length == Length::UntilClose
                || decodes;
            let out = self.write_head(
                &answer,
                length,
                head.version,
                connection_option(head.version, closes),
                cookies,
            );
            // Connections of other requests are not returned to the pool: each was new and would enlarge it.
            let reuses_upstream = *may_repeat && is_reusable(&answer, length);
            let disposition =
                exchange.finish(out, length, decodes, reuses_upstream, self.pool).await?;
            let disposition = if closes && disposition == Disposition::Next {
                Disposition::Close
            } else {
                disposition
            };
            return Ok(ProxyOutcome { status: answer.status, disposition });
        }
    }

    /// Reads the request body up to `request_hold` bytes. Futures that are rarely awaited are boxed, so that
    /// they do not enlarge the future of every request.
    async fn body(
        &self,
        passage: Passage,
        request: &ValidRequest<'_>,
        caller: &mut Caller,
        hold: &mut BodyHold<'_>,
    ) -> Result<Gathered, ExchangeError> {
        let body = Body::new(request.length, hop_headers::may_trail);
        let body = InspectedBody::by(passage.into_reader(), body);
        if body.is_done() {
            return Ok(Gathered::empty(caller.timeouts.idle));
        }
        if awaits_continue(request) && caller.buffered.filled.is_empty() {
            let sent = Box::pin(caller.write(b"HTTP/1.1 100 Continue\r\n\r\n"));
            sent.await.map_err(ExchangeError::CallerDisconnected)?;
        }
        let max = self.pool.upstream.config().request_hold;
        Box::pin(gather(caller, body, max, |bytes| hold.grow_to(bytes))).await
    }

    /// Connection for a retry. The same connection is preferred, if it is persistent: the same worker has
    /// loaded the session by now.
    async fn retry_connection(
        &self,
        mut used: Connection,
        buffered: &BufferedResponse,
    ) -> Result<Connection, UpstreamError> {
        if buffered.head.is_persistent() && used.buffered.filled.is_empty() {
            used.is_reused = true;
            return Ok(used);
        }
        drop(used);
        self.pool.connection().await
    }

    /// Reads the head of the final response; interim responses (1xx) are forwarded immediately.
    async fn final_head(
        &self,
        exchange: &mut Exchange<'_>,
        request: &ValidRequest<'_>,
    ) -> Result<ResponseHead, ExchangeError> {
        loop {
            let head = exchange.next_head().await?;
            if !(100..=199).contains(&head.status) || head.status == 101 {
                return Ok(head);
            }
            if request.head.version == Version::Http11 {
                let no_cookies = Cookies::default();
                let out = self.write_head(&head, Length::None, Version::Http11, None, &no_cookies);
                Box::pin(exchange.send_interim(&out)).await?;
            }
        }
    }

    /// Cookies for upstream, without those of ended sessions. A session of another subject is an error.
    async fn valid_cookies<'a>(
        &self,
        request: &'a ValidRequest<'_>,
    ) -> Result<Cookies<'a>, Refusal> {
        let cookies = self.without_ended_sessions(request)?;
        if let Some(active) = &cookies.active {
            Box::pin(self.binding.check(&active.id, &request.head.fields)).await?;
        }
        Ok(cookies)
    }

    /// Removes cookies of ended minted sessions, so that upstream treats the request as anonymous. At the
    /// sign-in routes of SimpleChat every minted session is removed: SimpleChat would sign the person in to
    /// the session in the cookie, whose id another party may know (session fixation, CWE-384).
    fn without_ended_sessions<'a>(
        &self,
        request: &'a ValidRequest<'_>,
    ) -> Result<Cookies<'a>, SessionsError> {
        let fields = &request.head.fields;
        if !fields.has("cookie") {
            return Ok(Cookies::default());
        }
        let now = clock::now();
        let is_dropped = |id: &SessionId| {
            let has_ended = self.sessions.status(id, now)? == SessionStatus::Ended;
            Ok::<_, SessionsError>(has_ended || signs_in(&request.target))
        };
        let cookies = SessionCookie(self.cookie).read(fields.all("cookie"), is_dropped)?;
        // Upstream would have used the first one; the sweep deletes the others.
        if let Some(id) = cookies.ended
            && !signs_in(&request.target)
        {
            self.sessions.forget(id);
        }
        Ok(cookies)
    }

    fn write_head(
        &self,
        answer: &ResponseHead,
        length: Length,
        caller: Version,
        connection: Option<&'static str>,
        cookies: &Cookies<'_>,
    ) -> Vec<u8> {
        let cookie = SessionCookie(self.cookie);
        let withholds = |set_cookie: &[u8]| {
            cookies.active.as_ref().is_some_and(|active| cookie.renews(set_cookie, &active.value))
        };
        // 426 names the protocol that upstream requires (RFC 9110 §15.5.22).
        let names_protocol = matches!(answer.status, 101 | 426);
        let upgrade = answer.fields.all("upgrade").next().filter(|_| names_protocol);
        let client_head = ClientHead { withholds: &withholds, length, caller, connection, upgrade };
        hop_headers::response(answer, &client_head)
    }

    /// Refuses a response that leads to a sign-in at a discovery path: clients that probe for a document must
    /// get 404, not a page.
    fn check_sign_in(&self, answer: &ResponseHead) -> Result<(), Refusal> {
        if self.hides_sign_in && answer.leads_to_sign_in() {
            tracing::info!(
                upstream.status = answer.status,
                "upstream responded to a discovery request with a redirect or 401; the caller gets 404"
            );
            return Err(Refusal::NotFound);
        }
        Ok(())
    }

    /// Sends a buffered response.
    async fn send(
        &self,
        buffered: BufferedResponse,
        request: &ValidRequest<'_>,
        cookies: &Cookies<'_>,
        caller: &mut Caller,
    ) -> Result<ProxyOutcome, Refusal> {
        let BufferedResponse { head, length, body } = buffered;
        self.check_sign_in(&head)?;
        let version = request.head.version;
        let mut out =
            self.write_head(&head, length, version, connection_option(version, true), cookies);
        out.extend_from_slice(&body);
        let _ = caller.write(&out).await;
        Ok(ProxyOutcome { status: head.status, disposition: Disposition::Close })
    }
}

impl Cookies<'_> {
    fn line(&self) -> CookieLine<'_> {
        match &self.header {
            None => CookieLine::Removed,
            Some(Cow::Borrowed(_)) => CookieLine::Unchanged,
            Some(Cow::Owned(text)) => CookieLine::Is(text),
        }
    }
}

/// True if upstream's connection may carry another request after one without a body. After a request with a
/// body it may not: gunicorn responds before it has read a body that the app ignores, and may consume the
/// next request with the rest of that body; the next request would never get a response.
fn is_reusable(answer: &ResponseHead, length: Length) -> bool {
    answer.is_persistent() && length != Length::UntilClose
}

/// True for idempotent methods (RFC 9110 §9.2.2). `TRACE`, the sixth, is refused.
fn is_idempotent(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS" | "PUT" | "DELETE")
}

/// True for targets at which SimpleChat signs a person in and writes the user into the session.
fn signs_in(target: &[u8]) -> bool {
    matches!(&*upstream_path(target), b"/login" | b"/getAToken" | b"/getATokenApi")
}

/// True if the caller waits for 100 before it sends its body (RFC 9110 §10.1.1).
pub(crate) fn awaits_continue(request: &ValidRequest<'_>) -> bool {
    request.head.version == Version::Http11
        && request
            .head
            .fields
            .all("expect")
            .any(|value| value.eq_ignore_ascii_case(b"100-continue"))
}

/// Value of `Connection` in the response.
fn connection_option(version: Version, closes: bool) -> Option<&'static str> {
    match (version, closes) {
        (_, true) => Some("close"),
        (Version::Http10, false) => Some("keep-alive"),
        (Version::Http11, false) => None,
    }
}

/// Checks that a 101 names the protocols that the connection changes to, and only protocols that the caller
/// requested (RFC 9110 §7.8).
fn check_upgrade(requested: Option<&[u8]>, answer: &ResponseHead) -> Result<(), UpstreamError> {
    let is_requested = |protocol: &[u8]| {
        let mut requested =
            requested.unwrap_or_default().split(|b| *b == b',').map(<[u8]>::trim_ascii);
        requested.any(|one| one.eq_ignore_ascii_case(protocol))
    };
    let mut protocols = answer.fields.list("upgrade").peekable();
    if protocols.peek().is_none() || !protocols.all(is_requested) {
        return Err(Malformed("it changes to a protocol that was not requested").into());
    }
    Ok(())
}

/// True if SimpleChat treated the request as anonymous: 401 or a redirect to the sign-in page, without a
/// session of its own.
fn is_anonymous_response(answer: &ResponseHead) -> bool {
    let leads_to_login = || {
        answer.fields.all("location").any(|location| {
            let path = match location.windows(3).position(|w| w == b"://") {
                Some(at) => {
                    let rest = &location[at + 3..];
                    &rest[rest.iter().position(|b| *b == b'/').unwrap_or(rest.len())..]
                }
                None => location,
            };
            path.split(|b| matches!(b, b'?' | b'#')).next() == Some(b"/login")
        })
    };
    let is_refused = answer.status == 401
        || matches!(answer.status, 301 | 302 | 303 | 307 | 308) && leads_to_login();
    is_refused && !answer.fields.has("set-cookie")
}

fn disconnected_or_refused(error: ExchangeError) -> Result<ProxyOutcome, Refusal> {
    match error {
        ExchangeError::CallerDisconnected(_) => {
            Ok(ProxyOutcome { status: CLIENT_CLOSED_REQUEST, disposition: Disposition::Abort })
        }
        error => Err(error.into()),
    }
}
