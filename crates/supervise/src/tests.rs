//! Tasks that panic for real, on a clock that is wound forward.

use std::cell::Cell;
use std::rc::Rc;

use tokio::task::LocalSet;

use super::*;
use crate::readiness::Ending;

fn troubles(readiness: &Readiness) -> Vec<String> {
    readiness.troubles().into_iter().map(|trouble| format!("{}: {}", trouble.pointer, trouble.detail)).collect()
}

#[tokio::test]
async fn the_panic_of_an_essential_task_ends_the_process_and_the_first_counts() {
    let readiness = Readiness::default();
    let supervisor = Supervisor::over(readiness.clone());
    let first = supervisor.essential("shard-1", async { panic!("one\nof {}", 2) });
    first.spawn().await.unwrap();
    supervisor.essential("writer", async { panic!("another") }).spawn().await.unwrap();
    let wanted = Ending { exit_code: 70, reason: "shard-1 panicked: one of 2".into() };
    assert_eq!(readiness.ended().await, wanted);
    let wanted = ["/task/shard-1: shard-1 panicked: one of 2", "/task/writer: writer panicked: another"];
    assert_eq!(troubles(&readiness), wanted);
}

#[tokio::test]
async fn an_essential_task_that_returns_and_an_errand_that_panics_end_nothing() {
    let readiness = Readiness::default();
    let supervisor = Supervisor::over(readiness.clone());
    supervisor.essential("shard-1", async {}).spawn().await.unwrap();
    supervisor.single("errand", async { panic!("lost") }).spawn().await.unwrap();
    assert!(troubles(&readiness).is_empty());
    assert!(tokio::time::timeout(Duration::ZERO, readiness.ended()).await.is_err());
}

#[tokio::test]
async fn a_task_is_restarted_and_the_relay_not_ready_in_between() {
    let begin = async {
        let readiness = Readiness::default();
        let supervisor = Supervisor::over(readiness.clone());
        let starts = Rc::new(Cell::new(0));
        let (seen, watched) = (Rc::clone(&starts), readiness.clone());
        let task = supervisor.restarted("feeder", async move || {
            assert!(troubles(&watched).is_empty(), "ready while it runs");
            seen.set(seen.get() + 1);
            assert!(seen.get() > 1, "start {}", seen.get());
        });
        let running = task.spawn_local();
        while starts.get() == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(troubles(&readiness), ["/task/feeder: it panicked and is started again soon: start 1"]);
        running.await.unwrap();
        assert_eq!(starts.get(), 2);
        assert!(troubles(&readiness).is_empty());
    };
    LocalSet::new().run_until(begin).await;
}

#[tokio::test]
async fn nothing_is_started_again_once_the_relay_stops() {
    let readiness = Readiness::default();
    let supervisor = Supervisor::over(readiness.clone());
    let running = supervisor.restarted("feeder", async || panic!("always")).spawn();
    supervisor.stop();
    running.await.unwrap();
    assert!(troubles(&readiness).is_empty());
}

/// Keeps the lines of a log.
#[derive(Clone, Default)]
struct Lines(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn each_panic_or_end_is_one_error_that_names_the_task() {
    let lines = Lines::default();
    let written = lines.clone();
    let log = tracing_subscriber::fmt().with_ansi(false).with_writer(move || written.clone()).finish();
    let told = tracing::subscriber::set_default(log);
    let supervisor = Supervisor::over(Readiness::default());
    supervisor.essential("shard-1/saver", async { panic!("one") }).spawn().await.unwrap();
    supervisor.ended("server", "it is gone");
    supervisor.single("errand", async { panic!("two") }).spawn().await.unwrap();
    let running = supervisor.restarted("feeder", async || panic!("three")).spawn();
    supervisor.stop();
    running.await.unwrap();
    drop(told);
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let errors: Vec<_> = text.lines().filter(|line| line.contains("ERROR")).collect();
    assert_eq!(errors.len(), 4, "{text}");
    for (line, task) in errors.iter().zip(["shard-1/saver", "server", "errand", "feeder"]) {
        assert!(line.contains(task), "{task}: {line}");
    }
}

#[test]
fn restarts_come_later_and_later_unless_the_task_lived_long() {
    let panic = catch(|| panic!("x")).unwrap_err();
    let mut restarts = Restarts::new("source/a");
    let pauses = [1, 1, 1, 1, 1, 1, 1, 1, 100, 1].map(|ran| restarts.after(&panic, Duration::from_secs(ran)).as_secs());
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 1, 2]);
}

#[test]
fn what_was_borrowed_is_free_after_a_panic() {
    let shared = std::cell::RefCell::new(Cell::new(0));
    let panic = catch(|| {
        let held = shared.borrow_mut();
        held.set(1);
        panic!("{}", "long ".repeat(100));
    });
    assert_eq!(panic.unwrap_err().to_string().len(), 256);
    assert!(shared.try_borrow_mut().is_ok());
}
