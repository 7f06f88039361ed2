//! Tokens over REST: made, listed, revoked. Beside them stand those of the configuration, which are only shown.
//!
//! Owns what a token may make: nothing beyond its own scopes and topics. A token is shown once, in the answer that makes it;
//! what is kept is its SHA-256. Must not know how requests are judged, only who is to be known ([`Auth::guard`]).

use std::sync::Arc;

use actix_web::http::header;
use actix_web::web::{self, Data, Payload, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::auth::{Auth, Caller, LOCAL, Scope, TokenEntry};
use super::definition::{declared, random, read_json, refuse};
use super::problem::{self, Problem};
use super::query::Query;
use super::{HttpState, at, get, views};
use crate::clock::Timestamp;
use crate::model::TopicPattern;
use crate::model::administration::TokenRecord;
use crate::model::subscription::parse::keys::generate_id;
use crate::storage::{Administration, StorageError, StorageErrorKind};

mod wanted;

use wanted::Wanted;

/// Tokens that may be made; every request is compared with all of them.
pub const TOKENS_MAX: usize = 1000;

const LIST: &str = "/v1/tokens";
/// What tokens begin with, so that a leaked one is found.
const TOKEN_PREFIX: &str = "hc_";
const TOKEN_BYTES: usize = 32;

/// The tokens of the relay.
pub struct Tokens {
    store: Arc<dyn Administration>,
    auth: Arc<Auth>,
    declared: Vec<TokenEntry>,
    /// By id. Held over a change, so that what is in force is what is stored.
    made: Mutex<Vec<TokenRecord>>,
}

impl Tokens {
    /// Loads the tokens that were made and puts them in force beside the declared ones, which `auth` has already.
    ///
    /// # Errors
    /// As storage fails; `Corrupt` for a token that does not read.
    pub async fn open(
        store: Arc<dyn Administration>,
        auth: Arc<Auth>,
        declared: Vec<TokenEntry>,
    ) -> Result<Arc<Self>, StorageError> {
        let stored = store.tokens().await?;
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
    let tokens = &state.tokens;
    let mut made = tokens.made.lock().await;
    // Asked again inside the turn: of two first tokens made at once, the second is made by a stranger.
    if caller.token().is_none() && state.auth.has_tokens() {
        return Err(state.auth.require(&request, Scope::Manage).err().unwrap_or_else(Problem::not_found));
    }
    wanted.check_maker(&caller)?;
    if made.len() >= TOKENS_MAX {
        let detail = format!("there are {TOKENS_MAX} already; revoke those that are not needed");
        return Err(Problem::new(problem::TOKEN_LIMIT, detail));
    }
    let id = wanted.id.clone().unwrap_or_else(|| generate_id(&mut random).to_string());
    if made.iter().any(|record| record.id == id) || tokens.declared.iter().any(|entry| entry.name == id) {
        return Err(Problem::new(problem::ALREADY_EXISTS, "choose another id, or none"));
    }
    let mut bytes = [0; TOKEN_BYTES];
    random(&mut bytes);
    let token = format!("{TOKEN_PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes));
    let record = record_of(wanted, id, &token, &caller, now);
    tokens.store.put_token(record.clone()).await?;
    made.push(record.clone());
    made.sort_by(|a, b| a.id.cmp(&b.id));
    tokens.put_in_force(&made)?;
    drop(made);
    let mut shown = form(&record);
    shown["token"] = json!(token);
    Ok(HttpResponse::Created()
        .insert_header((header::LOCATION, format!("{LIST}/{}", record.id)))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .json(shown))
}

async fn revoke(state: Data<HttpState>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let caller = state.auth.require(&request, Scope::Manage)?;
    let id = request.match_info().get("id").unwrap_or_default();
    if !caller.is_limited() && state.tokens.declared.iter().any(|entry| entry.name == id) {
        return Err(declared());
    }
    let tokens = &state.tokens;
    let mut made = tokens.made.lock().await;
    let place = made.iter().position(|record| record.id == id && sees(&caller, record)).ok_or_else(Problem::not_found)?;
    tokens.store.delete_token(id).await?;
    made.remove(place);
    tokens.put_in_force(&made)?;
    Ok(HttpResponse::NoContent().finish())
}

/// A token that is limited to some topics sees what it made itself.
fn sees(caller: &Caller, record: &TokenRecord) -> bool {
    !caller.is_limited() || record.made_by == maker(caller)
}

/// What names the maker of a token.
fn maker(caller: &Caller) -> String {
    caller.token().map_or_else(|| LOCAL.to_owned(), |entry| entry.id.clone().unwrap_or_else(|| entry.name.clone()))
}

fn record_of(wanted: Wanted, id: String, token: &str, caller: &Caller, now: Timestamp) -> TokenRecord {
    TokenRecord {
        id,
        name: wanted.name,
        sha256: TokenEntry::digest(token).map(|byte| format!("{byte:02x}")).concat(),
        scopes: wanted.scopes.iter().map(|scope| scope.word().to_owned()).collect(),
        topics: wanted.topics.iter().map(|pattern| pattern.as_str().to_owned()).collect(),
        limits: wanted.limits,
        made_by: maker(caller),
        created_at: now,
        expires_at: wanted.expires_at,
    }
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
