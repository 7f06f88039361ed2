//! Proxies that are not ours, between a client and the relay: nginx, haproxy, Varnish, each with next to no configuration.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;

use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use super::eventually;

/// A running proxy; killed when dropped.
pub(crate) struct Proxy {
    directory: tempfile::TempDir,
    /// Where it listens, without a slash at the end.
    pub(crate) url: String,
    _child: Child,
}

impl Proxy {
    /// nginx with `proxy_pass` and these lines beside it.
    pub(crate) async fn nginx(relay: &str, location: &str) -> Self {
        let (port, directory) = (free_port(), tempfile::tempdir().unwrap());
        let at = directory.path().display();
        let temporary: String =
            ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|name| format!("{name}_temp_path {at}/{name};\n")).concat();
        let configuration = format!(
            "daemon off;\nmaster_process off;\npid {at}/pid;\nerror_log {at}/error.log;\nevents {{}}\n\
             http {{\naccess_log off;\n{temporary}\
             server {{\nlisten 127.0.0.1:{port};\nlocation / {{\nproxy_pass {relay};\n{location}\n}}\n}}\n}}\n"
        );
        let path = directory.path().join("nginx.conf");
        std::fs::write(&path, configuration).unwrap();
        let mut command = program("nginx");
        command.arg("-p").arg(directory.path()).arg("-c").arg(&path);
        Self::start(command, directory, port).await
    }

    /// haproxy with `mode http`, the time-outs that Debian ships, or others, and these lines beside `server`.
    pub(crate) async fn haproxy(relay: &str, timeouts: &str, backend: &str) -> Self {
        let (port, directory) = (free_port(), tempfile::tempdir().unwrap());
        let server = relay.trim_start_matches("http://");
        let timeouts = if timeouts.is_empty() { "timeout connect 5s\ntimeout client 50s\ntimeout server 50s" } else { timeouts };
        let configuration = format!(
            "defaults\nmode http\n{timeouts}\nfrontend f\nbind 127.0.0.1:{port}\ndefault_backend b\n\
             backend b\n{backend}\nserver relay {server}\n"
        );
        let path = directory.path().join("haproxy.cfg");
        std::fs::write(&path, configuration).unwrap();
        let mut command = program("haproxy");
        command.arg("-db").arg("-f").arg(&path);
        Self::start(command, directory, port).await
    }

    /// Varnish with a backend, and this VCL beside it.
    pub(crate) async fn varnish(relay: &str, vcl: &str) -> Self {
        let (port, directory) = (free_port(), tempfile::tempdir().unwrap());
        let (host, backend_port) = relay.trim_start_matches("http://").rsplit_once(':').unwrap();
        let configuration = format!("vcl 4.1;\nbackend default {{ .host = \"{host}\"; .port = \"{backend_port}\"; }}\n{vcl}\n");
        let path = directory.path().join("default.vcl");
        std::fs::write(&path, configuration).unwrap();
        let mut command = program("varnishd");
        command.args(["-F", "-j", "none", "-a", &format!("127.0.0.1:{port}"), "-s", "malloc,8m", "-n"]);
        command.arg(directory.path().join("work")).arg("-f").arg(&path);
        Self::start(command, directory, port).await
    }

    async fn start(mut command: Command, directory: tempfile::TempDir, port: u16) -> Self {
        let output = std::fs::File::create(directory.path().join("output.txt")).unwrap();
        command.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output).kill_on_drop(true);
        let child = command.spawn().unwrap();
        let proxy = Self { directory, url: format!("http://127.0.0.1:{port}"), _child: child };
        eventually(&format!("a proxy that listens: {}", proxy.output()), async || {
            TcpStream::connect(("127.0.0.1", port)).await.ok()
        })
        .await;
        proxy
    }

    /// What it printed, for whoever looks into a failure.
    fn output(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("output.txt")).unwrap_or_default()
    }
}

/// A port that nobody has at the moment.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn program(name: &str) -> Command {
    let path = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"].map(|folder| Path::new(folder).join(name));
    let path = path.iter().find(|path| path.exists()).unwrap_or_else(|| panic!("{name} is not there: run `make tools` first"));
    Command::new(path)
}
