//! JSONP: an answer as a script that calls a function of the page, so written that nothing in it can be anything else.

use actix_web::http::header;
use actix_web::{HttpResponse, HttpResponseBuilder};
use bytes::{BufMut as _, Bytes, BytesMut};

use crate::ask::Query;
use crate::problem::Problem;
use hookcast_streams::format::{CALLBACK_BYTES_MAX, is_callback};

/// `callback`: `[A-Za-z_$][\w$.]{0,63}`, because it is put into the script as it is.
pub(super) fn callback<'a>(query: &'a Query<'_>) -> Result<Option<&'a str>, Problem> {
    let Some(name) = query.get("callback") else { return Ok(None) };
    if is_callback(name) {
        return Ok(Some(name));
    }
    let detail =
        format!("allowed: a letter, '_' or '$', then letters, digits, '_', '$', '.'; at most {CALLBACK_BYTES_MAX} in all");
    Err(Problem::of_slug("callback", 422, detail))
}

/// Answers with the call. The comment in front keeps the name from being the first bytes of some other format, the disposition
/// keeps a page load from showing it.
pub(super) fn finish(response: &mut HttpResponseBuilder, callback: &str, json: &Bytes) -> HttpResponse {
    response
        .insert_header((header::CONTENT_TYPE, "application/javascript; charset=utf-8"))
        .insert_header((header::CONTENT_DISPOSITION, "attachment; filename=\"events.js\""))
        .body(call(callback, json))
}

/// `/**/callback(json);`. What could end a script in a page, or a line in an old engine, stands inside JSON strings only, and is
/// escaped there.
fn call(callback: &str, json: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(json.len() + callback.len() + 64);
    out.put_slice(b"/**/");
    out.put_slice(callback.as_bytes());
    out.put_u8(b'(');
    let mut written = 0;
    for at in memchr::memchr3_iter(b'<', b'>', 0xE2, json) {
        let (escaped, length): (&[u8], usize) = match &json[at..] {
            [b'<', ..] => (b"\\u003c", 1),
            [b'>', ..] => (b"\\u003e", 1),
            [0xE2, 0x80, 0xA8, ..] => (b"\\u2028", 3),
            [0xE2, 0x80, 0xA9, ..] => (b"\\u2029", 3),
            _ => continue,
        };
        out.put_slice(&json[written..at]);
        out.put_slice(escaped);
        written = at + length;
    }
    out.put_slice(&json[written..]);
    out.put_slice(b");");
    out.freeze()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> Option<String> {
        let encoded: String = url::form_urlencoded::byte_serialize(text.as_bytes()).collect();
        let query = format!("callback={encoded}");
        callback(&Query::read(&query, &["callback"]).unwrap()).map(|name| name.unwrap().to_owned()).ok()
    }

    #[test]
    fn a_callback_is_a_name_and_nothing_else() {
        for good in ["f", "$", "_", "jQuery123_456", "a.b.c", &"a".repeat(64)] {
            assert_eq!(name(good).as_deref(), Some(good));
        }
        for wrong in ["", "1a", ".a", "a b", "a(", "a;alert(1)//", "a\u{2028}", "é", "a-b", "a[0]", "<script>", &"a".repeat(65)]
        {
            assert_eq!(name(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_call_holds_nothing_that_ends_a_script_or_a_line() {
        let out = call("f", "{\"a\":\"</script><!--\u{2028}\u{2029}â€\"}".as_bytes());
        let text = std::str::from_utf8(&out).unwrap();
        assert_eq!(text, "/**/f({\"a\":\"\\u003c/script\\u003e\\u003c!--\\u2028\\u2029â€\"});");
    }

    proptest! {
        #[test]
        fn what_is_called_with_is_what_was_said(text in "[<>/!a\u{2028}\u{2029}\u{2030}\u{e2}\"\\\\-]{0,40}") {
            let json = serde_json::to_vec(&text).unwrap();
            let out = call("f", &json);
            let inside = out.strip_prefix(b"/**/f(").unwrap().strip_suffix(b");").unwrap();
            prop_assert_eq!(serde_json::from_slice::<String>(inside).unwrap(), text);
            let has_danger = std::str::from_utf8(inside).unwrap().contains(['<', '>', '\u{2028}', '\u{2029}']);
            prop_assert!(!has_danger);
        }
    }
}
