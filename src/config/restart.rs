//! Which keys a running relay does not take over: all but the declared definitions. Pure.

use super::Config;

/// Lists `section.key` with whether both configurations agree on it.
macro_rules! agreements {
    ($one:ident, $other:ident: $($section:ident { $($key:ident),* })*) => {
        [$($((concat!(stringify!($section), ".", stringify!($key)), $one.$section.$key == $other.$section.$key)),*),*]
    };
}

/// The keys in which two configurations differ, but for what they declare: a change of one needs a restart.
#[must_use]
#[allow(clippy::float_cmp, reason = "read from the same text they are the same number")]
pub fn keys_that_differ(one: &Config, other: &Config) -> Vec<&'static str> {
    let agreements = agreements! { one, other:
        server { listen, tcp_listen, hosts, cors_origins }
        storage { url, durability, reserve }
        retention { max_age, max_bytes, dead_letters_max_age }
        history { attempts, max_age, max_bytes }
        dedupe { max_age, max_ids }
        limits { event_bytes, batch_events, subscriptions, streams, connections }
        network { allow, allow_http, resolver }
        delivery { timeout, max_in_flight, lanes, per_host_per_second, per_host_burst, per_host_in_flight }
        websub { topics, lease_default, lease_max, public_url }
        auth { tokens }
        secrets { key, previous_keys }
    };
    let groups = ("limit_groups", one.limit_groups == other.limit_groups);
    agreements.into_iter().chain([groups]).filter(|(_, agree)| !agree).map(|(key, _)| key).collect()
}

#[cfg(test)]
mod tests {
    use super::super::read::KEYS;
    use super::*;

    #[test]
    fn every_key_is_looked_at() {
        let source = include_str!("restart.rs");
        for (section, keys) in KEYS {
            let line = source.lines().find(|line| line.trim_start().starts_with(&format!("{section} {{"))).unwrap_or_default();
            // Where the master key stands, and who may read that file, is not the key.
            for key in keys.iter().filter(|key| !["key_file", "any_permissions"].contains(key)) {
                let is_there = line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == *key);
                assert!(is_there, "{section}.{key} is not looked at");
            }
        }
    }

    #[test]
    fn what_is_declared_is_no_difference() {
        let read = |text: &str| Config::parse(text, "config.toml", &[], &["sse"]).unwrap();
        let one = read("");
        let other = read(
            "[[sources]]\nname = \"a\"\nprotocol = \"sse\"\nurl = \"https://example.com/\"\ntopic = \"t\"\n\
             [retention]\nmax_age = \"8d\"\n[limit_groups.crm]\nper_second = 1\n[network]\nallow = [\"10.0.0.0/8\"]\n",
        );
        assert_eq!(keys_that_differ(&one, &one), [""; 0]);
        assert_eq!(keys_that_differ(&one, &other), ["retention.max_age", "network.allow", "limit_groups"]);
    }
}
