//! The other server of the stream benchmark: nginx with nchan, when it is installed, with a configuration of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Child;

use crate::held::{self, EndedBy};
use crate::programs;

/// Where distributions put the module.
const MODULES: &[&str] = &["/usr/lib/nginx/modules/ngx_nchan_module.so", "/usr/lib64/nginx/modules/ngx_nchan_module.so"];

/// Where it is when the path does not say, as for people who are not root.
const PROGRAM: &str = "/usr/sbin/nginx";

/// A running nginx.
#[derive(Debug)]
pub(crate) struct Peer {
    child: Child,
    /// Where it listens.
    pub(crate) address: SocketAddr,
}

/// The module, if both are installed.
pub(crate) fn module() -> Option<PathBuf> {
    program()?;
    MODULES.iter().map(PathBuf::from).find(|path| path.exists())
}

fn program() -> Option<PathBuf> {
    programs::on_path("nginx").or_else(|| Some(PathBuf::from(PROGRAM)).filter(|program| programs::is_program(program)))
}

impl Peer {
    /// Starts it in `directory` with `workers` processes.
    pub(crate) async fn start(module: &Path, directory: &Path, workers: usize) -> anyhow::Result<Self> {
        const LOOKS: u32 = 200;
        const LOOK_EVERY: Duration = Duration::from_millis(20);
        // nginx cannot say which port the system gave it, so it is told one that was free a moment ago.
        let address = std::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?.local_addr()?;
        std::fs::write(directory.join("nginx.conf"), configuration(module, address, workers))?;
        let program = program().context("nginx is not on the path")?;
        // Its workers end with it only if it is asked to end.
        let child = held::command(&program, EndedBy::Term)?
            .args(["-p", ".", "-e", "stderr", "-c", "nginx.conf"])
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("start nginx")?;
        let peer = Self { child, address };
        for _ in 0..LOOKS {
            if tokio::net::TcpStream::connect(address).await.is_ok() {
                return Ok(peer);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        anyhow::bail!("nginx did not listen in time")
    }

    /// Process ids of the master and its workers.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let Some(master) = self.child.id() else { return Vec::new() };
        let children = std::fs::read_to_string(format!("/proc/{master}/task/{master}/children")).unwrap_or_default();
        let children = children.split_whitespace().filter_map(|pid| pid.parse().ok());
        std::iter::once(master).chain(children).collect()
    }

    /// Ends it.
    pub(crate) async fn stop(mut self) {
        self.ask_to_end();
        let _ = self.child.wait().await;
    }

    fn ask_to_end(&self) {
        let pid = self.child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        if let Some(pid) = pid {
            let _ = kill_process(pid, Signal::TERM);
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.ask_to_end();
    }
}

fn configuration(module: &Path, address: SocketAddr, workers: usize) -> String {
    let module = module.display();
    format!(
        r"load_module {module};
daemon off;
worker_processes {workers};
worker_rlimit_nofile 20000;
pid nginx.pid;
error_log stderr crit;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  client_body_temp_path body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  tcp_nodelay on;
  keepalive_timeout 3600s;
  keepalive_requests 100000000;
  nchan_shared_memory_size 256M;
  server {{
    listen {address} backlog=4096 reuseport;
    location /publish {{
      nchan_publisher;
      nchan_channel_id bench;
      nchan_message_buffer_length 10000;
      nchan_message_timeout 60s;
    }}
    location /stream {{
      nchan_subscriber eventsource;
      nchan_channel_id bench;
      nchan_subscriber_first_message newest;
      nchan_subscriber_timeout 0;
    }}
  }}
}}
"
    )
}
