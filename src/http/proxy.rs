//! Everything else: to Flask and back, streamed, unchanged but for what `hop_headers` and
//! `session_cookie` say.

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
        caller::{Caller, Disposition, is_persistent},
        connection_limit::Requests,
        hop_headers::{self, ClientHead, CookieLine, UpstreamHead},
        inspected_body::InspectedBody,
        message::{Body, Length, Malformed, ResponseHead, Version},
    },
    sessions::{SessionStatus, Sessions, SessionsError},
    upstream::{
        BodyHold, Connection, ConnectionPool, UpstreamError,
        exchange::{Exchange, ExchangeError, Gathered, gather, upstream_is_persistent},
    },
};

/// Most bytes of an answer that is kept while the request is sent again.
const MAX_SET_ASIDE: usize = 64 * 1024;
/// nginx's word for a caller that did not wait for its answer.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// What the proxy needs.
pub(crate) struct Proxy<'a> {
    pub(crate) pool: &'a ConnectionPool,
    pub(crate) sessions: &'a Sessions,
    pub(crate) cookie: &'a CookieConfig,
    pub(crate) binding: Binding<'a>,
    /// Where traces are exported.
    pub(crate) tracer: Option<&'a SdkTracer>,
    /// Those of this thread that are at upstream.
    pub(crate) requests: &'a Requests,
    /// Turns an answer of upstream's that leads to a sign-in into 404.
    pub(crate) hides_sign_in: bool,
}

/// How a request was answered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ProxyOutcome {
    pub(crate) status: u16,
    pub(crate) disposition: Disposition,
}

/// A request as it goes up.
struct Sent<'a> {
    bytes: Bytes,
    cookies: Cookies<'a>,
    /// The protocol that it asks to change to.
    upgrade: Option<&'a [u8]>,
    /// Whether it may go out on a reused connection, and again on a new one if that one closes before
    /// any byte of an answer: idempotent methods (RFC 9110 §9.2.2) without a body.
    may_repeat: bool,
    /// Whether it may be asked again when it is answered as a stranger's.
    may_retry_anonymous: bool,
}

/// An answer that was read whole and set aside.
struct BufferedResponse {
    head: ResponseHead,
    length: Length,
    body: Vec<u8>,
}

