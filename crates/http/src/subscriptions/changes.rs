//! Subscriptions that change: replaced whole, or patched; and from where on a change of what they want judges.

use std::sync::Arc;

use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use serde_json::Value;
use tokio::sync::OwnedMutexGuard;

use super::{created, find, is_failing, new_record, rules, still_there, tag, visible};
use crate::auth::Scope;
use crate::definition::{CHANGE_TRIES, Precondition, contended, declared, random, read_json, refuse};
use crate::problem::Problem;
use crate::query::Query;
use crate::{HttpState, quota, views};
use hookcast_core::model::subscription::SubscriptionRecord;
use hookcast_core::model::subscription::change::{self, Effect};
use hookcast_core::model::subscription::parse::form::Keys;
use hookcast_core::model::subscription::parse::{Definition, Rules, TextJudge, merge_patch};
use hookcast_delivery::question::Stillness;
use hookcast_log::storage::{StorageError, StorageErrorKind};

/// A change that is ready to be stored.
struct Change {
    record: SubscriptionRecord,
    keys: Keys,
    /// Kept until its lane knows of it, where it chooses other events than before.
    still: Option<Stillness>,
    /// Whether it says what is there.
    is_nothing: bool,
}

pub(super) async fn replace(state: Data<HttpState>, request: HttpRequest, payload: Payload) -> Result<HttpResponse, Problem> {
    let caller = state.auth.require(&request, Scope::Manage)?;
    let id = super::path_id(&request).ok_or_else(super::bad_path_id)?;
    let precondition = Precondition::of(request.headers())?;
    visible(&state, &caller, &id)?;
    let is_dry = Query::read(&request, &["dry_run"])?.flag("dry_run")?;
    let body = read_json(&state, &request, payload).await?;
    let definition = super::read_definition(&state, &caller, &body, Some(id.as_str()))?;
    let mut turn = None;
    for _ in 0..CHANGE_TRIES {
        let present = visible(&state, &caller, &id)?;
        precondition.check(present.as_deref().map(tag).as_deref())?;
        let change = match &present {
            None => {
                if turn.is_none() {
                    turn = quota::subscription(&state, &caller, id.as_str()).await?;
                }
                let (record, keys) = new_record(&state, &caller, definition.clone(), id.clone()).await?;
                Change { record, keys, still: None, is_nothing: false }
            }
            Some(present) if present.declared => return Err(declared()),
            Some(present) => changed(&state, present, definition.clone(), is_dry).await?,
        };
        if is_dry {
            return Ok(dry(&change.record, present.is_none()));
        }
        let keys = change.keys;
        match store(&state, present.as_ref(), change, turn.take()).await {
            Ok(record) if present.is_none() => return Ok(created(&record, keys)),
            Ok(record) => return Ok(answer(&state, &record, keys, present.as_ref()).await),
            Err(error) if error.kind == StorageErrorKind::Conflict && !precondition.is_given() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(contended())
}

pub(super) async fn patch(state: Data<HttpState>, request: HttpRequest, payload: Payload) -> Result<HttpResponse, Problem> {
    let (caller, found) = find(&state, &request, Scope::Manage)?;
    let precondition = Precondition::of(request.headers())?;
    let is_dry = Query::read(&request, &["dry_run"])?.flag("dry_run")?;
    let body = read_json(&state, &request, payload).await?;
    for _ in 0..CHANGE_TRIES {
        let present = still_there(&state, &caller, &found)?;
        precondition.check(Some(&tag(&present)))?;
        // Whether it runs is not part of a declaration: nothing else ends `disabled`.
        let is_switch = body.as_object().is_some_and(|members| members.keys().all(|name| name == "enabled"));
        if present.declared && !is_switch {
            return Err(declared());
        }
        // What it names already may stay, although it is gone; it does not run by that.
        let texts = WithGroup { texts: &*state.texts, group: present.spec.limit_group.as_deref() };
        let definition = merge_patch(&present, &body, &Rules { texts: &texts, ..rules(&state) }).map_err(refuse)?;
        caller.follow(&definition.topics)?;
        let change = changed(&state, &present, definition, is_dry).await?;
        if is_dry {
            return Ok(dry(&change.record, false));
        }
        if change.is_nothing {
            return Ok(answer(&state, &present, change.keys, Some(&present)).await);
        }
        let keys = change.keys;
        match store(&state, Some(&present), change, None).await {
            Ok(record) => return Ok(answer(&state, &record, keys, Some(&present)).await),
            Err(error) if error.kind == StorageErrorKind::Conflict && !precondition.is_given() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(contended())
}

/// What a definition makes of a record. Where it chooses other events, the lane stands still until that is stored: asking it
/// costs a round to the lane, and most changes do not need it.
async fn changed(
    state: &HttpState,
    present: &Arc<SubscriptionRecord>,
    definition: Definition,
    is_dry: bool,
) -> Result<Change, Problem> {
    let (mut effect, mut still) = (Effect::default(), None);
    if !is_dry && change::chooses_anew(present, &definition) {
        let (from_seq, stillness) = state.deliveries.freeze(present).await.ok_or_else(contended)?;
        effect = Effect { from_seq, first_kept: state.follow.first_kept() };
        still = Some(stillness);
    }
    let (record, key_is_new) = change::changed_record(present, definition, effect, state.clock.now(), &mut random);
    let record = state.registry.within_limits(record);
    let is_nothing = !key_is_new && SubscriptionRecord { updated_at: present.updated_at, ..record.clone() } == **present;
    Ok(Change { record, keys: if key_is_new { Keys::Shown } else { Keys::Hidden }, still, is_nothing })
}

/// Stores a change and waits until it is delivered by, even when whoever asked for it goes away: what stands still for it must do
/// so until the end.
async fn store(
    state: &Data<HttpState>,
    present: Option<&Arc<SubscriptionRecord>>,
    change: Change,
    turn: Option<OwnedMutexGuard<()>>,
) -> Result<Arc<SubscriptionRecord>, StorageError> {
    let (state, expected) = (state.clone(), present.map_or(0, |present| present.revision));
    let storing = async move {
        let Change { record, still, .. } = change;
        let stored = state.registry.put(record, expected).await?;
        state.deliveries.caught_up(&stored).await;
        drop(still);
        Ok(stored)
    };
    quota::kept(turn, storing).await
}

/// The record as it is now; from where on it judges, when that is another than before.
async fn answer(
    state: &HttpState,
    record: &Arc<SubscriptionRecord>,
    keys: Keys,
    before: Option<&Arc<SubscriptionRecord>>,
) -> HttpResponse {
    let mut shown = views::subscription(record, keys, is_failing(state, record).await);
    if before.is_some_and(|before| before.revisions.last() == record.revisions.last())
        && let Some(members) = shown.as_object_mut()
    {
        members.remove("effective_from");
    }
    super::answer_shown(HttpResponse::Ok(), record, keys, &shown)
}

/// What a change would make; nothing was stored, so that nobody knows from where on it would judge.
fn dry(record: &SubscriptionRecord, is_new: bool) -> HttpResponse {
    let mut shown = views::subscription(record, Keys::Hidden, false);
    if let Some(members) = shown.as_object_mut() {
        members.remove("effective_from");
        members.insert("dry_run".to_owned(), Value::from(if is_new { "create" } else { "change" }));
    }
    HttpResponse::Ok().json(shown)
}

/// Judges as `texts` does, and knows one group of limits more.
struct WithGroup<'a> {
    texts: &'a dyn TextJudge,
    group: Option<&'a str>,
}

impl TextJudge for WithGroup<'_> {
    fn filter(&self, expression: &str) -> Result<(), String> {
        self.texts.filter(expression)
    }

    fn template(&self, body: &str) -> Result<(), String> {
        self.texts.template(body)
    }

    fn certificates(&self, pem: &str) -> Result<(), String> {
        self.texts.certificates(pem)
    }

    fn client_identity(&self, cert_pem: &str, key_pem: &str) -> Result<(), String> {
        self.texts.client_identity(cert_pem, key_pem)
    }

    fn has_limit_group(&self, name: &str) -> bool {
        self.group == Some(name) || self.texts.has_limit_group(name)
    }
}
