//! Records become events: defaults, what the settings' JSON pointers find, ids for those that bring none. No I/O.

use bytes::Bytes;

use hookcast_core::clock::Timestamp;
use hookcast_core::codec::pointer::Pointer;
use hookcast_core::model::event::{ATTRIBUTE_BYTES_MAX, DataForm, ID_BYTES_MAX, TYPE_BYTES_MAX, data_form, is_json_type};
use hookcast_core::model::source::SourceSpec;
use hookcast_core::model::source::own::profile::Profile;
use hookcast_core::model::{NewEvent, ResumeToken, Topic};

/// One record of an upstream, as its framing found it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Its bytes.
    pub data: Bytes,
    /// Whether the bytes were checked to be JSON; if not, they are text when they are UTF-8.
    pub is_json: bool,
    /// Its own id, when the protocol carries one.
    pub id: Option<String>,
    /// Its type, when the protocol carries one.
    pub kind: Option<String>,
    /// Its content type, when the protocol carries one; the configured one wins.
    pub content_type: Option<String>,
    /// The upstream's position after it.
    pub resume: Option<ResumeToken>,
}

/// Makes the events of one source.
#[derive(Debug)]
pub struct EventMapper {
    topic: Topic,
    source: String,
    id: Option<Pointer>,
    kind: Option<Pointer>,
    subject: Option<Pointer>,
    time: Option<Pointer>,
    /// The configured content type and whether it says JSON.
    content_type: Option<(String, bool)>,
    ids: EventIds,
    dropped: u64,
}

impl EventMapper {
    /// A mapper for a spec that passed its check; `seed` makes its ids differ from those of others.
    #[must_use]
    pub fn new(spec: &SourceSpec, seed: [u8; 16]) -> Self {
        let pointer = |text: &Option<String>| text.as_deref().and_then(|text| Pointer::parse(text).ok());
        let settings = &spec.settings;
        let of_profile = settings.own.profile().map(Profile::id_pointer);
        Self {
            topic: spec.topic.clone(),
            source: format!("/sources/{}", spec.name),
            id: settings.id.as_deref().or(of_profile).and_then(|text| Pointer::parse(text).ok()),
            kind: pointer(&settings.kind),
            subject: pointer(&settings.subject),
            time: pointer(&settings.time),
            content_type: settings.content_type.clone().map(|text| {
                let is_json = is_json_type(&text);
                (text, is_json)
            }),
            ids: EventIds::new(seed),
            dropped: 0,
        }
    }

    /// The event of a record.
    ///
    /// An id, type, subject or time an event may not have (too long, control characters, not RFC 3339) is dropped and counted;
    /// the event itself is kept.
    pub fn event(&mut self, record: Record, arrived_at: Timestamp) -> NewEvent {
        let json = if record.is_json { std::str::from_utf8(&record.data).ok() } else { None };
        let find = |pointer: &Option<Pointer>| {
            let text = pointer.as_ref()?.text(json?)?;
            Some(text.into_owned())
        };
        let given_id = record.id.or_else(|| find(&self.id));
        let given_kind = find(&self.kind).or(record.kind);
        let (subject, time) = (find(&self.subject), find(&self.time));
        let id = self.fit(given_id, ID_BYTES_MAX);
        let own_type = self.fit(record.content_type, ATTRIBUTE_BYTES_MAX);
        let (content_type, form) = self.typing(own_type.as_deref(), record.is_json, &record.data);
        let content_type = content_type.to_owned();
        let time = self.fit(time, ATTRIBUTE_BYTES_MAX).filter(|text| {
            let well_formed = Timestamp::parse_rfc3339(text).is_ok();
            self.dropped += u64::from(!well_formed);
            well_formed
        });
        NewEvent {
            topic: self.topic.clone(),
            own_id: id.is_some(),
            id: id.unwrap_or_else(|| self.ids.next(arrived_at)),
            source: self.source.clone(),
            kind: self.fit(given_kind, TYPE_BYTES_MAX).unwrap_or_else(|| "message".to_owned()),
            subject: self.fit(subject, ATTRIBUTE_BYTES_MAX),
            time,
            arrived_at,
            content_type,
            data_schema: None,
            extensions: Vec::new(),
            hops: 0,
            form,
            data: record.data,
        }
    }

    /// How many attributes were dropped since the last call.
    pub fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }

    fn typing<'a>(&'a self, own: Option<&'a str>, is_json: bool, data: &[u8]) -> (&'a str, DataForm) {
        match (&self.content_type, own) {
            (Some((text, true)), _) if is_json => (text, DataForm::Json),
            (Some((text, _)), _) => (text, data_form(text, data)),
            (None, Some(text)) if is_json && is_json_type(text) => (text, DataForm::Json),
            (None, Some(text)) => (text, data_form(text, data)),
            (None, None) if is_json => ("application/json", DataForm::Json),
            (None, None) => ("text/plain", data_form("text/plain", data)),
        }
    }

    fn fit(&mut self, value: Option<String>, bytes_max: usize) -> Option<String> {
        let value = value?;
        let fits = !value.is_empty() && value.len() <= bytes_max && !value.chars().any(char::is_control);
        self.dropped += u64::from(!fits);
        fits.then_some(value)
    }
}

