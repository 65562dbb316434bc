-- Set while a transaction removes the oldest records because the log is as large as it may be.
CREATE TABLE pruning (
    one BIGINT PRIMARY KEY CHECK (one = 1),
    by_size BOOLEAN NOT NULL
);
INSERT INTO pruning (one, by_size) VALUES (1, FALSE);

-- By size, all but decisions may go before their day is over.
CREATE OR REPLACE FUNCTION activity_stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        RAISE EXCEPTION 'activity records do not change';
    ELSIF OLD.at > (extract(epoch FROM now()) - 86400) * 1000 THEN
        IF OLD.kind NOT IN ('login', 'login_denied', 'logout', 'session_ended_by_admin', 'session_expired', 'settings_seen', 'admin_denied')
            OR NOT (SELECT by_size FROM pruning) THEN
            RAISE EXCEPTION 'activity records stay for a day at least';
        END IF;
    END IF;
    RETURN OLD;
END
$$;
