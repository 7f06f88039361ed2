//! The `WebSub` hub put together, and the name under which the relay asks endpoints for their consent.

use std::sync::Arc;

use url::Url;

use super::{Ground, http_limits, url_judge};
use crate::config::Config;
use hookcast_delivery::consent::ask::Identity;
use hookcast_registry::Registry;
use hookcast_websub::{Hub, HubContext, HubSettings};

/// Starts the hub; without topics it only ends leases that were given before.
pub(super) fn start(config: &Config, ground: &Ground, registry: &Registry) -> Arc<Hub> {
    let settings = HubSettings {
        topics: config.websub.topics.clone(),
        lease_default: config.websub.lease_default,
        lease_max: config.websub.lease_max,
        public_url: (!config.websub.public_url.is_empty()).then(|| config.websub.public_url.clone()),
    };
    let context = HubContext {
        registry: registry.clone(),
        follow: ground.follow.clone(),
        urls: url_judge(config),
        fetcher: ground.fetcher(),
        clock: Arc::clone(&ground.clock),
        timeout: config.delivery.timeout,
        max_in_flight: config.delivery.max_in_flight,
        subscriptions_max: http_limits(config).subscriptions,
        supervisor: ground.supervisor.clone(),
        cancel: ground.closing.clone(),
    };
    Hub::start(settings, context)
}

/// How the relay calls itself towards endpoints.
pub(super) fn identity(config: &Config) -> Identity {
    let public_url = config.websub.public_url.as_str();
    Identity { origin: origin(config), public_url: (!public_url.is_empty()).then(|| public_url.into()) }
}

/// The host of the public URL, else the first of `server.hosts` without its port, else `localhost`.
fn origin(config: &Config) -> Arc<str> {
    if let Some(host) = Url::parse(&config.websub.public_url).ok().as_ref().and_then(Url::host_str) {
        return host.into();
    }
    let host = config.server.hosts.first().map_or("localhost", String::as_str);
    let port_at = host.rfind(':').filter(|colon| host[colon + 1..].bytes().all(|b| b.is_ascii_digit()));
    host[..port_at.unwrap_or(host.len())].into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_origin_is_the_name_that_others_know() {
        let mut config = Config::default();
        assert_eq!(&*origin(&config), "localhost");
        config.server.hosts = vec!["relay.example:8080".to_owned(), "other.example".to_owned()];
        assert_eq!(&*origin(&config), "relay.example");
        config.websub.public_url = "https://hooks.example:8443/relay".to_owned();
        assert_eq!(&*origin(&config), "hooks.example");
    }
}