/// Ids that rise: `UUIDv7` from the time of arrival and a counter that starts at random in every millisecond.
///
/// Spec: RFC 9562 §6.2, method 2.
#[derive(Debug)]
struct EventIds {
    state: u64,
    salt: u64,
    last: Timestamp,
    counter: u128,
}

impl EventIds {
    fn new(seed: [u8; 16]) -> Self {
        let whole = u128::from_le_bytes(seed);
        let half = |bits: u128| u64::try_from(bits & u128::from(u64::MAX)).unwrap_or(0);
        Self { state: half(whole), salt: half(whole >> 64), last: Timestamp(-1), counter: 0 }
    }

    fn next(&mut self, now: Timestamp) -> String {
        if now > self.last {
            self.last = now;
            // 73 bits, so that counting up within a millisecond cannot overflow the 74 there are.
            self.counter = (u128::from(self.random()) << 9) | u128::from(self.random() & 0x1ff);
        } else {
            self.counter += 1;
        }
        let milliseconds = u64::try_from(self.last.0).unwrap_or(0);
        let mut random = [0; 10];
        // The builder puts version and variant over bits it takes from here: rand_a is the low 12 bits of the first two
        // bytes, rand_b the low 62 of the rest.
        let (high, low) = ((self.counter >> 62) & 0xfff, self.counter & ((1 << 62) - 1));
        random[..2].copy_from_slice(&u16::try_from(high).unwrap_or(0).to_be_bytes());
        random[2..].copy_from_slice(&u64::try_from(low).unwrap_or(0).to_be_bytes());
        let id = uuid::Builder::from_unix_timestamp_millis(milliseconds, &random).into_uuid();
        id.hyphenated().to_string()
    }

    /// `SplitMix64`: spreads the seed; unpredictability is not needed.
    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state ^ self.salt;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hookcast_core::model::source::SourceSettings;

    fn spec(settings: SourceSettings) -> SourceSpec {
        SourceSpec {
            name: "wiki".to_owned(),
            protocol: "ndjson".to_owned(),
            url: "https://example.com/".to_owned(),
            topic: Topic::parse("wiki.edits").unwrap(),
            headers: std::collections::BTreeMap::new(),
            settings,
            enabled: true,
        }
    }

    fn json(text: &'static str) -> Record {
        Record { data: Bytes::from_static(text.as_bytes()), is_json: true, ..Record::default() }
    }

    fn pointers() -> SourceSettings {
        let pointer = |text: &str| Some(text.to_owned());
        SourceSettings {
            id: pointer("/id"),
            kind: pointer("/kind"),
            subject: pointer("/s/0"),
            time: pointer("/at"),
            ..SourceSettings::default()
        }
    }

    #[test]
    fn defaults_are_the_contracts() {
        let mut mapper = EventMapper::new(&spec(SourceSettings::default()), [1; 16]);
        let event = mapper.event(json("{\"id\":1}"), Timestamp(5));
        assert_eq!((event.source.as_str(), event.kind.as_str()), ("/sources/wiki", "message"));
        assert_eq!((event.content_type.as_str(), event.form), ("application/json", DataForm::Json));
        assert!(!event.own_id);
        assert_eq!(event.check(), Ok(()));
        let text = mapper.event(Record { data: Bytes::from_static(b"[DONE]"), ..Record::default() }, Timestamp(5));
        assert_eq!((text.content_type.as_str(), text.form), ("text/plain", DataForm::Text));
    }

    #[test]
    fn pointers_fill_the_attributes() {
        let mut mapper = EventMapper::new(&spec(pointers()), [1; 16]);
        let event = mapper.event(json(r#"{"id":17,"kind":"edit","s":["x"],"at":"2015-09-12T00:00:00Z"}"#), Timestamp(5));
        assert_eq!((event.id.as_str(), event.own_id, event.kind.as_str()), ("17", true, "edit"));
        assert_eq!(event.subject.as_deref(), Some("x"));
        assert_eq!(event.time.as_deref(), Some("2015-09-12T00:00:00Z"));
        assert_eq!(mapper.take_dropped(), 0);
    }

    #[test]
    fn unusable_attributes_are_dropped_and_counted() {
        let mut mapper = EventMapper::new(&spec(pointers()), [1; 16]);
        let event = mapper.event(json(r#"{"id":"a\nb","kind":"","s":["\u0000"],"at":"noon"}"#), Timestamp(5));
        assert!(!event.own_id);
        assert_eq!((event.kind.as_str(), event.subject.as_deref(), event.time.as_deref()), ("message", None, None));
        assert_eq!(event.check(), Ok(()));
        assert_eq!(mapper.take_dropped(), 4);
    }

    #[test]
    fn generated_ids_rise_and_are_version_seven() {
        let mut ids = EventIds::new([7; 16]);
        let mut last = String::new();
        for step in 0..5000 {
            let id = ids.next(Timestamp(1_700_000_000_000 + step / 1000));
            assert!(id > last, "{id} after {last}");
            assert_eq!(uuid::Uuid::parse_str(&id).unwrap().get_version_num(), 7);
            assert_eq!(uuid::Uuid::parse_str(&id).unwrap().get_variant(), uuid::Variant::RFC4122);
            last = id;
        }
    }
}
