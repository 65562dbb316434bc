//! Database at startup: migrated, or refused with a message that names the remedy; the same for
//! `SQLite` and PostgreSQL.

use std::{fs, process::Output};

use tempfile::TempDir;

use crate::{
    entra::{Entra, USER_OID},
    world::{
        Kind, Store,
        certificates::certificates,
        client,
        database::{BOTH, Database, DatabaseKind},
        flask::in_repository,
        gateway::{Gateway, run},
        json,
        postgres::Postgres,
        process::until,
        recorded::{ENABLE, Recorded},
        settings,
        tools::output_text,
        try_login,
    },
};

fn code(output: &Output) -> i32 {
    output.status.code().expect("it ended by itself")
}

/// Number of migrations.
fn migrations(kind: DatabaseKind) -> usize {
    let folder = match kind {
        DatabaseKind::Sqlite => "migrations/sqlite",
        DatabaseKind::Postgres => "migrations/postgres",
    };
    fs::read_dir(in_repository(folder)).unwrap().count()
}

/// Exit code and database line of `check`.
async fn line(ground: &Recorded, more: &[(&str, &str)]) -> (i32, String) {
    let output = ground.try_command("check", more).await;
    let text = output_text(&output);
    let line = text.lines().find(|line| line.contains("database")).unwrap_or(&text);
    (code(&output), line.to_owned())
}

#[tokio::test]
async fn an_empty_database_is_migrated_at_startup() {
    for kind in BOTH {
        let ground = Recorded::start(kind).await;
        let gateway = Gateway::start(&ground.settings(&[])).await;
        let database = &ground.database;
        assert_eq!(database.count("_sqlx_migrations WHERE success"), migrations(kind), "{kind:?}");
        assert_eq!(database.count("access WHERE since IS NULL"), 1, "{kind:?}: no decision exists");
        until("the instance sends a heartbeat", async || database.count("instances") == 1).await;
        drop(gateway);

        // The next start migrates nothing.
        let mut gateway = Gateway::start(&ground.settings(&[])).await;
        assert_eq!(database.count("_sqlx_migrations"), migrations(kind), "{kind:?}");
        let ready = gateway.ops_url("/health/ready").unwrap();
        let ready = json(client().get(ready).send().await.unwrap()).await;
        let parts: Vec<_> = ready["degraded"].as_array().unwrap().iter().collect();
        assert!(parts.iter().all(|it| it["part"] != "database"), "{kind:?}: {ready}");
        gateway.process.signal("TERM");
        assert_eq!(gateway.process.ended().await.code(), Some(0), "{kind:?}");
        // The killed instance is still listed; it expires later.
        assert_eq!(database.count("instances"), 1, "{kind:?}: the stopped instance deregisters");
    }
}

