//! The metrics endpoint: the process-wide recorder, and numbers that are read when somebody asks.

use std::sync::Arc;

use metrics::gauge;

use hookcast_log::follow::Follow;
use hookcast_registry::Registry;
use hookcast_streams::Egress;

/// What writes the metrics as Prometheus text.
pub(super) type Render = Arc<dyn Fn() -> String + Send + Sync>;

/// What writes what the recorder has; nothing where the process has another recorder.
pub(super) fn recorder(egress: Egress, follow: Follow, registry: Registry) -> Option<Render> {
    let handle = crate::telemetry::recorder()?;
    Some(Arc::new(move || {
        let streams = egress.counts();
        #[allow(clippy::cast_precision_loss, reason = "gauges are floats; 2^53 events are far away")]
        {
            gauge!("hookcast_log_head_seq").set(follow.head().0 as f64);
            gauge!("hookcast_log_first_seq").set(follow.first_kept().0 as f64);
            gauge!("hookcast_subscriptions").set(registry.len() as f64);
            gauge!("hookcast_streams_open").set(streams.open as f64);
        }
        metrics::counter!("hookcast_log_reads_total").absolute(follow.log_reads());
        metrics::counter!("hookcast_stream_events_total").absolute(streams.events);
        metrics::counter!("hookcast_stream_bytes_total").absolute(streams.bytes);
        if let Some(room) = follow.room() {
            #[allow(clippy::cast_precision_loss, reason = "gauges are floats; 2^53 bytes are far away")]
            {
                gauge!("hookcast_storage_free_bytes").set(room.free_bytes as f64);
                gauge!("hookcast_storage_reserve_bytes").set(room.reserve_bytes as f64);
            }
        }
        metrics::counter!("hookcast_log_lines_left_out_total").absolute(crate::telemetry::lines_left_out());
        handle.run_upkeep();
        handle.render()
    }))
}
