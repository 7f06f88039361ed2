//! Rows of definitions that must be refused, or taken, through the API of a running relay.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use serde_json::{Value, json};

use crate::support::Relay;

/// The rows of the table: area, input, expected. Every field is quoted, a quote inside is doubled.
fn rows() -> Vec<[String; 3]> {
    let text = std::fs::read_to_string(format!("{}/tests/data/definitions/bad-inputs.csv", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let row = |line: &str| {
        let inside = line.strip_prefix('"').unwrap().strip_suffix('"').unwrap();
        let fields: Vec<String> = inside.split("\",\"").map(|field| expand(&field.replace("\"\"", "\""))).collect();
        <[String; 3]>::try_from(fields).unwrap_or_else(|_| panic!("three fields in {line}"))
    };
    text.lines().skip(1).map(row).collect()
}

/// `\n`, `\r`, `\t`, `\0`, `\\` and `{{N*S}}`.
fn expand(field: &str) -> String {
    let field =
        field.replace("\\\\", "\u{1}").replace("\\n", "\n").replace("\\r", "\r").replace("\\t", "\t").replace("\\0", "\0");
    let field = field.replace('\u{1}', "\\");
    let Some((before, (count, (text, after)))) = field
        .split_once("{{")
        .and_then(|(before, rest)| Some((before, rest.split_once('*')?)))
        .and_then(|(before, (count, rest))| Some((before, (count, rest.split_once("}}")?))))
    else {
        return field;
    };
    match count.parse() {
        Ok(count) => format!("{before}{}{after}", text.repeat(count)),
        Err(_) => field.clone(),
    }
}

/// What a row wants: the slug of a refusal, or the address of an acceptance if it is not the given one.
enum Wanted {
    Refused(String),
    Taken(Option<String>),
}

fn wanted(expected: &str) -> Wanted {
    let first = expected.split([' ', ';']).next().unwrap();
    if let Some(refused) = first.strip_prefix("REJECT:") {
        let (status, slug) = refused.split_once(':').unwrap();
        assert_eq!(status, "422");
        return Wanted::Refused(slug.to_owned());
    }
    Wanted::Taken(first.strip_prefix("ACCEPT_CANON:").filter(|url| !url.is_empty()).map(str::to_owned))
}

/// Asks for a subscription; its slug when it is refused, the shown URL when it is taken.
async fn outcome(relay: &Relay, body: &Value) -> Result<String, String> {
    let (status, answer) = relay.ask("POST", "/v1/subscriptions", Some(body)).await;
    if status == 201 {
        let path = format!("/v1/subscriptions/{}", answer["id"].as_str().unwrap());
        let shown = relay.get(&path).await;
        assert!(!shown.to_string().contains("Bearer abc"), "header values are not shown");
        assert_eq!(relay.ask("DELETE", &path, None).await.0, 204);
        return Ok(shown["url"].as_str().unwrap().to_owned());
    }
    assert_eq!(status, 422, "{body}: {answer}");
    assert!(!answer["detail"].as_str().unwrap().is_empty());
    Err(answer["type"].as_str().unwrap().strip_prefix("/problems/").unwrap().to_owned())
}

fn body_of(area: &str, input: &str) -> Option<Value> {
    let mut body = json!({"url": "https://hook.example.com/", "topics": ["t"]});
    match area {
        "headers" if input.contains("21 distinct") => {
            body["headers"] = (0..21).map(|n| (format!("x-{n}"), json!("x"))).collect::<serde_json::Map<_, _>>().into();
        }
        "headers" => body["headers"] = serde_json::from_str::<Value>(input).unwrap()["headers"].clone(),
        "signature" => {
            use base64::Engine as _;
            let secret = input.strip_prefix("secret ").unwrap();
            let text = match secret.strip_prefix("whsec_ + ").and_then(|rest| rest.strip_suffix(" bytes")) {
                Some(count) => {
                    let bytes = vec![7; count.parse().unwrap()];
                    format!("whsec_{}", base64::engine::general_purpose::STANDARD.encode(bytes))
                }
                None if secret == "empty" => String::new(),
                None => secret.to_owned(),
            };
            body["signature"] = json!({"scheme": "standard", "secret": text});
        }
        // The names of this relay are not configured here.
        _ if input.contains("${OWN_PUBLIC_HOST}") => return None,
        _ => body["url"] = json!(input.replace(".example.test", ".example.com")),
    }
    Some(body)
}

#[tokio::test]
async fn definitions_are_judged_row_by_row() {
    let relay = Relay::start_strict().await;
    let rows = rows();
    assert!(rows.len() > 150, "{} rows", rows.len());
    let mut wrong = Vec::new();
    for [area, input, expected] in &rows {
        let Some(body) = body_of(area, input) else { continue };
        let seen = outcome(&relay, &body).await;
        let is_right = match (wanted(&expected.replace(".example.test", ".example.com")), &seen) {
            (Wanted::Refused(slug), Err(seen)) => slug == *seen,
            (Wanted::Taken(None), Ok(_)) => true,
            (Wanted::Taken(Some(url)), Ok(seen)) => url == *seen,
            _ => false,
        };
        if !is_right {
            wrong.push(format!("{area} {:?}: wanted {expected}, seen {seen:?}", &input[..input.len().min(100)]));
        }
    }
    assert!(wrong.is_empty(), "{} rows:\n{}", wrong.len(), wrong.join("\n"));
}
