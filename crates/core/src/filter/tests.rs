//! What expressions say of events, what is refused, and that no expression and no event costs more than the budget.

use proptest::prelude::*;

use super::*;
use crate::model::Event;
use crate::model::fixture::order;

fn event_of(content_type: &str, data: &[u8]) -> Event {
    order(1, content_type, data)
}

fn json_event(data: &str) -> Event {
    event_of("application/json", data.as_bytes())
}

const ORDER: &str = r#"{"amount": 120, "price": 9.5, "big": 18446744073709551615, "customer": {"country": "DE", "tags": ["a", "b"]},
    "items": [{"id": 1, "n": 2}, {"id": 2, "n": 5}], "note": "a \"quoted\" line", "none": null, "paid": true}"#;

fn judge(expression: &str, event: &Event) -> Verdict {
    Filter::compile(expression).unwrap_or_else(|error| panic!("{expression}: {error}")).judge(&Facts::of(event))
}

fn failure(expression: &str, event: &Event) -> String {
    match judge(expression, event) {
        Verdict::Failed(reason) => reason,
        other => panic!("{expression}: {other:?}"),
    }
}

#[test]
fn expressions_say_what_cel_says() {
    let event = json_event(ORDER);
    for expression in [
        "data.amount > 100",
        "data.amount > 100.5 && data.price < 10",
        "data.customer.country == \"DE\"",
        "data['customer']['country'] in ['DE', 'AT']",
        "'a' in data.customer.tags",
        "'country' in data.customer",
        "has(data.paid) && data.paid",
        "!has(data.refund)",
        "!has(data.customer.vat) || data.customer.vat != ''",
        "data.none == null",
        "data.big > 9223372036854775807",
        "size(data.items) == 2 && data.items.size() == 2 && size(data) == 8",
        "data.items[1].n == 5",
        "data.items.exists(i, i.id == 2 && i.n > 4)",
        "data.items.all(i, i.n > 1)",
        "data.items.exists_one(i, i.n == 5)",
        "data.items.map(i, i.id) == [1, 2] && [1, 2] == data.items.map(i, i.id)",
        "data.items.filter(i, i.n > 2).size() == 1",
        "data.items.map(i, i.n > 2, i.id + 1) == [3]",
        "[data.amount, 1].exists(x, x == 120)",
        "data.customer.tags == ['a', 'b'] && ['a', 'b'] == data.customer.tags",
        "data.customer == {'country': 'DE', 'tags': ['a', 'b']}",
        "data.customer.exists(k, k == 'tags')",
        "data.items == data.items && data.items != data.customer.tags",
        "data.note == 'a \"quoted\" line'",
        "data.note.startsWith('a ') && data.note.endsWith('line') && data.note.contains('quoted')",
        "data.note.matches('^a .*line$') && matches(data.note, 'qu[o]ted')",
        "data.price * 2.0 == 19.0 && data.amount % 7 == 1 && -data.amount < 0",
        "string(data.amount) + '!' == '120!'",
        "id == 'o-1' && type == 'order.created' && topic == 'orders.eu' && source == '/shop' && subject == ''",
        "topic.startsWith('orders.')",
        "extensions.region == 'north' && !has(extensions.other)",
        "time > timestamp('2026-01-01T00:00:00Z') && timestamp('2026-01-01T00:00:00Z') < time",
        "time >= '2026-03-01T12:30:00Z' && time == '2026-03-01T13:30:00+01:00'",
        "time.getHours() == 12 && time + duration('1h') > time && timestamp(time) == time",
        "time - timestamp('2026-03-01T12:00:00Z') == duration('30m')",
        "type(data.amount) == int && type(data.customer) == map && type(data.items) == list && type(data.note) == string",
        "data.paid ? data.amount > 1 : false",
        "data.missing == 1 || data.amount == 120",
    ] {
        assert_eq!(judge(expression, &event), Verdict::Wanted, "{expression}");
    }
    assert_eq!(judge("data.amount > 500", &event), Verdict::NotWanted);
}

#[test]
fn a_missing_field_or_a_result_that_is_no_bool_fails_with_a_reason() {
    let event = json_event(ORDER);
    assert_eq!(failure("data.missing > 1", &event), "no such key: missing");
    assert_eq!(failure("data.customer.vat.id == 'x'", &event), "no such key: vat");
    assert_eq!(failure("data.amount", &event), "the result is of type int; it has to be a bool");
    assert_eq!(failure("data.customer.country > 1", &event), "found no matching overload for '_>_' applied to '(string, int)'");
    assert_eq!(failure("data.amount / 0 == 1", &event), "division by zero");
    assert_eq!(failure("data.items[7].id == 1", &event), "there is no item of this number");
    assert!(failure("data.amount.startsWith('1')", &event).contains("startsWith"));
    assert!(failure("data.amount.matches('1')", &event).contains("matches"));
}

