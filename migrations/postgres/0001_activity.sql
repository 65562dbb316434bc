-- Times are Unix milliseconds.

-- Who came in, who was refused, who decided what.
CREATE TABLE activity (
    id TEXT COLLATE "C" PRIMARY KEY,
    at BIGINT NOT NULL,
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
);

CREATE INDEX activity_at ON activity (at, id);
CREATE INDEX activity_kind ON activity (kind, at, id);
CREATE INDEX activity_subject ON activity (subject, at, id);
CREATE INDEX activity_client ON activity (client, at, id);
CREATE INDEX activity_actor ON activity (actor_oid, at, id);
CREATE INDEX activity_session ON activity (session) WHERE session IS NOT NULL;

-- Records are added, and go when they are old.
CREATE FUNCTION activity_stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        RAISE EXCEPTION 'activity records do not change';
    ELSIF OLD.at > (extract(epoch FROM now()) - 86400) * 1000 THEN
        RAISE EXCEPTION 'activity records stay for a day at least';
    END IF;
    RETURN OLD;
END
$$;
CREATE TRIGGER activity_stays BEFORE UPDATE OR DELETE ON activity
FOR EACH ROW EXECUTE FUNCTION activity_stays();

-- The administrator's switch: one row. Off until somebody opts in.
CREATE TABLE access (
    one BIGINT PRIMARY KEY CHECK (one = 1),
    database TEXT NOT NULL,
    enabled BOOLEAN NOT NULL,
    since BIGINT,
    actor_oid TEXT,
    actor_name TEXT,
    actor_email TEXT
);
INSERT INTO access (one, database, enabled) VALUES (1, md5(random()::text || clock_timestamp()::text), FALSE);

-- Who is kept out, and until when.
CREATE TABLE blocks (
    kind TEXT NOT NULL CHECK (kind IN ('subject', 'client')),
    who TEXT NOT NULL,
    since BIGINT NOT NULL,
    until BIGINT NOT NULL,
    actor_oid TEXT,
    actor_name TEXT,
    actor_email TEXT,
    PRIMARY KEY (kind, who)
);

-- Gateways that run over this database, and whether each lets machines in.
CREATE TABLE instances (
    id TEXT PRIMARY KEY,
    host TEXT NOT NULL,
    version TEXT NOT NULL,
    started_at BIGINT NOT NULL,
    seen_at BIGINT NOT NULL,
    is_on BOOLEAN NOT NULL
);
