-- What was done to the relay by people and programs: the newest hundred thousand acts, none older than a year.

CREATE TABLE audit (
    -- Never given twice, also not after the oldest are gone.
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    at       INTEGER NOT NULL,
    -- Name of the token; "local" on a relay without tokens, "config" for what the configuration declares.
    actor    TEXT NOT NULL,
    -- Address of the connection; never what a header says.
    peer     TEXT,
    method   TEXT NOT NULL,
    -- What it was done to: the kind, and its id.
    resource TEXT NOT NULL,
    target   TEXT,
    -- What follows the id in the path, such as secret/rotate.
    action   TEXT,
    -- Status of the answer.
    outcome  INTEGER NOT NULL,
    -- Names of the members that were given, one a line; never their values.
    fields   TEXT NOT NULL
);
