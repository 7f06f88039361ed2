-- How the `webhook-id` of a batch is made that a waiting retry is of. Rows of builds before this file have 0: its first and last
-- position alone, which a batch keeps until it is delivered. 1: with a hash of its format and positions.

ALTER TABLE exceptions ADD COLUMN batch_ids INTEGER NOT NULL DEFAULT 0;
