//! What to set where, for everything that may stand between a relay and its clients. Pure.

use super::verdict::Check;
use hookcast_net::fetch::HeaderMap;

/// What stands between, as far as it says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Between {
    Nginx,
    Haproxy,
    Varnish,
    /// It does not say. haproxy never does by itself.
    Unknown,
}

impl Between {
    /// Reads the names that those between leave in answers.
    pub(super) fn of(headers: &[&HeaderMap]) -> Self {
        let says = |name: &str, word: &str| {
            headers
                .iter()
                .flat_map(|headers| headers.get_all(name))
                .any(|value| String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase().contains(word))
        };
        if headers.iter().any(|headers| headers.contains_key("x-varnish")) || says("via", "varnish") {
            Self::Varnish
        } else if says("server", "nginx") || says("server", "openresty") || says("via", "nginx") {
            Self::Nginx
        } else if says("server", "haproxy") || says("via", "haproxy") {
            Self::Haproxy
        } else {
            Self::Unknown
        }
    }
}

/// What to set in nginx, haproxy and Varnish.
struct Settings {
    nginx: &'static str,
    haproxy: &'static str,
    varnish: &'static str,
}

/// One line, or one for each that it may be.
pub(super) fn lines(check: Check, between: Between) -> Vec<String> {
    let Some(settings) = settings(check) else { return vec![general(check).to_owned()] };
    let all = [
        (Between::Nginx, "nginx", settings.nginx),
        (Between::Haproxy, "haproxy", settings.haproxy),
        (Between::Varnish, "varnish", settings.varnish),
    ];
    let chosen = all.into_iter().filter(|(kind, ..)| between == Between::Unknown || between == *kind);
    chosen.map(|(_, name, text)| format!("{name}: {text}")).collect()
}

fn settings(check: Check) -> Option<Settings> {
    Some(match check {
        Check::Reach | Check::Clock => return None,
        Check::Delay => Settings {
            nginx: "`tcp_nodelay on;` (as it is by default)",
            haproxy: "`option http-no-delay`: without it everything that goes on waits 200 ms",
            varnish: "nothing by itself; look at what stands before and behind it",
        },
        Check::Buffering => Settings {
            nginx: "`proxy_buffering off;`, or let the relay's `X-Accel-Buffering: no` act: no `proxy_ignore_headers X-Accel-Buffering`",
            haproxy: "no `compression` and no filter that waits for a body; haproxy passes on what it gets",
            varnish: "`set beresp.do_stream = true;`, no ESI, or `return (pipe);` for paths that end in /stream",
        },
        Check::Compression => Settings {
            nginx: "`gzip off;` where streams pass",
            haproxy: "take `compression algo` out, or `compression type` to what is no stream",
            varnish: "`set beresp.do_gzip = false;`",
        },
        Check::Caching => Settings {
            nginx: "`proxy_cache off;`, no `proxy_ignore_headers Cache-Control`, no `expires` where the relay is",
            haproxy: "no `http-request cache-use` and no `http-response set-header cache-control` for the relay",
            varnish: "`return (pass);` in vcl_recv for the relay",
        },
        Check::Idle => Settings {
            nginx: "`proxy_read_timeout 60s;` or more (it counts silence, and a heartbeat ends silence)",
            haproxy: "`timeout server` and `timeout client` of 60s or more, `timeout tunnel 1h` for WebSockets",
            varnish: "`.between_bytes_timeout = 60s;` or more in the backend; `pipe_timeout` for what is piped",
        },
        Check::Resume => Settings {
            nginx: "no `proxy_pass_request_headers off;`, no `proxy_set_header Last-Event-ID \"\";`",
            haproxy: "no `http-request del-header last-event-id`",
            varnish: "no `unset req.http.Last-Event-ID;`",
        },
        Check::LongPoll => Settings {
            nginx: "`proxy_read_timeout` longer than `wait=` (at most 120 s)",
            haproxy: "`timeout server` longer than `wait=` (at most 120 s)",
            varnish: "`.first_byte_timeout` of the backend longer than `wait=` (at most 120 s)",
        },
        Check::WebSocket => Settings {
            nginx: "`proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection \"upgrade\";`",
            haproxy: "`mode http` passes it on by itself: no `http-request del-header upgrade`, no `option httpclose`",
            varnish: "`if (req.http.upgrade) { return (pipe); }` and in vcl_pipe `set bereq.http.upgrade = req.http.upgrade; \
                      set bereq.http.connection = req.http.connection;`",
        },
    })
}

fn general(check: Check) -> &'static str {
    match check {
        Check::Clock => "let both machines follow a time server",
        _ => "is the address right, does the relay run, may this machine reach it?",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn between(headers: &[(&'static str, &'static str)]) -> Between {
        let headers: HeaderMap = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        Between::of(&[&headers])
    }

    #[test]
    fn who_says_what_it_is_gets_advice_of_its_own() {
        assert_eq!(between(&[("server", "nginx/1.22.1")]), Between::Nginx);
        assert_eq!(between(&[("via", "1.1 varnish (Varnish/7.1)"), ("server", "nginx")]), Between::Varnish);
        assert_eq!(between(&[("x-varnish", "3")]), Between::Varnish);
        assert_eq!(between(&[("via", "1.1 HAProxy")]), Between::Haproxy);
        assert_eq!(between(&[]), Between::Unknown);
        assert!(lines(Check::Buffering, Between::Nginx)[0].contains("proxy_buffering off"));
        assert_eq!(lines(Check::Idle, Between::Nginx).len(), 1);
        assert_eq!(lines(Check::Idle, Between::Unknown).len(), 3);
        assert_eq!(lines(Check::Clock, Between::Nginx).len(), 1);
    }
}
