//! Tokens over REST: made, listed, revoked. Beside them stand those of the configuration, which are only shown.
//!
//! Owns what a token may make: nothing beyond its own scopes and topics. A token is shown once, in the answer that makes it;
//! what is kept is its SHA-256. Must not know how requests are judged, only who is to be known ([`Auth::guard`]).

use std::future::Future;
use std::sync::Arc;

use actix_web::http::header;
use actix_web::web::{self, Data, Payload, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::auth::{Auth, Caller, Scope, TokenEntry};
use super::definition::{declared, random, read_json, refuse};
use super::problem::{self, Problem};
use super::query::Query;
use super::{HttpState, at, get, views};
use hookcast_core::clock::Timestamp;
use hookcast_core::model::TopicPattern;
use hookcast_core::model::administration::{Maker, TokenRecord};
use hookcast_log::storage::{Administration, StorageError, StorageErrorKind};

mod makers;
mod wanted;

use makers::Revocation;
use wanted::Wanted;

/// Tokens that may be made; every request is compared with all of them.
pub const TOKENS_MAX: usize = 1000;

const LIST: &str = "/v1/tokens";
/// What tokens begin with, so that a leaked one is found.
const TOKEN_PREFIX: &str = "hc_";
const TOKEN_BYTES: usize = 32;
/// What ids begin with.
const ID_PREFIX: &str = "tok_";
/// As many as make 22 characters: no id is ever given twice.
const ID_BYTES: usize = 16;

/// The tokens of the relay.
pub struct Tokens {
    store: Arc<dyn Administration>,
    auth: Arc<Auth>,
    declared: Vec<TokenEntry>,
    /// By id. Held over a change, so that what is in force is what is stored.
    made: Mutex<Vec<TokenRecord>>,
}

impl Tokens {
    /// Loads the tokens that were made and puts them in force beside the declared ones, which `auth` has already. Those whose
    /// maker is gone, or was stored by an earlier build and cannot be told, are the operator's from now on.
    ///
    /// # Errors
    /// As storage fails; `Corrupt` for a token that does not read.
    pub async fn open(
        store: Arc<dyn Administration>,
        auth: Arc<Auth>,
        declared: Vec<TokenEntry>,
    ) -> Result<Arc<Self>, StorageError> {
        let mut stored = store.tokens().await?;
        let settled = makers::settle(&mut stored.tokens, &declared);
        if let Err(error) = if settled.is_empty() { Ok(()) } else { store.change_tokens(settled, Vec::new()).await } {
            // They are settled for as long as this process runs; the next start tries again.
            tracing::warn!(%error, "the makers of tokens could not be stored");
        }
        let tokens = Self { store, auth, declared, made: Mutex::new(stored.tokens) };
        if stored.is_guarded {
            tokens.put_in_force(&tokens.made.lock().await)?;
        }
        Ok(Arc::new(tokens))
    }

    fn put_in_force(&self, made: &[TokenRecord]) -> Result<(), StorageError> {
        let entries = made.iter().map(|record| {
            entry(record).ok_or_else(|| {
                StorageError::new(StorageErrorKind::Corrupt, format!("the database is damaged: the token {}", record.id))
            })
        });
        let mut all = self.declared.clone();
        all.extend(entries.collect::<Result<Vec<_>, _>>()?);
        self.auth.guard(all);
        Ok(())
    }
}

/// Registers the routes.
pub(super) fn configure(config: &mut ServiceConfig) {
    config
        .service(at(LIST, "GET, HEAD, POST").route(get().to(list)).route(web::post().to(create)))
        .service(at(&format!("{LIST}/{{id}}"), "GET, HEAD, DELETE").route(get().to(show_one)).route(web::delete().to(revoke)));
}

async fn list(state: Data<HttpState>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let caller = state.auth.require(&request, Scope::Manage)?;
    let query = Query::read(&request, &["limit", "after"])?;
    let (limit, after) = (query.limit()? as usize, query.after_id()?.unwrap_or_default());
    let mut shown: Vec<(String, Value)> = Vec::new();
    if !caller.is_limited() {
        shown.extend(state.tokens.declared.iter().map(|entry| (entry.name.clone(), declared_form(entry))));
    }
    let made = state.tokens.made.lock().await;
    shown.extend(made.iter().filter(|record| sees(&caller, record)).map(|record| (record.id.clone(), form(record))));
    drop(made);
    shown.retain(|(id, _)| id.as_str() > after);
    shown.sort_by(|(a, _), (b, _)| a.cmp(b));
    let has_more = shown.len() > limit;
    shown.truncate(limit);
    let next = shown.last().filter(|_| has_more).map(|(id, _)| Value::from(id.as_str()));
    Ok(HttpResponse::Ok().json(views::page(shown.into_iter().map(|(_, value)| value).collect(), next)))
}

async fn show_one(state: Data<HttpState>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let caller = state.auth.require(&request, Scope::Manage)?;
    let id = request.match_info().get("id").unwrap_or_default();
    if let Some(entry) = state.tokens.declared.iter().find(|entry| !caller.is_limited() && entry.name == id) {
        return Ok(HttpResponse::Ok().json(declared_form(entry)));
    }
    let made = state.tokens.made.lock().await;
    let found = made.iter().find(|record| record.id == id && sees(&caller, record));
    Ok(HttpResponse::Ok().json(form(found.ok_or_else(Problem::not_found)?)))
}

async fn create(state: Data<HttpState>, request: HttpRequest, payload: Payload) -> Result<HttpResponse, Problem> {
    let caller = state.auth.require(&request, Scope::Manage)?;
    let body = read_json(&state, &request, payload).await?;
    let now = state.clock.now();
    let wanted = wanted::read(&body, now).map_err(refuse)?;
    let tokens = Arc::clone(&state.tokens);
    let (record, token) = whole(async move { tokens.make(&caller, wanted, now).await }).await?;
    let mut shown = form(&record);
    shown["token"] = json!(token);
    Ok(HttpResponse::Created()
        .insert_header((header::LOCATION, format!("{LIST}/{}", record.id)))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .json(shown))
}

/// `DELETE /v1/tokens/{id}`: the token and everything made by it, by that, and so on; with `keep_children` the token alone.
async fn revoke(state: Data<HttpState>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let caller = state.auth.require(&request, Scope::Manage)?;
    let keeps_children = Query::read(&request, &["keep_children"])?.flag("keep_children")?;
    let id = request.match_info().get("id").unwrap_or_default().to_owned();
    if !caller.is_limited() && state.tokens.declared.iter().any(|entry| entry.name == id) {
        return Err(declared());
    }
    let tokens = Arc::clone(&state.tokens);
    let revoked = whole(async move { tokens.revoke(&caller, &id, keeps_children).await }).await?;
    Ok(HttpResponse::Ok().json(json!({ "revoked": revoked })))
}

/// Lets a change come to its end although the client that asked for it went: what is in force must be what is stored.
async fn whole<T: 'static>(change: impl Future<Output = Result<T, Problem>> + 'static) -> Result<T, Problem> {
    let stopped = |_| Problem::new(problem::UNAVAILABLE, "the relay is stopping; look whether the change was made");
    actix_web::rt::spawn(change).await.map_err(stopped)?
}

