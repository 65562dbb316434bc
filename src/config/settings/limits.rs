//! Limits and timeouts.

use super::{Setting, setting};

pub(super) static SETTINGS: &[Setting] = &[
    setting(
        "GATEWAY_LOGIN_LIMIT",
        "number/duration, off",
        "600/1m",
        "Logins of one subject; more are 429. Shared by all instances where Redis is the store",
    ).live(),
    setting(
        "GATEWAY_LOGIN_FAILURE_LIMIT",
        "number/duration, off",
        "60/1m",
        "Failed logins from one client address (IPv6: one /64); then its logins are 429 until the time is over. Shared likewise",
    ).live(),
    setting("GATEWAY_WORKERS", "1 or more", "cores", "Threads that serve"),
    setting(
        "GATEWAY_MEMORY_LIMIT",
        "size",
        "the container's, else none",
        "Memory the process may use, 32MiB at least. How many connections there are, and what unfinished heads, held bodies and slow readers' answers take together, follows from it; beyond that 503",
    ),
    setting(
        "GATEWAY_REQUEST_HOLD",
        "size",
        "256KiB",
        "A request's body is held until it ends, or this much is there, before upstream is asked for one of its few threads",
    ),
    setting(
        "GATEWAY_REQUEST_HOLD_TOTAL",
        "size",
        "64MiB",
        "All bodies held together; beyond that 503",
    ),
    setting(
        "GATEWAY_STREAMING_UPLOADS",
        "1 or more",
        "7",
        "Bodies longer than GATEWAY_REQUEST_HOLD that are passed on at a time: fewer than one gunicorn worker has threads (SimpleChat: 8), since it takes connections also while all of those are taken",
    ),
    setting(
        "GATEWAY_TIMEOUT_HEAD",
        "duration",
        "10s",
        "For a caller to send a request's head, once it has begun",
    ),
    setting(
        "GATEWAY_TIMEOUT_IDLE",
        "duration",
        "240s",
        "For a caller's connection to lie idle between requests",
    ),
    setting("GATEWAY_TIMEOUT_CONNECT", "duration", "5s", "For upstream to take a connection (502)"),
    setting(
        "GATEWAY_TIMEOUT_RESPONSE",
        "duration",
        "900s",
        "For upstream to begin its answer once it has the whole request (504)",
    ),
    setting(
        "GATEWAY_TIMEOUT_SEND",
        "duration",
        "60s",
        "For a caller to take some more of an answer; one that takes nothing is cut off",
    ),
    setting(
        "GATEWAY_TIMEOUT_SLOT",
        "duration",
        "30s",
        "For an upload to wait while GATEWAY_STREAMING_UPLOADS others are under way (503)",
    ),
    setting(
        "GATEWAY_WARMUP_WAIT",
        "duration",
        "180s",
        "How long GET /robots933456.txt waits for upstream's first answer before it is answered 200",
    ),
    setting(
        "GATEWAY_DRAIN_DELAY",
        "duration",
        "5s",
        "At SIGTERM: how long to go on taking connections while not ready",
    ),
    setting(
        "GATEWAY_DRAIN_TIMEOUT",
        "duration",
        "20s",
        "At SIGTERM, after the delay: how long requests in flight may take to finish",
    ),
];
