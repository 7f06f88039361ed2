-- Every attempt is remembered: failures as rows, as before, successes in pages of up to 256, some seven bytes each.

CREATE TABLE history (
    -- When the page was begun, in milliseconds, and whose lane made it; a page that is not full is written again.
    id        INTEGER PRIMARY KEY,
    last_at   INTEGER NOT NULL,
    first_at  INTEGER NOT NULL,
    first_seq INTEGER NOT NULL,
    last_seq  INTEGER NOT NULL,
    -- A bit for each partition that has an attempt inside.
    parts     INTEGER NOT NULL,
    data      BLOB NOT NULL
);

-- A search looks at this index only until it has the pages that can hold what is looked for.
CREATE INDEX history_when ON history (last_at, first_at, first_seq, last_seq, parts);

-- What attempts take, rows with their indexes counted roughly: kept by triggers, so that it is never a scan.
CREATE TABLE history_size (bytes INTEGER NOT NULL);
INSERT INTO history_size SELECT coalesce(sum(160 + coalesce(length(response), 0)), 0) FROM failures;

CREATE TRIGGER history_grows AFTER INSERT ON history BEGIN
    UPDATE history_size SET bytes = bytes + 96 + length(new.data);
END;
CREATE TRIGGER history_changes AFTER UPDATE ON history BEGIN
    UPDATE history_size SET bytes = bytes + length(new.data) - length(old.data);
END;
CREATE TRIGGER history_shrinks AFTER DELETE ON history BEGIN
    UPDATE history_size SET bytes = bytes - 96 - length(old.data);
END;
CREATE TRIGGER failures_grow AFTER INSERT ON failures BEGIN
    UPDATE history_size SET bytes = bytes + 160 + coalesce(length(new.response), 0);
END;
CREATE TRIGGER failures_shrink AFTER DELETE ON failures BEGIN
    UPDATE history_size SET bytes = bytes - 160 - coalesce(length(old.response), 0);
END;
