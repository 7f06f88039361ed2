//! Limits that a token has on definitions: how many lie inside its topics.

use tokio::sync::OwnedMutexGuard;

use super::HttpState;
use super::auth::Caller;
use super::auth::usage::reached;
use super::problem::Problem;
use hookcast_log::storage::{StorageError, StorageErrorKind};

/// The turn to make a subscription, to be kept until it is stored; `None` when nothing limits the token. One that is there by then
/// is no more than there were: whoever stores it meets a conflict.
pub(super) async fn subscription(state: &HttpState, caller: &Caller, id: &str) -> Result<Option<OwnedMutexGuard<()>>, Problem> {
    let count = || state.registry.count(|record| caller.covers(&record.spec.topics));
    let is_there = || state.registry.get(id).is_some_and(|present| caller.covers(&present.spec.topics));
    turn(caller, |caller| caller.usage()?.limits().subscriptions, "subscriptions", is_there, count).await
}

/// The same for a source.
pub(super) async fn source(state: &HttpState, caller: &Caller, name: &str) -> Result<Option<OwnedMutexGuard<()>>, Problem> {
    let count = || state.sources.count(|record| caller.reaches(record.spec.topic.as_str()));
    let is_there = || state.sources.get(name).is_some_and(|present| caller.reaches(present.spec.topic.as_str()));
    turn(caller, |caller| caller.usage()?.limits().sources, "sources", is_there, count).await
}

/// Does what stores, to its end, and gives the turn back behind that, also when whoever asked for it goes away meanwhile.
///
/// # Errors
/// As what stores fails.
pub(super) async fn kept<T: Send + 'static>(
    turn: Option<OwnedMutexGuard<()>>,
    storing: impl Future<Output = Result<T, StorageError>> + Send + 'static,
) -> Result<T, StorageError> {
    let storing = tokio::spawn(async move {
        let stored = storing.await;
        drop(turn);
        stored
    });
    storing.await.unwrap_or_else(|error| {
        let message = "the change was cut off".to_owned();
        Err(StorageError { kind: StorageErrorKind::Unknown, message, source: Some(Box::new(error)) })
    })
}

async fn turn(
    caller: &Caller,
    most: impl Fn(&Caller) -> Option<u32>,
    what: &str,
    is_there: impl Fn() -> bool,
    count: impl Fn() -> usize,
) -> Result<Option<OwnedMutexGuard<()>>, Problem> {
    let (Some(usage), Some(most)) = (caller.usage(), most(caller)) else { return Ok(None) };
    let turn = usage.turn().await;
    if is_there() || count() < most as usize { Ok(Some(turn)) } else { Err(reached(most, what)) }
}
