//! What a content filter costs an event: reading its JSON and evaluating the expression, in this process.

use std::hint::black_box;
use std::time::Instant;

use bytes::Bytes;

use crate::experiment::{Experiment, Findings, Reading, Row, Subject, Target, Terms};
use crate::usage::Usage;
use hookcast_core::clock::Timestamp;
use hookcast_core::filter::{Facts, Filter, Verdict};
use hookcast_core::model::event::data_form;
use hookcast_core::model::{Event, NewEvent, PageBuilder, Seq, Topic};

/// One expression over an event of 600 bytes, again and again.
pub(crate) const FILTER: Experiment = Experiment {
    name: "filter",
    subject: Subject::Deliver,
    rows: &[Row {
        what: "a filter on a 600-byte event, its JSON read anew",
        against: "",
        unit: "µs",
        target: Target::AtMost(3.0),
    }],
    run: |terms| Box::pin(async move { run(terms) }),
};

/// What is evaluated.
const EXPRESSION: &str = "data.amount > 100 && data.customer.country == \"DE\"";
/// Evaluations between two looks at the clock.
const ROUND: u32 = 1000;

fn run(terms: Terms) -> anyhow::Result<Findings> {
    let filter = Filter::compile(EXPRESSION)?;
    let event = order()?;
    anyhow::ensure!(filter.judge(&Facts::of(&event)) == Verdict::Wanted, "the filter does not want the order");
    let (began, before, mut rounds) = (Instant::now(), Usage::own(), 0_u32);
    while began.elapsed() < terms.duration {
        for _ in 0..ROUND {
            black_box(filter.judge(&Facts::of(black_box(&event))));
        }
        rounds += 1;
    }
    let each_us = Usage::own().since(&before) / (f64::from(rounds) * f64::from(ROUND));
    Ok(Findings::Measured(vec![Reading::absolute(each_us)]))
}

/// An order of 600 bytes.
fn order() -> anyhow::Result<Event> {
    let mut data = serde_json::json!({
        "order": "o-48213", "amount": 120, "currency": "EUR", "paid": true, "coupon": null, "total": 142.8,
        "customer": {"id": 7, "name": "Ann Example", "country": "DE", "city": "Hannover"},
        "items": [{"sku": "a-1", "count": 1, "price": 70.0}, {"sku": "b-2", "count": 2, "price": 25.0}],
        "note": "",
    });
    let note = 600_usize.saturating_sub(data.to_string().len());
    data["note"] = "leave it at the door ".chars().cycle().take(note).collect::<String>().into();
    let data = Bytes::from(data.to_string());
    let mut page = PageBuilder::starting_at(Seq(1));
    page.push(&NewEvent {
        topic: Topic::parse("orders.eu")?,
        id: "o-48213".to_owned(),
        own_id: true,
        source: "/shop".to_owned(),
        kind: "order.created".to_owned(),
        subject: None,
        time: None,
        arrived_at: Timestamp(1_800_000_000_000),
        content_type: "application/json".to_owned(),
        data_schema: None,
        extensions: Vec::new(),
        hops: 0,
        form: data_form("application/json", &data),
        data,
    });
    page.finish().events_after(Seq::ZERO).next().ok_or_else(|| anyhow::anyhow!("the page is empty"))
}
