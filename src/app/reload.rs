//! The configuration's declared definitions, applied anew while the relay runs: all of them, or none when one of
//! them cannot be had.

use std::sync::Arc;

use super::{AppError, Ground, declared, url_judge};
use crate::config::{Config, keys_that_differ};
use hookcast_core::model::subscription::parse::TextJudge as _;
use hookcast_delivery::Lanes;
use hookcast_log::storage::StorageErrorKind;
use hookcast_registry::{Registry, SourceRegistry};

/// How often it is tried again when somebody else changed a definition at the same time.
const TRIES: u32 = 5;

/// Why nothing was applied, or not all.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// Definitions that the running relay cannot have, one a line; nothing was changed.
    #[error("{}", .0.join("\n"))]
    Refused(Vec<String>),
    /// Storage failed on the way; what is left is applied by the next time, or the next start.
    #[error("storage failed on the way, so some of them may be applied; the next SIGHUP or start applies the rest: {0}")]
    Failed(#[from] AppError),
}

/// Applies declared definitions to the relay it comes from.
#[derive(Clone)]
pub struct Reloader {
    pub(super) ground: Arc<Ground>,
    pub(super) registry: Registry,
    pub(super) sources: SourceRegistry,
    pub(super) lanes: Lanes,
    /// What the relay was started with.
    pub(super) running: Arc<Config>,
}

impl Reloader {
    /// Applies what `config` declares; everything else in it waits for a restart, and is named in one line of the log.
    ///
    /// # Errors
    /// [`ReloadError`]; nothing was changed when it is `Refused`.
    pub async fn apply(&self, config: &Config) -> Result<(), ReloadError> {
        self.judge(config)?;
        let waiting = keys_that_differ(&self.running, config);
        if !waiting.is_empty() {
            tracing::warn!(keys = waiting.join(", "), "these keys changed and need a restart; declared definitions are applied");
        }
        let mut tries = 1;
        loop {
            match self.bring_in_line(config).await {
                Err(AppError::Storage(error)) if error.kind == StorageErrorKind::Conflict && tries < TRIES => tries += 1,
                Err(error) => return Err(error.into()),
                Ok(()) => break,
            }
        }
        let (subscriptions, sources) = (config.subscriptions.len(), config.sources.len());
        tracing::info!(subscriptions, sources, "the declared definitions were applied");
        Ok(())
    }

    async fn bring_in_line(&self, config: &Config) -> Result<(), AppError> {
        declared::apply_early(config, &self.ground, &self.registry).await?;
        declared::apply(config, &self.ground, &self.registry, &self.sources, &self.lanes).await
    }

    /// What was good by the new file must be good by what the relay runs with, too.
    fn judge(&self, config: &Config) -> Result<(), ReloadError> {
        let (urls, texts) = (url_judge(&self.running), self.running.texts());
        let mut refused = Vec::new();
        for definition in &config.subscriptions {
            let id = definition.id.as_ref().map(ToString::to_string).unwrap_or_default();
            if let Err((_, detail)) = urls.check_url(&definition.url) {
                refused.push(format!("subscription {id}: url: {detail}; the running relay has the [network] of its start"));
            }
            if let Some(group) = definition.limit_group.as_deref().filter(|group| !texts.has_limit_group(group)) {
                refused.push(format!("subscription {id}: limit_group: {group:?} is new and needs a restart"));
            }
        }
        for spec in config.sources.iter().filter(|spec| !spec.url.is_empty()) {
            // A WebSocket begins as a request like any other.
            let dialled = spec.url.strip_prefix("ws").map_or_else(|| spec.url.clone(), |rest| format!("http{rest}"));
            if let Err((_, detail)) = urls.check_url(&dialled) {
                refused.push(format!("source {}: url: {detail}; the running relay has the [network] of its start", spec.name));
            }
        }
        let new = config.subscriptions.iter().filter_map(|definition| definition.id.as_ref());
        let new = new.filter(|id| self.registry.get(id.as_str()).is_none()).count() as u64;
        let (present, most) = (self.registry.len() as u64, self.running.limits.subscriptions);
        if new > 0 && present + new > most {
            refused.push(format!("{new} new subscriptions beside {present} are more than `limits.subscriptions` = {most}"));
        }
        if refused.is_empty() { Ok(()) } else { Err(ReloadError::Refused(refused)) }
    }
}
