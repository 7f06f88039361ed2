//! The filters and tests that templates may use: the engine's own where their result is no larger than what they are
//! given, with a cap where it can be.

use std::borrow::Cow;
use std::sync::LazyLock;

use minijinja::value::ValueKind;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Value, filters, tests};

/// Longest text that a filter makes, in bytes; also the longest result of a template.
pub const OUTPUT_BYTES_MAX: usize = 256 * 1024;
/// Most numbers in a `range`.
const RANGE_MAX: i64 = 1000;
/// Widest indentation.
const INDENT_MAX: usize = 32;

/// Filters, in the order in which a refusal lists them.
pub(super) const FILTERS: &[&str] = &[
    "abs",
    "bool",
    "capitalize",
    "count",
    "default",
    "d",
    "dictsort",
    "first",
    "float",
    "indent",
    "int",
    "items",
    "join",
    "last",
    "length",
    "lines",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "select",
    "selectattr",
    "sort",
    "split",
    "string",
    "sum",
    "title",
    "tojson",
    "trim",
    "truncate",
    "unique",
    "upper",
    "urlencode",
];

/// Tests, after `is`.
pub(super) const TESTS: &[&str] = &[
    "boolean",
    "defined",
    "divisibleby",
    "endingwith",
    "eq",
    "even",
    "false",
    "float",
    "ge",
    "gt",
    "in",
    "integer",
    "iterable",
    "le",
    "lt",
    "mapping",
    "ne",
    "none",
    "number",
    "odd",
    "sequence",
    "startingwith",
    "string",
    "true",
    "undefined",
];

/// An engine without templates that knows these and nothing else.
pub(super) static ENGINE: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut engine = Environment::empty();
    engine.set_auto_escape_callback(|_| AutoEscape::None);
    engine.set_recursion_limit(64);
    engine.set_formatter(|out, _, value| match printed(value) {
        Cow::Borrowed("") => Ok(()),
        text => out.write_str(&text).map_err(Error::from),
    });
    add_filters(&mut engine);
    add_tests(&mut engine);
    engine.add_function("range", range);
    engine
});

fn add_filters(engine: &mut Environment<'static>) {
    engine.add_filter("abs", filters::abs);
    engine.add_filter("bool", filters::bool);
    engine.add_filter("capitalize", filters::capitalize);
    engine.add_filter("count", filters::length);
    engine.add_filter("default", filters::default);
    engine.add_filter("d", filters::default);
    engine.add_filter("dictsort", filters::dictsort);
    engine.add_filter("first", filters::first);
    engine.add_filter("float", filters::float);
    engine.add_filter("indent", indent);
    engine.add_filter("int", filters::int);
    engine.add_filter("items", filters::items);
    engine.add_filter("join", join);
    engine.add_filter("last", filters::last);
    engine.add_filter("length", filters::length);
    engine.add_filter("lines", filters::lines);
    engine.add_filter("list", filters::list);
    engine.add_filter("lower", filters::lower);
    engine.add_filter("map", filters::map);
    engine.add_filter("max", filters::max);
    engine.add_filter("min", filters::min);
    engine.add_filter("reject", filters::reject);
    engine.add_filter("rejectattr", filters::rejectattr);
    engine.add_filter("replace", replace);
    engine.add_filter("reverse", filters::reverse);
    engine.add_filter("round", filters::round);
    engine.add_filter("select", filters::select);
    engine.add_filter("selectattr", filters::selectattr);
    engine.add_filter("sort", filters::sort);
    engine.add_filter("split", filters::split);
    engine.add_filter("string", |value: &Value| printed(value).into_owned());
    engine.add_filter("sum", filters::sum);
    engine.add_filter("title", filters::title);
    engine.add_filter("tojson", to_json);
    engine.add_filter("trim", filters::trim);
    engine.add_filter("truncate", truncate);
    engine.add_filter("unique", filters::unique);
    engine.add_filter("upper", filters::upper);
    engine.add_filter("urlencode", filters::urlencode);
}

