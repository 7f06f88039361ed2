//! One set of behaviours for every storage backend, and what only the one on disk can be asked.

use hookcast_log::storage::{BACKENDS, Durability, StorageSettings, Store};
use std::path::Path;

mod catalog;
mod damage;
mod history;
mod ledger;
mod log;
pub(crate) mod make;
mod reopen;
mod retention;

/// Runs every behaviour over every backend.
macro_rules! conformance {
    ($($area:ident :: { $($name:ident),* $(,)? })*) => {
        mod over_memory {
            $($(#[tokio::test]
            async fn $name() {
                super::$area::$name(&super::open("memory", "unused".as_ref()).await).await;
            })*)*
        }
        mod over_sqlite {
            $($(#[tokio::test]
            async fn $name() {
                let dir = tempfile::tempdir().unwrap();
                let store = super::open("sqlite", &dir.path().join("hookcast.db")).await;
                super::$area::$name(&store).await;
                store.close().await;
            })*)*
        }
    };
}

conformance! {
    log::{
        an_empty_log_has_an_id_and_no_events,
        pages_come_back_in_order_and_whole,
        a_read_gives_one_page_at_least_and_no_more_than_asked,
        events_are_found_by_position,
        an_append_elsewhere_than_at_the_head_is_refused_whole,
        concurrent_appends_with_one_head_let_one_through,
        resume_tokens_move_with_the_events,
        the_position_of_an_upstream_that_was_replaced_is_left_out,
        fingerprints_are_kept_until_dropped,
        a_time_is_found_between_pages,
        a_clock_that_slips_back_hides_nothing,
        many_small_appends_keep_count,
        purged_data_is_gone_and_everything_else_stays,
    }
    retention::{
        old_pages_go_and_the_newest_stays,
        a_log_that_is_too_large_shrinks_from_the_old_end,
        trimming_stops_at_its_page_limit,
        events_that_exceptions_need_outlive_the_log,
        what_is_kept_aside_can_be_purged,
        an_event_needed_twice_goes_with_the_last_exception,
        an_exception_made_after_the_trim_brings_its_event,
        positions_are_never_given_twice,
        letters_that_went_are_remembered_in_bounds,
    }
    ledger::{
        a_new_lease_fences_the_old_one,
        a_fenced_change_leaves_the_others_alone,
        a_repeated_commit_changes_nothing,
        checkpoints_come_back,
        exceptions_are_listed_by_state_and_page,
        a_start_sees_waiting_retries_and_counts_dead_letters,
        put_and_clear_in_one_commit_end_cleared,
        a_mark_changes_letters_that_are_kept_and_brings_none_back,
        failures_are_listed_newest_last,
        expired_ranges_that_touch_become_one,
        each_of_thousands_of_ranges_is_found,
        old_dead_letters_and_failures_are_forgotten_in_bounds,
        forgetting_a_subscription_takes_all_of_it,
        thousands_of_exceptions_are_counted_right,
    }
    history::{
        pages_are_found_by_what_they_can_hold,
        a_page_of_a_known_key_replaces_it,
        old_attempts_go_by_age_and_by_size,
        failures_are_listed_behind_a_key,
        jobs_come_back_and_only_so_many_that_ended_stay,
        skipped_ranges_are_joined_and_forgotten,
        dead_letters_are_counted_in_a_range,
    }
    catalog::{
        a_subscription_comes_back_as_it_was_put,
        a_revision_must_match,
        ordinals_are_never_given_twice,
        a_source_keeps_its_resume_token,
        gaps_are_listed_newest_first,
        deleting_twice_says_so,
    }
}

/// Opens a store of a kind.
pub(crate) async fn open(scheme: &str, path: &Path) -> Store {
    try_open(scheme, path).await.unwrap()
}

/// Opens a store of a kind, or says why not.
pub(crate) async fn try_open(scheme: &str, path: &Path) -> hookcast_log::storage::Result<Store> {
    let backend = BACKENDS.iter().find(|backend| backend.scheme == scheme).unwrap();
    (backend.open)(settings(path)).await
}

/// Settings for tests: no reserve, so that a full build machine does not fail them.
pub(crate) fn settings(path: &Path) -> StorageSettings {
    StorageSettings {
        path: path.to_owned(),
        durability: Durability::Normal,
        reserve: hookcast_log::storage::Reserve::Bytes(0),
        seals: None,
        readiness: hookcast_supervise::readiness::Readiness::default(),
    }
}
