//! How the file descriptors that the process may open are shared out: a part is kept for deliveries, sources and the database,
//! whatever comes from outside.

use rustix::process::{Resource, getrlimit};

use crate::config::Limits;
use hookcast_http::ServerSettings;

/// Descriptors that connections from outside never get, if there are enough at all.
const RESERVE_MIN: u64 = 256;

/// Room for connections from outside; says what does not fit.
pub(super) fn room(limits: &Limits, workers: usize) -> usize {
    let open_files = getrlimit(Resource::Nofile).current;
    let served = (workers.max(1) * ServerSettings::default().connections_max) as u64;
    let most = most_connections(open_files, limits.connections, served);
    let files = open_files.map_or_else(|| "unlimited".to_owned(), |files| files.to_string());
    tracing::info!(
        open_files = files,
        connections = most,
        "connections from outside have room beside what the relay itself opens"
    );
    if most < limits.connections {
        tracing::warn!(
            open_files = files,
            connections = most,
            "limits.connections is {}: so many do not fit; {RAISE}",
            limits.connections
        );
    }
    if most < limits.streams {
        tracing::warn!(
            open_files = files,
            connections = most,
            "limits.streams is {}: so many do not fit; {RAISE}",
            limits.streams
        );
    }
    usize::try_from(most).unwrap_or(usize::MAX)
}

/// What to do about it.
const RAISE: &str = "raise the hard limit of open files (LimitNOFILE= of systemd, ulimits.nofile of Docker), or lower the key";

fn most_connections(open_files: Option<u64>, wanted: u64, served: u64) -> u64 {
    let fitting = open_files.map_or(u64::MAX, |files| files - (files / 4).max(RESERVE_MIN).min(files / 4 * 3)).max(1);
    let wanted = if wanted == 0 { served } else { wanted };
    wanted.min(fitting).min(served)
}

#[cfg(test)]
mod tests {
    use super::most_connections;

    #[test]
    fn a_part_is_always_kept() {
        let most = |files| most_connections(Some(files), 0, 40_000);
        assert_eq!([most(1024), most(4096), most(20_000), most(65_536), most(1 << 20)], [768, 3072, 15_000, 40_000, 40_000]);
        assert_eq!([most(300), most(64), most(0)], [75, 16, 1], "of few, too");
        assert_eq!([most_connections(None, 0, 20_000), most_connections(None, 90, 20_000)], [20_000, 90]);
        assert_eq!([most_connections(Some(1024), 100, 20_000), most_connections(Some(1024), 1000, 20_000)], [100, 768]);
    }
}
