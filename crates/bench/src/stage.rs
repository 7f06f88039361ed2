//! What a benchmark runs on: a relay and a receiver, processes of their own in a directory of their own.

use std::path::Path;

use crate::folder::Folder;
use crate::process::Role;
use crate::wire::Connection;

/// How a relay is told to run.
pub(crate) const SERVE: &[&str] = &["serve", "--config", "config.toml"];

/// What is set up before a measurement.
#[derive(Clone, Debug)]
pub(crate) struct Scene {
    /// The relay.
    pub(crate) program: &'static Path,
    /// Subscriptions to the topic `bench`, all with the receiver's URL.
    pub(crate) subscriptions: u64,
    /// More fields of every subscription, as in the REST API.
    pub(crate) fields: serde_json::Value,
    /// More lines of the relay's configuration, sections first.
    pub(crate) config: &'static str,
    /// Which attempts the relay remembers.
    pub(crate) attempts: &'static str,
    /// More of the relay's environment.
    pub(crate) environment: Vec<(&'static str, std::path::PathBuf)>,
    /// More arguments of the receiver.
    pub(crate) receiver: &'static [&'static str],
}

impl Scene {
    /// So many subscriptions, everything else as it comes.
    pub(crate) fn new(program: &'static Path, subscriptions: u64) -> Self {
        let (fields, environment) = (serde_json::json!({}), Vec::new());
        Self { program, subscriptions, fields, config: "", attempts: "failures", environment, receiver: &[] }
    }
}

/// A relay and a receiver, both up.
#[derive(Debug)]
pub(crate) struct Stage {
    /// Answers the deliveries.
    pub(crate) receiver: Role,
    /// The relay that is measured.
    pub(crate) relay: Role,
    /// Where both run; removed with the stage.
    pub(crate) directory: Folder,
}

impl Stage {
    /// Starts both and makes the subscriptions.
    ///
    /// # Errors
    /// When a process does not start or the relay refuses a subscription.
    pub(crate) async fn set(scene: &Scene) -> anyhow::Result<Self> {
        let directory = Folder::make()?;
        let receiver = Role::own(&[&["receiver"], scene.receiver].concat(), directory.path()).await?;
        std::fs::write(directory.path().join("config.toml"), format!("{}{}", config(scene.attempts), scene.config))?;
        let environment: Vec<_> = scene.environment.iter().map(|(name, value)| (*name, value.as_path())).collect();
        let relay = Role::start(scene.program, SERVE, directory.path(), &environment).await?;
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
pub(crate) fn config(attempts: &str) -> String {
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
