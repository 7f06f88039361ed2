//! The filters and tests that templates may use: the engine's own behind a charge for what they look at and make, and ours
//! where the engine's would grow. Also the filters that [`super::prepare`] puts into a template.

use std::sync::LazyLock;

use minijinja::functions::Function;
use minijinja::value::{FunctionArgs, FunctionResult, Rest, ValueOrKwargs};
use minijinja::{AutoEscape, Environment, Error, State, Value, filters, tests};

use super::costs::{Cost, items, pay};
use super::meter;
use super::texts::{indent, join, joined, range, replace, to_json, trim, truncate};
use super::values::{VALUE_BYTES, charge, made, printed, refuse, text_bytes, weigh};

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

/// Names of what meters a template from inside. Nobody else's filter has such a name.
pub(super) mod metered {
    /// Charges a value that is about to be compared or cut.
    pub(in crate::template) const WEIGHED: &str = "_weighed";
    /// Charges what was made.
    pub(in crate::template) const MADE: &str = "_made";
    /// Joins texts.
    pub(in crate::template) const JOINED: &str = "_joined";
    /// Charges a text of which one character is taken.
    pub(in crate::template) const INDEXED: &str = "_indexed";
    /// Charges a loop.
    pub(in crate::template) const WALKED: &str = "_walked";
}

/// An engine without templates that knows these and nothing else.
pub(super) static ENGINE: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut engine = Environment::empty();
    engine.set_auto_escape_callback(|_| AutoEscape::None);
    engine.set_recursion_limit(64);
    engine.set_formatter(|out, _, value| {
        let text = printed(value)?;
        if text.is_empty() { Ok(()) } else { out.write_str(&text).map_err(Error::from) }
    });
    add_free(&mut engine);
    add_texts(&mut engine);
    add_lists(&mut engine);
    add_tests(&mut engine);
    add_metered(&mut engine);
    engine.add_function("range", range);
    engine
});

/// What looks at no more than one value of fixed size.
fn add_free(engine: &mut Environment<'static>) {
    engine.add_filter("abs", filters::abs);
    engine.add_filter("bool", filters::bool);
    engine.add_filter("default", filters::default);
    engine.add_filter("d", filters::default);
    engine.add_filter("first", filters::first);
    add(engine, "round", Cost::Digits, filters::round);
    add(engine, "count", Cost::Texts, filters::length);
    add(engine, "float", Cost::Texts, filters::float);
    add(engine, "int", Cost::Texts, filters::int);
    add(engine, "last", Cost::Texts, filters::last);
    add(engine, "length", Cost::Texts, filters::length);
}

fn add_texts(engine: &mut Environment<'static>) {
    add(engine, "capitalize", Cost::Words, filters::capitalize);
    add(engine, "lines", Cost::Words, filters::lines);
    add(engine, "lower", Cost::Words, filters::lower);
    add(engine, "split", Cost::Words, filters::split);
    add(engine, "title", Cost::Words, filters::title);
    add(engine, "upper", Cost::Words, filters::upper);
    add(engine, "urlencode", Cost::Whole, filters::urlencode);
    engine.add_filter("indent", indent);
    engine.add_filter("join", join);
    engine.add_filter("replace", replace);
    engine.add_filter("string", |value: &Value| made(Value::from(printed(value)?.into_owned())));
    engine.add_filter("tojson", to_json);
    engine.add_filter("trim", trim);
    engine.add_filter("truncate", truncate);
}

fn add_lists(engine: &mut Environment<'static>) {
    add(engine, "dictsort", Cost::Order, filters::dictsort);
    add(engine, "items", Cost::Items, filters::items);
    add(engine, "list", Cost::Items, filters::list);
    add(engine, "map", Cost::Items, filters::map);
    add(engine, "max", Cost::Extreme, filters::max);
    add(engine, "min", Cost::Extreme, filters::min);
    add(engine, "reject", Cost::Items, filters::reject);
    add(engine, "rejectattr", Cost::Items, filters::rejectattr);
    add(engine, "reverse", Cost::Items, filters::reverse);
    add(engine, "select", Cost::Items, filters::select);
    add(engine, "selectattr", Cost::Items, filters::selectattr);
    add(engine, "sort", Cost::Order, filters::sort);
    add(engine, "sum", Cost::Sum, filters::sum);
    add(engine, "unique", Cost::Order, filters::unique);
}

fn add_tests(engine: &mut Environment<'static>) {
    engine.add_test("boolean", tests::is_boolean);
    engine.add_test("defined", tests::is_defined);
    engine.add_test("divisibleby", tests::is_divisibleby);
    engine.add_test("even", tests::is_even);
    engine.add_test("false", tests::is_false);
    engine.add_test("float", tests::is_float);
    engine.add_test("integer", tests::is_integer);
    engine.add_test("mapping", tests::is_mapping);
    engine.add_test("none", tests::is_none);
    engine.add_test("number", tests::is_number);
    engine.add_test("odd", tests::is_odd);
    engine.add_test("sequence", tests::is_sequence);
    engine.add_test("string", tests::is_string);
    engine.add_test("true", tests::is_true);
    engine.add_test("undefined", tests::is_undefined);
    engine.add_test("endingwith", charged(Cost::Words, Value::from_function(tests::is_endingwith)));
    engine.add_test("startingwith", charged(Cost::Words, Value::from_function(tests::is_startingwith)));
    engine.add_test("iterable", charged(Cost::Texts, Value::from_function(tests::is_iterable)));
    engine.add_test("eq", charged(Cost::Whole, Value::from_function(tests::is_eq)));
    engine.add_test("ge", charged(Cost::Whole, Value::from_function(tests::is_ge)));
    engine.add_test("gt", charged(Cost::Whole, Value::from_function(tests::is_gt)));
    engine.add_test("in", charged(Cost::Whole, Value::from_function(tests::is_in)));
    engine.add_test("le", charged(Cost::Whole, Value::from_function(tests::is_le)));
    engine.add_test("lt", charged(Cost::Whole, Value::from_function(tests::is_lt)));
    engine.add_test("ne", charged(Cost::Whole, Value::from_function(tests::is_ne)));
}

/// What [`super::prepare`] writes into templates.
fn add_metered(engine: &mut Environment<'static>) {
    engine.add_filter(metered::WEIGHED, |value: &Value| weigh(value).map(|_| value.clone()));
    engine.add_filter(metered::MADE, |value: &Value| made(value.clone()));
    engine.add_filter(metered::JOINED, joined);
    engine.add_filter(metered::INDEXED, |value: &Value| charge(VALUE_BYTES + text_bytes(value)).map(|()| value.clone()));
    engine.add_filter(metered::WALKED, |value: &Value, turn: u64| {
        charge(items(value).saturating_mul(turn).saturating_mul(super::NODE_BYTES)).map(|()| value.clone())
    });
}

fn add<F, Rv, Args>(engine: &mut Environment<'static>, name: &'static str, cost: Cost, plain: F)
where
    F: Function<Rv, Args>,
    Rv: FunctionResult,
    Args: for<'a> FunctionArgs<'a>,
{
    engine.add_filter(name, charged(cost, Value::from_function(plain)));
}

/// A filter or test of the engine behind its charge.
fn charged(
    cost: Cost,
    plain: Value,
) -> impl Fn(&mut State<'_, '_>, Rest<ValueOrKwargs>) -> Result<Value, Error> + Send + Sync + 'static {
    move |state, values| {
        let mut values = values.into_values();
        pay(cost, &mut values)?;
        let call = || plain.call(state, &values);
        made(meter::nested(call).ok_or_else(|| refuse("filters call each other too often"))??)
    }
}