impl Proxy<'_> {
    /// Passes a request on, and its answer back as it comes.
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
        let cookies = self.cookies_that_count(request).await?;
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
        // Disposition the slot: uploads that wait for one take no other request's place.
        let _at_upstream = self.requests.begin().ok_or(Refusal::AtCapacity)?;

        let mut span = UpstreamSpan::begin(self.tracer, head, config);
        let upward = UpstreamHead {
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
            bytes: hop_headers::request(head, &upward).into(),
            upgrade,
            may_repeat: has_no_body && is_idempotent(head.method()),
            may_retry_anonymous: has_no_body
                && config.retry_anonymous
                && cookies.live.is_some()
                && matches!(head.method(), "GET" | "HEAD"),
            cookies,
        };
        let passed = self.exchange(&sent, request, gathered, &mut hold, caller, &mut span).await;
        match &passed {
            Ok(answered) => span.answered(answered.status),
            Err(refusal) => span.failed(refusal.reason()),
        }
        passed
    }

    /// Sends a request and passes its answer back.
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
            // Upstream may be closing any other, and what goes out on that is lost.
            Box::pin(upstream.fresh_connection()).await?
        };
        let mut was_repeated = false;
        let mut aside: Option<BufferedResponse> = None;
        loop {
            let mut exchange =
                Exchange::new(&mut *caller, connection, bytes.clone(), gathered, timeout);
            let answer = match self.final_head(&mut exchange, request).await {
                Ok(answer) => answer,
                Err(error) => {
                    let failed = exchange.failed(error);
                    if let Some(aside) = aside {
                        return Box::pin(self.send(aside, request, cookies, caller)).await;
                    }
                    if !(*may_repeat && failed.was_stale) || was_repeated {
                        return disconnected_or_refused(failed.error);
                    }
                    // Stale connections tell of others: no second one is tried.
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
                && aside.is_none()
                && exchange.is_sent()
                && !decodes
                && is_of_a_stranger(&answer)
                && let Some(body) = Box::pin(exchange.small_body(length, MAX_SET_ASIDE)).await
            {
                let stranger = BufferedResponse { head: answer, length, body };
                let (used, rest) = exchange.into_parts();
                match self.ask_again_on(used, &stranger).await {
                    Ok(next) => {
                        span.resent();
                        (connection, gathered, aside) = (next, rest, Some(stranger));
                    }
                    Err(error) => {
                        let error = crate::telemetry::chain(&error);
                        tracing::debug!(error, "upstream could not be asked again");
                        return Box::pin(self.send(stranger, request, cookies, caller)).await;
                    }
                }
                continue;
            }
            self.check_sign_in(&answer)?;
            let closes = !is_persistent(head)
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
            // Connections of requests that may not be repeated are not kept: each would add one.
            let reuses_upstream = *may_repeat && may_be_used_again(&answer, length);
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

    /// The request's body, whole or as much of it as is held. What is seldom waited for is boxed:
    /// most requests do without its room.
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
            return Ok(Gathered::nothing(caller.timeouts.idle));
        }
        if awaits_continue(request) && caller.buffered.held.is_empty() {
            let said = Box::pin(caller.write(b"HTTP/1.1 100 Continue\r\n\r\n"));
            said.await.map_err(ExchangeError::CallerDisconnected)?;
        }
        let max = self.pool.upstream.config().request_hold;
        Box::pin(gather(caller, body, max, |bytes| hold.grow_to(bytes))).await
    }

    /// The connection to ask again on: the same worker on the same connection, where that is kept, knows
    /// its sessions by now.
    async fn ask_again_on(
        &self,
        mut used: Connection,
        aside: &BufferedResponse,
    ) -> Result<Connection, UpstreamError> {
        if upstream_is_persistent(&aside.head) && used.buffered.held.is_empty() {
            used.is_reused = true;
            return Ok(used);
        }
        drop(used);
        self.pool.connection().await
    }

    /// The head of the answer; those that come before it (1xx) are passed on at once.
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
                let nothing = Cookies::default();
                let out = self.write_head(&head, Length::None, Version::Http11, None, &nothing);
                Box::pin(exchange.send_interim(&out)).await?;
            }
        }
    }

    /// The cookies for upstream: none of a session that is over, or that is not the caller's.
    async fn cookies_that_count<'a>(
        &self,
        request: &'a ValidRequest<'_>,
    ) -> Result<Cookies<'a>, Refusal> {
        let cookies = self.hold_sessions_to_their_end(request)?;
        if let Some(live) = &cookies.live {
            Box::pin(self.binding.check(&live.id, &request.head.fields)).await?;
        }
        Ok(cookies)
    }

    /// Drops cookies that name a minted session which is over; upstream sees a stranger. So it does where
    /// people sign in: it would put them into the session that came along, which somebody else may know.
    fn hold_sessions_to_their_end<'a>(
        &self,
        request: &'a ValidRequest<'_>,
    ) -> Result<Cookies<'a>, SessionsError> {
        let fields = &request.head.fields;
        if !fields.has("cookie") {
            return Ok(Cookies::default());
        }
        let now = clock::now();
        let is_dropped = |id: &SessionId| {
            let is_over = self.sessions.status(id, now)? == SessionStatus::Ended;
            Ok::<_, SessionsError>(is_over || signs_in(&request.target))
        };
        let cookies = SessionCookie(self.cookie).read(fields.all("cookie"), is_dropped)?;
        // The first is what upstream would have taken; the sweep sees to others.
        if let Some(id) = cookies.over
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
            cookies.live.as_ref().is_some_and(|live| cookie.renews(set_cookie, &live.value))
        };
        // 426 names the protocol that upstream requires (RFC 9110 §15.5.22).
        let names_protocol = matches!(answer.status, 101 | 426);
        let upgrade = answer.fields.all("upgrade").next().filter(|_| names_protocol);
        let downward = ClientHead { withholds: &withholds, length, caller, connection, upgrade };
        hop_headers::response(answer, &downward)
    }

    /// Refuses an answer that leads to a sign-in where callers look for documents: clients that guess must get 404,
    /// not a page.
    fn check_sign_in(&self, answer: &ResponseHead) -> Result<(), Refusal> {
        if self.hides_sign_in && answer.leads_to_sign_in() {
            tracing::info!(
                upstream.status = answer.status,
                "upstream answered a discovery request with a redirect or 401; the caller gets 404"
            );
            return Err(Refusal::NotFound);
        }
        Ok(())
    }

    /// Gives an answer that was set aside.
    async fn send(
        &self,
        aside: BufferedResponse,
        request: &ValidRequest<'_>,
        cookies: &Cookies<'_>,
        caller: &mut Caller,
    ) -> Result<ProxyOutcome, Refusal> {
        let BufferedResponse { head, length, body } = aside;
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

/// Whether upstream's connection may take another request after one without a body. Disposition a body it may
/// not: gunicorn answers before it has read one that the app does not want, and may read the next request
/// along with the rest of it; that one would wait for ever.
fn may_be_used_again(answer: &ResponseHead, length: Length) -> bool {
    upstream_is_persistent(answer) && length != Length::UntilClose
}

/// Whether a request with this method may be carried out twice with the effect of once (RFC 9110
/// §9.2.2). `TRACE`, the sixth, is refused.
fn is_idempotent(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS" | "PUT" | "DELETE")
}

/// Whether SimpleChat signs a person in at a target, and writes who it is into the session.
fn signs_in(target: &[u8]) -> bool {
    matches!(&*upstream_path(target), b"/login" | b"/getAToken" | b"/getATokenApi")
}

/// Whether the caller waits for 100 before it sends its body (RFC 9110 §10.1.1).
pub(crate) fn awaits_continue(request: &ValidRequest<'_>) -> bool {
    request.head.version == Version::Http11
        && request
            .head
            .fields
            .all("expect")
            .any(|value| value.eq_ignore_ascii_case(b"100-continue"))
}

/// What the caller is told about its connection.
fn connection_option(version: Version, closes: bool) -> Option<&'static str> {
    match (version, closes) {
        (_, true) => Some("close"),
        (Version::Http10, false) => Some("keep-alive"),
        (Version::Http11, false) => None,
    }
}

/// Checks that a 101 names the protocols that the connection changes to, and only such as the caller
/// asked for (RFC 9110 §7.8).
fn check_upgrade(asked: Option<&[u8]>, answer: &ResponseHead) -> Result<(), UpstreamError> {
    let is_requested = |protocol: &[u8]| {
        let mut asked = asked.unwrap_or_default().split(|b| *b == b',').map(<[u8]>::trim_ascii);
        asked.any(|one| one.eq_ignore_ascii_case(protocol))
    };
    let mut protocols = answer.fields.list("upgrade").peekable();
    if protocols.peek().is_none() || !protocols.all(is_requested) {
        return Err(Malformed("it changes to a protocol nobody asked for").into());
    }
    Ok(())
}

/// Whether SimpleChat answered somebody whom it does not know: 401, or to the sign-in page, and no
/// session of its own.
fn is_of_a_stranger(answer: &ResponseHead) -> bool {
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
