//! Reading the configuration file, and refusing at once what is none.

use std::fs;
use std::io::{ErrorKind, Read as _};
use std::path::Path;

use super::error::{ConfigError, Origin};

/// Largest configuration file, in bytes.
pub(super) const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// The text of the file; empty when it is not there and need not be.
pub(super) fn read(path: &Path, must_be_there: bool) -> Result<String, ConfigError> {
    let fail =
        |slug, detail: String| ConfigError { origin: Origin::File(path.display().to_string()), key: String::new(), slug, detail };
    let unreadable = |error: std::io::Error| fail("config_unreadable", format!("cannot be read: {error}"));
    // Looked at before it is opened: opening a pipe waits for a writer that may never come.
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound && !must_be_there => return Ok(String::new()),
        Err(error) => return Err(unreadable(error)),
    };
    if !metadata.is_file() {
        return Err(fail("config_too_large", "is not a regular file; allowed: a TOML file of at most 1 MiB".to_owned()));
    }
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(unreadable)?;
    file.take(CONFIG_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > CONFIG_BYTES_MAX {
        return Err(fail("config_too_large", "is larger than 1 MiB".to_owned()));
    }
    String::from_utf8(bytes)
        .map_err(|error| fail("invalid_utf8", format!("is not UTF-8 from byte {} on", error.utf8_error().valid_up_to())))
}
