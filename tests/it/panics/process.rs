//! The process as others see it end: this test runs the program's own way in and out in a child of its own.

use std::process::{ExitCode, Stdio};
use std::sync::Arc;

use clap::Parser as _;
use hookcast::cli::{Cli, Exit, Program, Relay, StopSignal};

use super::house::{Trap, trapped};
use crate::support::PATIENCE;

/// Where a child finds its configuration.
const CHILD: &str = "PANICS_CHILD_IN";
const NAME: &str = "panics::process::a_process_whose_task_panicked_ends_with_70_and_one_error_line_that_names_it";

/// The program over a trap that one of its tasks is about to step into.
fn program() -> Program {
    Program {
        serve: |config, hang_up, read_again| {
            Box::pin(async move {
                let stop = StopSignal::listen()?;
                let trap = Arc::new(Trap::default());
                let directory = std::env::var(CHILD).unwrap();
                let (app, _) = trapped(&config, directory.as_ref(), &trap).await;
                trap.arm("saving::keep_house", 1);
                let relay = Relay {
                    address: app.address(),
                    tcp_address: None,
                    readiness: app.readiness().clone(),
                    reload: Box::new(|_| Box::pin(async { Ok(()) })),
                    stop: Box::pin(app.stop()),
                };
                relay.serve_until_over(stop, hang_up, &read_again).await
            })
        },
        start: |_| Box::pin(async { Err(Exit::new(1, "not asked for")) }),
        protocols: vec!["sse"],
    }
}

#[test]
fn a_process_whose_task_panicked_ends_with_70_and_one_error_line_that_names_it() {
    if let Ok(directory) = std::env::var(CHILD) {
        let cli = Cli::parse_from(["hookcast", "serve", "--config", &format!("{directory}/config.toml")]);
        let code = actix_web::rt::System::new().block_on(cli.run(program()));
        std::process::exit(if code == ExitCode::from(70) { 70 } else { 1 });
    }
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("config.toml"), "[server]\nlisten = \"127.0.0.1:0\"\n[delivery]\nlanes = 1\n").unwrap();
    let mut child = tokio::process::Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", NAME, "--nocapture"]).env(CHILD, directory.path()).env("HOOKCAST_LOG", "info");
    child.stdin(Stdio::null()).kill_on_drop(true);
    let run = async { tokio::time::timeout(PATIENCE, child.output()).await.expect("an end in time").unwrap() };
    let output = actix_web::rt::System::new().block_on(run);
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(70), "{log}");
    let errors: Vec<_> = log.lines().filter(|line| line.contains("ERROR")).collect();
    assert_eq!(errors.len(), 1, "{log}");
    assert!(errors[0].contains("shard-1/housekeeping"), "{log}");
    assert!(log.contains("panicked: the trap in saving::keep_house"), "{log}");
}
