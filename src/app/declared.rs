//! What `config.toml` declares: made or changed at the start by name, cursor and state kept; no longer declared = free again.

use std::collections::HashSet;

use super::{AppError, Ground};
use crate::config::Config;
use crate::delivery::Lanes;
use crate::model::Seq;
use crate::model::source::{SourceRecord, SourceSpec};
use crate::model::subscription::change::{changed_record, new_record};
use crate::model::subscription::parse::Definition;
use crate::model::subscription::{StartFrom, SubscriptionRecord};
use crate::registry::{Registry, SourceRegistry};

/// Brings the stored definitions in line with the declared ones.
pub(super) async fn apply(
    config: &Config,
    ground: &Ground,
    registry: &Registry,
    sources: &SourceRegistry,
    lanes: &Lanes,
) -> Result<(), AppError> {
    for definition in &config.subscriptions {
        subscription(ground, registry, lanes, definition.clone()).await?;
    }
    let declared: HashSet<&str> = config
        .subscriptions
        .iter()
        .filter_map(|d| d.id.as_ref())
        .map(super::super::model::subscription::SubscriptionId::as_str)
        .collect();
    for record in registry.all() {
        if record.declared && !declared.contains(record.spec.id.as_str()) {
            let freed = SubscriptionRecord { declared: false, ..SubscriptionRecord::clone(&record) };
            registry.put(freed, record.revision).await?;
        }
    }
    for spec in &config.sources {
        source(ground, sources, spec.clone()).await?;
    }
    let declared: HashSet<&str> = config.sources.iter().map(|spec| spec.name.as_str()).collect();
    for record in sources.list(None, usize::MAX) {
        if record.declared && !declared.contains(record.spec.name.as_str()) {
            sources.put(SourceRecord { declared: false, ..SourceRecord::clone(&record) }, record.revision).await?;
        }
    }
    Ok(())
}

async fn subscription(ground: &Ground, registry: &Registry, lanes: &Lanes, definition: Definition) -> Result<(), AppError> {
    let Some(id) = definition.id.clone() else { return Ok(()) };
    let now = ground.clock.now();
    let mut random = |bytes: &mut [u8]| getrandom::fill(bytes).expect("invariant: the system has random bytes");
    let Some(present) = registry.get(id.as_str()) else {
        let starts_after = start(ground, definition.from).await?;
        let record = new_record(definition, id, starts_after, now, &mut random);
        registry.put(SubscriptionRecord { declared: true, ..record }, 0).await?;
        return Ok(());
    };
    let cursor = lanes.status(&present).await.map_or(present.starts_after, |status| status.cursor);
    let (changed, _) = changed_record(&present, definition, cursor, now, &mut random);
    let changed = SubscriptionRecord { declared: true, ..changed };
    let same = SubscriptionRecord { updated_at: present.updated_at, ..changed.clone() } == *present;
    if !same {
        registry.put(changed, present.revision).await?;
    }
    Ok(())
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
    match sources.get(&spec.name) {
        None => {
            let record = SourceRecord { spec, revision: 0, declared: true, resume_token: None, created_at: now, updated_at: now };
            sources.put(record, 0).await?;
        }
        Some(present) if present.spec != spec || !present.declared => {
            let changed = SourceRecord { spec, declared: true, updated_at: now, ..SourceRecord::clone(&present) };
            sources.put(changed, present.revision).await?;
        }
        Some(_) => {}
    }
    Ok(())
}