#[tokio::test]
async fn with_migrate_off_an_empty_database_is_refused_until_migrate_has_run() {
    let ground = Recorded::start(DatabaseKind::Postgres).await;
    let off = [("GATEWAY_MIGRATE", "off")];
    let refused = ground.try_command("serve", &off).await;
    assert_eq!(code(&refused), 69, "{}", output_text(&refused));
    assert!(output_text(&refused).contains("migrate"), "{}", output_text(&refused));
    let (code_of_check, line_of_check) = line(&ground, &off).await;
    assert!(code_of_check == 69 && line_of_check.contains("migrate"), "{line_of_check}");
    let tables = "pg_tables WHERE schemaname = 'public'";
    assert_eq!(ground.database.count(tables), 0, "neither command changed the database");

    let migrated = ground.try_command("migrate", &off).await;
    assert_eq!(code(&migrated), 0, "{}", output_text(&migrated));
    let again = ground.try_command("migrate", &off).await;
    assert_eq!(code(&again), 0, "{}", output_text(&again));
    let found = ground.database.count("_sqlx_migrations WHERE success");
    assert_eq!(found, migrations(DatabaseKind::Postgres));
    let (_, line_of_check) = line(&ground, &off).await;
    assert!(line_of_check.starts_with("ok"), "{line_of_check}");
    Gateway::start(&ground.settings(&off)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_migrations_are_applied_once() {
    for kind in BOTH {
        let ground = Recorded::start(kind).await;
        let settings = ground.settings(&[]);
        let all = (0..4).map(|_| {
            let settings = settings.clone();
            tokio::spawn(async move { run(&settings, &["migrate"]).await })
        });
        for one in all.collect::<Vec<_>>() {
            let output = one.await.unwrap();
            assert_eq!(code(&output), 0, "{kind:?}: {}", output_text(&output));
        }
        assert_eq!(ground.database.count("_sqlx_migrations"), migrations(kind), "{kind:?}");
        assert_eq!(ground.database.count("access"), 1, "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateways_that_start_together_on_an_empty_database_all_serve() {
    for kind in BOTH {
        let ground = Recorded::start(kind).await;
        let settings = ground.settings(&[]);
        let (one, two, three) = tokio::join!(
            Gateway::start(&settings),
            Gateway::start(&settings),
            Gateway::start(&settings)
        );
        let beats = async || ground.database.try_ask("SELECT count(*) FROM instances");
        until("all three send heartbeats", async || beats().await.is_ok_and(|it| it == "3")).await;
        assert_eq!(ground.database.count("_sqlx_migrations"), migrations(kind), "{kind:?}");
        drop((one, two, three));
    }
}

#[tokio::test]
async fn records_cannot_be_changed_or_deleted_before_their_retention_ends() {
    for kind in BOTH {
        let ground = Recorded::start(kind).await;
        assert_eq!(code(&ground.try_command("migrate", &[]).await), 0);
        let database = &ground.database;
        database.ask(&insertion(database, "a", 0));
        for statement in [
            "UPDATE activity SET subject = 'another'",
            "UPDATE activity SET at = 0",
            "DELETE FROM activity",
        ] {
            let refused = database.try_ask(statement).unwrap_err();
            assert!(refused.contains("activity records"), "{kind:?}: {refused}");
        }
        assert_eq!(database.count("activity WHERE subject = 'a'"), 1, "{kind:?}");
    }
}

/// SQL statement that inserts a login that many days ago.
fn insertion(database: &Database, subject: &str, days: i64) -> String {
    let at = database.now() - days * 86_400_000;
    format!(
        "INSERT INTO activity (id, at, kind, outcome, subject) \
         VALUES ('{subject}', {at}, 'login', 'success', '{subject}')"
    )
}

#[tokio::test]
async fn records_older_than_the_retention_are_deleted() {
    for kind in BOTH {
        let ground = Recorded::start(kind).await;
        assert_eq!(code(&ground.try_command("migrate", &[]).await), 0);
        let database = &ground.database;
        for (subject, days) in [("old", 31), ("older", 400), ("young", 29)] {
            database.ask(&insertion(database, subject, days));
        }
        let retention = [("GATEWAY_ACTIVITY_RETENTION", "30d")];
        let gateway = Gateway::start(&ground.settings(&retention)).await;
        until("old records are deleted", async || {
            database.count("activity WHERE subject LIKE 'old%'") == 0
        })
        .await;
        assert_eq!(database.count("activity WHERE subject = 'young'"), 1, "{kind:?}");
        drop(gateway);
    }
}

#[tokio::test]
async fn a_database_of_a_later_version_is_refused_and_not_changed() {
    for kind in BOTH {
        let ground = Recorded::start(kind).await;
        assert_eq!(code(&ground.try_command("migrate", &[]).await), 0);
        let later = "INSERT INTO _sqlx_migrations \
            SELECT 9999, 'later', installed_on, success, checksum, execution_time \
            FROM _sqlx_migrations WHERE version = 1";
        ground.database.ask(later);
        let before = ground.database.dump();
        for command in ["serve", "migrate", "check"] {
            let refused = ground.try_command(command, &[]).await;
            assert_eq!(code(&refused), 69, "{kind:?} {command}: {}", output_text(&refused));
            let text = output_text(&refused);
            assert!(text.contains("later version"), "{kind:?} {command}: {text}");
        }
        // A PostgreSQL dump names a key made for that dump.
        let without_key = |dump: &str| {
            let lines = dump.lines().filter(|line| !line.contains("restrict "));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(without_key(&ground.database.dump()), without_key(&before), "{kind:?}");
    }
}

#[tokio::test]
async fn an_unusable_database_file_is_reported_as_a_bad_setting() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("no-database"), "something else, and long enough ".repeat(99))
        .unwrap();
    fs::create_dir(folder.path().join("folder")).unwrap();
    let ground = Recorded::start(DatabaseKind::Sqlite).await;
    for name in ["missing/gateway.db", "no-database", "folder"] {
        let path = folder.path().join(name).display().to_string();
        let more = [("DATABASE_URL", &*format!("sqlite:{path}"))];
        for command in ["serve", "migrate"] {
            let refused = ground.try_command(command, &more).await;
            let text = output_text(&refused);
            assert_eq!(code(&refused), 78, "{command} {name}: {text}");
            assert!(text.contains("DATABASE_URL") && text.contains(&path), "{text}");
        }
        let (code, line) = line(&ground, &more).await;
        assert!(code != 0 && !line.starts_with("ok"), "{name}: {line}");
    }
    let names = fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(names, 2, "no file was created beside them");
}

#[tokio::test]
async fn a_wrong_database_password_is_reported_without_the_password() {
    let ground = Recorded::start(DatabaseKind::Postgres).await;
    let Database::Postgres(postgres) = &ground.database else { unreachable!() };
    let wrong = postgres.url_for("gateway:quite-another-word", "gateway");
    // `run` checks all output for passwords of URLs.
    let more = [("DATABASE_URL", &*wrong)];
    let (code_of_check, line) = line(&ground, &more).await;
    assert_eq!(code_of_check, 69, "{line}");
    assert!(line.contains("password authentication failed"), "{line}");
    let migrate = ground.try_command("migrate", &more).await;
    assert_eq!(code(&migrate), 69, "{}", output_text(&migrate));

    let elsewhere = postgres.url_for("gateway:the-word-of-the-gateway", "no_such");
    let more = [("DATABASE_URL", &*elsewhere)];
    let migrate = ground.try_command("migrate", &more).await;
    assert_eq!(code(&migrate), 69, "{}", output_text(&migrate));
    assert!(output_text(&migrate).contains("no_such"), "{}", output_text(&migrate));
}

#[tokio::test]
async fn managed_external_access_requires_a_database() {
    let (store, entra) = (Store::start(Kind::Redis).await, Entra::start().await);
    let managed = [("GATEWAY_EXTERNAL_ACCESS".to_owned(), "managed".to_owned())];
    let refused = run(&settings(&entra, None, &store, &managed), &["serve"]).await;
    assert_eq!(code(&refused), 78, "{}", output_text(&refused));
    assert!(output_text(&refused).contains("DATABASE_URL"), "{}", output_text(&refused));
}

#[tokio::test]
async fn an_invalid_database_url_is_reported_without_the_url() {
    let ground = Recorded::start(DatabaseKind::Sqlite).await;
    for wrong in ["mysql://u:hunter2@h/d", "sqlite:relative-hunter2.db", "hunter2"] {
        let refused = ground.try_command("serve", &[("DATABASE_URL", wrong)]).await;
        let text = output_text(&refused);
        assert_eq!(code(&refused), 78, "{text}");
        assert!(text.contains("DATABASE_URL") && !text.contains("hunter2"), "{text}");
    }
}

#[tokio::test]
async fn postgres_certificates_are_verified_by_authority_and_host_name() {
    let (right, other) = (certificates(), certificates());
    let postgres = Postgres::start_with_tls(right.path()).await;
    let ground = Recorded::over(Database::Postgres(postgres)).await;
    let by_name = ground.database.url().replace("127.0.0.1", "localhost");
    let by_address = ground.database.url();
    let root = |folder: &TempDir| folder.path().join("ca.pem").display().to_string();
    let url = |base: &str, mode: &str, folder: &TempDir| {
        format!("{base}?sslmode={mode}&sslrootcert={}", root(folder))
    };
    for good in [
        url(&by_name, "verify-full", &right),
        url(&by_address, "verify-ca", &right),
        format!("{by_address}?sslmode=require"),
    ] {
        let migrate = ground.try_command("migrate", &[("DATABASE_URL", &good)]).await;
        assert_eq!(code(&migrate), 0, "{good}: {}", output_text(&migrate));
    }
    for bad in [
        url(&by_name, "verify-full", &other),
        url(&by_address, "verify-full", &right),
        url(&by_address, "verify-ca", &other),
        format!("{by_name}?sslmode=verify-full"),
    ] {
        let migrate = ground.try_command("migrate", &[("DATABASE_URL", &bad)]).await;
        assert_eq!(code(&migrate), 69, "{bad}: {}", output_text(&migrate));
        assert!(output_text(&migrate).contains("certificate"), "{bad}: {}", output_text(&migrate));
    }
}

#[tokio::test]
async fn expired_records_of_a_busy_period_are_deleted_and_later_ones_remain() {
    for kind in BOTH {
        let ground = Recorded::start(kind).await;
        assert_eq!(code(&ground.try_command("migrate", &[]).await), 0);
        let database = &ground.database;
        // A hundred records per second, from before the retention limit until after it.
        let begun = database.now() - 86_400_000 - 80_000;
        database.ask(&format!(
            "INSERT INTO activity (id, at, kind, outcome) \
             WITH RECURSIVE n (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM n WHERE n < 12000) \
             SELECT 'busy-' || n, {begun} + n * 10, 'login', 'success' FROM n"
        ));
        let gateway =
            Gateway::start(&ground.settings(&[("GATEWAY_ACTIVITY_RETENTION", "1d")])).await;
        let is_logged = async || gateway.process.log().contains("old activity records");
        until("the deletion of old records is logged", is_logged).await;
        assert_eq!(database.count("activity WHERE id = 'busy-0'"), 0, "{kind:?}");
        assert_eq!(database.count("activity WHERE id = 'busy-12000'"), 1, "{kind:?}");
        let log = gateway.process.log();
        assert!(!log.contains("could not be removed"), "{kind:?}: {log}");
    }
}

/// Statements of the nth SQL block of docs/database.md.
fn documented_sql(nth: usize) -> Vec<String> {
    let page = fs::read_to_string(in_repository("docs/database.md")).unwrap();
    let block = page.split("```sql\n").nth(nth + 1).unwrap().split("```").next().unwrap();
    let lines = block.lines().filter(|line| !line.starts_with("--"));
    let statements = lines.collect::<Vec<_>>().join("\n");
    let statements = statements.split(';').map(str::trim).filter(|it| !it.is_empty());
    statements.map(str::to_owned).collect()
}

#[tokio::test]
async fn the_documented_database_privileges_are_sufficient_and_minimal() {
    let ground = Recorded::start(DatabaseKind::Postgres).await;
    let Database::Postgres(postgres) = &ground.database else { unreachable!() };
    for statement in documented_sql(0) {
        postgres.ask_in("postgres", &statement);
    }
    let log = "gateway_log";
    let by_owner = postgres.url_for("gateway_migrates:one%20word", log);
    let migrated = ground.try_command("migrate", &[("DATABASE_URL", &by_owner)]).await;
    assert_eq!(code(&migrated), 0, "{}", output_text(&migrated));
    for statement in documented_sql(1) {
        postgres.ask_in(log, &statement);
    }
    let serves = postgres.url_for("gateway_serves:another%20word", log);
    let more = [
        ("DATABASE_URL", serves.as_str()),
        ("GATEWAY_MIGRATE", "off"),
        ("GATEWAY_EXTERNAL_ACCESS", "managed"),
    ];
    let now = ground.database.now();
    postgres.ask_in(
        log,
        &format!(
            "INSERT INTO activity (id, at, kind, outcome) VALUES ('old', {}, 'login', 'success')",
            now - 400 * 86_400_000
        ),
    );
    let mut gateway = ground.gateway(&more).await;
    let other_subject = "cccccccc-0000-1111-2222-dddddddddddd";
    for line in [
        ENABLE.to_owned(),
        format!("access block --subject {other_subject} --for 1s"),
        format!("access block --subject {USER_OID} --for 1h"),
        format!("access unblock --subject {USER_OID}"),
        "access status".to_owned(),
        "sessions end --all".to_owned(),
        "activity".to_owned(),
    ] {
        let output = ground.try_command(&line, &more).await;
        assert_eq!(code(&output), 0, "{line}: {}", output_text(&output));
    }
    let token = ground.entra.token().build();
    until("a login succeeds", async || try_login(&gateway, &token).await.status() == 200).await;
    let count = |of: &str| postgres.ask_in(log, &format!("SELECT count(*) FROM {of}"));
    until("old records are deleted", async || count("activity WHERE id = 'old'") == "0").await;
    assert_eq!(count("activity WHERE kind = 'login'"), "1");
    gateway.process.signal("TERM");
    assert_eq!(gateway.process.ended().await.code(), Some(0));
    assert_eq!(count("instances"), "0", "the stopped instance deregisters");
    let written = gateway.process.log();
    assert!(!written.contains("permission denied"), "{written}");

    for statement in [
        "UPDATE activity SET subject = 'another'",
        "TRUNCATE activity",
        "DROP TRIGGER activity_stays ON activity",
        "INSERT INTO access (one, database, enabled) VALUES (2, '', true)",
        "CREATE TABLE more (a TEXT)",
    ] {
        let as_server = format!("SET ROLE gateway_serves; {statement}");
        let refused = postgres.try_ask(log, &as_server).unwrap_err();
        let is_refused =
            ["permission denied", "must be owner"].iter().any(|it| refused.contains(it));
        assert!(is_refused, "{statement}: {refused}");
    }
}

#[tokio::test]
async fn a_gateway_without_migration_privileges_does_not_block_the_owners_migration() {
    let ground = Recorded::start(DatabaseKind::Postgres).await;
    let Database::Postgres(postgres) = &ground.database else { unreachable!() };
    for statement in documented_sql(0) {
        postgres.ask_in("postgres", &statement);
    }
    let serves = postgres.url_for("gateway_serves:another%20word", "gateway_log");
    let gateway = Gateway::start(&ground.settings(&[("DATABASE_URL", &serves)])).await;
    until("it is denied", async || gateway.process.log().contains("permission denied")).await;
    let owner = postgres.url_for("gateway_migrates:one%20word", "gateway_log");
    let output = ground.try_command("migrate", &[("DATABASE_URL", &owner)]).await;
    assert_eq!(code(&output), 0, "{}", output_text(&output));
    for statement in documented_sql(1) {
        postgres.ask_in("gateway_log", &statement);
    }
    until("the gateway recovers without a restart", async || {
        postgres.ask_in("gateway_log", "SELECT count(*) FROM instances") == "1"
    })
    .await;
}

#[tokio::test]
async fn the_documented_queries_run() {
    for kind in BOTH {
        let ground = Recorded::start(kind).await;
        assert_eq!(code(&ground.try_command("migrate", &[]).await), 0);
        let queries = documented_sql(2);
        assert_eq!(queries.len(), 3);
        // The first query is for PostgreSQL only.
        for query in queries.iter().skip(usize::from(kind == DatabaseKind::Sqlite)) {
            ground.database.ask(query);
        }
    }
}
