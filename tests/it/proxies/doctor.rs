//! `hookcast doctor` before proxies that are set up well, and before some that are not.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use crate::support::Relay;
use crate::support::proxy::Proxy;

/// Lines of `doctor`: those of findings, and everything for a message.
struct Report {
    code: Option<i32>,
    text: String,
}

impl Report {
    async fn of<const N: usize>(relay: &Relay, arguments: [&str; N]) -> Self {
        let all = ["doctor", "--watch", "9s"].into_iter().chain(arguments).collect::<Vec<_>>();
        let (code, out, error) = relay.run(&all).await;
        Self { code, text: format!("{out}{error}") }
    }

    /// The names of checks that failed.
    fn wrong(&self) -> Vec<&str> {
        let mut names: Vec<_> =
            self.text.lines().filter_map(|line| line.strip_prefix("FIX  ")?.split_whitespace().next()).collect();
        names.dedup();
        names
    }

    fn assert_fine(&self) {
        assert_eq!((self.code, self.wrong()), (Some(0), vec![]), "{}", self.text);
    }

    fn assert_wrong(&self, checks: &[&str], advice: &[&str]) {
        assert_eq!((self.code, self.wrong()), (Some(1), checks.to_vec()), "{}", self.text);
        for word in advice {
            assert!(self.text.contains(word), "no {word:?} in: {}", self.text);
        }
    }
}

/// Without it haproxy keeps everything that goes on for 200 ms.
const NO_DELAY: &str = "option http-no-delay";
const UPGRADE: &str =
    "proxy_http_version 1.1;\nproxy_set_header Upgrade $http_upgrade;\nproxy_set_header Connection \"upgrade\";";

#[tokio::test]
#[ignore = "needs nginx, haproxy, varnish"]
async fn nothing_is_found_where_nothing_is_wrong() {
    let relay = Relay::start().await;
    let nginx = Proxy::nginx(&relay.url, UPGRADE).await;
    let haproxy = Proxy::haproxy(&relay.url, "", NO_DELAY).await;
    let varnish = Proxy::varnish(&relay.url, super::PIPE).await;
    let (direct, nginx, haproxy, varnish) = tokio::join!(
        Report::of(&relay, [&relay.url]),
        Report::of(&relay, [&nginx.url, "--direct", &relay.url]),
        Report::of(&relay, [&haproxy.url]),
        Report::of(&relay, [&varnish.url]),
    );
    direct.assert_fine();
    nginx.assert_fine();
    haproxy.assert_fine();
    varnish.assert_fine();
}

#[tokio::test]
#[ignore = "needs nginx"]
async fn what_nginx_does_wrong_is_found_and_named() {
    let relay = Relay::start().await;
    let gathering =
        Proxy::nginx(&relay.url, &format!("{UPGRADE}\nproxy_ignore_headers X-Accel-Buffering;\nproxy_buffering on;")).await;
    let compressing = "gzip on;\ngzip_types *;\ngzip_min_length 0;\ngzip_proxied any;";
    let compressing = Proxy::nginx(&relay.url, &format!("{UPGRADE}\n{compressing}")).await;
    let plain = Proxy::nginx(&relay.url, "").await;
    let cutting = Proxy::nginx(&relay.url, &format!("{UPGRADE}\nproxy_read_timeout 5s;")).await;
    let deaf = Proxy::nginx(&relay.url, &format!("{UPGRADE}\nproxy_set_header Last-Event-ID \"\";")).await;
    let (gathering, compressing, plain, cutting, deaf) = tokio::join!(
        Report::of(&relay, [&gathering.url]),
        Report::of(&relay, [&compressing.url]),
        Report::of(&relay, [&plain.url]),
        Report::of(&relay, [&cutting.url]),
        Report::of(&relay, [&deaf.url]),
    );
    gathering.assert_wrong(&["buffering"], &["nginx: `proxy_buffering off;`"]);
    let seen = compressing.wrong();
    assert!(seen.contains(&"compression") && compressing.text.contains("nginx: `gzip off;`"), "{}", compressing.text);
    plain.assert_wrong(&["websocket"], &["nginx: `proxy_http_version 1.1; proxy_set_header Upgrade"]);
    cutting.assert_wrong(&["idle"], &["nginx: `proxy_read_timeout"]);
    deaf.assert_wrong(&["resume"], &["nginx: no `proxy_pass_request_headers off;`"]);
}

#[tokio::test]
#[ignore = "needs haproxy, varnish"]
async fn what_haproxy_and_varnish_do_wrong_is_found_too() {
    let relay = Relay::start().await;
    let short = "timeout connect 5s\ntimeout client 5s\ntimeout server 5s";
    let cutting = Proxy::haproxy(&relay.url, short, NO_DELAY).await;
    let waiting = Proxy::haproxy(&relay.url, "", "").await;
    let keeping = "sub vcl_recv { if (req.http.upgrade) { return (pipe); } }\n\
        sub vcl_pipe { set bereq.http.upgrade = req.http.upgrade; set bereq.http.connection = req.http.connection; }\n\
        sub vcl_deliver { set resp.http.Cache-Control = \"max-age=60\"; }";
    let keeping = Proxy::varnish(&relay.url, keeping).await;
    let plain = Proxy::varnish(&relay.url, "").await;
    let (cutting, waiting, keeping, plain) = tokio::join!(
        Report::of(&relay, [&cutting.url]),
        Report::of(&relay, [&waiting.url]),
        Report::of(&relay, [&keeping.url]),
        Report::of(&relay, [&plain.url]),
    );
    cutting.assert_wrong(&["idle"], &["haproxy: `timeout server`"]);
    waiting.assert_wrong(&["delay"], &["haproxy: `option http-no-delay`"]);
    keeping.assert_wrong(&["caching"], &["varnish: `return (pass);`"]);
    plain.assert_wrong(&["websocket"], &["varnish: `if (req.http.upgrade) { return (pipe); }`"]);
}

#[tokio::test]
async fn no_relay_is_a_finding_and_a_token_is_enough() {
    let relay = Relay::start_with(
        "[auth]\ntokens = [{ name = \"s\", sha256 = \"2425f1cb1d9da41d84c61595edb05762a9956b4315167ac36519e5ca9e80806c\", scopes = [\"stream\"] }]\n",
    )
    .await;
    let nowhere = format!("http://127.0.0.1:{}", crate::support::proxy::free_port());
    let (nobody, stranger) = tokio::join!(Report::of(&relay, [&nowhere]), Report::of(&relay, [&relay.url]));
    nobody.assert_wrong(&["reach"], &["does the relay run"]);
    assert!(stranger.code == Some(1) && stranger.text.contains("answered 401"), "{}", stranger.text);

    Report::of(&relay, [&relay.url, "--token", "streamer"]).await.assert_fine();
}
