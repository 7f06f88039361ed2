//! How a definition becomes a record, or changes one; the same for REST and `config.toml`. Pure.

use super::parse::{Definition, Random};
use super::{Activity, DisabledReason, Ordinal, REVISIONS_MAX, Revision, SubscriptionId, SubscriptionRecord};
use crate::clock::Timestamp;
use crate::model::Seq;

/// A record that did not exist; the catalog gives ordinal and revision. A key that was made is in it, to be shown once.
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
        created_at: now,
        updated_at: now,
    }
}

/// Whether a definition chooses other events than the one in force, so that the cursor must be known to change it.
#[must_use]
pub fn chooses_anew(present: &SubscriptionRecord, definition: &Definition) -> bool {
    let spec = &present.spec;
    definition.topics != spec.topics || definition.types != spec.types || definition.filter != spec.filter
}

/// The record as a definition changes it, and whether its newest key is new. `cursor` is how far it has come: the new
/// choice judges what lies behind that.
#[must_use]
pub fn changed_record(
    present: &SubscriptionRecord,
    definition: Definition,
    cursor: Seq,
    now: Timestamp,
    random: Random<'_>,
) -> (SubscriptionRecord, bool) {
    let activity = match (definition.enabled, present.activity) {
        (Some(false), Activity::Active | Activity::Paused) => Activity::Disabled(DisabledReason::Manual),
        (Some(true), Activity::Disabled(_)) => Activity::Active,
        (_, activity) => activity,
    };
    let mut revisions = present.revisions.clone();
    if chooses_anew(present, &definition) {
        let from_seq = cursor.next();
        revisions.retain(|revision| revision.from_seq < from_seq);
        revisions.push(Revision {
            from_seq,
            topics: definition.topics.clone(),
            types: definition.types.clone(),
            filter: definition.filter.clone(),
        });
        if revisions.len() > REVISIONS_MAX {
            revisions.remove(0);
        }
    }
    let (spec, key_is_new) = definition.into_spec(present.spec.id.clone(), Some(&present.spec.signatures), random);
    (SubscriptionRecord { spec, activity, revisions, updated_at: now, ..present.clone() }, key_is_new)
}