impl Tokens {
    /// Makes a token; it, and what is shown this once.
    async fn make(&self, caller: &Caller, wanted: Wanted, now: Timestamp) -> Result<(TokenRecord, String), Problem> {
        let mut made = self.made.lock().await;
        // Asked again inside the turn: of two first tokens made at once, the second is made by a stranger; and whoever was
        // revoked in the meantime makes none.
        self.auth.still(caller)?;
        wanted.check_maker(caller)?;
        if made.len() >= TOKENS_MAX {
            let detail = format!("there are {TOKENS_MAX} already; revoke those that are not needed");
            return Err(Problem::new(problem::TOKEN_LIMIT, detail));
        }
        let token = format!("{TOKEN_PREFIX}{}", random_text::<TOKEN_BYTES>());
        let id = format!("{ID_PREFIX}{}", random_text::<ID_BYTES>());
        let record = record_of(wanted, id, &token, caller, now);
        self.store.change_tokens(vec![record.clone()], Vec::new()).await?;
        made.push(record.clone());
        made.sort_by(|a, b| a.id.cmp(&b.id));
        self.put_in_force(&made)?;
        Ok((record, token))
    }

    /// Ends a token, and what it made unless that is kept; the ids that ended, its own first.
    async fn revoke(&self, caller: &Caller, id: &str, keeps_children: bool) -> Result<Vec<String>, Problem> {
        let mut made = self.made.lock().await;
        self.auth.still(caller)?;
        if !made.iter().any(|record| record.id == id && sees(caller, record)) {
            return Err(Problem::not_found());
        }
        let Revocation { gone, changed } =
            if keeps_children { makers::alone(&made, id, &maker(caller)) } else { makers::cascade(&made, id) };
        self.store.change_tokens(changed.clone(), gone.clone()).await?;
        made.retain(|record| !gone.contains(&record.id));
        for record in made.iter_mut() {
            if let Some(changed) = changed.iter().find(|changed| changed.id == record.id) {
                *record = changed.clone();
            }
        }
        self.put_in_force(&made)?;
        tracing::info!(target: "audit", revoked = gone.join(","), kept = changed.len(), "tokens ended");
        Ok(gone)
    }
}

