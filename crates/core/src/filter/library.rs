//! What an expression may call: CEL's standard library with additions and regular expressions that keep to a budget.
//!
//! Owns the environment and the names that are known in it. Knows no event.

use std::any::Any;
use std::sync::{Arc, LazyLock};

use cel::common::types::{self, CelBool, CelString, Kind, Type};
use cel::common::value::{CowVal, StaticVal, Val};
use cel::{Env, ExecutionError};
use regex::{Regex, RegexBuilder};

use super::meter;

/// Longest regular expression, in bytes.
pub const PATTERN_BYTES_MAX: usize = 256;
/// Memory that a compiled regular expression may take, and the table of a search.
const PATTERN_MEMORY_MAX: usize = 64 * 1024;
/// Longest text that an addition makes, in bytes.
const SUM_BYTES_MAX: usize = 256 * 1024;

/// `+` as it is called in a prepared expression.
pub(super) const ADD: &str = "@add";
/// `matches` as it is called in a prepared expression.
pub(super) const MATCHES: &str = "@matches";

/// A function: its name, and how many arguments it takes at least and at most, the receiver not counted.
pub(super) type Signature = (&'static str, usize, usize);

/// Functions called by name.
pub(super) const FUNCTIONS: &[Signature] = &[
    ("bool", 1, 1),
    ("bytes", 1, 1),
    ("double", 1, 1),
    ("duration", 1, 1),
    ("dyn", 1, 1),
    ("int", 1, 1),
    ("matches", 2, 2),
    ("size", 1, 1),
    ("string", 1, 1),
    ("timestamp", 1, 1),
    ("type", 1, 1),
    ("uint", 1, 1),
];

/// Functions called on a value.
pub(super) const METHODS: &[Signature] = &[
    ("contains", 1, 1),
    ("endsWith", 1, 1),
    ("getDate", 0, 1),
    ("getDayOfMonth", 0, 1),
    ("getDayOfWeek", 0, 1),
    ("getDayOfYear", 0, 1),
    ("getFullYear", 0, 1),
    ("getHours", 0, 1),
    ("getMilliseconds", 0, 1),
    ("getMinutes", 0, 1),
    ("getMonth", 0, 1),
    ("getSeconds", 0, 1),
    ("matches", 1, 1),
    ("size", 0, 0),
    ("startsWith", 1, 1),
];

/// Names of types, to compare `type(…)` with.
pub(super) const TYPES: &[&str] = &["bool", "bytes", "double", "int", "list", "map", "null_type", "string", "type", "uint"];

/// The environment that every filter is compiled and evaluated in.
pub(super) static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| {
    const UNIQUE: &str = "invariant: the standard library knows no such names";
    let mut env = Env::stdlib().with_optional_support(false);
    env.add_overload(ADD, "add_within_budget", vec![types::DYN_TYPE, types::DYN_TYPE], add).expect(UNIQUE);
    env.add_overload(MATCHES, "matches_pattern", vec![types::STRING_TYPE, PATTERN_TYPE], matches).expect(UNIQUE);
    env.add_member_overload(MATCHES, "pattern_matches", types::STRING_TYPE, vec![PATTERN_TYPE], matches).expect(UNIQUE);
    Arc::new(env)
});

fn text_of<'b>(value: &'b (dyn Val + '_)) -> Option<&'b str> {
    value.downcast_ref::<CelString<'_>>().map(CelString::inner)
}

/// `+` of texts, numbers, times and durations; of lists it is refused, because lists that grow by themselves have no bound.
#[allow(clippy::needless_pass_by_value, reason = "the form of a function of the library")]
fn add<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let refuse = |message: &str| Err(ExecutionError::function_error("+", message));
    let [left, right] = args.as_slice() else { return Err(ExecutionError::invalid_argument_count(2, args.len())) };
    if matches!(left.get_type().kind(), Kind::List) {
        return refuse("lists are not added in a filter");
    }
    if let (Some(left), Some(right)) = (text_of(left.as_ref()), text_of(right.as_ref())) {
        let bytes = left.len() + right.len();
        if bytes > SUM_BYTES_MAX || !meter::spend(bytes / 64) {
            return refuse("the text becomes too long");
        }
    }
    let Some(adder) = left.as_adder() else {
        let names = [left, right].map(|value| value.get_type().name().to_owned());
        return Err(ExecutionError::no_such_overload("_+_", names.to_vec()));
    };
    Ok(CowVal::Owned(adder.add(right.as_ref())?.into_owned()))
}

const PATTERN_TYPE: Type = Type::new_unspecified_type("pattern");
static PATTERN: Type = PATTERN_TYPE;

/// A compiled regular expression, the second argument of `matches`.
#[derive(Clone, Debug)]
pub(super) struct Pattern(Regex);

impl Pattern {
    /// Compiles a text; the engine looks at each byte of what it searches once.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn compile(text: &str) -> Result<Self, String> {
        if text.len() > PATTERN_BYTES_MAX {
            let bytes = text.len();
            return Err(format!("the regular expression has {bytes} bytes; allowed: at most {PATTERN_BYTES_MAX}"));
        }
        let built =
            RegexBuilder::new(text).size_limit(PATTERN_MEMORY_MAX).dfa_size_limit(PATTERN_MEMORY_MAX).nest_limit(16).build();
        built.map(Self).map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => "the regular expression is too large; use fewer repetitions".to_owned(),
            error => {
                let text = error.to_string();
                let last = text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
                format!("the regular expression is not one: {last}")
            }
        })
    }
}

impl Val for Pattern {
    fn get_type(&self) -> &Type {
        &PATTERN
    }

    fn cel_type() -> &'static Type {
        &PATTERN
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(self.clone())
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl StaticVal for Pattern {}

#[allow(clippy::needless_pass_by_value, reason = "the form of a function of the library")]
fn matches<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let [text, pattern] = args.as_slice() else { return Err(ExecutionError::invalid_argument_count(2, args.len())) };
    let (Some(text), Some(Pattern(pattern))) = (text_of(text.as_ref()), pattern.downcast_ref::<Pattern>()) else {
        return Err(ExecutionError::missing_argument_or_target());
    };
    if !meter::spend(text.len() / 16) {
        return Err(ExecutionError::function_error("matches", "too much work"));
    }
    Ok(CowVal::owned(CelBool::from(pattern.is_match(text))))
}
