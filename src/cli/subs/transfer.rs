//! Subscriptions out of one relay and into another: the document, and what is done with each of its items.
//!
//! What an export leaves out is named in its item, so that an import neither removes it where it is nor makes something that
//! could not work. Everything is tried dry first.

use serde_json::{Map, Value, json};

use super::Desk;
use crate::cli::client::{failed, refusal};
use crate::cli::{Exit, output};
use hookcast_net::fetch::Method;

/// What the document calls itself.
const FORMAT: &str = "hookcast-subscriptions";
const VERSION: u64 = 1;
/// Members that answers have and definitions do not need.
const OBSERVED: [&str; 9] =
    ["header_names", "state", "reason", "declared", "made_by", "revision", "created_at", "updated_at", "effective_from"];

/// Every subscription as a document.
pub(super) async fn export(desk: &Desk, with_secrets: bool) -> Result<Value, Exit> {
    let mut items = Vec::new();
    for shown in desk.all().await? {
        if shown["websub"].is_object() {
            // Made by its subscriber, for a while; it asks the other relay itself.
            continue;
        }
        let id = shown["id"].as_str().unwrap_or_default().to_owned();
        let whole = if with_secrets { desk.must(Method::GET, &[&id], "secrets=true", None).await? } else { shown };
        items.push(item(whole, with_secrets));
    }
    Ok(json!({ "format": FORMAT, "version": VERSION, "with_secrets": with_secrets, "items": items }))
}

fn item(mut shown: Value, with_secrets: bool) -> Value {
    let is_paused = shown["state"] == "paused";
    let mut omitted = Vec::new();
    if !with_secrets {
        if shown["header_names"].as_array().is_some_and(|names| !names.is_empty()) {
            omitted.push("headers");
        }
        if shown["auth"].is_object() {
            omitted.push("auth");
        }
        omitted.push("signature");
    }
    let lacks_group = shown["reason"] == "limit_group";
    if let Some(members) = shown.as_object_mut() {
        *members = without_public_keys(members);
        if lacks_group {
            // Nobody disabled it: where its group is, it runs.
            members.remove("enabled");
        }
        members.retain(|name, value| !OBSERVED.contains(&name.as_str()) && !value.is_null());
        if omitted.contains(&"auth") {
            members.remove("auth");
        }
    }
    json!({ "definition": shown, "paused": is_paused, "omitted": omitted })
}

/// What is to be done with one item.
struct Step {
    id: String,
    method: Method,
    body: Value,
    is_new: bool,
    is_paused: bool,
}

/// Makes or changes every subscription of a document; with `is_dry` only says so.
pub(super) async fn import(desk: &Desk, document: &Value, is_dry: bool) -> Result<(), Exit> {
    if document["format"] != FORMAT || document["version"] != VERSION {
        return Err(failed(format!("this is no export of subscriptions: `format` must be \"{FORMAT}\", `version` {VERSION}")));
    }
    let items = document["items"].as_array().ok_or_else(|| failed("`items` must be a list"))?;
    let (mut steps, mut mistakes) = (Vec::new(), Vec::new());
    for (index, item) in items.iter().enumerate() {
        match plan(desk, item).await? {
            Ok(step) => steps.push(step),
            Err(mistake) => mistakes.push(format!("items[{index}]: {mistake}")),
        }
    }
    for step in &steps {
        if let Err(mistake) = carry_out(desk, step, true).await? {
            mistakes.push(format!("{}: {mistake}", step.id));
        }
    }
    if !mistakes.is_empty() {
        mistakes.push(format!("nothing was changed: {} of {} subscriptions cannot be taken", mistakes.len(), items.len()));
        return Err(failed(mistakes.join("\n")));
    }
    for step in &steps {
        if is_dry {
            output::say(&format!("would {} {}", if step.is_new { "make" } else { "change" }, step.id))?;
            continue;
        }
        let done = carry_out(desk, step, false).await?.map_err(|mistake| failed(format!("{}: {mistake}", step.id)))?;
        if step.is_paused {
            desk.must(Method::POST, &[&step.id, "pause"], "", None).await?;
        }
        output::say(&format!("{} {}", if step.is_new { "made" } else { "changed" }, step.id))?;
        if step.is_new && step.body["signature"]["secret"].is_null() && done["signature"]["secret"].is_string() {
            output::say(&format!("  its new signing key: {}", done["signature"]["secret"].as_str().unwrap_or_default()))?;
        }
    }
    Ok(())
}

