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
    let activity = switched(present.activity, definition.enabled, present.websub.is_some());
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

/// Whether a subscription runs behind a definition that says so, or does not say.
///
/// Neither the return of a group of limits nor a renewal (of one that the hub made, which may be renewed) is to end what a person
/// wanted. Any other reason stays: what is enabled again after a failure begins slowly, and what is gone is removed by the hub, unless
/// its subscriber confirms it anew before.
fn switched(present: Activity, enabled: Option<bool>, is_renewable: bool) -> Activity {
    match (enabled, present) {
        (Some(false), Activity::Active | Activity::Paused | Activity::Disabled(DisabledReason::LimitGroup)) => {
            Activity::Disabled(DisabledReason::Manual)
        }
        (Some(false), Activity::Disabled(reason)) if is_renewable && reason != DisabledReason::Gone => {
            Activity::Disabled(DisabledReason::Manual)
        }
        (Some(true), Activity::Disabled(_)) => Activity::Active,
        (Some(false), Activity::Disabled(reason)) => Activity::Disabled(reason),
        (Some(true), Activity::Active | Activity::Paused) | (None, _) => present,
    }
}

#[cfg(test)]
mod tests {
    use DisabledReason::{Failing, Gone, LimitGroup, Manual};

    use super::*;

    #[test]
    fn a_person_disables_what_would_go_on_by_itself_and_keeps_other_reasons() {
        for (present, by_rest, by_hub) in [
            (Activity::Active, Manual, Manual),
            (Activity::Paused, Manual, Manual),
            (Activity::Disabled(LimitGroup), Manual, Manual),
            (Activity::Disabled(Manual), Manual, Manual),
            (Activity::Disabled(Failing), Failing, Manual),
            (Activity::Disabled(Gone), Gone, Gone),
        ] {
            assert_eq!(switched(present, Some(false), false), Activity::Disabled(by_rest), "{present:?}");
            assert_eq!(switched(present, Some(false), true), Activity::Disabled(by_hub), "{present:?} of the hub");
            assert_eq!(switched(present, None, true), present);
        }
        assert_eq!(switched(Activity::Disabled(Gone), Some(true), false), Activity::Active);
        assert_eq!(switched(Activity::Paused, Some(true), false), Activity::Paused);
    }
}
