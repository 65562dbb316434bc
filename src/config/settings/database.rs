//! Database and activity log.

use super::{Setting, secret, setting};

pub(super) static SETTINGS: &[Setting] = &[
    secret(
        "DATABASE_URL",
        "sqlite:/path, postgres://",
        "The activity log and what administrators decide; PostgreSQL where there are several instances. Required with managed. Without it the activity is told in the log and by telemetry alone",
    ),
    setting(
        "GATEWAY_MIGRATE",
        "auto, off",
        "auto",
        "Whether the gateway brings the database up to date at its start; off: the migrate command does. SQLite's is always brought up to date",
    ),
    setting(
        "GATEWAY_ACTIVITY_RETENTION",
        "duration",
        "365d",
        "How long activity records are kept; a day at least",
    ),
    setting(
        "GATEWAY_ACTIVITY_MAX_SIZE",
        "size",
        "1GiB",
        "Size of the activity log in the database beyond which the oldest records are removed: denials first, decisions last; 256KiB at least",
    ),
    setting(
        "GATEWAY_ACTIVITY_REQUIRED",
        "decisions, all, none",
        "decisions",
        "What is refused while the database is away: decisions that let more in, logins as well, or nothing",
    ),
];