#[test]
fn data_is_read_only_when_the_expression_comes_to_it_and_once() {
    let event = json_event(ORDER);
    let facts = Facts::of(&event);
    assert_eq!(Filter::compile("topic == 'x' && data.amount > 1").unwrap().judge(&facts), Verdict::NotWanted);
    assert!(!facts.has_read_data());
    assert_eq!(Filter::compile("data.amount > 1").unwrap().judge(&facts), Verdict::Wanted);
    assert!(facts.has_read_data());
}

#[test]
fn data_that_is_not_json_is_a_text_or_cannot_be_looked_into() {
    assert_eq!(judge("data.contains('error')", &event_of("text/plain", b"an error")), Verdict::Wanted);
    assert_eq!(judge("data.contains('error')", &event_of("application/json", b"{error")), Verdict::Wanted);
    let reason = failure("data.amount > 1", &event_of("text/plain", b"{\"amount\": 5}"));
    assert!(reason.contains("overload"), "{reason}");
    let binary = event_of("image/png", &[0xff, 0xfe]);
    assert_eq!(failure("data.amount > 1", &binary), "the data is neither JSON nor text");
    assert_eq!(judge("topic == 'orders.eu'", &binary), Verdict::Wanted);
    let long = format!("\"{}\"", "x".repeat(DATA_BYTES_MAX));
    assert!(failure("data == 'x'", &json_event(&long)).contains("at most 262144"));
    let deep = format!("{}1{}", "[".repeat(130), "]".repeat(130));
    assert!(failure("data == 1", &event_of("application/json", deep.as_bytes())).contains("recursion limit"));
    let twice = json_event(r#"{"a": 1, "a": 2}"#);
    assert_eq!(judge("data.a == 2", &twice), Verdict::Wanted);
}

#[test]
fn objects_with_many_keys_are_found_in() {
    let members: Vec<String> = (0..100).map(|n| format!("\"k{n}\": {n}")).collect();
    let event = json_event(&format!("{{{}, \"k7\": 70}}", members.join(",")));
    assert_eq!(
        judge("data.k0 == 0 && data.k99 == 99 && data.k7 == 70 && !has(data.k100) && !has(data.a)", &event),
        Verdict::Wanted
    );
}

#[test]
fn what_cannot_be_a_filter_is_refused_with_a_reason_to_act_on() {
    let refused = |text: &str| Filter::compile(text).expect_err(text).to_string();
    assert!(refused("").contains("empty"));
    assert!(refused("data.amount >").contains("line 1"), "{}", refused("data.amount >"));
    assert!(refused("dat.amount > 1").contains("did you mean \"data\""), "{}", refused("dat.amount > 1"));
    assert!(refused("amount > 1").contains("allowed: data, extensions, id"));
    assert!(refused("data.name.startWith('a')").contains("did you mean \"startsWith\""));
    assert!(refused("lower(data.name) == 'a'").contains("function \"lower\""));
    assert!(refused("size(data, 1) == 1").contains("1 to 1"));
    assert!(refused("data.name.matches(data.pattern)").contains("in quotes"));
    assert!(refused("data.name.matches('(')").contains("regular expression"));
    assert!(refused("data.name.matches('(a{999}){999}')").contains("too large"));
    assert!(refused("data.?name == 1").contains("line 1"));
    assert!(refused("Foo{a: 1} == 1").contains("not known"));
    assert!(refused(&"x".repeat(FILTER_BYTES_MAX + 1)).contains("4096"));
    assert!(refused(&format!("{}true{}", "(".repeat(500), ")".repeat(500))).contains("brackets"));
    assert!(refused(&format!("{}true", "!".repeat(500))).contains("in a row"));
    assert!(refused(&format!("{} > 1", vec!["data.a"; 100].join(" + "))).contains("deeper than 32"));
    let nested = "data.a.all(a, data.a.all(b, data.a.all(c, data.a.all(d, true))))";
    assert!(refused(nested).contains("more than 2 loops"));
    assert!(refused("data.a.map(x, data.a.map(y, 1)).size() > 0").contains("`all` or `exists`"));
    assert!(refused("data.a.map(x, [x, x]).size() > 0").contains("constant"));
    assert!(refused("[data.a.map(x, x)].all(x, true)").contains("`all` or `exists`"));
    assert!(refused("data.a.map(x,x).map(x,x).map(x,x).map(x,x).map(x,x).size() > 0").contains("4 times"));
}

#[test]
fn long_conditions_are_taken() {
    let all: Vec<String> = (0..200).map(|n| format!("data.a == {n}")).collect();
    assert_eq!(judge(&all.join(" || "), &json_event("{\"a\": 199}")), Verdict::Wanted);
    let list: Vec<String> = (0..700).map(|n| n.to_string()).collect();
    assert_eq!(judge(&format!("data.a in [{}]", list.join(",")), &json_event("{\"a\": 699}")), Verdict::Wanted);
}

#[test]
fn the_deepest_expressions_fit_on_an_ordinary_stack() {
    let event = json_event("{\"a\": true, \"s\": \"x\", \"l\": [[1]]}");
    let wrap =
        |open: &str, inner: &str, close: &str, times: usize| format!("{}{inner}{}", open.repeat(times), close.repeat(times));
    for expression in [
        wrap("(", "data.a", ")", 24),
        wrap("!(", "data.a", ")", 20),
        wrap("[", "data.a", "][0]", 14),
        wrap("(data.a ? ", "data.a", " : false)", 24),
        format!("{} == ''", wrap("string(", "data.s", ")", 24)),
        format!("{} == ''", vec!["data.s"; 28].join(" + ")),
        format!("data.s{} == 1", ".x".repeat(25)),
        format!("data.l.all(a, a.all(b, {}))", wrap("(b == 1 && ", "true", ")", 20)),
    ] {
        let filter = Filter::compile(&expression).unwrap_or_else(|error| panic!("{expression}: {error}"));
        let _ = filter.judge(&Facts::of(&event));
    }
}

#[test]
fn work_is_bounded_whatever_the_expression_and_the_event_are() {
    let numbers: Vec<String> = (0..50_000).map(|n| n.to_string()).collect();
    let numbers = format!("{{\"l\": [{}]}}", numbers.join(","));
    let long = "x".repeat(120_000);
    let texts = format!("{{\"s\": \"{long}\\n\", \"l\": [{}]}}", vec!["1"; 20_000].join(","));
    let (numbers, texts) = (json_event(&numbers[..numbers.len().min(DATA_BYTES_MAX)]), json_event(&texts));
    let sum = vec!["data.s"; 24].join(" + ");
    for (expression, event) in [
        ("data.l.all(a, data.l.all(b, a <= b || b <= a))", &texts),
        ("data.l.all(a, data.s == data.s)", &texts),
        ("data.l.all(a, data.s.contains('y') || true)", &texts),
        ("data.l.all(a, data.s.matches('(x+x+)+y') || true)", &texts),
        ("data.l.all(a, data.l == data.l)", &texts),
        ("data.l.all(a, 7 in data.l || true)", &texts),
        ("data.l.map(a, data.s).size() > 0", &texts),
        ("data.l.map(a, data.s + data.s).size() > 0", &texts),
        ("data.l.map(a, string(a) + data.s).size() > 0", &texts),
        ("[data.s].map(a, a + a).map(a, a + a).map(a, a + a).map(a, a + a).size() > 0", &texts),
        (&format!("size({sum}) > 0"), &texts),
    ] {
        assert!(matches!(judge(expression, event), Verdict::Failed(_)), "{expression}");
    }
    let exists = judge("data.l.exists(a, a == 5000)", &texts);
    assert!(matches!(exists, Verdict::Failed(_) | Verdict::NotWanted), "{exists:?}");
    assert!(matches!(judge("size(data) > 0", &numbers), Verdict::Wanted | Verdict::Failed(_)));
    assert_eq!(judge("data.l.size() == 20000", &texts), Verdict::Wanted);
}

#[test]
fn filters_of_one_text_share_program_and_verdict_and_are_forgotten_when_unused() {
    let event = json_event(ORDER);
    let facts = Facts::of(&event);
    let mut filters = Filters::default();
    assert_eq!(filters.judge("data.amount > 100", &facts), &Verdict::Wanted);
    assert_eq!(filters.judge("data.amount > 100", &facts), &Verdict::Wanted);
    assert_eq!(filters.judge("data.amount > 1000", &facts), &Verdict::NotWanted);
    assert!(matches!(filters.judge("nonsense(", &facts), Verdict::Failed(_)));
    assert_eq!(filters.len(), 3);
    filters.sweep();
    filters.judge("data.amount > 100", &facts);
    filters.sweep();
    assert_eq!(filters.len(), 1);
}

#[test]
fn every_function_that_is_allowed_is_there() {
    let event = json_event(ORDER);
    for (name, least, _) in library::FUNCTIONS {
        let args = if *name == "matches" { "id, 'x'".to_owned() } else { vec!["1"; *least].join(",") };
        if let Verdict::Failed(reason) = judge(&format!("{name}({args}) == 1"), &event) {
            assert!(!reason.contains("cannot be evaluated"), "{name}: {reason}");
        }
    }
    for (name, least, _) in library::METHODS {
        let args = vec!["'x'"; *least].join(",");
        if let Verdict::Failed(reason) = judge(&format!("id.{name}({args}) == 1"), &event) {
            assert!(!reason.contains("cannot be evaluated"), "{name}: {reason}");
        }
    }
}

fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("data"),
        Just("data.a"),
        Just("data.l"),
        Just("data.m.x"),
        Just("id"),
        Just("time"),
        Just("subject"),
        Just("1"),
        Just("-1"),
        Just("2u"),
        Just("1.5"),
        Just("'a'"),
        Just("b'a'"),
        Just("true"),
        Just("null"),
        Just("[1, 'a']"),
        Just("{'a': 1}"),
        Just("duration('1h')"),
        Just("9223372036854775807"),
        Just("timestamp('9999-12-31T23:59:59Z')"),
    ]
    .prop_map(str::to_owned)
}

