//! `hookcast backup`, `restore` and `rekey`: what is done with the database of a configuration as a whole.

use std::path::PathBuf;

use clap::Args;

use super::{ConfigArgs, EXIT_CONFIG, Exit, Program, load, output};
use crate::app::storage_exit_code;
use crate::config::Config;
use hookcast_core::clock::{Clock as _, SystemClock};
use hookcast_core::model::Seq;
use hookcast_log::storage::StorageError;
use hookcast_log::storage::sqlite::backup;

#[derive(Debug, Args)]
pub(super) struct BackupArgs {
    /// The copy to make; must not be there yet.
    file: PathBuf,
    #[command(flatten)]
    config: ConfigArgs,
}

#[derive(Debug, Args)]
pub(super) struct RestoreArgs {
    /// The copy to put back; a WAL beside it (`FILE-wal`) is taken with it.
    file: PathBuf,
    /// Put data that is there aside, as `<database>.replaced`.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

/// Copies the database, whether a relay uses it or not.
pub(super) async fn back_up(args: BackupArgs, program: &Program) -> Result<(), Exit> {
    let database = database(&load(&args.config, program)?)?;
    let bytes = backup::back_up(&database, &args.file).await.map_err(exit)?;
    output::say(&format!("{} has the database of {}, {bytes} bytes", args.file.display(), database.display()))
}

/// Puts a copy in the place of the database.
pub(super) async fn restore(args: RestoreArgs, program: &Program) -> Result<(), Exit> {
    let database = database(&load(&args.config, program)?)?;
    if let Some(directory) = database.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        let cannot = |error| Exit::new(super::EXIT_CREATE, format!("cannot make {}: {error}", directory.display()));
        std::fs::create_dir_all(directory).map_err(cannot)?;
    }
    let restored = backup::restore(&args.file, &database, args.force, SystemClock.now()).await.map_err(exit)?;
    let or_none = |seq: Option<Seq>| seq.map_or("none".to_owned(), |seq| seq.to_string());
    output::say(&format!(
        "{} has the events up to {}; the log goes on behind {}, so that no position is given twice \
         (head of the data it replaces: {}; last jump here: {})",
        database.display(),
        restored.copied_to,
        restored.head,
        or_none(restored.replaced_to),
        or_none(restored.last_jump)
    ))
}

/// Seals every definition with the present master key.
pub(super) async fn rekey(args: ConfigArgs, program: &Program) -> Result<(), Exit> {
    let config = load(&args, program)?;
    let database = database(&config)?;
    let no_key = || Exit::new(EXIT_CONFIG, "there is no master key to seal with: set `secrets.key` or `secrets.key_file`");
    let seals = config.secrets.seals().ok_or_else(no_key)?;
    let sealed = backup::rekey(&database, seals).await.map_err(exit)?;
    output::say(&format!("{sealed} definitions were sealed anew; former keys are not needed any more"))
}

fn database(config: &Config) -> Result<PathBuf, Exit> {
    if config.storage.scheme() == "sqlite" {
        return Ok(config.storage.path());
    }
    Err(Exit::new(EXIT_CONFIG, format!("storage.url is {}: there is no database to copy", config.storage.url)))
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn exit(error: StorageError) -> Exit {
    let cause = error.source.as_ref().map_or(String::new(), |source| format!(": {source}"));
    Exit::new(storage_exit_code(error.kind), format!("{error}{cause}"))
}
