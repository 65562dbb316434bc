//! Listeners, SimpleChat's address, public URLs and proxies.

use super::{Setting, secret, setting};

pub(super) static SETTINGS: &[Setting] = &[
    setting(
        "GATEWAY_LISTEN",
        "address:port",
        "0.0.0.0:8080",
        "Client listen address; port 0 selects a free port",
    ),
    setting(
        "GATEWAY_OPS_LISTEN",
        "address:port, off",
        "127.0.0.1:9464",
        "Management listen address: /metrics, /health/live, and /health/ready with reasons",
    ),
    setting(
        "GATEWAY_UPSTREAM_URL",
        "http://, https://, unix:/path",
        "http://127.0.0.1:5000",
        "Address of SimpleChat. Bind SimpleChat to loopback (GUNICORN_BIND=127.0.0.1:5000): it must be reachable through the gateway only",
    ),
    setting(
        "GATEWAY_UPSTREAM_HOST",
        "host[:port]",
        "",
        "Host header sent to SimpleChat; empty: the client's",
    ),
    setting(
        "GATEWAY_PUBLIC_URLS",
        "origins, comma-separated",
        "",
        "Public origins of this deployment, the canonical one first; empty: derived from each request",
    )
    .live(),
    setting(
        "GATEWAY_TRUSTED_PROXIES",
        "private, none, everyone, CIDRs",
        "private",
        "Peers whose X-Forwarded-* headers are used. private: private addresses, for scheme, client address and listed hosts; CIDRs or everyone: also for any host",
    )
    .live(),
    secret(
        "GATEWAY_FRONT_DOOR_ID",
        "GUID",
        "Azure Front Door id that requests must carry in X-Azure-FDID (else 403; health probes excepted); X-Azure-ClientIP is then the client address",
    )
    .live(),
];
