//! What the end-to-end tests stand on: the real program as a process, a receiver that follows a script, and bounded waiting.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;

pub(crate) mod cutter;
pub(crate) mod faults;
pub(crate) mod judge;
pub(crate) mod proxy;
pub(crate) mod python;
pub(crate) mod receiver;
pub(crate) mod relay;
pub(crate) mod sender;
pub(crate) mod upstream;

pub(crate) use receiver::{Answer, Delivery, Receiver};
pub(crate) use relay::Relay;

/// A signing secret that tests may know.
pub(crate) const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
/// Longest wait for anything; generous, for a machine that does other things too.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// What the relay counts in this process from now on, however many tests run in it.
pub(crate) fn counted() -> PrometheusHandle {
    hookcast::telemetry::recorder().unwrap()
}

/// What runs a test that works with what one thread owns, `#[actix_rt::test(system = "crate::support::System")]`. Every test is of
/// the same type to it, so that the runtime is compiled once.
pub(crate) struct System(actix_rt::SystemRunner);

impl System {
    pub(crate) fn new() -> Self {
        Self(actix_rt::System::new())
    }

    pub(crate) fn block_on<T>(self, test: impl Future<Output = T>) -> T {
        let test: Pin<Box<dyn Future<Output = T> + '_>> = Box::pin(test);
        self.0.block_on(test)
    }
}

/// So many real events: edits of Wikipedia, one JSON object each, the recording as often as it takes.
pub(crate) fn edits(count: usize) -> Vec<String> {
    let recording = include_str!("../../assets/wikiticker.ndjson");
    recording.lines().cycle().take(count).map(str::to_owned).collect()
}

/// Waits until `check` gives something; fails after [`PATIENCE`].
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, check: impl FnMut() -> F) -> T {
    within(PATIENCE, what, check).await
}

/// Waits until `check` gives something; fails after `time`.
pub(crate) async fn within<'a, T, F>(time: Duration, what: &str, mut check: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>> + 'a,
{
    let mut check = || -> Checked<'a, T> { Box::pin(check()) };
    ask_until(time, &mut check).await.unwrap_or_else(|| panic!("never: {what}"))
}

/// One look of whoever waits for a `T`.
type Checked<'a, T> = Pin<Box<dyn Future<Output = Option<T>> + 'a>>;

/// The loop of [`within`], compiled once for each `T` and not for every wait; `None` when the time is over.
async fn ask_until<'a, T>(time: Duration, check: &mut dyn FnMut() -> Checked<'a, T>) -> Option<T> {
    let waiting = async {
        loop {
            if let Some(value) = check().await {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(time, waiting).await.ok()
}

/// Waits until a log says so: a line is written behind the answer that it is about.
pub(crate) async fn says(log: impl Fn() -> String, text: &str) {
    let mut look = || -> Checked<'_, ()> { Box::pin(std::future::ready(log().contains(text).then_some(()))) };
    assert!(ask_until(PATIENCE, &mut look).await.is_some(), "never in the log: {text:?}\n{}", log());
}

/// What comes of `future`, which must end before [`PATIENCE`] does.
pub(crate) async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it takes too long")
}

/// Watches for a while that something stays as it is: the only wait that cannot end early when all is well.
pub(crate) async fn for_a_while(time: Duration) {
    tokio::time::sleep(time).await;
}
