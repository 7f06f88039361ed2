//! `hookcast subs`: the subscriptions of a running relay, over its REST interface.
//!
//! Taking them from one relay to another is in [`transfer`].

use std::io::Read as _;
use std::path::PathBuf;

use bytes::Bytes;
use clap::{Args, Subcommand};
use serde_json::Value;
use url::Url;

use super::client::{Place, failed, refusal};
use super::{Exit, RelayArgs, output};
use hookcast_net::fetch::Method;

mod transfer;

/// Items of one page of a list.
const PAGE_ITEMS: &str = "100";
/// Longest text that is read, in bytes.
const TEXT_BYTES_MAX: u64 = 512 << 20;

#[derive(Debug, Args)]
pub(super) struct SubsArgs {
    #[command(subcommand)]
    command: SubsCommand,
}

#[derive(Debug, Subcommand)]
enum SubsCommand {
    /// One line a subscription: id, state, topics, URL.
    List(RelayArgs),
    /// Make one out of a definition in a file.
    Add(FileArgs),
    /// Show one.
    Show(ShowArgs),
    /// Write all definitions as JSON.
    Export(ExportArgs),
    /// Make or change those of an export; nothing is changed unless all of them are sound.
    Import(ImportArgs),
}

#[derive(Debug, Args)]
struct FileArgs {
    /// A JSON file; `-` is standard input.
    file: PathBuf,
    #[command(flatten)]
    relay: RelayArgs,
}

#[derive(Debug, Args)]
struct ShowArgs {
    id: String,
    #[command(flatten)]
    relay: RelayArgs,
}

#[derive(Debug, Args)]
struct ExportArgs {
    /// Write to a file that only its owner can read, instead of standard output.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// With signing keys, header values and credentials; the relay remembers who took them.
    #[arg(long)]
    with_secrets: bool,
    #[command(flatten)]
    relay: RelayArgs,
}

#[derive(Debug, Args)]
struct ImportArgs {
    #[command(flatten)]
    file: FileArgs,
    /// Only say what would be done.
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn run(args: SubsArgs) -> Result<(), Exit> {
    match args.command {
        SubsCommand::List(relay) => list(&Desk::open(&relay)?).await,
        SubsCommand::Add(args) => {
            let body = read(&args.file)?;
            let made = Desk::open(&args.relay)?.must(Method::POST, &[], "", Some(&body)).await?;
            output::say(&pretty(&made))
        }
        SubsCommand::Show(args) => {
            output::say(&pretty(&Desk::open(&args.relay)?.must(Method::GET, &[&args.id], "", None).await?))
        }
        SubsCommand::Export(args) => {
            let whole = transfer::export(&Desk::open(&args.relay)?, args.with_secrets).await?;
            write(args.output.as_deref(), &pretty(&whole))
        }
        SubsCommand::Import(args) => {
            let whole = read(&args.file.file)?;
            transfer::import(&Desk::open(&args.file.relay)?, &whole, args.dry_run).await
        }
    }
}

/// The subscriptions of one relay.
struct Desk(Place);

impl Desk {
    fn open(args: &RelayArgs) -> Result<Self, Exit> {
        Place::relay(args).map(Self)
    }

    /// Asks something of `/v1/subscriptions/…`; the status and the JSON of the answer, `Null` without one.
    async fn ask(&self, method: Method, path: &[&str], query: &str, body: Option<&Value>) -> Result<(u16, Value), Exit> {
        let mut segments = vec!["v1", "subscriptions"];
        segments.extend(path);
        let mut url: Url = self.0.at(&segments);
        url.set_query((!query.is_empty()).then_some(query));
        let headers: &[(&str, &str)] = if body.is_some() { &[("content-type", "application/json")] } else { &[] };
        let body = body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
        let answer = self.0.send(method, &url, headers, body).await;
        let answer = answer.map_err(|error| failed(format!("cannot reach the relay at {}: {error}", self.0.url())))?;
        Ok((answer.status, serde_json::from_slice(&answer.body).unwrap_or_default()))
    }

    /// [`Desk::ask`] for what must succeed.
    async fn must(&self, method: Method, path: &[&str], query: &str, body: Option<&Value>) -> Result<Value, Exit> {
        let (status, value) = self.ask(method, path, query, body).await?;
        if (200..300).contains(&status) { Ok(value) } else { Err(failed(refusal(status, value.to_string().as_bytes()))) }
    }

    /// Every subscription, as lists show it.
    async fn all(&self) -> Result<Vec<Value>, Exit> {
        let (mut found, mut after) = (Vec::new(), String::new());
        loop {
            let query =
                if after.is_empty() { format!("limit={PAGE_ITEMS}") } else { format!("limit={PAGE_ITEMS}&after={after}") };
            let mut page = self.must(Method::GET, &[], &query, None).await?;
            if let Some(items) = page["items"].as_array_mut() {
                found.append(items);
            }
            match page["next"].as_str() {
                Some(next) => next.clone_into(&mut after),
                None => return Ok(found),
            }
        }
    }
}

async fn list(desk: &Desk) -> Result<(), Exit> {
    for one in desk.all().await? {
        let text = |name: &str| one[name].as_str().unwrap_or_default().to_owned();
        let topics: Vec<&str> = one["topics"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        output::say(&format!("{}\t{}\t{}\t{}", text("id"), text("state"), topics.join(","), text("url")))?;
    }
    Ok(())
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

fn read(path: &std::path::Path) -> Result<Value, Exit> {
    let unreadable = |error: std::io::Error| failed(format!("cannot read {}: {error}", path.display()));
    let mut text = String::new();
    if path.as_os_str() == "-" {
        std::io::stdin().lock().take(TEXT_BYTES_MAX).read_to_string(&mut text).map_err(unreadable)?;
    } else {
        std::fs::File::open(path).and_then(|file| file.take(TEXT_BYTES_MAX).read_to_string(&mut text)).map_err(unreadable)?;
    }
    serde_json::from_str(&text).map_err(|error| failed(format!("{} is not JSON: {error}", path.display())))
}

fn write(path: Option<&std::path::Path>, text: &str) -> Result<(), Exit> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let Some(path) = path else { return output::say(text) };
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let written = options.open(path).and_then(|mut file| writeln!(file, "{text}").and_then(|()| file.sync_all()));
    written.map_err(|error| failed(format!("cannot write {}: {error}", path.display())))
}