fn expression() -> impl Strategy<Value = String> {
    piece().prop_recursive(4, 24, 3, |inner| {
        let operator = prop::sample::select(vec!["+", "-", "*", "/", "%", "==", "!=", "<", ">=", "&&", "||", "in"]);
        let method = prop::sample::select(vec!["size()", "startsWith('a')", "contains('a')", "getHours()", "matches('a+')"]);
        let function = prop::sample::select(vec!["size", "int", "uint", "double", "string", "bytes", "timestamp", "duration"]);
        let looped = prop::sample::select(vec!["all", "exists", "exists_one", "map", "filter"]);
        prop_oneof![
            (inner.clone(), operator, inner.clone()).prop_map(|(a, op, b)| format!("({a} {op} {b})")),
            (inner.clone(), method).prop_map(|(a, method)| format!("({a}).{method}")),
            (function, inner.clone()).prop_map(|(function, a)| format!("{function}({a})")),
            (inner.clone(), looped, inner.clone()).prop_map(|(a, looped, b)| format!("({a}).{looped}(x, {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a})[{b}]")),
            (inner.clone(), inner.clone(), inner).prop_map(|(a, b, c)| format!("({a} ? {b} : {c})")),
        ]
    })
}

/// As long as a filter may be, and as deep as that makes them: whoever asks has the stack of a worker.
#[test]
fn a_long_row_of_operators_is_refused_and_ends_nothing() {
    for (head, piece) in [("1", "-1"), ("data", ".a"), ("true", "||true"), ("1", "+1"), ("data", "[0]"), ("true", "?1:true")] {
        let text = format!("{head}{}", piece.repeat((FILTER_BYTES_MAX - head.len()) / piece.len()));
        let refused = Filter::compile(&text).map(|_| ());
        // Conditions in a row are balanced by the parser, so they are not deep.
        assert_eq!(refused.is_err(), piece != "||true", "{piece} in a row");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn nothing_that_is_written_ends_in_a_panic(text in "\\PC{0,60}", signs in "[-!()\\[\\]{}.?:,'\"a1 <>=&|+*/%]{0,60}") {
        for text in [text, signs] {
            if let Ok(filter) = Filter::compile(&text) {
                let _ = filter.judge(&Facts::of(&json_event("{}")));
            }
        }
    }

    #[test]
    fn well_formed_expressions_give_a_verdict_on_any_event(
        expression in expression(),
        number in any::<i64>(), text in ".{0,8}", list in prop::collection::vec(any::<f64>(), 0..4),
    ) {
        let list: Vec<f64> = list.into_iter().filter(|n| n.is_finite()).collect();
        let data = serde_json::json!({"a": number, "l": list, "m": {"x": text}});
        let event = json_event(&data.to_string());
        if let Ok(filter) = Filter::compile(&expression) {
            let facts = Facts::of(&event);
            let verdict = filter.judge(&facts);
            prop_assert_eq!(&filter.judge(&facts), &verdict, "the same every time");
        }
    }
}
