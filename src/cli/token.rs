//! `hookcast token new`: a token for the configuration, or one made by the running relay.

use bytes::Bytes;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::client::{Place, failed, refusal};
use super::{Exit, RelayArgs, output};
use hookcast_http::auth::{Scope, TokenEntry};
use hookcast_net::fetch::Method;

/// Length of a token, in random bytes.
const TOKEN_BYTES: usize = 32;

#[derive(Debug, Args)]
pub(super) struct TokenArgs {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Make a token: without --remote one to be written into the configuration.
    New(NewArgs),
}

#[derive(Debug, Args)]
struct NewArgs {
    /// Its name.
    name: String,
    /// What it may do: read, publish, stream, manage; may be repeated. Without it everything.
    #[arg(long = "scope")]
    scopes: Vec<String>,
    /// The only topics it reaches, such as acme.**; may be repeated. Without it all.
    #[arg(long = "topic")]
    topics: Vec<String>,
    /// Have the running relay make it (POST /v1/tokens) instead.
    #[arg(long)]
    remote: bool,
    #[command(flatten)]
    relay: RelayArgs,
}

pub(super) async fn run(args: TokenArgs) -> Result<(), Exit> {
    let TokenCommand::New(mut args) = args.command;
    if args.scopes.is_empty() {
        args.scopes = Scope::ALL.iter().map(|scope| scope.word().to_owned()).collect();
    }
    if let Some(word) = args.scopes.iter().find(|word| Scope::parse(word).is_none()) {
        return Err(failed(format!("{word:?} is no scope; allowed: {}", Scope::ALL.map(Scope::word).join(", "))));
    }
    if args.remote { make(&args).await } else { print(&args) }
}

/// A token nobody knows yet, and what the configuration needs to know of it.
fn print(args: &NewArgs) -> Result<(), Exit> {
    use base64::Engine as _;
    let mut bytes = [0; TOKEN_BYTES];
    getrandom::fill(&mut bytes).map_err(|error| failed(format!("the system gives no random bytes: {error}")))?;
    let token = format!("hc_{}", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes));
    let sha256 = TokenEntry::digest(&token).map(|byte| format!("{byte:02x}")).concat();
    let topics = if args.topics.is_empty() { String::new() } else { format!(", topics = {}", json!(args.topics)) };
    output::say(&token)?;
    output::complain("the token is on standard output, this once; the line for `tokens` in [auth]:");
    output::complain(&format!(
        "{{ name = {}, sha256 = \"{sha256}\", scopes = {}{topics} }}",
        json!(args.name),
        json!(args.scopes)
    ));
    Ok(())
}

async fn make(args: &NewArgs) -> Result<(), Exit> {
    let relay = Place::relay(&args.relay)?;
    let mut body = json!({ "name": args.name, "scopes": args.scopes });
    if !args.topics.is_empty() {
        body["topics"] = json!(args.topics);
    }
    let url = relay.at(&["v1", "tokens"]);
    let json = [("content-type", "application/json")];
    let answer = relay.send(Method::POST, &url, &json, Bytes::from(body.to_string())).await;
    let answer = answer.map_err(|error| failed(format!("cannot reach the relay at {}: {error}", relay.url())))?;
    if answer.status != 201 {
        return Err(failed(refusal(answer.status, &answer.body)));
    }
    let made: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    output::say(made["token"].as_str().unwrap_or_default())?;
    output::complain(&format!("its id is {}; the token is shown this once", made["id"].as_str().unwrap_or_default()));
    Ok(())
}
