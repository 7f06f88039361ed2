-- Ranges of positions that no event ever had, both ends inclusive: a log goes on far behind its head when a copy of it is put
-- back. Those that earlier versions made are found at the first start and noted here; `meta` holds `jumps_found` from then on.

CREATE TABLE jumps (
    from_seq INTEGER PRIMARY KEY,
    to_seq   INTEGER NOT NULL
);
