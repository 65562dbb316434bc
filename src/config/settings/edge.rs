//! Listeners, SimpleChat's address, public URLs and proxies.

use super::{Setting, secret, setting};

pub(super) static SETTINGS: &[Setting] = &[
    setting(
        "GATEWAY_LISTEN",
        "address:port",
        "0.0.0.0:8080",
        "Where callers come in; port 0 picks a free one",
    ),
    setting(
        "GATEWAY_OPS_LISTEN",
        "address:port, off",
        "127.0.0.1:9464",
        "Where operators look: /metrics, /health/live, and /health/ready with reasons",
    ),
    setting(
        "GATEWAY_UPSTREAM_URL",
        "http://, https://, unix:/path",
        "http://127.0.0.1:5000",
        "SimpleChat. Let it bind loopback (GUNICORN_BIND=127.0.0.1:5000): it must be reachable through the gateway alone",
    ),
    setting(
        "GATEWAY_UPSTREAM_HOST",
        "host[:port]",
        "",
        "The Host sent upstream; empty: the caller's",
    ),
    setting(
        "GATEWAY_PUBLIC_URLS",
        "origins, comma-separated",
        "",
        "Public origins of this deployment, the canonical one first; empty: derived per request",
    ).live(),
    setting(
        "GATEWAY_TRUSTED_PROXIES",
        "private, none, everyone, CIDRs",
        "private",
        "Whose forwarding headers count. private: private addresses, for scheme, client address and listed hosts; a list of CIDRs, or everyone: for any host",
    ).live(),
    secret(
        "GATEWAY_FRONT_DOOR_ID",
        "GUID",
        "Azure Front Door's id: requests must carry it in X-Azure-FDID (else 403; probes excepted), and X-Azure-ClientIP is the client's address",
    ).live(),
];
