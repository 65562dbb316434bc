//! Limits and timeouts.

use super::{Setting, setting};

pub(super) static SETTINGS: &[Setting] = &[
    setting(
        "GATEWAY_LOGIN_LIMIT",
        "number/duration, off",
        "600/1m",
        "Login rate limit per subject; above it 429. With Redis all instances share it",
    )
    .live(),
    setting(
        "GATEWAY_LOGIN_FAILURE_LIMIT",
        "number/duration, off",
        "60/1m",
        "Rate limit of failed logins per client address (IPv6: per /64); above it logins from that address get 429 until the period ends. With Redis all instances share it",
    )
    .live(),
    setting("GATEWAY_WORKERS", "1 or more", "cores", "Number of worker threads, 1024 at most"),
    setting(
        "GATEWAY_MEMORY_LIMIT",
        "size",
        "the container's, else none",
        "Memory limit of the process, 32MiB or more. The number of connections and the buffers for request heads, bodies and responses follow from it; above it 503",
    ),
    setting(
        "GATEWAY_REQUEST_HOLD",
        "size",
        "256KiB",
        "Request buffer per body: a body is buffered until it ends or reaches this size; only then an upstream connection is taken",
    ),
    setting(
        "GATEWAY_REQUEST_HOLD_TOTAL",
        "size",
        "64MiB",
        "Request buffer limit of all bodies together; above it 503",
    ),
    setting(
        "GATEWAY_STREAMING_UPLOADS",
        "1 or more",
        "7",
        "Maximum number of concurrent uploads longer than GATEWAY_REQUEST_HOLD. Keep it below the threads of one gunicorn worker (SimpleChat: 8), which accepts connections even while all threads are busy",
    ),
    setting(
        "GATEWAY_TIMEOUT_HEAD",
        "duration",
        "10s",
        "Request-header timeout, from the first byte of a request; 408",
    ),
    setting(
        "GATEWAY_TIMEOUT_IDLE",
        "duration",
        "240s",
        "Keep-alive timeout: idle time of a client connection between requests",
    ),
    setting("GATEWAY_TIMEOUT_CONNECT", "duration", "5s", "Connect timeout to SimpleChat; 502"),
    setting(
        "GATEWAY_TIMEOUT_RESPONSE",
        "duration",
        "900s",
        "Response-header timeout of SimpleChat, from the end of the request; 504",
    ),
    setting(
        "GATEWAY_TIMEOUT_SEND",
        "duration",
        "60s",
        "Response write timeout: a client that reads nothing for this long is disconnected",
    ),
    setting(
        "GATEWAY_TIMEOUT_SLOT",
        "duration",
        "30s",
        "Upload queue timeout: wait for one of the GATEWAY_STREAMING_UPLOADS slots; 503",
    ),
    setting(
        "GATEWAY_WARMUP_WAIT",
        "duration",
        "180s",
        "Warm-up timeout: wait of GET /robots933456.txt for SimpleChat's first response, before the gateway answers 200",
    ),
    setting(
        "GATEWAY_DRAIN_DELAY",
        "duration",
        "5s",
        "Drain delay after SIGTERM: time during which the instance is not ready but still accepts connections",
    ),
    setting(
        "GATEWAY_DRAIN_TIMEOUT",
        "duration",
        "20s",
        "Drain timeout after the delay: time for requests in flight to finish",
    ),
];
