-- Dead letters that retention took, both ends inclusive; ranges that touch are one row. The letter is gone, that it died is not.

CREATE TABLE buried (
    sub      INTEGER NOT NULL,
    from_seq INTEGER NOT NULL,
    to_seq   INTEGER NOT NULL,
    PRIMARY KEY (sub, from_seq)
) WITHOUT ROWID;
