//! What templates make of events, what is refused, and that none grows beyond its caps.

use super::*;
use crate::model::fixture::order;
use proptest::prelude::*;

mod hostile;

fn event_of(content_type: &str, data: &[u8]) -> Event {
    order(7, content_type, data)
}

fn json_event() -> Event {
    let data = r#"{"customer": "Ann \"A\" <O'Neil>", "amount": 120, "items": [{"n": 1}, {"n": 2}], "on": true, "x": null}"#;
    event_of("application/json", data.as_bytes())
}

/// What a rendering gets in full, of a time that stands still: machines that test are slow.
fn full() -> Allowance {
    Allowance { bytes: WORK_BYTES_MAX, time: TIME_MAX, clock: || Duration::ZERO, stopped: None }
}

fn render(body: &str) -> String {
    let template = Template::compile(body).unwrap_or_else(|error| panic!("{body}: {error}"));
    let rendered = template.render(&json_event(), &full()).unwrap_or_else(|error| panic!("{body}: {error}"));
    String::from_utf8(rendered.to_vec()).unwrap()
}

fn failure(body: &str, event: &Event) -> String {
    Template::compile(body).unwrap_or_else(|error| panic!("{body}: {error}")).render(event, &full()).expect_err(body).to_string()
}

fn refused(body: &str) -> String {
    Template::compile(body).expect_err(body).to_string()
}

#[test]
fn an_event_is_filled_in() {
    for (body, expected) in [
        (
            "{{ type }} {{ topic }} {{ seq }} {{ id }} {{ source }} {{ time }}",
            "order.created orders.eu 7 o-1 /shop 2026-03-01T12:30:00Z",
        ),
        ("{{ data.amount }}|{{ data.on }}|{{ subject }}|{{ data.missing }}", "120|true||"),
        ("{{ extensions.region }} {{ datacontenttype }}", "north application/json"),
        ("{% for item in data['items'] %}{{ loop.index }}:{{ item.n }}{% if not loop.last %},{% endif %}{% endfor %}", "1:1,2:2"),
        ("{% if data.amount > 100 and subject is not defined %}big{% elif true %}small{% else %}none{% endif %}", "big"),
        ("{{ data['items']|map(attribute='n')|join('+') }} = {{ data['items']|map(attribute='n')|sum }}", "1+2 = 3"),
        ("{{ (data.amount / 100)|round(2) }} {{ data.missing|default('-') }}", "1.2 -"),
        (
            "{{ 'Order ' ~ data.amount }} {{ 'abcdef'|truncate(4) }} {{ data.customer|upper|replace('\"', '') }}",
            "Order 120 abc… ANN A <O'NEIL>",
        ),
        (
            "{# a {% set x = 1 %} comment #}{% raw %}{{ x }}{% set y %}{% endraw %}{{ \"}}\" }}{{ {'a': {'b': 1}}.a.b }}",
            "{{ x }}{% set y %}}}1",
        ),
        ("{{- range(3)|join(',') -}}", "0,1,2"),
        ("{{ data['items'][1:]|length }} {{ data.customer[:3] }}", "1 Ann"),
    ] {
        assert_eq!(render(body), expected, "{body}");
    }
}

#[test]
fn what_tojson_writes_stays_json_wherever_it_is_put() {
    let body = r#"{"text": {{ data.customer|tojson }}, "all": {{ data|tojson }}, "none": {{ data.missing|tojson }}}"#;
    let value: serde_json::Value = serde_json::from_str(&render(body)).unwrap();
    assert_eq!(value["text"], "Ann \"A\" <O'Neil>");
    assert_eq!(value["all"]["items"][1]["n"], 2);
    assert_eq!(value["none"], serde_json::Value::Null);
    assert!(!render("{{ data|tojson }}").contains(['<', '>', '\'']));
}

#[test]
fn data_that_is_not_json_is_text_or_base64() {
    let text = Template::compile("{{ data|upper }}").unwrap().render(&event_of("text/plain", b"hello"), &full()).unwrap();
    assert_eq!(text, "HELLO");
    let binary =
        Template::compile("{{ data }}{{ data_base64 }}").unwrap().render(&event_of("image/png", &[0xff, 0]), &full()).unwrap();
    assert_eq!(binary, "/wA=");
}

