//! The recorder of metrics of this process. Must not know what is counted.

use std::sync::OnceLock;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

/// The recorder of metrics, installed by whoever asks first: the `metrics` facade has one a process, which every relay in it (tests)
/// shares. `None` where another one was installed.
#[must_use]
pub fn recorder() -> Option<PrometheusHandle> {
    static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
    RECORDER.get_or_init(|| PrometheusBuilder::new().install_recorder().ok()).clone()
}
