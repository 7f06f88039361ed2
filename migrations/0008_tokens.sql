-- Tokens that were made over REST. Only the SHA-256 of a token is stored, in its record.

CREATE TABLE tokens (
    id     TEXT PRIMARY KEY,
    record TEXT NOT NULL
);

-- Once a token was made, tokens are asked for: `meta` holds `guarded` from then on, also when the last one is gone.
