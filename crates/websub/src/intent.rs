//! Verification of intent: the callback is asked whether it meant what was asked in its name, and what follows if it did.
//!
//! Spec: WebSub section 5.3. One request of a subscriber causes at most one request to a callback: nothing that was sent is tried
//! again, so that the hub cannot be made to shout. Deliveries are ordinary ones, with everything that these have.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::pending::Place;
use super::request::{Intent, Mode};
use super::{Hub, SUBSCRIPTIONS_MAX};
use hookcast_core::model::PatternList;
use hookcast_core::model::subscription::change::new_record;
use hookcast_core::model::subscription::parse::{Rules, parse_definition};
use hookcast_core::model::subscription::{
    Activity, DisabledReason, Signature, SignatureScheme, SigningKey, SubscriptionId, SubscriptionRecord, WebSub,
};
use hookcast_delivery::attempt::AGENT;
use hookcast_delivery::consent::ask::{ANSWER_BYTES_MAX, challenge, is_same};
use hookcast_delivery::policy::own_fault_delay;
use hookcast_log::storage::{StorageError, StorageErrorKind};
use hookcast_net::fetch::{FetchError, FetchRequest, HeaderMap, HeaderValue, Method};
use hookcast_net::target::Target;
use hookcast_supervise::deadline::within;

/// Time for a callback to answer.
pub const VERIFY_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a digest that make an id.
const ID_BYTES: usize = 16;

/// The id of the subscription of a callback to a topic.
///
/// # Panics
/// Never: hexadecimal digits make a well-formed id.
#[must_use]
pub fn subscription_id(callback: &str, patterns: &PatternList) -> SubscriptionId {
    let digest = Sha256::digest(format!("{callback}\n{patterns}"));
    let hex: String = digest[..ID_BYTES].iter().flat_map(|byte| [byte >> 4, byte & 15]).map(hex_digit).collect();
    SubscriptionId::parse(&format!("websub_{hex}")).expect("invariant: letters, digits and '_'")
}

fn hex_digit(half: u8) -> char {
    char::from_digit(u32::from(half), 16).unwrap_or('0')
}

/// What came of a question to a callback.
enum Asked {
    /// It answered 2xx with this.
    Echo(Vec<u8>),
    /// It gave no such answer.
    Unanswered,
    /// It was not asked: before the relay could, something newer was to be asked.
    Superseded,
}

impl Hub {
    /// Asks the callback whether it meant this, and does it if so.
    pub(super) async fn settle(self: Arc<Self>, intent: Intent, id: SubscriptionId, place: Place) {
        let context = &self.context;
        let mode = intent.mode.word();
        let challenge = challenge();
        let asked = tokio::select! {
            asked = self.ask_intent(&intent, &challenge, &place) => asked,
            () = context.cancel.cancelled() => return,
        };
        match asked {
            Asked::Echo(echo) if is_same(&echo, &challenge) => {}
            Asked::Echo(_) | Asked::Unanswered => {
                tracing::info!(subscription.id = %id, mode, "a WebSub callback did not confirm; nothing is changed");
                return;
            }
            Asked::Superseded => {
                tracing::info!(subscription.id = %id, mode, "a WebSub callback was not asked; something newer was asked for");
                return;
            }
        }
        let _turn = self.turn.lock().await;
        if !place.is_newest() {
            tracing::info!(subscription.id = %id, mode, "what a WebSub callback confirmed is not done; something newer was asked for");
            return;
        }
        let done = match intent.mode {
            Mode::Subscribe => self.subscribe(intent, &id).await,
            Mode::Unsubscribe => self.unsubscribe(&id).await,
        };
        match done {
            Ok(()) => tracing::info!(subscription.id = %id, mode, "a WebSub callback confirmed"),
            Err(error) => tracing::error!(subscription.id = %id, mode, %error, "what a WebSub callback confirmed is not stored"),
        }
    }

    /// Tells the callback that it gets nothing; its answer means nothing.
    pub(super) async fn deny(self: Arc<Self>, intent: Intent, reason: &'static str, place: Place) {
        let members = [("hub.mode", "denied"), ("hub.topic", intent.topic.as_str()), ("hub.reason", reason)];
        tokio::select! {
            _ = self.ask(&intent.callback, &members, &place) => {}
            () = self.context.cancel.cancelled() => {}
        }
    }

    async fn ask_intent(&self, intent: &Intent, challenge: &str, place: &Place) -> Asked {
        let lease = intent.lease.as_secs().to_string();
        let members = [
            ("hub.mode", intent.mode.word()),
            ("hub.topic", intent.topic.as_str()),
            ("hub.challenge", challenge),
            ("hub.lease_seconds", lease.as_str()),
        ];
        let members = if intent.mode == Mode::Subscribe { &members[..] } else { &members[..3] };
        self.ask(&intent.callback, members, place).await
    }

