-- Who has received what. A delivery that succeeded leaves no row: progress is one blob a partition, and only what did not
-- succeed at once has a row of its own.

CREATE TABLE checkpoints (
    part     INTEGER PRIMARY KEY,
    -- Rises with every lease; a holder of an older one is refused.
    epoch    INTEGER NOT NULL,
    frontier INTEGER NOT NULL,
    state    BLOB NOT NULL
);

-- Retries that wait (state 0) and dead letters (state 1). `sub` is the ordinal of the subscription.
CREATE TABLE exceptions (
    sub      INTEGER NOT NULL,
    seq      INTEGER NOT NULL,
    state    INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    sent     INTEGER NOT NULL,
    -- When the next attempt is due, or when it was given up.
    due_at   INTEGER NOT NULL,
    since    INTEGER NOT NULL,
    reason   TEXT NOT NULL,
    PRIMARY KEY (sub, seq)
) WITHOUT ROWID;

-- Retention asks which events are still needed.
CREATE INDEX exceptions_seq ON exceptions (seq);
-- A start loads the waiting retries of a partition and counts its dead letters.
CREATE INDEX exceptions_waiting ON exceptions (sub % 64, sub, seq) WHERE state = 0;
CREATE INDEX exceptions_dead ON exceptions (sub % 64, sub, seq) WHERE state = 1;
-- Dead letters are forgotten by age.
CREATE INDEX exceptions_dead_at ON exceptions (due_at) WHERE state = 1;

-- Ranges that retention took before they were delivered, both ends inclusive; ranges that touch are one row.
CREATE TABLE expired (
    sub      INTEGER NOT NULL,
    from_seq INTEGER NOT NULL,
    to_seq   INTEGER NOT NULL,
    PRIMARY KEY (sub, from_seq)
) WITHOUT ROWID;

-- Failed attempts, in about the order of time, which is what forgetting them by age goes by.
CREATE TABLE failures (
    id         INTEGER PRIMARY KEY,
    sub        INTEGER NOT NULL,
    seq        INTEGER NOT NULL,
    n          INTEGER NOT NULL,
    at         INTEGER NOT NULL,
    outcome    TEXT NOT NULL,
    status     INTEGER,
    error      TEXT,
    latency_ms INTEGER NOT NULL,
    response   TEXT
);

CREATE UNIQUE INDEX failures_once ON failures (sub, at, seq, n);
