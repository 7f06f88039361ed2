//! Clients as processes of their own, and what they say they have received.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, ChildStdout, Command};

use crate::support::PATIENCE;

/// One event as a client has it.
#[derive(Debug)]
pub(super) struct Got {
    /// Its position, if the format says it.
    pub(super) seq: Option<u64>,
    /// Its data, in the shape that the client has them.
    pub(super) value: Value,
}

/// Takes the first whole event off what a client wrote.
pub(super) type Parse = fn(&mut Vec<u8>) -> Option<Got>;

/// A client that runs; killed when dropped.
pub(super) struct Feed {
    out: ChildStdout,
    buffer: Vec<u8>,
    parse: Parse,
    _children: Vec<Child>,
}

impl Feed {
    pub(super) fn of(mut command: Command, parse: Parse) -> Self {
        let mut child = spawn(&mut command);
        Self { out: child.stdout.take().unwrap(), buffer: Vec::new(), parse, _children: vec![child] }
    }

    /// What one command writes, read by another.
    pub(super) fn through(mut first: Command, mut second: Command, parse: Parse) -> Self {
        let mut writer = spawn(&mut first);
        let between: Stdio = writer.stdout.take().unwrap().try_into().unwrap();
        second.stdin(between);
        let mut reader = spawn(&mut second);
        Self { out: reader.stdout.take().unwrap(), buffer: Vec::new(), parse, _children: vec![writer, reader] }
    }

    /// The next event; fails when there is none in time.
    pub(super) async fn next(&mut self) -> Got {
        self.next_or_end().await.expect("the client goes on")
    }

    /// The next event; `None` when the client has ended.
    pub(super) async fn next_or_end(&mut self) -> Option<Got> {
        let reading = async {
            loop {
                if let Some(got) = (self.parse)(&mut self.buffer) {
                    return Some(got);
                }
                if self.out.read_buf(&mut self.buffer).await.unwrap() == 0 {
                    assert!(self.buffer.is_empty(), "it ended amid {:?}", String::from_utf8_lossy(&self.buffer));
                    return None;
                }
            }
        };
        tokio::time::timeout(PATIENCE, reading).await.expect("an event in time")
    }
}

fn spawn(command: &mut Command) -> Child {
    command.stdout(Stdio::piped()).kill_on_drop(true).spawn().expect("the program is there: run `make tools`")
}

/// `curl` on this address, behind the last position.
pub(super) fn curl(url: &str, last: Option<u64>, more: &[&str]) -> Command {
    let mut command = Command::new("curl");
    command.args(["-sSN", "--noproxy", "*", "--fail"]).args(more).arg(url).stdin(Stdio::null());
    if let Some(last) = last {
        command.arg("-H").arg(format!("last-event-id: {last}"));
    }
    command
}

fn installed(program: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools").join(program);
    assert!(path.exists(), "the clients that are not ours are not installed: run `make tools` first");
    path
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools").join(name)
}

/// A client in Python, by the name of its function.
pub(super) fn python(library: &str, url: &str, last: Option<u64>) -> Command {
    let mut command = Command::new(installed("py/bin/python"));
    command.arg(script("stream_client.py")).arg(library).arg(url).args(last.map(|seq| seq.to_string())).stdin(Stdio::null());
    command
}

/// A client in JavaScript, by the name of its function.
pub(super) fn node(how: &str, url: &str, last: Option<u64>) -> Command {
    installed("node/node_modules/eventsource");
    let mut command = Command::new("node");
    command.arg(script("stream_client.js")).arg(how).arg(url).args(last.map(|seq| seq.to_string())).stdin(Stdio::null());
    command
}

fn line_of(buffer: &mut Vec<u8>) -> Option<Vec<u8>> {
    let end = buffer.iter().position(|b| *b == b'\n')?;
    let mut line: Vec<u8> = buffer.drain(..=end).collect();
    line.pop();
    Some(line)
}

fn of_form(form: &Value) -> Got {
    let seq = form["seq"].as_str().and_then(|seq| seq.parse().ok());
    Got { seq, value: json!([form["id"], form["data"], form["data_base64"]]) }
}

/// A JSON form a line; empty ones are silence.
pub(super) fn form_lines(buffer: &mut Vec<u8>) -> Option<Got> {
    loop {
        let line = line_of(buffer)?;
        if !line.is_empty() {
            return Some(of_form(&serde_json::from_slice(&line).unwrap()));
        }
    }
}

/// What `jq --seq` writes: a separator and a line.
pub(super) fn sequence(buffer: &mut Vec<u8>) -> Option<Got> {
    let line = line_of(buffer)?;
    let text = line.strip_prefix(b"\x1e").expect("a separator comes first");
    Some(of_form(&serde_json::from_slice(text).unwrap()))
}

/// The bytes of an event a line.
pub(super) fn byte_lines(buffer: &mut Vec<u8>) -> Option<Got> {
    line_of(buffer).map(|line| Got { seq: None, value: json!(STANDARD.encode(line)) })
}

/// A length, and as many bytes.
pub(super) fn counted(buffer: &mut Vec<u8>) -> Option<Got> {
    while buffer.starts_with(b"\r\n") {
        buffer.drain(..2);
    }
    let end = buffer.windows(2).position(|two| two == b"\r\n")?;
    let length: usize = std::str::from_utf8(&buffer[..end]).unwrap().parse().unwrap();
    let rest = buffer.get(end + 2..end + 2 + length)?;
    let form = rest.strip_suffix(b"\r\n").expect("the line end counts");
    let got = of_form(&serde_json::from_slice(form).unwrap());
    buffer.drain(..end + 2 + length);
    Some(got)
}

/// What the clients of `tests/tools` print.
pub(super) fn printed(buffer: &mut Vec<u8>) -> Option<Got> {
    let line: Value = serde_json::from_slice(&line_of(buffer)?).unwrap();
    if line["form"].is_object() {
        return Some(of_form(&line["form"]));
    }
    let seq = line["seq"].as_str().and_then(|seq| seq.parse().ok());
    Some(Got { seq, value: line["data"].clone() })
}
