//! What a benchmark runs on: a relay and a receiver, processes of their own in a directory of their own.

use super::process::Role;
use super::wire::Connection;
use crate::cli::directory::TemporaryDirectory;

/// What is set up before a measurement.
#[derive(Clone, Debug)]
pub(super) struct Scene {
    /// Subscriptions to the topic `bench`, all with the receiver's URL.
    pub(super) subscriptions: u64,
    /// More fields of every subscription, as in the REST API.
    pub(super) fields: serde_json::Value,
    /// More lines of the relay's configuration, sections first.
    pub(super) config: &'static str,
    /// Which attempts the relay remembers.
    pub(super) attempts: &'static str,
    /// More arguments of the relay.
    pub(super) relay: &'static [&'static str],
    /// More arguments of the receiver.
    pub(super) receiver: &'static [&'static str],
}

impl Scene {
    /// So many subscriptions, everything else as it comes.
    pub(super) fn new(subscriptions: u64) -> Self {
        Self { subscriptions, fields: serde_json::json!({}), config: "", attempts: "failures", relay: &[], receiver: &[] }
    }
}

/// A relay and a receiver, both up.
#[derive(Debug)]
pub(super) struct Stage {
    /// Answers the deliveries.
    pub(super) receiver: Role,
    /// The relay that is measured.
    pub(super) relay: Role,
    /// Where both run; removed with the stage.
    pub(super) directory: TemporaryDirectory,
}

impl Stage {
    /// Starts both and makes the subscriptions.
    ///
    /// # Errors
    /// When a process does not start or the relay refuses a subscription.
    pub(super) async fn set(scene: &Scene) -> anyhow::Result<Self> {
        let directory = TemporaryDirectory::make("hookcast-bench")?;
        let receiver = Role::start(&[&["bench", "receiver"], scene.receiver].concat(), directory.path()).await?;
        std::fs::write(directory.path().join("config.toml"), format!("{}{}", config(scene.attempts), scene.config))?;
        let relay = Role::start(&[&["serve", "--config", "config.toml"], scene.relay].concat(), directory.path()).await?;
        let mut control = Connection::open(relay.address).await?;
        for number in 0..scene.subscriptions {
            let mut body = serde_json::json!({
                "id": format!("bench-{number}"), "url": format!("http://{}/hook", receiver.address), "topics": ["bench"],
                "max_in_flight": (128 / scene.subscriptions).max(16),
            });
            if let (Some(body), Some(fields)) = (body.as_object_mut(), scene.fields.as_object()) {
                body.extend(fields.clone());
            }
            control.call("POST", "/v1/subscriptions", "application/json", body.to_string().as_bytes()).await?;
        }
        Ok(Self { receiver, relay, directory })
    }
}

/// The relay as it is measured: durable, on disk, allowed to post to loopback; it remembers `attempts`, `failures` or `all`.
pub(super) fn config(attempts: &str) -> String {
    format!(
        r#"
[server]
listen = "127.0.0.1:0"
[storage]
url = "sqlite://hookcast.db"
[history]
attempts = "{attempts}"
[network]
allow = ["127.0.0.0/8"]
allow_http = true
"#
    )
}
