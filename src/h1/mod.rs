//! HTTP/1.1 connections and messages as bytes (RFC 9112). Knows nothing of routes, refusals or sessions.
//!
//! | module | content |
//! |---|---|
//! | [`listener`] | accept loop of one thread, register of its connections, drain |
//! | [`caller`] | one client connection: request heads in order, the gateway's own responses, lingering close |
//! | [`message`] | parser of heads, body lengths and chunked bodies; pure |
//! | [`buffered`] | stream with its read buffer, and the pool of read buffers of one thread |
//! | [`flow`] | forwarding of one message in one direction, streamed |
//! | [`inspected_body`] | body with an optional inspector; bytes are forwarded only after it accepted them |
//! | [`hop_headers`] | heads for the next hop: hop-by-hop, forwarding, cookie and trace fields |
//! | [`connection_limit`] | maximum of connections and of requests at upstream |
//! | [`memory`] | budget in bytes for unfinished heads, bodies and responses, for the whole process |
//! | [`min_rate`] | minimum rate of request bodies |
//! | [`timer`] | one timer for each connection |
//!
//! # Life of a client connection
//!
//! 1. [`listener::serve`] accepts it and spawns a task on the same thread. At the connection limit the
//!    connection that has waited longest for its client is closed; if none waits, the new one is over
//!    capacity and gets answers to health probes only.
//! 2. While idle it has no read buffer. It waits for the next byte, at most `Timeouts::idle`.
//! 3. [`caller::Caller::next_head`] reads a request head: at most 64 KiB, within `Timeouts::head`.
//! 4. [`listener::Service::answer`] serves the request, either with the gateway's own response
//!    ([`caller::Caller::answer`]) or with an exchange with upstream (`crate::upstream::exchange`), which
//!    runs one [`flow::Flow`] in each direction.
//! 5. The returned [`caller::Disposition`] decides: the next request (step 2), a close, a lingering close
//!    (the rest of the request is read and discarded, so that the client receives the response), or a reset
//!    (the client must notice that the response is incomplete).
//! 6. At a stop the listener accepts what the kernel has queued, closes its socket, and waits for its
//!    connections until the drain timeout. Each connection closes after its current request.
//!
//! # Terms
//!
//! | here | nginx | hyper |
//! |---|---|---|
//! | thread with its [`listener`] | worker process, `listen … reuseport` | accept loop |
//! | [`caller::Caller`] | client connection | `server::conn::http1::Connection` |
//! | [`listener::Service`] | content handler | `service::Service` |
//! | `Timeouts::head` | `client_header_timeout` | `header_read_timeout` |
//! | `Timeouts::idle` | `keepalive_timeout` | |
//! | `Timeouts::send` | `send_timeout` | |
//! | [`caller::Disposition::Linger`] | `lingering_close` | |
//! | [`min_rate::MinBodyRate`] | `client_body_timeout` | |
//! | [`flow::Flow`] | `proxy_buffering off`, `proxy_request_buffering off` | body polled into a sink |
//! | [`connection_limit::ConnectionLimit`] | `worker_connections` | |
//!
//! hyper does not serve these connections: it hides what must be refused (`docs/decisions/engine.md`).

pub(crate) mod buffered;
pub(crate) mod caller;
pub(crate) mod connection_limit;
pub(crate) mod flow;
pub(crate) mod hop_headers;
pub(crate) mod inspected_body;
pub(crate) mod listener;
pub(crate) mod memory;
pub(crate) mod message;
pub(crate) mod min_rate;
pub(crate) mod timer;
