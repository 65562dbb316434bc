//! Database and activity log.

use super::{Setting, secret, setting};

pub(super) static SETTINGS: &[Setting] = &[
    secret(
        "DATABASE_URL",
        "sqlite:/path, postgres://",
        "Database of the activity log and of administrators' decisions; PostgreSQL for several instances. Required with GATEWAY_EXTERNAL_ACCESS=managed; without it activity is reported in the log and in telemetry only",
    ),
    setting(
        "GATEWAY_MIGRATE",
        "auto, off",
        "auto",
        "Database migration at start; off: by the migrate command only. SQLite is always migrated",
    ),
    setting(
        "GATEWAY_ACTIVITY_RETENTION",
        "duration",
        "365d",
        "Retention of activity records, 1d or more",
    ),
    setting(
        "GATEWAY_ACTIVITY_MAX_SIZE",
        "size",
        "1GiB",
        "Maximum size of the activity log in the database, 256KiB or more; above it the oldest records are removed, denials first and decisions last",
    ),
    setting(
        "GATEWAY_ACTIVITY_REQUIRED",
        "decisions, all, none",
        "decisions",
        "Fail-closed scope while the database is unavailable: decisions that grant more access are refused (decisions), logins as well (all), or nothing (none)",
    ),
];
