//! Limits that subscriptions share: `[limit_groups]` and the `per_host_…` keys of `[delivery]`.

use std::collections::BTreeMap;

use super::Delivery;
use hookcast_core::model::fields::{Fields, quoted};
use hookcast_core::model::subscription::parse::{IN_FLIGHT_MAX, RATE_MAX};
use hookcast_core::model::subscription::{RateLimit, is_id};
use hookcast_delivery::limits::SharedTerms;

/// Most groups.
const GROUPS_MAX: usize = 10_000;

/// Reads `[limit_groups]`: by name, `per_second`, `burst` and `max_in_flight`, each optional.
pub(super) fn groups(root: &Fields<'_>) -> BTreeMap<String, SharedTerms> {
    let mut groups = BTreeMap::new();
    let Some(table) = root.map("limit_groups") else { return groups };
    for (name, _) in table.members() {
        let Some(group) = table.object(name, &["per_second", "burst", "max_in_flight"]) else { continue };
        if !is_id(name) {
            let detail = format!("{} is no name of a group; allowed: 1 to 64 of A-Z a-z 0-9 _ -", quoted(name));
            table.refuse(name, "limit_group", detail);
        } else if groups.len() >= GROUPS_MAX {
            table.refuse(name, "range", format!("is one group too many; allowed: {GROUPS_MAX}"));
            break;
        }
        let per_second = rate(&group, "per_second").unwrap_or_default();
        let burst = group.count("burst", 0..=RATE_MAX).unwrap_or_default();
        let in_flight = group.count("max_in_flight", 0..=IN_FLIGHT_MAX).unwrap_or_default();
        groups.insert(name.to_owned(), terms(per_second, burst, in_flight));
    }
    groups
}

/// Reads a rate; 0 = no limit.
pub(super) fn rate(fields: &Fields<'_>, name: &str) -> Option<f64> {
    fields.number(name).filter(|rate| {
        let sound = *rate >= 0.0 && *rate <= f64::from(RATE_MAX);
        if !sound {
            fields.refuse(name, "rate_limit", format!("is {rate}; allowed: 0 (no limit) to {RATE_MAX}"));
        }
        sound
    })
}

/// What all subscriptions of one host share.
pub(super) fn per_host(delivery: &Delivery) -> SharedTerms {
    terms(delivery.per_host_per_second, delivery.per_host_burst, delivery.per_host_in_flight)
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate of at most RATE_MAX")]
fn terms(per_second: f64, burst: u32, in_flight: u32) -> SharedTerms {
    let burst = if burst == 0 { per_second.ceil() as u32 } else { burst };
    SharedTerms {
        rate: (per_second > 0.0).then_some(RateLimit { per_second, burst: burst.max(1) }),
        in_flight: (in_flight > 0).then_some(in_flight),
    }
}