fn random_text<const BYTES: usize>() -> String {
    let mut bytes = [0; BYTES];
    random(&mut bytes);
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A token that is limited to some topics sees what it made itself.
fn sees(caller: &Caller, record: &TokenRecord) -> bool {
    let is_its_own = || Some(maker(caller)).filter(|maker| *maker != Maker::Operator) == record.maker;
    !caller.is_limited() || is_its_own()
}

/// Who makes what a caller makes.
pub(super) fn maker(caller: &Caller) -> Maker {
    makers::maker(caller.token())
}

fn record_of(wanted: Wanted, id: String, token: &str, caller: &Caller, now: Timestamp) -> TokenRecord {
    TokenRecord {
        id,
        name: wanted.name,
        sha256: TokenEntry::digest(token).map(|byte| format!("{byte:02x}")).concat(),
        scopes: wanted.scopes.iter().map(|scope| scope.word().to_owned()).collect(),
        topics: wanted.topics.iter().map(|pattern| pattern.as_str().to_owned()).collect(),
        limits: wanted.limits,
        made_by: String::new(),
        maker: None,
        created_at: now,
        expires_at: wanted.expires_at,
    }
    .made_by(maker(caller))
}

fn entry(record: &TokenRecord) -> Option<TokenEntry> {
    let mut sha256 = [0; 32];
    let digits = record.sha256.as_bytes();
    if digits.len() != 2 * sha256.len() {
        return None;
    }
    for (byte, pair) in sha256.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(TokenEntry {
        id: Some(record.id.clone()),
        name: record.name.clone(),
        sha256,
        scopes: record.scopes.iter().map(|word| Scope::parse(word)).collect::<Option<_>>()?,
        topics: record.topics.iter().map(|text| TopicPattern::parse(text).ok()).collect::<Option<_>>()?,
        expires_at: record.expires_at,
        limits: record.limits,
    })
}

fn form(record: &TokenRecord) -> Value {
    json!({
        "id": record.id, "name": record.name, "scopes": record.scopes, "topics": record.topics, "limits": record.limits,
        "declared": false, "made_by": record.made_by, "created_at": views::time(record.created_at),
        "expires_at": record.expires_at.map(views::time),
    })
}

fn declared_form(entry: &TokenEntry) -> Value {
    let topics: Vec<&str> = entry.topics.iter().map(TopicPattern::as_str).collect();
    let scopes: Vec<&str> = entry.scopes.iter().map(|scope| scope.word()).collect();
    json!({
        "id": entry.name, "name": entry.name, "scopes": scopes, "topics": topics, "limits": {},
        "declared": true, "made_by": "config", "created_at": null, "expires_at": null,
    })
}
