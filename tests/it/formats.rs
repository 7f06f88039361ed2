//! Every format of streams, received by clients that are not ours: whole, in order, cut in the middle and resumed; and what
//! clients do that they should not.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod clients;
mod crowd;
mod cutter;
mod events;
mod feed;
mod posted;
mod rows;
mod versions;
