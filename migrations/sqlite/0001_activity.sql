-- Times are Unix milliseconds.

-- Who came in, who was refused, who decided what.
CREATE TABLE activity (
    id TEXT PRIMARY KEY NOT NULL,
    at INTEGER NOT NULL,
    kind TEXT NOT NULL,
    outcome TEXT NOT NULL CHECK (outcome IN ('success', 'failure')),
    actor_oid TEXT,
    actor_name TEXT,
    actor_email TEXT,
    client TEXT,
    subject TEXT,
    session TEXT,
    address TEXT,
    request_id TEXT,
    reason TEXT,
    text TEXT
) STRICT, WITHOUT ROWID;

CREATE INDEX activity_at ON activity (at, id);
CREATE INDEX activity_kind ON activity (kind, at, id);
CREATE INDEX activity_subject ON activity (subject, at, id);
CREATE INDEX activity_client ON activity (client, at, id);
CREATE INDEX activity_actor ON activity (actor_oid, at, id);
CREATE INDEX activity_session ON activity (session) WHERE session IS NOT NULL;

-- Records are added, and go when they are old.
CREATE TRIGGER activity_stays BEFORE UPDATE ON activity
BEGIN
    SELECT RAISE(ABORT, 'activity records do not change');
END;
CREATE TRIGGER activity_keeps BEFORE DELETE ON activity
WHEN old.at > (CAST(strftime('%s', 'now') AS INTEGER) - 86400) * 1000
BEGIN
    SELECT RAISE(ABORT, 'activity records stay for a day at least');
END;

-- The administrator's switch: one row. Off until somebody opts in.
CREATE TABLE access (
    one INTEGER PRIMARY KEY NOT NULL CHECK (one = 1),
    database TEXT NOT NULL,
    enabled INTEGER NOT NULL CHECK (enabled IN (0, 1)),
    since INTEGER,
    actor_oid TEXT,
    actor_name TEXT,
    actor_email TEXT
) STRICT;
INSERT INTO access (one, database, enabled) VALUES (1, lower(hex(randomblob(16))), 0);

-- Who is kept out, and until when.
CREATE TABLE blocks (
    kind TEXT NOT NULL CHECK (kind IN ('subject', 'client')),
    who TEXT NOT NULL,
    since INTEGER NOT NULL,
    until INTEGER NOT NULL,
    actor_oid TEXT,
    actor_name TEXT,
    actor_email TEXT,
    PRIMARY KEY (kind, who)
) STRICT, WITHOUT ROWID;

-- Gateways that run over this database, and whether each lets machines in.
CREATE TABLE instances (
    id TEXT PRIMARY KEY NOT NULL,
    host TEXT NOT NULL,
    version TEXT NOT NULL,
    started_at INTEGER NOT NULL,
    seen_at INTEGER NOT NULL,
    is_on INTEGER NOT NULL CHECK (is_on IN (0, 1))
) STRICT, WITHOUT ROWID;