#[test]
fn what_cannot_be_a_template_is_refused_with_a_reason_to_act_on() {
    for (body, reason) in [
        ("{{ data.amount", "is no template"),
        ("line\n{% if %}", "line 2"),
        ("{{ amount }}", "names \"amount\""),
        ("{{ data|shout }}", "filter \"shout\""),
        ("{{ data is shouted }}", "test \"shouted\""),
        ("{% set x = data ~ data %}{{ x }}", "statement \"set\""),
        ("{%- with x = 1 %}{% endwith %}", "statement \"with\""),
        ("{% include 'secret.txt' %}", "statement \"include\""),
        ("{% extends 'x' %}", "statement \"extends\""),
        ("{% macro a() %}{% endmacro %}", "statement \"macro\""),
        ("{% filter upper %}{% endfilter %}", "statement \"filter\""),
        ("{% for x in [data ~ data] %}{% endfor %}", "outside of {{ … }}"),
        ("{{ 'a' * 1000000000 }}", "'*'"),
        ("{% for x in data recursive %}{% endfor %}", "recursive"),
        ("{% raw %}{% endraw %}{% set x = 1 %}", "statement \"set\""),
        ("{# #}{% set x = 1 %}", "statement \"set\""),
        ("{{ '{%' }}{%set x = 1 %}", "statement \"set\""),
    ] {
        assert!(refused(body).contains(reason), "{body}: {}", refused(body));
    }
    let deep = format!("{}{}", "{% for a in data %}".repeat(4), "{% endfor %}".repeat(4));
    assert!(refused(&deep).contains("more than 3 loops"));
    assert!(refused(&format!("{{{{ {} }}}}", vec!["data"; 70].join(" ~ "))).contains("64 times"));
}

#[test]
fn what_fails_on_an_event_says_why() {
    let event = json_event();
    assert!(failure("{{ data.missing.name }}", &event).contains("undefined"));
    assert!(failure("\n\n{{ data.customer / 2 }}", &event).contains("line 3"));
    assert!(failure("{{ data.amount // 0 }}", &event).len() > 5);
    assert!(failure("{{ unknown_method() if data }}".replace("unknown_method()", "data.go()").as_str(), &event).len() > 5);
    let long = event_of("application/json", format!("\"{}\"", "x".repeat(DATA_BYTES_MAX)).as_bytes());
    assert!(failure("{{ data }}", &long).contains("at most 262144"));
    assert_eq!(Template::compile("{{ id }}").unwrap().render(&long, &full()).unwrap(), "o-1");
}

#[test]
fn nothing_grows_beyond_its_caps() {
    let event = json_event();
    let many = event_of("application/json", format!("[{}]", vec!["1"; 40_000].join(",")).as_bytes());
    let long = event_of("application/json", format!("{{\"s\": \"{}\"}}", "a".repeat(200_000)).as_bytes());
    let loops = "{% for a in range(1000) %}{% for b in range(1000) %}{{ a }}{% endfor %}{% endfor %}";
    assert!(failure(loops, &event).contains("too many steps"));
    assert!(failure("{% for a in data %}{% for b in data %}{% endfor %}{% endfor %}", &many).contains("too many steps"));
    assert!(failure("{{ range(100000)|join }}", &event).contains("1000"));
    assert!(failure("{{ data.s|replace('a', data.s)|length }}", &long).contains("262144"));
    assert!(failure("{{ range(1000)|join(data.s)|length }}", &long).contains("262144"));
    assert!(failure("{{ data.s ~ data.s }}", &long).contains("more than 262144"));
    let printed = format!("{{% for a in range(1000) %}}{}{{% endfor %}}", "x".repeat(1000));
    assert!(failure(&printed, &event).contains("more than 262144"));
}

#[test]
fn every_filter_and_test_that_is_allowed_is_there() {
    for name in filters::FILTERS {
        let rendered = Template::compile(&format!("{{{{ data|{name} }}}}")).unwrap().render(&json_event(), &full());
        assert!(!rendered.is_err_and(|error| error.to_string().contains("unknown")), "{name}");
    }
    for name in filters::TESTS {
        let rendered = Template::compile(&format!("{{{{ data is {name} }}}}")).unwrap().render(&json_event(), &full());
        assert!(!rendered.is_err_and(|error| error.to_string().contains("unknown")), "{name}");
    }
}

#[test]
fn a_rendering_ends_when_its_time_is_over_or_nobody_waits_for_it() {
    thread_local! { static TIME: std::cell::Cell<u64> = const { std::cell::Cell::new(0) }; }
    // It takes 1 ms from one look at the clock to the next.
    fn clock() -> Duration {
        TIME.set(TIME.get() + 1);
        Duration::from_millis(TIME.get())
    }
    let body = "{% for a in range(1000) %}{{ data.customer|upper|lower|title }}{% endfor %}";
    let template = Template::compile(body).unwrap();
    let looks = |allowance: &Allowance| {
        let before = TIME.get();
        (template.render(&json_event(), allowance), TIME.get() - before)
    };
    let timed = Allowance { clock, ..full() };
    let (all, took) = looks(&timed);
    assert!(all.is_ok() && took > 4, "{took}");
    let (late, took) = looks(&Allowance { time: Duration::from_millis(3), ..timed.clone() });
    assert_eq!((late.unwrap_err().to_string().as_str(), took), ("takes more than 3 ms", 4));
    let stopped = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let (unwanted, _) = looks(&Allowance { stopped: Some(stopped), ..timed });
    assert_eq!(unwanted, Err(RenderError::Unwanted));
}

