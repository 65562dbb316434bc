//! Integration tests: the real gateway binary between a real upstream and a real store. One module
//! per behaviour.
#![allow(missing_docs, reason = "a test's name is a sentence")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod azure;
mod dice;
#[path = "../entra/mod.rs"]
mod entra;
/// The guard's own target parser, compared with upstream's.
#[path = "../../src/flask/path.rs"]
mod flask_path;
mod world;

mod activity_bound;
mod activity_log;
mod activity_outages;
mod admin_api;
mod admin_page;
mod canary;
mod charts;
mod clouds;
mod commands;
mod crowds;
mod database;
mod database_failures;
mod deploy;
mod docs_page;
mod doctor;
mod draining;
mod endurance;
mod every_route;
mod failures;
mod fips;
mod framing;
mod front_door;
mod guard;
mod guard_spellings;
mod handshake;
mod header_sets;
mod image;
mod instances;
mod keys;
mod lifetime;
mod limits;
mod log_pipe;
mod login_rate;
mod logs;
mod long_tokens;
mod makefile;
mod managed;
mod mcp_sdks;
mod mcp_server;
mod memory;
mod metadata;
mod openapi;
mod openapi_conformance;
mod outages;
mod papers;
mod proxying;
mod redis_cluster;
mod redis_faults;
mod redis_identity;
mod redis_rights;
mod redis_tls;
mod reload;
mod rfc_musts;
mod secrets;
mod session_binding;
mod slow_callers;
mod smuggling;
mod soak;
mod stopping;
mod store_formats;
mod subject_binding;
mod telemetry;
mod telemetry_losses;
mod tls_edge;
mod token_corpus;
mod transparency;
mod upstream_connections;
mod upstream_documents;
mod upstream_reading;
mod websockets;
mod wording;
