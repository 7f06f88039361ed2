//! The storage of a configuration, opened.

use super::AppError;
use crate::config::Config;
use hookcast_log::storage::{BACKENDS, Room, StorageError, StorageErrorKind, StorageSettings, Store};
use hookcast_supervise::readiness::Readiness;

/// Opens the storage that is configured and says what room it has.
pub(super) async fn open_store(config: &Config, readiness: Readiness) -> Result<Store, AppError> {
    let scheme = config.storage.scheme();
    let backend = BACKENDS
        .iter()
        .find(|backend| backend.scheme == scheme)
        .ok_or_else(|| AppError::Setting(format!("storage.url: there is no storage of the kind {scheme:?}")))?;
    if let Some(directory) = config.storage.path().parent().filter(|directory| !directory.as_os_str().is_empty()) {
        std::fs::create_dir_all(directory).map_err(|error| {
            StorageError::new(StorageErrorKind::CannotOpen, format!("cannot make the directory {}: {error}", directory.display()))
        })?;
    }
    let settings = StorageSettings {
        path: config.storage.path(),
        durability: config.storage.durability,
        reserve: config.storage.reserve,
        seals: config.secrets.seals(),
        readiness,
    };
    let store = (backend.open)(settings).await?;
    tell_room(&store);
    Ok(store)
}

/// Says how much is free, and what of it is left alone.
fn tell_room(store: &Store) {
    let Some(room) = store.log.room() else { return };
    let Room { free_bytes, reserve_bytes } = room;
    if room.is_short() {
        tracing::warn!(
            free_bytes,
            reserve_bytes,
            "less is free on the file system of the database than `storage.reserve` leaves alone: events are refused (507) \
             until there is more; free some space on it, lower `retention`, or set a smaller `storage.reserve`"
        );
    } else {
        tracing::info!(free_bytes, reserve_bytes, "events are taken until less than the reserve is free on the file system");
    }
}