    /// A GET to the callback. While the relay lacks what it takes to ask, nothing goes out, and it waits, as long as nothing newer
    /// is asked for.
    async fn ask(&self, callback: &str, members: &[(&str, &str)], place: &Place) -> Asked {
        let Ok(target) = Target::parse(callback) else { return Asked::Unanswered };
        let target = target.with_query(members);
        loop {
            match within(VERIFY_TIMEOUT, self.ask_once(&target)).await {
                Some(Ok(Some(echo))) => return Asked::Echo(echo),
                Some(Err(error)) if error.own().is_some() => {
                    if !place.is_newest() {
                        return Asked::Superseded;
                    }
                    tokio::time::sleep(own_fault_delay(fastrand::f64())).await;
                    // What was newer may have come meanwhile, and the shortage be over.
                    if !place.is_newest() {
                        return Asked::Superseded;
                    }
                }
                Some(Ok(None) | Err(_)) | None => return Asked::Unanswered,
            }
        }
    }

    async fn ask_once(&self, target: &Target) -> Result<Option<Vec<u8>>, FetchError> {
        let mut headers = HeaderMap::new();
        headers.insert("user-agent", HeaderValue::from_static(AGENT));
        let request = FetchRequest { method: Method::GET, target, headers, body: Bytes::new(), head_timeout: VERIFY_TIMEOUT };
        let mut response = self.context.fetcher.fetch(request).await?;
        let mut echo = Vec::new();
        let is_whole = matches!(response.body.gather(ANSWER_BYTES_MAX, &mut echo).await, Ok(true));
        Ok((is_whole && (200..300).contains(&response.status)).then_some(echo))
    }

    async fn subscribe(&self, intent: Intent, id: &SubscriptionId) -> Result<(), StorageError> {
        let registry = &self.context.registry;
        let now = self.context.clock.now();
        let websub = WebSub { topic: intent.topic.clone(), lease_ends_at: now.plus(intent.lease) };
        let signatures = vec![intent.secret.clone().map_or_else(Signature::none, |secret| Signature {
            scheme: SignatureScheme::Hub,
            keys: vec![SigningKey { secret, expires_at: None }],
        })];
        let link = self.link(&intent.base, &intent.topic);
        match registry.get(id.as_str()) {
            Some(known) if known.websub.is_some() => {
                let renew = move |present: &SubscriptionRecord| {
                    let mut record = SubscriptionRecord { websub: Some(Box::new(websub)), updated_at: now, ..present.clone() };
                    record.spec.signatures = signatures;
                    record.spec.headers.insert("link".to_owned(), link);
                    if !matches!(present.activity, Activity::Paused | Activity::Disabled(DisabledReason::Manual)) {
                        record.activity = Activity::Active;
                    }
                    Some(record)
                };
                registry.change(&known, renew).await.map(|_| ())
            }
            Some(_) => {
                tracing::warn!(subscription.id = %id, "a subscription of this id was not made by the hub; it stays as it is");
                Ok(())
            }
            None if self.leases().len() >= SUBSCRIPTIONS_MAX || registry.len() >= self.context.subscriptions_max => {
                tracing::warn!(subscription.id = %id, "there are as many subscriptions as allowed; a WebSub subscriber gets nothing");
                Ok(())
            }
            None => {
                let Some(mut record) = self.new_record(&intent, id, &link) else { return Ok(()) };
                record.spec.signatures = signatures;
                record.websub = Some(Box::new(websub));
                registry.put(record, 0).await.map(|_| ())
            }
        }
    }

    /// An ordinary subscription with the defaults of all.
    fn new_record(&self, intent: &Intent, id: &SubscriptionId, link: &str) -> Option<SubscriptionRecord> {
        let context = &self.context;
        let topics: Vec<&str> = intent.patterns.patterns().iter().map(hookcast_core::model::TopicPattern::as_str).collect();
        let form = json!({
            "url": intent.callback,
            "topics": topics,
            "headers": { "link": link },
            "signature": { "scheme": "none" },
        });
        let rules = Rules { timeout: context.timeout, max_in_flight: context.max_in_flight, ..Rules::new(context.urls.as_ref()) };
        match parse_definition(&form, Some(id.as_str()), &rules) {
            Ok(definition) => {
                let head = context.follow.head();
                Some(new_record(definition, id.clone(), head, context.clock.now(), &mut |bytes| bytes.fill(0)))
            }
            Err(errors) => {
                tracing::warn!(subscription.id = %id, ?errors, "a confirmed WebSub request makes no subscription");
                None
            }
        }
    }

    async fn unsubscribe(&self, id: &SubscriptionId) -> Result<(), StorageError> {
        let registry = &self.context.registry;
        while let Some(record) = registry.get(id.as_str()).filter(|record| record.websub.is_some()) {
            match registry.delete(&record).await {
                // Changed meanwhile, it goes all the same.
                Err(error) if error.kind == StorageErrorKind::Conflict => {}
                removed => return removed.map(drop),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callback_has_one_subscription_a_topic() {
        let patterns = |text: &str| text.parse::<PatternList>().unwrap();
        let id = subscription_id("https://a.example/", &patterns("t"));
        assert_eq!(id, subscription_id("https://a.example/", &patterns("t")));
        assert_ne!(id, subscription_id("https://a.example/", &patterns("u")));
        assert_ne!(id, subscription_id("https://b.example/", &patterns("t")));
        assert!(id.as_str().starts_with("websub_") && id.as_str().len() == 39);
    }
}