#[test]
fn the_examples_that_are_shipped_are_small() {
    let small = Allowance { bytes: SMALL_WORK_BYTES, ..full() };
    let data = format!(
        "{{\"customer\": \"Ann\", \"note\": \"{}\", \"lines\": [{}]}}",
        "x".repeat(2000),
        vec!["{\"n\": 1}"; 100].join(",")
    );
    for example in ["slack", "discord", "teams"] {
        let path = format!("{}/../../examples/{example}.json", env!("CARGO_MANIFEST_DIR"));
        let definition: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let template = Template::compile(definition["template"]["body"].as_str().unwrap()).unwrap();
        assert!(template.render(&event_of("application/json", data.as_bytes()), &small).is_ok(), "{example}");
    }
}

/// The same template without a meter in it.
fn plain(body: &str) -> Option<String> {
    let mut engine = filters::ENGINE.clone();
    engine.add_template_owned(NAME, body.to_owned()).ok()?;
    meter::begin(&full());
    let event = json_event();
    let fields = event.fields();
    let values = Template::compile("{{ data }}").unwrap().values(&event, &fields).unwrap();
    // The engine cuts an empty text backwards with a panic.
    catch(|| engine.get_template(NAME).ok()?.render(values).ok()).ok()?
}

fn expressions() -> impl Strategy<Value = String> {
    let leaves = prop::sample::select(vec![
        "data.amount",
        "data.customer",
        "data['items']",
        "data.on",
        "data.x",
        "data.missing",
        "subject",
        "id",
        "seq",
        "1",
        "2.5",
        "0",
        "'a'",
        "'it\\'s \\n \"x\"'",
        "''",
        "true",
        "none",
        "[1, 'b']",
        "{'k': 2}",
        "()",
        "1e3",
        "[]",
        "extensions",
        "-3",
    ]);
    leaves.prop_map(str::to_owned).prop_recursive(4, 24, 3, |inner| {
        let operator = prop::sample::select(vec![
            "+", "-", "/", "//", "%", "~", "==", "!=", "<", "<=", ">", ">=", "in", "not in", "and", "or", "~", "< 3 <",
        ]);
        let after = prop::sample::select(vec![
            "|upper",
            "|default('d')",
            "|length",
            "|tojson",
            "|string",
            "|list",
            "|first",
            "|join('-')",
            "|sort",
            "|map('string')|list",
            " is defined",
            " is not none",
            " is eq 1",
            " is number",
            "[0]",
            "['k']",
            "[-1]",
            ".n",
            "[1:]|list",
            "[::-1]|list",
            "|select('number')|list",
            "|truncate(3)",
            "|replace('a', 'bb')",
        ]);
        prop_oneof![
            (inner.clone(), operator, inner.clone()).prop_map(|(a, op, b)| format!("{a} {op} {b}")),
            (inner.clone(), after.clone()).prop_map(|(a, after)| format!("{a}{after}")),
            (inner.clone(), after).prop_map(|(a, after)| format!("({a}){after}")),
            (inner.clone(), inner.clone(), inner.clone()).prop_map(|(a, b, c)| format!("({a} if {b} else {c})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("[{a}, {b}]")),
            (inner.clone(), inner).prop_map(|(a, b)| format!("not ({a} and -{b})")),
        ]
    })
}

proptest! {
    #[test]
    fn a_metered_template_makes_what_the_plain_one_makes(one in expressions(), other in expressions()) {
        let body = format!("{{% for i in [1, 2] %}}a\n\"{{{{ ({one})|tojson }}}}{{% if {other} %}}1{{% elif {one} %}}\\{{% else %}}{{{{ i }}}}{{% endif %}}{{% endfor %}}");
        if let Ok(template) = Template::compile(&body) {
            let metered = template.render(&json_event(), &full()).ok().map(|made| String::from_utf8(made.to_vec()).unwrap());
            prop_assert_eq!(metered, plain(&body), "{}", body);
        }
    }

    #[test]
    fn nothing_that_is_written_ends_in_a_panic(parts in prop::collection::vec("(\\{\\{|\\}\\}|\\{%|%\\}|\\{#|#\\}|if |for |x in |endif|raw|endraw|data|\\.|\\||'|\"|~|-|\\(|\\[|[a-z] |ü){1}", 0..24)) {
        if let Ok(template) = Template::compile(&parts.concat()) {
            let _ = template.render(&json_event(), &full());
        }
    }
}
