//! What `config.toml` declares: made or changed by name, at the start and when it is read again, cursor and state kept; no
//! longer declared = free again.

use std::collections::HashSet;
use std::sync::Arc;

use super::{AppError, Ground};
use crate::config::Config;
use hookcast_core::model::administration::{Act, Maker};
use hookcast_core::model::source::{SourceRecord, SourceSpec};
use hookcast_core::model::subscription::change::{Effect, changed_record, chooses_anew, new_record};
use hookcast_core::model::subscription::parse::Definition;
use hookcast_core::model::subscription::{Activity, StartFrom, SubscriptionRecord};
use hookcast_core::model::{Seq, SubscriptionId};
use hookcast_delivery::Lanes;
use hookcast_http::audit::ACT_AGE_MAX;
use hookcast_registry::{Registry, SourceRegistry};

/// Subscriptions that are stored together.
const TOGETHER_MAX: usize = 256;
/// Names in one line of the log.
const TOLD_MAX: usize = 20;

/// The stored subscriptions, judged by the groups of limits that there are.
pub(super) async fn registry(config: &Config, ground: &Ground) -> Result<Registry, AppError> {
    let registry = Registry::open(Arc::clone(&ground.store.catalog)).await?;
    Ok(registry.with_limit_groups(config.limit_groups.keys().cloned().collect()))
}

/// Brings the stored subscriptions in line with the declared ones before anybody delivers for them; those that choose other
/// events than before are left to [`apply`], because where they stand must be known.
pub(super) async fn apply_early(config: &Config, ground: &Ground, registry: &Registry) -> Result<(), AppError> {
    follow_groups(ground, registry).await?;
    let mut records = Vec::new();
    for definition in &config.subscriptions {
        let Some(id) = definition.id.clone() else { continue };
        match registry.get(id.as_str()) {
            None => {
                let starts_after = start(ground, definition.from).await?;
                let record = new_record(definition.clone(), id, starts_after, ground.clock.now(), &mut random);
                records.push((SubscriptionRecord { declared: true, ..record }, 0));
            }
            Some(present) if !chooses_anew(&present, definition) => {
                records.extend(changed(ground, &present, definition.clone(), Effect::default()));
            }
            Some(_) => {}
        }
    }
    let declared = config.subscriptions.iter().filter_map(|definition| definition.id.as_ref());
    let declared: HashSet<&str> = declared.map(SubscriptionId::as_str).collect();
    for record in registry.all() {
        if record.declared && !declared.contains(record.spec.id.as_str()) {
            records.push((SubscriptionRecord { declared: false, ..SubscriptionRecord::clone(&record) }, record.revision));
        }
    }
    let freed = records.iter().filter(|(record, _)| !record.declared).map(|(record, _)| record.spec.id.as_str());
    tell_freed("subscriptions", &freed.collect::<Vec<_>>());
    let acts =
        records.iter().map(|(record, revision)| act(ground, "subscriptions", record.spec.id.as_str(), *revision)).collect();
    let mut records = records.into_iter().peekable();
    while records.peek().is_some() {
        let some = records.by_ref().take(TOGETHER_MAX).map(|(record, revision)| registry.put(record, revision));
        futures_util::future::try_join_all(some).await?;
    }
    note(ground, acts).await
}

/// Stops whoever names a group of limits that is not in the configuration any more, and lets go on whoever names one that is there
/// again.
async fn follow_groups(ground: &Ground, registry: &Registry) -> Result<(), AppError> {
    for present in registry.all() {
        let record = registry.within_limits(SubscriptionRecord::clone(&present));
        if record.activity == present.activity {
            continue;
        }
        let group = record.spec.limit_group.as_deref().unwrap_or_default().to_owned();
        let id = record.spec.id.clone();
        if record.activity == Activity::Active {
            tracing::info!(subscription.id = %id, limit_group = group, "its limit group is there again; its deliveries go on");
        } else {
            tracing::warn!(subscription.id = %id, limit_group = group,
                "its limit group is not in [limit_groups] of the configuration; it is disabled until that is back");
        }
        registry.put(SubscriptionRecord { updated_at: ground.clock.now(), ..record }, present.revision).await?;
    }
    Ok(())
}

