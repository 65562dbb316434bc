-- Set while a transaction removes the oldest records because the log is as large as it may be.
CREATE TABLE pruning (
    one INTEGER PRIMARY KEY NOT NULL CHECK (one = 1),
    by_size INTEGER NOT NULL CHECK (by_size IN (0, 1))
) STRICT;
INSERT INTO pruning (one, by_size) VALUES (1, 0);

-- By size, all but decisions may go before their day is over.
DROP TRIGGER activity_keeps;
CREATE TRIGGER activity_keeps BEFORE DELETE ON activity
WHEN old.at > (CAST(strftime('%s', 'now') AS INTEGER) - 86400) * 1000
    AND NOT (
        (SELECT by_size FROM pruning) = 1
        AND old.kind IN ('login', 'login_denied', 'logout', 'session_ended_by_admin', 'session_expired', 'settings_seen', 'admin_denied')
    )
BEGIN
    SELECT RAISE(ABORT, 'activity records stay for a day at least');
END;
