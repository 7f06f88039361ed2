//! Parameters that come in the body of a request: as a form, or as an object of JSON.
//!
//! Knows no parameter; an address, with its 8 KiB, is too short for some.

use actix_web::HttpRequest;
use actix_web::http::header;
use actix_web::web::Payload;
use serde_json::Value;
use url::form_urlencoded;

use super::HttpState;
use super::body::{read_body, refuse_encoding};
use super::problem::{self, Problem};
use hookcast_core::json::parse_strict;

/// Largest body of parameters, in bytes: every one of them at its longest.
pub(super) const PARAMETERS_BYTES_MAX: usize = 64 * 1024;

/// Reads the body; without one there are no parameters.
///
/// # Errors
/// `payload_too_large`, `media_type`, `content_encoding`, `invalid_json`, and 422 for what is no parameter.
pub(super) async fn parameters(
    request: &HttpRequest,
    payload: Payload,
    state: &HttpState,
) -> Result<Vec<(String, String)>, Problem> {
    refuse_encoding(request)?;
    let body = read_body(request, payload, state.limits.body(Some(PARAMETERS_BYTES_MAX))).await?;
    if body.is_empty() {
        return Ok(Vec::new());
    }
    let media_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
        "application/x-www-form-urlencoded" => {
            Ok(form_urlencoded::parse(&body).map(|(name, value)| (name.into_owned(), value.into_owned())).collect())
        }
        "application/json" => of_object(&body),
        _ => Err(Problem::new(problem::MEDIA_TYPE, "allowed: application/x-www-form-urlencoded, application/json")),
    }
}

fn of_object(body: &[u8]) -> Result<Vec<(String, String)>, Problem> {
    let value = parse_strict(body).map_err(|error| Problem::of_slug(error.slug(), 400, error.to_string()))?;
    let Value::Object(members) = value else {
        return Err(Problem::new(problem::INVALID_FIELDS, "the body is an object of parameters").at("", "must be an object"));
    };
    let mut parameters = Vec::with_capacity(members.len());
    for (name, value) in members {
        let text = match value {
            Value::Null => continue,
            Value::String(text) => text,
            Value::Number(number) => number.to_string(),
            // `padding` is the only one of them.
            Value::Bool(is_so) => u8::from(is_so).to_string(),
            Value::Array(items) if items.iter().all(Value::is_string) => {
                items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(",")
            }
            _ => {
                let detail = "must be a string, a number, a boolean or a list of strings";
                return Err(Problem::new(problem::INVALID_FIELDS, "a parameter has no such value").at(format!("/{name}"), detail));
            }
        };
        parameters.push((name, text));
    }
    Ok(parameters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_become_the_texts_that_a_query_would_hold() {
        let body = br#"{"types": ["a", "b"], "limit": 3, "padding": true, "since": "earliest", "filter": null}"#;
        let mut given = of_object(body).unwrap();
        given.sort();
        let wanted = [("limit", "3"), ("padding", "1"), ("since", "earliest"), ("types", "a,b")];
        assert_eq!(given, wanted.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn what_is_no_object_of_parameters_is_refused() {
        for (body, status) in
            [("{", 400), ("[]", 422), ("\"a\"", 422), ("{\"a\":{}}", 422), ("{\"a\":[1]}", 422), ("{\"a\":1,\"a\":2}", 400)]
        {
            assert_eq!(of_object(body.as_bytes()).err().map(|problem| problem.status().as_u16()), Some(status), "{body}");
        }
    }
}