/// Brings the rest of the stored definitions in line with the declared ones.
pub(super) async fn apply(
    config: &Config,
    ground: &Ground,
    registry: &Registry,
    sources: &SourceRegistry,
    lanes: &Lanes,
) -> Result<(), AppError> {
    for definition in &config.subscriptions {
        let present = definition.id.as_ref().and_then(|id| registry.get(id.as_str()));
        let Some(present) = present.filter(|present| chooses_anew(present, definition)) else { continue };
        // Its lane stands still until it goes by the change.
        let (from_seq, still) = match lanes.freeze(&present).await {
            Some((from_seq, still)) => (from_seq, Some(still)),
            None => (present.starts_after.next(), None),
        };
        let effect = Effect { from_seq, first_kept: ground.follow.first_kept() };
        if let Some((record, revision)) = changed(ground, &present, definition.clone(), effect) {
            let acts = vec![act(ground, "subscriptions", record.spec.id.as_str(), revision)];
            let stored = registry.put(record, revision).await?;
            lanes.caught_up(&stored).await;
            drop(still);
            note(ground, acts).await?;
        }
    }
    for spec in &config.sources {
        source(ground, sources, spec.clone()).await?;
    }
    let declared: HashSet<&str> = config.sources.iter().map(|spec| spec.name.as_str()).collect();
    let is_free = |record: &Arc<SourceRecord>| record.declared && !declared.contains(record.spec.name.as_str());
    let freed: Vec<Arc<SourceRecord>> = sources.list(None, usize::MAX).into_iter().filter(is_free).collect();
    tell_freed("sources", &freed.iter().map(|record| record.spec.name.as_str()).collect::<Vec<_>>());
    for record in freed {
        sources.put(SourceRecord { declared: false, ..SourceRecord::clone(&record) }, record.revision).await?;
    }
    Ok(())
}

/// Says what is not declared any more: it stays, and may be changed and deleted like any other.
fn tell_freed(what: &str, names: &[&str]) {
    if !names.is_empty() {
        let some = &names[..names.len().min(TOLD_MAX)];
        tracing::info!(
            count = names.len(),
            names = some.join(", "),
            "{what} that the configuration declares no more stay as they are"
        );
    }
}

/// What a definition makes of a record and the revision it replaces; `None` when it says what is there.
fn changed(
    ground: &Ground,
    present: &SubscriptionRecord,
    definition: Definition,
    effect: Effect,
) -> Option<(SubscriptionRecord, u64)> {
    let (changed, _) = changed_record(present, definition, effect, ground.clock.now(), &mut random);
    let changed = SubscriptionRecord { declared: true, ..changed };
    let is_same = SubscriptionRecord { updated_at: present.updated_at, ..changed.clone() } == *present;
    (!is_same).then_some((changed, present.revision))
}

fn random(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("invariant: the system has random bytes");
}

async fn start(ground: &Ground, from: StartFrom) -> Result<Seq, AppError> {
    let head = ground.follow.head();
    Ok(match from {
        StartFrom::Latest => head,
        StartFrom::Earliest => ground.follow.first_kept().prev(),
        StartFrom::Seq(seq) => seq.prev().min(head),
        StartFrom::Time(time) => ground.follow.before_time(time).await?,
    })
}

async fn source(ground: &Ground, sources: &SourceRegistry, spec: SourceSpec) -> Result<(), AppError> {
    let now = ground.clock.now();
    let name = spec.name.clone();
    let revision = match sources.get(&spec.name) {
        None => {
            let made_by = Some(Maker::OPERATOR.into());
            let record = SourceRecord { declared: true, made_by, ..SourceRecord::new(spec, now) };
            sources.put(record, 0).await?;
            0
        }
        Some(present) if present.spec != spec || !present.declared => {
            let changed = SourceRecord { declared: true, ..present.with_spec(spec, ground.follow.head(), now) };
            sources.put(changed, present.revision).await?;
            present.revision
        }
        Some(_) => return Ok(()),
    };
    note(ground, vec![act(ground, "sources", &name, revision)]).await
}

/// What the configuration did, as an act.
fn act(ground: &Ground, resource: &str, target: &str, revision: u64) -> Act {
    Act {
        id: 0,
        at: ground.clock.now(),
        actor: "config".to_owned(),
        peer: None,
        method: "PUT".to_owned(),
        resource: resource.to_owned(),
        target: Some(target.to_owned()),
        action: None,
        outcome: if revision == 0 { 201 } else { 200 },
        fields: Vec::new(),
    }
}

async fn note(ground: &Ground, mut acts: Vec<Act>) -> Result<(), AppError> {
    let oldest = ground.clock.now().minus(ACT_AGE_MAX);
    while !acts.is_empty() {
        let rest = acts.split_off(acts.len().min(TOGETHER_MAX));
        ground.store.administration.note(acts, oldest).await?;
        acts = rest;
    }
    Ok(())
}