/// What to do with an item, or what is wrong with it.
async fn plan(desk: &Desk, item: &Value) -> Result<Result<Step, String>, Exit> {
    let Some(definition) = item["definition"].as_object() else { return Ok(Err("has no `definition`".to_owned())) };
    let Some(id) = definition.get("id").and_then(Value::as_str) else { return Ok(Err("has no `id`".to_owned())) };
    let definition = without_public_keys(definition);
    let omitted: Vec<&str> = item["omitted"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let (status, present) = desk.ask(Method::GET, &[id], "", None).await?;
    let is_new = match status {
        200 => false,
        404 => true,
        _ => return Ok(Err(refusal(status, present.to_string().as_bytes()))),
    };
    let missing: Vec<&str> = omitted.iter().copied().filter(|name| *name != "signature").collect();
    if is_new && !missing.is_empty() {
        return Ok(Err(format!(
            "{id}: {} were left out of the export; add them, or export --with-secrets",
            missing.join(" and ")
        )));
    }
    let step = |method, body| Step { id: id.to_owned(), method, body, is_new, is_paused: item["paused"] == true };
    if is_new || omitted.is_empty() {
        return Ok(Ok(step(Method::PUT, Value::Object(definition))));
    }
    let present = present.as_object().map(without_public_keys).unwrap_or_default();
    Ok(Ok(step(Method::PATCH, patch(definition, &present, &omitted))))
}

/// A definition as one is read: public keys follow from the secret ones.
fn without_public_keys(shown: &Map<String, Value>) -> Map<String, Value> {
    let mut definition = shown.clone();
    let schemes = match definition.get_mut("signature") {
        Some(Value::Array(several)) => several.iter_mut().collect(),
        one => one.into_iter().collect::<Vec<_>>(),
    };
    for scheme in schemes.into_iter().filter_map(Value::as_object_mut) {
        scheme.retain(|name, _| name != "public_key" && name != "public_keys");
    }
    definition
}

/// What turns a subscription into the one of a definition, but for what the export left out.
fn patch(mut patch: Map<String, Value>, present: &Map<String, Value>, omitted: &[&str]) -> Value {
    patch.remove("id");
    for name in present.keys() {
        let is_kept = OBSERVED.contains(&name.as_str()) || omitted.contains(&name.as_str()) || name == "id";
        if !is_kept && !patch.contains_key(name) {
            patch.insert(name.clone(), Value::Null);
        }
    }
    // The same schemes keep their keys; others need new ones.
    if omitted.contains(&"signature") && patch.get("signature") == present.get("signature") {
        patch.remove("signature");
    }
    Value::Object(patch)
}

async fn carry_out(desk: &Desk, step: &Step, is_dry: bool) -> Result<Result<Value, String>, Exit> {
    let query = if is_dry { "dry_run=true" } else { "" };
    let (status, answer) = desk.ask(step.method.clone(), &[&step.id], query, Some(&step.body)).await?;
    if (200..300).contains(&status) {
        return Ok(Ok(answer));
    }
    let errors = answer["errors"].as_array().into_iter().flatten();
    let fields: Vec<String> = errors
        .map(|error| {
            format!("{} {}", error["pointer"].as_str().unwrap_or_default(), error["detail"].as_str().unwrap_or_default())
        })
        .collect();
    Ok(Err(if fields.is_empty() { refusal(status, answer.to_string().as_bytes()) } else { fields.join("; ") }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_names_what_was_left_out() {
        let shown = json!({"id": "a", "url": "u", "auth": {"basic": {"username": "u"}}, "header_names": ["x"], "state": "paused",
            "signature": {"scheme": "standard-ed25519", "public_key": "whpk_"}, "filter": null, "revision": 3});
        let item = item(shown, false);
        assert_eq!(item["omitted"], json!(["headers", "auth", "signature"]));
        assert_eq!(item["definition"], json!({"id": "a", "url": "u", "signature": {"scheme": "standard-ed25519"}}));
        assert_eq!(item["paused"], true);
    }

    #[test]
    fn a_patch_removes_what_the_definition_does_not_have_and_keeps_what_was_left_out() {
        let definition = json!({"id": "a", "url": "new", "signature": {"scheme": "standard-ed25519"}});
        let signature = json!({"scheme": "standard-ed25519", "public_key": "whpk_of-the-tests"});
        let present = json!({"id": "a", "url": "old", "filter": "true", "signature": signature, "auth": {}, "state": "active"});
        let [definition, present] = [definition, present].map(|shown| without_public_keys(shown.as_object().unwrap()));
        let patch = patch(definition, &present, &["auth", "signature"]);
        assert_eq!(patch, json!({"url": "new", "filter": null}));
        let several =
            json!({"signature": [{"scheme": "hub"}, {"scheme": "standard-ed25519", "public_key": "a", "public_keys": []}]});
        let without = without_public_keys(several.as_object().unwrap());
        assert_eq!(without["signature"], json!([{"scheme": "hub"}, {"scheme": "standard-ed25519"}]));
    }
}
