//! `hookcast doctor`: what stands between a relay and its clients, and what has to be set there so that events arrive at once.
//!
//! Only looks: it opens streams of a topic that nobody publishes to and watches their heartbeats, so it needs no scope but
//! `stream`. `probe` watches, `verdict` judges what was seen, `advice` says what to set where.

use std::time::Duration;

use clap::Args;

use super::client::{Place, failed};
use super::{Exit, RelayArgs, output};

mod advice;
mod probe;
mod verdict;

use advice::Between;
use verdict::Finding;

#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    /// The relay as its clients reach it, through whatever stands between.
    url: String,
    /// The relay itself, past everything between: tells its own troubles from those on the way.
    #[arg(long, value_name = "URL")]
    direct: Option<String>,
    /// Bearer token; without it the environment variable `HOOKCAST_TOKEN`.
    #[arg(long)]
    token: Option<String>,
    /// A topic that the token may follow and nobody publishes to.
    #[arg(long, default_value = "hookcast.doctor")]
    topic: String,
    /// How long a silent stream is watched; a heartbeat comes every 15 s unless a client asks for others.
    #[arg(long, default_value = "20s", value_parser = hookcast_core::units::parse_duration)]
    watch: Duration,
}

pub(super) async fn run(args: DoctorArgs) -> Result<(), Exit> {
    let place = |url: &str| Place::relay(&RelayArgs { url: url.to_owned(), token: args.token.clone() });
    let (way, direct) = (place(&args.url)?, args.direct.as_deref().map(place).transpose()?);
    let mut troubles = 0;
    if let Some(direct) = direct {
        output::say(&format!("the relay itself, {}", direct.url()))?;
        let seen = Box::pin(probe::all(&direct, &args.topic, args.watch)).await;
        troubles += tell(&verdict::findings(&seen), None)?;
        output::say(&format!("the way of its clients, {}", way.url()))?;
    }
    let seen = Box::pin(probe::all(&way, &args.topic, args.watch)).await;
    troubles += tell(&verdict::findings(&seen), Some(Between::of(&seen.headers())))?;
    match troubles {
        0 => Ok(()),
        1 => Err(failed("one thing to put right")),
        _ => Err(failed(format!("{troubles} things to put right"))),
    }
}

/// One line a finding, and where something is wrong one more with what to set; gives how many are wrong.
fn tell(findings: &[Finding], between: Option<Between>) -> Result<usize, Exit> {
    for finding in findings {
        let word = if finding.is_fine { "ok " } else { "FIX" };
        output::say(&format!("{word}  {:<11} {}", finding.check.name(), finding.seen))?;
        if let Some(between) = between.filter(|_| !finding.is_fine) {
            for line in advice::lines(finding.check, between) {
                output::say(&format!("     {line}"))?;
            }
        }
    }
    Ok(findings.iter().filter(|finding| !finding.is_fine).count())
}
