//! What brings changes to shards: it panics where it tells those who wait for it.

use std::future::poll_fn;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::ThreadId;
use std::time::Duration;

use hookcast_delivery::lane::LaneContext;
use hookcast_supervise::Supervisor;
use hookcast_supervise::readiness::Readiness;

use crate::faults::letters::dying;
use crate::faults::{context, start};
use crate::storage::{make, open};
use crate::support::faults::Script;
use crate::support::{PATIENCE, Receiver};

/// Panics when it is woken on this thread.
struct Sleeper(ThreadId);

impl Wake for Sleeper {
    fn wake(self: Arc<Self>) {
        assert_ne!(std::thread::current().id(), self.0, "the sleeper was woken");
    }
}

#[actix_rt::test(system = "crate::support::System")]
async fn what_brings_changes_to_shards_ends_the_process_when_it_panics_and_a_restart_loses_nothing() {
    let store = open("memory", Path::new("unused")).await;
    make::append(&store, vec![make::page(1, 3, 1)]).await;
    let receiver = Receiver::start().await;
    store.catalog.put_subscription(dying("s", &receiver), 0).await.unwrap();
    let (script, readiness) = (Script::default(), Readiness::default());
    let context = context(&store, &script).await;
    let context = LaneContext { supervisor: Supervisor::over(readiness.clone()), ..context };
    let registry = context.registry.clone();
    let lanes = start(context).await;
    receiver.sees(3).await;
    // Somebody asks between a change and its way to the shard, and so is woken by whoever brings it.
    let record = registry.get("s").unwrap();
    let (asking, changes, ends) = (lanes.clone(), registry.clone(), readiness.clone());
    let before = registry.announced();
    tokio::spawn(async move {
        let waker = Waker::from(Arc::new(Sleeper(std::thread::current().id())));
        let mut asking = pin!(asking.status(&record));
        poll_fn(|cx| {
            if changes.announced() == before {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            assert!(asking.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            Poll::Ready(())
        })
        .await;
        ends.ended().await;
    });
    registry.put(dying("late", &receiver), 0).await.unwrap();
    let ending = tokio::time::timeout(PATIENCE, readiness.ended()).await.expect("an end in time");
    assert_eq!(ending.exit_code, 70);
    assert!(ending.reason.starts_with("routing panicked: ") && ending.reason.contains("the sleeper was woken"), "{ending:?}");
    assert_eq!(readiness.troubles()[0].pointer, "/task/routing");
    lanes.stop(Duration::from_secs(5)).await;
    // What was stored is in force after a restart, and what was delivered is not delivered again.
    let lanes = start(crate::faults::context(&store, &script).await).await;
    let seen = receiver.sees(6).await;
    let ids: Vec<&str> = seen.iter().map(|delivery| delivery.header("hookcast-subscription")).collect();
    assert_eq!(ids, ["s", "s", "s", "late", "late", "late"]);
    lanes.stop(Duration::from_secs(5)).await;
}
