//! The master keys of `[secrets]`. No message repeats one.

use std::fs;
use std::io::Read as _;
use std::path::Path;

use zeroize::Zeroizing;

use super::Secrets;
use hookcast_core::model::fields::{Fields, child, quoted, text};
use hookcast_log::seal::{MasterKey, PREVIOUS_KEYS_MAX};

/// Largest key file, in bytes.
const KEY_FILE_BYTES_MAX: u64 = 4096;
const ALLOWED: &str = "allowed: base64 of 32 random bytes, such as `openssl rand -base64 32` makes";

/// Reads `[secrets]`.
pub(super) fn read(fields: &Fields<'_>) -> Secrets {
    let given = |name: &str| fields.text(name).filter(|given| !given.is_empty());
    let key = match (given("key"), given("key_file")) {
        (Some(_), Some(_)) => {
            fields.refuse("key_file", "conflict", "and `key` are both set; allowed: one of them");
            None
        }
        (Some(key), None) => parse(fields, fields.at("key"), key),
        (None, Some(file)) => read_file(fields, Path::new(file)),
        (None, None) => None,
    };
    let mut previous_keys = Vec::new();
    for (index, item) in fields.list("previous_keys", PREVIOUS_KEYS_MAX).unwrap_or_default().iter().enumerate() {
        let pointer = child(&fields.at("previous_keys"), &index.to_string());
        let Some(given) = text(item, pointer.clone(), fields.errors()) else { continue };
        previous_keys.extend(parse(fields, pointer, given));
    }
    if !previous_keys.is_empty() && given("key").is_none() && given("key_file").is_none() {
        fields.refuse("previous_keys", "master_key", "stands alone; allowed: beside a present `key` or `key_file`");
    }
    Secrets { key, previous_keys }
}

fn parse(fields: &Fields<'_>, pointer: String, given: &str) -> Option<MasterKey> {
    match MasterKey::parse(given.trim()) {
        Ok(key) => Some(key),
        Err(problem) => {
            fields.errors().push(pointer, "master_key", format!("{problem}; {ALLOWED}"));
            None
        }
    }
}

fn read_file(fields: &Fields<'_>, path: &Path) -> Option<MasterKey> {
    let name = quoted(&path.display().to_string());
    let refuse = |slug: &'static str, problem: String| fields.refuse("key_file", slug, problem);
    // Looked at before it is opened: opening a pipe waits for a writer that may never come.
    let metadata = match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => metadata,
        Ok(_) => {
            refuse("master_key", format!("{name} is not a regular file"));
            return None;
        }
        Err(error) => {
            refuse("master_key", format!("{name} cannot be read: {error}"));
            return None;
        }
    };
    #[cfg(unix)]
    if std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o077 != 0
        && !fields.flag("any_permissions").unwrap_or_default()
    {
        refuse(
            "secret_permissions",
            format!(
                "{name} is open to others; allowed: a file that only its owner may read (`chmod 600`), or `any_permissions = true`"
            ),
        );
        return None;
    }
    let mut content = Zeroizing::new(String::new());
    match fs::File::open(path).and_then(|file| file.take(KEY_FILE_BYTES_MAX).read_to_string(&mut content)) {
        Ok(_) => parse(fields, fields.at("key_file"), &content),
        Err(error) => {
            refuse("master_key", format!("{name} cannot be read: {error}"));
            None
        }
    }
}
