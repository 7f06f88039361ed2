//! What the body of a batch is made of.

use std::time::Duration;

use super::*;
use hookcast_core::model::event::DataForm;
use hookcast_core::model::{NewEvent, PageBuilder, Topic};

fn parcel(seq: u64, hops: u8) -> Parcel {
    let mut builder = PageBuilder::starting_at(Seq(seq));
    builder.push(&NewEvent {
        topic: Topic::parse("t").unwrap(),
        id: seq.to_string(),
        own_id: false,
        source: "/publish".into(),
        kind: "message".into(),
        subject: None,
        time: None,
        arrived_at: Timestamp(0),
        content_type: "application/json".into(),
        data_schema: None,
        extensions: Vec::new(),
        hops,
        form: DataForm::Json,
        data: "{\"a\":1}".into(),
    });
    Parcel::new(builder.finish().events_after(Seq::ZERO).next().unwrap())
}

fn terms(format: BatchFormat, max_bytes: u32) -> Batch {
    Batch { max_events: 100, max_bytes, max_wait: Duration::ZERO, format }
}

#[test]
fn every_format_reads_as_what_it_says() {
    for format in [BatchFormat::JsonArray, BatchFormat::Ndjson, BatchFormat::Cloudevents] {
        let mut body = BatchBody::new(terms(format, 1 << 20), 3);
        for seq in [7, 9] {
            assert!(body.add(&parcel(seq, 2)));
        }
        let content = body.finish().unwrap().content("abcdefgh", "billing", true);
        assert_eq!(content.webhook_id, "msg_abcdefgh_7-9_billing");
        let text = std::str::from_utf8(&content.body).unwrap();
        let events: Vec<serde_json::Value> = match format {
            BatchFormat::Ndjson => text.lines().map(|line| serde_json::from_str(line).unwrap()).collect(),
            _ => serde_json::from_str(text).unwrap(),
        };
        assert_eq!(events.iter().map(|event| event["seq"].as_str().unwrap()).collect::<Vec<_>>(), ["7", "9"]);
        assert_eq!(events[0]["data"]["a"], 1);
    }
}

#[test]
fn a_body_has_its_bytes_and_not_one_more_but_one_event_always_fits() {
    let one = parcel(1, 0).json().len();
    for (format, frame) in [(BatchFormat::JsonArray, 3), (BatchFormat::Ndjson, 3)] {
        let max = u32::try_from(2 * one + frame).unwrap();
        let fill = |max| {
            let mut body = BatchBody::new(terms(format, max), 1);
            let fits = (1..=3).take_while(|seq| body.add(&parcel(*seq, 0))).count();
            (fits, body.finish().unwrap().bytes.len())
        };
        let (fits, bytes) = fill(max);
        assert!(fits == 2 && bytes <= max as usize, "{fits} events, {bytes} of {max} bytes");
        assert_eq!(fill(max - 1).0, 1);
        assert_eq!(fill(1).0, 1);
    }
    assert!(BatchBody::new(terms(BatchFormat::Ndjson, 1), 0).finish().is_none());
}
