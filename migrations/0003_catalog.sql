-- The definitions, as JSON; what must be compared or moved on its own is a column.

CREATE TABLE subscriptions (
    id       TEXT PRIMARY KEY,
    ordinal  INTEGER NOT NULL UNIQUE,
    revision INTEGER NOT NULL,
    record   TEXT NOT NULL
);

CREATE TABLE sources (
    name         TEXT PRIMARY KEY,
    revision     INTEGER NOT NULL,
    record       TEXT NOT NULL,
    -- The upstream's position: moves in the transaction of the events it covers, not with the definition.
    resume_token TEXT
);

-- Stretches of an upstream that were missed; the newest thousand a source are kept.
CREATE TABLE gaps (
    id      INTEGER PRIMARY KEY,
    source  TEXT NOT NULL,
    from_at INTEGER NOT NULL,
    to_at   INTEGER NOT NULL,
    at_seq  INTEGER NOT NULL
);

CREATE INDEX gaps_source ON gaps (source, id);
