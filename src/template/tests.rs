//! What templates make of events, what is refused, and that none grows beyond its caps.

use super::*;
use crate::model::fixture::order;
use proptest::prelude::*;

fn event_of(content_type: &str, data: &[u8]) -> Event {
    order(7, content_type, data)
}

fn json_event() -> Event {
    let data = r#"{"customer": "Ann \"A\" <O'Neil>", "amount": 120, "items": [{"n": 1}, {"n": 2}], "on": true, "x": null}"#;
    event_of("application/json", data.as_bytes())
}

fn render(body: &str) -> String {
    let template = Template::compile(body).unwrap_or_else(|error| panic!("{body}: {error}"));
    let rendered = template.render(&json_event()).unwrap_or_else(|error| panic!("{body}: {error}"));
    String::from_utf8(rendered.to_vec()).unwrap()
}

fn failure(body: &str, event: &Event) -> String {
    Template::compile(body).unwrap_or_else(|error| panic!("{body}: {error}")).render(event).expect_err(body).to_string()
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
    let text = Template::compile("{{ data|upper }}").unwrap().render(&event_of("text/plain", b"hello")).unwrap();
    assert_eq!(text, "HELLO");
    let binary = Template::compile("{{ data }}{{ data_base64 }}").unwrap().render(&event_of("image/png", &[0xff, 0])).unwrap();
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
    assert_eq!(Template::compile("{{ id }}").unwrap().render(&long).unwrap(), "o-1");
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
        let rendered = Template::compile(&format!("{{{{ data|{name} }}}}")).unwrap().render(&json_event());
        assert!(!rendered.is_err_and(|error| error.to_string().contains("unknown")), "{name}");
    }
    for name in filters::TESTS {
        let rendered = Template::compile(&format!("{{{{ data is {name} }}}}")).unwrap().render(&json_event());
        assert!(!rendered.is_err_and(|error| error.to_string().contains("unknown")), "{name}");
    }
}

proptest! {
    #[test]
    fn nothing_that_is_written_ends_in_a_panic(parts in prop::collection::vec("(\\{\\{|\\}\\}|\\{%|%\\}|\\{#|#\\}|if |for |x in |endif|raw|endraw|data|\\.|\\||'|\"|~|-|\\(|\\[|[a-z] |ü){1}", 0..24)) {
        if let Ok(template) = Template::compile(&parts.concat()) {
            let _ = template.render(&json_event());
        }
    }
}
