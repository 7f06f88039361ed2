//! Where the programs lie that a benchmark starts.

use std::path::{Path, PathBuf};

/// The relay's own name.
const RELAY: &str = "hookcast";

/// The relay that is measured: the one named, else the one beside this program, else the first on the path.
///
/// # Errors
/// When there is none.
pub(crate) fn relay(named: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    if let Some(named) = named {
        anyhow::ensure!(is_program(&named), "{} is no program that can be started", named.display());
        // Children run in directories of their own.
        return Ok(std::path::absolute(named)?);
    }
    let own = crate::held::own_program()?;
    let beside = own.with_file_name(RELAY);
    if is_program(&beside) {
        return Ok(beside);
    }
    on_path(RELAY).ok_or_else(|| {
        let folder = own.parent().unwrap_or(&own).display();
        anyhow::anyhow!("no relay to measure: there is no `{RELAY}` in {folder} or on the path; build it with `cargo build --release`, or name one with --relay")
    })
}

/// The first program of this name on the path.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|program| is_program(program))
}

/// Whether it is a file that may be run.
pub(crate) fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}
