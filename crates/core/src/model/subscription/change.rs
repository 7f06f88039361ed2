//! How a definition becomes a record, or changes one; the same for REST and `config.toml`. Pure.

use super::parse::{Definition, Random};
use super::{Activity, DisabledReason, Ordinal, Revision, SubscriptionId, SubscriptionRecord};
use crate::clock::Timestamp;
use crate::model::Seq;
use crate::model::administration::Maker;

/// A record that did not exist, made by the operator; the catalog gives ordinal and revision. A key that was made is in it, to be shown once.
#[must_use]
pub fn new_record(
    definition: Definition,
    id: SubscriptionId,
    starts_after: Seq,
    now: Timestamp,
    random: Random<'_>,
) -> SubscriptionRecord {
    let activity = if definition.enabled == Some(false) { Activity::Disabled(DisabledReason::Manual) } else { Activity::Active };
    let (spec, _) = definition.into_spec(id, None, random);
    let revision = Revision {
        from_seq: starts_after.next(),
        topics: spec.topics.clone(),
        types: spec.types.clone(),
        filter: spec.filter.clone(),
        is_change: false,
    };
    SubscriptionRecord {
        spec,
        ordinal: Ordinal(0),
        revision: 0,
        activity,
        starts_after,
        consent: None,
        websub: None,
        revisions: vec![revision],
        declared: false,
        made_by: Some(Maker::OPERATOR.into()),
        created_at: now,
        updated_at: now,
    }
}

/// Whether a definition chooses other events than the one in force, so that it must be known where it takes effect.
#[must_use]
pub fn chooses_anew(present: &SubscriptionRecord, definition: &Definition) -> bool {
    let spec = &present.spec;
    definition.topics != spec.topics || definition.types != spec.types || definition.filter != spec.filter
}

/// Where a choice of events takes effect.
#[derive(Clone, Copy, Debug, Default)]
pub struct Effect {
    /// The first position that it judges.
    pub from_seq: Seq,
    /// The oldest position of the log.
    pub first_kept: Seq,
}

/// The record as a definition changes it, and whether its newest key is new. `effect` is not looked at when the definition
/// chooses as before.
#[must_use]
pub fn changed_record(
    present: &SubscriptionRecord,
    definition: Definition,
    effect: Effect,
    now: Timestamp,
    random: Random<'_>,
) -> (SubscriptionRecord, bool) {
    let activity = match (definition.enabled, present.activity) {
        // Neither the return of a group nor a renewal is to end what a person wanted. Any other reason stays: what is enabled again
        // after a failure begins slowly.
        (Some(false), Activity::Active | Activity::Paused | Activity::Disabled(DisabledReason::LimitGroup)) => {
            Activity::Disabled(DisabledReason::Manual)
        }
        (Some(false), Activity::Disabled(_)) if present.websub.is_some() => Activity::Disabled(DisabledReason::Manual),
        (Some(true), Activity::Disabled(_)) => Activity::Active,
        (_, activity) => activity,
    };
    let newest = chooses_anew(present, &definition).then(|| Revision {
        from_seq: effect.from_seq,
        topics: definition.topics.clone(),
        types: definition.types.clone(),
        filter: definition.filter.clone(),
        is_change: true,
    });
    let (spec, key_is_new) = definition.into_spec(present.spec.id.clone(), Some(&present.spec.signatures), random);
    let mut changed = SubscriptionRecord { spec, activity, updated_at: now, ..present.clone() };
    if let Some(newest) = newest {
        changed.judge_by(newest, effect.first_kept);
    }
    (changed, key_is_new)
}
