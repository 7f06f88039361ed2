-- The durable log and what travels in the same transaction as its events.
--
-- This file is never edited once released: its checksum is stored in every database. Changes are new files.
-- All times are milliseconds since the Unix epoch.

-- Names the file as ours, so that another program's database is refused instead of changed ("hkct").
PRAGMA application_id = 1751868276;

-- One row a log page of up to 64 events: rows an event would cost more than twice as much to append and read.
-- The big column stands last, so that the others are read without touching its overflow pages.
CREATE TABLE log (
    -- Position of the first event of the page.
    first  INTEGER PRIMARY KEY,
    -- Number of events in it.
    n      INTEGER NOT NULL,
    -- Latest arrival in this page and the ones before it; begins anew behind a clock that went back by more than a minute.
    t_last INTEGER NOT NULL,
    -- Encoded bytes of all pages ever appended up to this one: the size of the log is a difference, never a scan.
    total  INTEGER NOT NULL,
    -- The distinct topics, one a line; for people and for programs that look for a topic without decoding.
    topics TEXT    NOT NULL,
    -- The page, checksummed, as it also stands in memory.
    data   BLOB    NOT NULL
);

-- Events that outlive retention because a retry or a dead letter needs them, each as a page of one event.
CREATE TABLE kept (
    seq   INTEGER PRIMARY KEY,
    event BLOB NOT NULL
);

-- Fingerprints of identified events in chunks, so that a start loads them instead of reading the log.
CREATE TABLE fingerprints (
    first   INTEGER PRIMARY KEY,
    last    INTEGER NOT NULL,
    last_at INTEGER NOT NULL,
    bytes   BLOB NOT NULL
);

-- Small facts: log_id (fixed when the log was made) and ordinal (the last one given).
CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value ANY NOT NULL
) STRICT, WITHOUT ROWID;
