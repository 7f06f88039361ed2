//! How fields are read and every mistake is told.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn read<T>(value: &Value, known: &[&str], read: impl FnOnce(&Fields<'_>) -> Option<T>) -> Result<T, Vec<FieldError>> {
    let errors = Errors::default();
    let out = Fields::open(value, "", known, &errors).and_then(|fields| read(&fields));
    errors.finish(out)
}

fn only(result: Result<impl std::fmt::Debug, Vec<FieldError>>) -> FieldError {
    let mut errors = result.unwrap_err();
    assert_eq!(errors.len(), 1, "{errors:?}");
    errors.remove(0)
}

#[test]
fn an_unknown_name_is_named_with_the_nearest_known_one() {
    let error = only(read(&json!({"retires": 3}), &["retries", "timeout"], |_| Some(())));
    assert_eq!((error.pointer.as_str(), error.slug, error.status), ("/retires", "unknown_field", 422));
    assert!(error.detail.contains("did you mean `retries`"), "{}", error.detail);
    assert!(!only(read(&json!({"zzz": 3}), &["retries"], |_| Some(()))).detail.contains("mean"));
}

#[test]
fn pointers_escape_what_pointers_are_made_of() {
    let error = only(read(&json!({"a/b~c\n": 3}), &[], |_| Some(())));
    assert_eq!(error.pointer, "/a~1b~0c\n");
    assert!(!error.detail.contains('\n'));
}

#[test]
fn numbers_are_judged_by_type_then_by_size() {
    let slug = |value: Value| only(read(&json!({ "n": value }), &["n"], |fields| fields.integer("n", 1..=10)));
    for (value, slug_wanted, status) in [
        (json!("1"), "wrong_type", 400),
        (json!([1]), "wrong_type", 400),
        (json!(true), "wrong_type", 400),
        (json!(0), "range", 422),
        (json!(11), "range", 422),
        (json!(-1), "range", 422),
        (json!(1.5), "range", 422),
        (json!(18_446_744_073_709_551_616.0), "out_of_range", 400),
    ] {
        let error = slug(value.clone());
        assert_eq!((error.slug, error.status), (slug_wanted, status), "{value}");
    }
    assert_eq!(read(&json!({"n": 10}), &["n"], |fields| fields.integer("n", 1..=10)), Ok(10));
}

#[test]
fn durations_need_a_unit_and_a_range() {
    let second = Duration::from_secs(1);
    let slug =
        |value: Value| only(read(&json!({ "d": value }), &["d"], |f| f.duration("d", second..=second * 60, "timeout"))).slug;
    assert_eq!(slug(json!(10)), "duration_needs_unit");
    assert_eq!(slug(json!("10")), "duration_needs_unit");
    assert_eq!(slug(json!("1h")), "timeout");
    assert_eq!(slug(json!("soon")), "timeout");
    assert_eq!(slug(json!("99999999999999999h")), "timeout");
    assert_eq!(slug(json!(["1s"])), "wrong_type");
}

#[test]
fn sizes_are_texts_or_bytes() {
    let size = |value: Value| read(&json!({ "s": value }), &["s"], |f| f.size("s", 1..=1 << 20));
    assert_eq!(size(json!("64KiB")), Ok(65_536));
    assert_eq!(size(json!(17)), Ok(17));
    assert_eq!(only(size(json!("17"))).slug, "size_needs_unit");
    assert_eq!(only(size(json!("2MiB"))).slug, "range");
    assert_eq!(only(size(json!("2MB"))).slug, "size");
    assert_eq!(only(size(json!(-1))).slug, "size");
    assert_eq!(only(size(json!([]))).slug, "wrong_type");
}

#[test]
fn every_mistake_is_noted_up_to_a_limit() {
    let value = Value::Object((0..1000).map(|i| (format!("x{i}"), json!(i))).collect());
    assert_eq!(read(&value, &[], |_| Some(())).unwrap_err().len(), FIELD_ERRORS_MAX);
}

#[test]
fn long_foreign_texts_are_cut() {
    assert_eq!(quoted("a\u{1b}[31m"), "\"a\\u{1b}[31m\"");
    assert!(quoted(&"x".repeat(10_000)).len() < 100);
}

proptest! {
    #[test]
    fn any_text_is_quoted_on_one_line(text in any::<String>()) {
        prop_assert!(!quoted(&text).chars().any(char::is_control));
    }
}
