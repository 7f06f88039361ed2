//! Templates that tenants write to fill the memory, to burn a core, or to end the process.

use super::*;

/// What tenants wrote to fill the memory or to burn a core; each takes little to write and much to do.
fn attacks() -> Vec<(String, Event)> {
    let small = event_of("application/json", br#"{"a": 1}"#);
    let numbers = |count: u32| {
        let list: Vec<String> = (0..count).map(|n| n.to_string()).collect();
        event_of("application/json", format!("[{}]", list.join(",")).as_bytes())
    };
    let text = event_of("application/json", format!("{{\"t\": \"{}\"}}", "x".repeat(200_000)).as_bytes());
    let words = event_of("application/json", format!("{{\"t\": \"{}\"}}", "a b ".repeat(50_000)).as_bytes());
    let nested = "[1, 2]".repeat(400).replace("][", "], [");
    let wide = format!("[{}]", vec!["a"; 300].join(", "));
    let bomb = format!("{{% for a in [[{nested}]] %}}{{% for b in [{wide}] %}}{{% for a in [{}] %}}", wide.replace('a', "b"));
    let end = "{% endfor %}{% endfor %}{% endfor %}";
    vec![
        (format!("{{{{ '\"'{} }}}}", "|tojson".repeat(8)).replace("'\"'", &format!("'{}'", "\"".repeat(2000))), small.clone()),
        ("{{ data.t|list|map('replace', 'x', data.t)|list|length }}".to_owned(), text.clone()),
        ("{{ data.t|list|map('replace', 'x', data.t)|map('upper')|list|length }}".to_owned(), text.clone()),
        (
            "{% for a in range(1000) %}{{ data.t|list|map('replace', 'x', data.t)|unique|list|length }}{% endfor %}".to_owned(),
            text.clone(),
        ),
        ("{% for a in data %}{{ data|select('in', data)|list|length }}{% endfor %}".to_owned(), numbers(1000)),
        ("{% for a in data %}{{ data|select('in', data)|list|length }}{% endfor %}".to_owned(), numbers(30_000)),
        ("{{ data|select('in', data)|list|length }}".to_owned(), numbers(30_000)),
        ("{% for a in data.t|list %}{{ data.t|list|select('in', data.t)|list|length }}{% endfor %}".to_owned(), text.clone()),
        ("{% for a in range(1000) %}{{ data|sort|length }}{% endfor %}".to_owned(), numbers(30_000)),
        ("{% for a in range(1000) %}{{ data.t|title|length }}{% endfor %}".to_owned(), words.clone()),
        ("{% for a in range(1000) %}{{ data.t|split|map('title')|list|length }}{% endfor %}".to_owned(), words),
        ("{% for a in range(1000) %}{{ data.t|length }}{% endfor %}".to_owned(), text.clone()),
        ("{% for a in range(1000) %}{{ data.t[199999] }}{% endfor %}".to_owned(), text.clone()),
        ("{% for a in range(1000) %}{{ data.t[::-1]|length }}{% endfor %}".to_owned(), text.clone()),
        ("{% for a in range(1000) %}{{ 'y' in data.t }}{% endfor %}".to_owned(), text.clone()),
        ("{% for a in range(1000) %}{{ data.t < data.t ~ 'y' }}{% endfor %}".to_owned(), text),
        ("{% for a in range(1000) %}{{ data == data[1:] }}{% endfor %}".to_owned(), numbers(30_000)),
        ("{% for a in range(1000) %}{{ (data + data + data)|length }}{% endfor %}".to_owned(), numbers(30_000)),
        ("{% for a in range(1000) %}{% if loop.changed(data[a:]) %}{% endif %}{% endfor %}".to_owned(), numbers(30_000)),
        (
            "{{ data|sum(start='') }}".to_owned(),
            event_of("application/json", format!("[{}]", vec!["\"ab\""; 40_000].join(",")).as_bytes()),
        ),
        ("{% for a in range(1000) %}{% for b in range(1000) %}{% endfor %}{% endfor %}".to_owned(), small.clone()),
        (format!("{bomb}{{{{ a == [a] }}}}{end}"), small.clone()),
        (format!("{bomb}{{{{ a|upper }}}}{end}"), small.clone()),
        (format!("{bomb}{{{{ a }}}}{end}"), small.clone()),
        (format!("{bomb}{{{{ a|tojson|length }}}}{end}"), small.clone()),
        (format!("{bomb}{{{{ 'x' ~ a }}}}{end}"), small.clone()),
        (format!("{bomb}{{{{ a|unique|length }}}}{end}"), small.clone()),
        (format!("{bomb}{{{{ [a]|urlencode|length }}}}{end}"), small.clone()),
        (format!("{bomb}{{{{ {{a: 1}}|length }}}}{end}"), small),
    ]
    .into_iter()
    .chain(searches())
    .collect()
}

/// The same, where the engine looks at much more than what it is given and makes.
fn searches() -> Vec<(String, Event)> {
    let long = "x".repeat(100_000);
    let json = |value: serde_json::Value| event_of("application/json", value.to_string().as_bytes());
    let text = json(serde_json::json!({"t": long, "cut": format!("{}x", "y".repeat(100_000))}));
    let fields = json(serde_json::json!([{"t": long}, {"t": "a"}]));
    let one_long = json(serde_json::json!(std::iter::once(long.clone()).chain(vec!["a".to_owned(); 5000]).collect::<Vec<_>>()));
    let numbers = json(serde_json::json!(vec![1e-300; 40]));
    let keys = "t,".repeat(10_000);
    let turns = |body: &str| format!("{{% for a in range(1000) %}}{body}{{% endfor %}}");
    vec![
        (turns("{{ data.t|trim(data.cut)|length }}"), text.clone()),
        (turns("{{ [data.t, data.t, data.t, data.t]|map(attribute='99999')|list|length }}"), text.clone()),
        (turns("{{ [data.t, data.t, data.t, data.t]|map(attribute=99999)|list|length }}"), text.clone()),
        (turns("{{ [data.t, data.t, data.t, data.t]|selectattr('99999')|list|length }}"), text),
        (turns("{{ data|map(attribute='t.99999', default='')|list|length }}"), fields.clone()),
        (turns("{{ data|sum(attribute='t.99999', start='') }}"), fields.clone()),
        (format!("{{{{ data|sort(attribute='{keys}')|length }}}}"), fields),
        ("{{ data|max }}".to_owned(), one_long.clone()),
        ("{{ data|sort|length }}".to_owned(), one_long),
        (turns("{{ data|map('round', 1074)|list|length }}"), numbers.clone()),
        (turns("{{ data|map('round', -1)|list|length }}"), numbers),
    ]
}

#[test]
fn what_remembers_itself_is_refused_and_what_tells_of_it_is_not() {
    for body in [
        "{% for a in data %}{{ loop.changed(loop) }}{% endfor %}",
        "{% for a in data %}{{ loop.changed([1, {'x': loop}]) }}{% endfor %}",
        "{% for a in data %}{% for b in [loop] %}{{ b.changed(1) }}{% endfor %}{% endfor %}",
        "{% for a in data %}{{ loop }}{% endfor %}",
        "{% for a in data %}{{ (loop|default(1)).index }}{% endfor %}",
    ] {
        assert!(refused(body).contains("`loop` as a value"), "{body}: {}", refused(body));
    }
    let told =
        "{% for a in 'xxy'|list %}{{ loop.index }}{{ loop['first'] }}{{ loop.changed(a) }}{{ loop.cycle('-', '+') }}{% endfor %}";
    assert_eq!(render(told), "1truetrue-2falsefalse+3falsetrue-");
}

#[test]
fn ordinary_searches_are_what_they_were() {
    for (body, expected) in [
        ("{{ '  a b '|trim }}|{{ 'xyaxbyx'|trim('xy') }}|{{ 'a'|trim('') }}|{{ 12|trim('1') }}", "a b|axb|a|2"),
        ("{{ data['items']|sort(attribute='n', reverse=true)|map(attribute='n')|join }}", "21"),
        ("{{ data['items']|sort(attribute='m,n')|map(attribute='n')|join }}", "12"),
        ("{{ ['b', 'A', 'c']|sort|join }} {{ ['b', 'A', 'c']|max }} {{ [3, 1]|min }}", "Abc c 1"),
        ("{{ 1.2345|round(2) }} {{ 1.5|round }} {{ 1250|round(-2) }}", "1.23 2.0 1200"),
    ] {
        assert_eq!(render(body), expected, "{body}");
    }
}

#[test]
fn what_tenants_wrote_to_fill_memory_or_to_burn_a_core_ends_within_its_bytes() {
    for (body, event) in attacks() {
        let begin: String = body.chars().take(100).collect();
        let template = Template::compile(&body).unwrap_or_else(|error| panic!("{begin}: {error}"));
        let error = template.render(&event, &full()).expect_err(&begin);
        let said = error.to_string();
        let too_long = said.contains("262144 bytes") || said.contains("too many steps");
        assert!(too_long || error == RenderError::TooMuchWork(WORK_BYTES_MAX), "{begin}: {said}");
        // None of them is done where others wait for it.
        let small = Allowance { bytes: SMALL_WORK_BYTES, ..full() };
        let at_once = template.render(&event, &small);
        assert!(matches!(at_once, Err(RenderError::TooMuchWork(_) | RenderError::Failed(_))), "{begin}: {at_once:?}");
    }
}

#[test]
fn what_is_nested_deeper_than_a_parser_has_stack_for_is_refused_before_it_is_parsed() {
    for (body, reason) in [
        (format!("{{{{ {}id }}}}", "not ".repeat(16_000)), "operators"),
        (format!("{{{{ {}1 }}}}", "-".repeat(65_000)), "operators"),
        (format!("{{{{ 1{} }}}}", "-1".repeat(32_000)), "operators"),
        (format!("{{{{ data{} }}}}", ".a".repeat(32_000)), "operators"),
        (format!("{{{{ data{} }}}}", "[0]".repeat(20_000)), "operators"),
        (format!("{{{{ id{} }}}}", "|d".repeat(32_000)), "operators"),
        (format!("{{{{ id{} }}}}", " is defined".repeat(5000)), "operators"),
        (format!("{{{{ 1{} }}}}", " if 1 else 1".repeat(5000)), "operators"),
        (format!("{{{{ 1{} }}}}", " in [1".repeat(10_000)), "brackets"),
        (format!("{{% for x in id{} %}}{{% endfor %}}", " or id".repeat(10_000)), "operators"),
        (format!("{}{}", "{% if id %}".repeat(2900), "{% endif %}".repeat(2900)), "more than 32 conditions"),
        (format!("{{% if id %}}{}{{% endif %}}", "{% elif id %}".repeat(4800)), "more than 32 conditions"),
        (format!("{{{{ {}1{} }}}}", "(".repeat(30_000), ")".repeat(30_000)), "brackets"),
        (format!("{{{{ {}1{} }}}}", "{1: ".repeat(10_000), "}".repeat(10_000)), "brackets"),
        (format!("{{{{ 'x'|map({}, 'upper')|list }}}}", vec!["'map'"; 1900].join(", ")), "more than 16 arguments"),
        (format!("{{{{ id{} }}}}", "|trim".repeat(9)), "more than 8 filters"),
        (format!("{{{{ (id|trim){} }}}}", "|trim".repeat(8)), "more than 8 filters"),
        (format!("{{{{ {} }}}}", "x".repeat(200)), "more than 128 bytes"),
    ] {
        let begin: String = body.chars().take(60).collect();
        let refusal = refused(&body);
        assert!(refusal.contains(reason), "{begin}: {refusal}");
    }
    assert_eq!(render(&format!("{{{{ id{} }}}}", "|trim".repeat(8))), "o-1");
    let long: Vec<_> = (0..2000).map(|n| format!("'k{n}': data.amount|default('-')")).collect();
    assert!(render(&format!("{{{{ {{{}}}|length }}}}", long.join(", "))).contains("2000"));
    assert_eq!(render(&format!("{}{}", "{% if id %}".repeat(32), "{% endif %}".repeat(32))), "");
}

/// A filter with what it is given; each can make something larger, or another kind of value.
fn chains() -> impl Strategy<Value = Vec<&'static str>> {
    let filters = prop::sample::select(vec![
        "upper",
        "lower",
        "title",
        "capitalize",
        "tojson",
        "urlencode",
        "string",
        "list",
        "reverse",
        "sort",
        "unique",
        "join('<&>')",
        "replace('', '\"')",
        "replace('a', data.t)",
        "replace('\"', '\\\\\"\"')",
        "indent(32)",
        "split",
        "split('a')",
        "lines",
        "trim",
        "map('upper')",
        "map('replace', '', '<<<<')",
        "map('list')",
        "map('tojson')",
        "map('urlencode')",
        "map('join', data.t)",
        "select('in', data.t)",
        "map('map', 'tojson')",
        "items",
        "dictsort",
        "first",
        "last",
        "truncate(100000)",
        "default(data)",
        "sum(start=[])",
        "max",
        "min",
    ]);
    prop::collection::vec(filters, 1..=FILTERS_CHAINED_MAX - 1)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_filters_make_of_each_other_was_charged_and_is_no_longer_than_a_text_may_be(
        chain in chains(), text in "[a-c<\"\\\\ \u{1}\u{390}]{1,40}", times in 1_usize..2000, list in any::<bool>()
    ) {
        let text = text.repeat(times);
        let t: String = text.chars().take(60_000).collect();
        let data = if list { serde_json::json!({"t": t, "l": [t, t, [t]]}) } else { serde_json::json!({"t": t, "l": t}) };
        let event = event_of("application/json", data.to_string().as_bytes());
        let body = format!("{{{{ data.l|{}|tojson }}}}", chain.join("|"));
        let template = Template::compile(&body).unwrap();
        meter::begin(&full());
        match template.render(&event, &full()) {
            Ok(made) => {
                let charged = WORK_BYTES_MAX - meter::end().1;
                prop_assert!(made.len() <= OUTPUT_BYTES_MAX && (made.len() as u64) <= charged, "{} {}: {}", made.len(), charged, body);
            }
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }
}