fn add_tests(engine: &mut Environment<'static>) {
    engine.add_test("boolean", tests::is_boolean);
    engine.add_test("defined", tests::is_defined);
    engine.add_test("divisibleby", tests::is_divisibleby);
    engine.add_test("endingwith", tests::is_endingwith);
    engine.add_test("eq", tests::is_eq);
    engine.add_test("even", tests::is_even);
    engine.add_test("false", tests::is_false);
    engine.add_test("float", tests::is_float);
    engine.add_test("ge", tests::is_ge);
    engine.add_test("gt", tests::is_gt);
    engine.add_test("in", tests::is_in);
    engine.add_test("integer", tests::is_integer);
    engine.add_test("iterable", tests::is_iterable);
    engine.add_test("le", tests::is_le);
    engine.add_test("lt", tests::is_lt);
    engine.add_test("mapping", tests::is_mapping);
    engine.add_test("ne", tests::is_ne);
    engine.add_test("none", tests::is_none);
    engine.add_test("number", tests::is_number);
    engine.add_test("odd", tests::is_odd);
    engine.add_test("sequence", tests::is_sequence);
    engine.add_test("startingwith", tests::is_startingwith);
    engine.add_test("string", tests::is_string);
    engine.add_test("true", tests::is_true);
    engine.add_test("undefined", tests::is_undefined);
}

fn refuse(detail: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, detail.into())
}

fn too_long() -> Error {
    refuse(format!("a text of more than {OUTPUT_BYTES_MAX} bytes"))
}

/// A value as it is printed: texts as they are, nothing for what is not there, the rest as JSON has it.
fn printed(value: &Value) -> Cow<'_, str> {
    match value.kind() {
        ValueKind::Undefined => Cow::Borrowed(""),
        ValueKind::None => Cow::Borrowed("null"),
        ValueKind::Bool if value.is_true() => Cow::Borrowed("true"),
        ValueKind::Bool => Cow::Borrowed("false"),
        ValueKind::Map | ValueKind::Seq => Cow::Owned(serde_json::to_string(value).unwrap_or_else(|_| value.to_string())),
        _ => value.as_str().map_or_else(|| Cow::Owned(value.to_string()), Cow::Borrowed),
    }
}

/// JSON that stays JSON wherever it is put: `<`, `>`, `&` and `'` are escaped. What is not there is `null`.
fn to_json(value: &Value) -> Result<String, Error> {
    let json = serde_json::to_string(value).map_err(|error| refuse(format!("cannot be written as JSON: {error}")))?;
    let mut safe = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '<' => safe.push_str("\\u003c"),
            '>' => safe.push_str("\\u003e"),
            '&' => safe.push_str("\\u0026"),
            '\'' => safe.push_str("\\u0027"),
            c => safe.push(c),
        }
    }
    Ok(safe)
}

/// The items of a list, texts as they are, with `between` between them.
fn join(value: &Value, between: Option<&str>) -> Result<String, Error> {
    let between = between.unwrap_or_default();
    let mut joined = String::new();
    for (index, item) in value.try_iter()?.enumerate() {
        if index > 0 {
            joined.push_str(between);
        }
        joined.push_str(&printed(&item));
        if joined.len() > OUTPUT_BYTES_MAX {
            return Err(too_long());
        }
    }
    Ok(joined)
}

fn replace(value: &Value, from: &str, to: &str) -> Result<String, Error> {
    let value = printed(value);
    let times = if from.is_empty() { value.len() + 1 } else { value.matches(from).count() };
    if times.saturating_mul(to.len()).saturating_add(value.len()) > OUTPUT_BYTES_MAX {
        return Err(too_long());
    }
    Ok(value.replace(from, to))
}

/// At most so many characters, the last one a `…` when there were more.
fn truncate(value: &Value, characters: Option<usize>) -> String {
    let most = characters.unwrap_or(255);
    let text = printed(value);
    if text.chars().count() <= most {
        return text.into_owned();
    }
    text.chars().take(most.saturating_sub(1)).chain(std::iter::once('…')).collect()
}

/// Every line but the first moved to the right.
fn indent(value: &Value, width: usize) -> Result<String, Error> {
    let value = printed(value);
    let width = width.min(INDENT_MAX);
    if value.matches('\n').count().saturating_mul(width).saturating_add(value.len()) > OUTPUT_BYTES_MAX {
        return Err(too_long());
    }
    Ok(value.replace('\n', &format!("\n{}", " ".repeat(width))))
}

/// The numbers from `0`, or from `first` up to `end`, without it.
fn range(first: i64, end: Option<i64>) -> Result<Vec<i64>, Error> {
    let (first, end) = end.map_or((0, first), |end| (first, end));
    if end.saturating_sub(first) > RANGE_MAX {
        return Err(refuse(format!("a range of more than {RANGE_MAX} numbers")));
    }
    Ok((first..end).collect())
}
