-- Recovery: jobs that post events once more, and what was skipped.

CREATE TABLE jobs (
    sub        INTEGER NOT NULL,
    id         INTEGER NOT NULL,
    -- 0 redrive, 1 replay.
    kind       INTEGER NOT NULL,
    -- 0 all events of the range, 1 dead letters of the range, 2 dead letters at the positions in `seqs`.
    selection  INTEGER NOT NULL,
    from_seq   INTEGER NOT NULL,
    to_seq     INTEGER NOT NULL,
    seqs       BLOB,
    -- 0 running, 1 done, 2 cancelled.
    state      INTEGER NOT NULL,
    -- Everything up to here was posted.
    position   INTEGER NOT NULL,
    events     INTEGER NOT NULL,
    done       INTEGER NOT NULL,
    failed     INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    ended_at   INTEGER,
    PRIMARY KEY (sub, id)
) WITHOUT ROWID;

-- A start loads what runs in a partition.
CREATE INDEX jobs_running ON jobs (sub % 64) WHERE state = 0;

-- Ranges that were skipped by hand, both ends inclusive; ranges that touch are one row.
CREATE TABLE skipped (
    sub      INTEGER NOT NULL,
    from_seq INTEGER NOT NULL,
    to_seq   INTEGER NOT NULL,
    PRIMARY KEY (sub, from_seq)
) WITHOUT ROWID;
