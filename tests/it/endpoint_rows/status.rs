//! Rows about status lines and the headers that tell what to do next.

use serde_json::Value;

use super::{Plan, Row, SCHEDULE_MS, SLACK_MS, attempt, carry_out_all, wait_ms};
use crate::net_fault::FaultServer;

/// An answer of this status line, with the header of a row if it has one.
fn answering(line: &str, header: &str) -> Plan {
    let has_body = !matches!(line.get(9..12), Some("204" | "304"));
    let length = if has_body { "content-length: 0\r\n" } else { "" };
    let header = if header.is_empty() { String::new() } else { format!("{header}\r\n") };
    let server = FaultServer::answering(format!("HTTP/1.1 {}\r\n{header}{length}\r\n", &line[9..]));
    Plan::new(server.url(), server)
}

fn plan(row: &Row) -> Option<Plan> {
    let plan = match row.input.as_str() {
        "500 / 502 / 504" => {
            let server = FaultServer::start(|mut peer| {
                while let Some(request) = peer.request() {
                    let status = request.rsplit("\r\n\r\n").next().unwrap().to_owned();
                    peer.send(format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\n\r\n"));
                }
            });
            let mut plan = Plan::new(server.url(), server);
            plan.events = ["500", "502", "504"].map(str::to_owned).to_vec();
            plan.then(|_, views| {
                let errors: Vec<&Value> = views.iter().map(|view| &attempt(view)["error"]).collect();
                assert_eq!(errors, ["status_500", "status_502", "status_504"]);
            })
        }
        "HTTP/1.1 20 OK" => answering("HTTP/1.1 20 OK", ""),
        "101 Switching Protocols" => {
            let server = FaultServer::start(|mut peer| {
                peer.request();
                peer.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n");
                // The thread ends only when the relay closes the socket.
                peer.wait_for_close();
            });
            Plan::new(server.url(), server)
        }
        "103 Early Hints then 200" => {
            let early = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
            let server = FaultServer::answering(early);
            Plan::new(server.url(), server)
        }
        "503 Retry-After: 120.5" => answering("HTTP/1.1 503 x", "Retry-After: 120.5").events(2).then(|_, views| {
            for view in views {
                assert!((SCHEDULE_MS..SCHEDULE_MS + SLACK_MS).contains(&wait_ms(view)), "the same each time: {view}");
            }
        }),
        input => {
            let (status, header) = input.split_once(' ').unwrap_or((input, ""));
            let is_status = status.len() == 3 && status.bytes().all(|byte| byte.is_ascii_digit());
            let is_header = header.is_empty() || header.starts_with("Location: ") || header.starts_with("Retry-After: ");
            if !is_status || !is_header {
                return None;
            }
            answering(&format!("HTTP/1.1 {status} x"), header)
        }
    };
    Some(plan)
}

#[tokio::test]
async fn every_status_row_holds() {
    carry_out_all("endpoint.status", async |row| plan(row)).await;
}
