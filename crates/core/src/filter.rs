//! Filters: CEL expressions over `id, type, topic, source, subject, time, data` and `extensions`, compiled once, judged with
//! a budget.
//!
//! [`Filter`] is one expression, [`Facts`] one event, [`Filters`] remembers what was compiled. The work of a judgement is
//! bounded whatever the expression and the event are. Does not know who asks and what follows.

use std::sync::Arc;
use std::thread;

use cel::common::ast::IdedExpr;
use cel::common::types::CelBool;
use cel::common::value::CowVal;
use cel::context::VariableResolver;
use cel::{Context, ExecutionError, Value};

use crate::panics::catch;

pub use cache::{FILTERS_MAX, Filters};
pub use facts::{DATA_BYTES_MAX, Facts};
pub use library::PATTERN_BYTES_MAX;
pub use meter::STEPS_MAX;
use prepare::{Cost, PATTERN, Prepared, STEP, prepare};
pub use prepare::{DEPTH_MAX, LISTS_MADE_MAX, LOOPS_NESTED_MAX};

mod cache;
mod facts;
mod json;
mod library;
mod meter;
mod prepare;

/// Longest expression, in bytes.
pub const FILTER_BYTES_MAX: usize = 4096;
/// Brackets open at once in the text of an expression.
const BRACKETS_MAX: usize = 24;
/// Brackets up to which an expression is parsed where it is asked for; each costs the parser some 100 KiB of stack.
const BRACKETS_SHALLOW: usize = 6;
/// Length up to which it is, too: operators in a row nest as deep as brackets do.
const TEXT_BYTES_SHALLOW: usize = 512;
/// Stack for all others.
const PARSER_STACK_BYTES: usize = 16 * 1024 * 1024;
/// Signs in a row that belong to one value.
const SIGNS_MAX: usize = 16;
/// Characters of a reason that are kept.
const REASON_CHARS_MAX: usize = 200;

/// Why a text is no filter: to be read after its name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FilterError(String);

/// What a filter says of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// True.
    Wanted,
    /// False.
    NotWanted,
    /// It cannot say, and why.
    Failed(String),
}

/// A compiled expression.
#[derive(Debug)]
pub struct Filter {
    expression: IdedExpr,
    prepared: Prepared,
}

impl Filter {
    /// Compiles an expression of at most [`FILTER_BYTES_MAX`] bytes.
    ///
    /// # Errors
    /// What is wrong with it, in words that somebody who wrote it can act on.
    pub fn compile(text: &str) -> Result<Self, FilterError> {
        if text.len() > FILTER_BYTES_MAX {
            return Err(FilterError(format!("has {} bytes; allowed: at most {FILTER_BYTES_MAX}", text.len())));
        }
        if text.trim().is_empty() {
            return Err(FilterError("is empty; leave it out or write a condition such as `data.amount > 100`".to_owned()));
        }
        let brackets = check_text(text).map_err(FilterError)?;
        let mut expression = parse(text, brackets).map_err(FilterError)?;
        let prepared = prepare(&mut expression).map_err(FilterError)?;
        Ok(Self { expression, prepared })
    }

    /// Judges an event. Reads its data only if the expression comes to it.
    #[must_use]
    pub fn judge(&self, facts: &Facts<'_>) -> Verdict {
        meter::begin();
        let judged = catch(|| self.evaluate(facts));
        if meter::is_exhausted() {
            return Verdict::Failed(format!("too much work: it takes more than {STEPS_MAX} steps on this event"));
        }
        match judged {
            Ok(Ok(true)) => Verdict::Wanted,
            Ok(Ok(false)) => Verdict::NotWanted,
            Ok(Err(reason)) => Verdict::Failed(facts.data_problem().map_or(reason, str::to_owned)),
            Err(_) => Verdict::Failed("the expression cannot be evaluated on this event".to_owned()),
        }
    }

    fn evaluate(&self, facts: &Facts<'_>) -> Result<bool, String> {
        let scope = Scope { filter: self, facts };
        scope.charge(self.prepared.cost);
        let mut context = Context::with_env(Arc::clone(&library::ENVIRONMENT));
        context.set_variable_resolver(&scope);
        let value = Value::resolve_val(&self.expression, &context).map_err(|error| reason_of(&error))?;
        match value.downcast_ref::<CelBool>() {
            Some(value) => Ok(*value.inner()),
            None => Err(format!("the result is of type {}; it has to be a bool", value.get_type().name())),
        }
    }
}

/// What the names of an expression stand for.
struct Scope<'s, 'e> {
    filter: &'s Filter,
    facts: &'s Facts<'e>,
}

impl Scope<'_, '_> {
    /// Takes what an evaluation costs that begins now; texts count once the data that holds them was read.
    fn charge(&self, cost: Cost) -> bool {
        let longest = if self.facts.has_read_data() { self.facts.data().map_or(0, |data| data.longest_bytes) } else { 0 };
        meter::spend(cost.nodes + cost.texts * (longest / meter::BYTES_A_STEP))
    }

    fn mark<'b>(&'b self, name: &str) -> Option<CowVal<'b, 'b>> {
        if let Some(number) = name.strip_prefix(STEP) {
            let cost = self.filter.prepared.steps.get(number.parse::<usize>().ok()?)?;
            return self.charge(*cost).then(|| CowVal::Borrowed(&CelBool::TRUE));
        }
        let number = name.strip_prefix(PATTERN)?.parse::<usize>().ok()?;
        let pattern = self.filter.prepared.patterns.get(number)?;
        Some(CowVal::Borrowed(pattern))
    }
}

impl VariableResolver for Scope<'_, '_> {
    fn resolve<'b>(&'b self, name: &str) -> Option<CowVal<'b, 'b>> {
        if name == "data" {
            let was_read = self.facts.has_read_data();
            let data = self.facts.data().ok()?;
            if !was_read && !self.charge(Cost { nodes: 0, ..self.filter.prepared.cost }) {
                return None;
            }
            return Some(CowVal::Borrowed(data.root.as_val()));
        }
        if name.starts_with('@') { self.mark(name) } else { self.facts.attribute(name) }
    }
}

/// Parses a text. The parser is a library's: neither its panics nor its use of the stack reach the caller.
fn parse(text: &str, brackets: usize) -> Result<IdedExpr, String> {
    let parse = || {
        let parsed = catch(|| library::ENVIRONMENT.parser().parse(text));
        parsed.map_err(|_| "cannot be read".to_owned())?.map_err(|errors| syntax_problem(&errors))
    };
    if brackets <= BRACKETS_SHALLOW && text.len() <= TEXT_BYTES_SHALLOW {
        return parse();
    }
    thread::scope(|scope| {
        let parser = thread::Builder::new().name("filter-parser".to_owned()).stack_size(PARSER_STACK_BYTES);
        let parser = parser.spawn_scoped(scope, parse).map_err(|error| format!("cannot be read now: {error}"))?;
        parser.join().unwrap_or_else(|_| Err("cannot be read".to_owned()))
    })
}

/// Refuses what would take a recursive parser too deep, before it sees it; gives how deep the brackets are.
fn check_text(text: &str) -> Result<usize, String> {
    let (mut open, mut deepest, mut signs) = (0_usize, 0_usize, 0_usize);
    let mut quote = None;
    let mut is_escaped = false;
    for c in text.chars() {
        if c.is_control() && !matches!(c, '\t' | '\n' | '\r') {
            return Err("holds control characters".to_owned());
        }
        if let Some(end) = quote {
            if is_escaped {
                is_escaped = false;
            } else if c == '\\' {
                is_escaped = true;
            } else if c == end {
                quote = None;
            }
            continue;
        }
        match c {
            '"' | '\'' => quote = Some(c),
            '(' | '[' | '{' => open += 1,
            ')' | ']' | '}' => open = open.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(open);
        signs = if matches!(c, '!' | '-') { signs + 1 } else { 0 };
        if open > BRACKETS_MAX || signs > SIGNS_MAX {
            return Err(format!("has more than {BRACKETS_MAX} brackets inside each other, or {SIGNS_MAX} signs in a row"));
        }
    }
    Ok(deepest)
}

fn syntax_problem(errors: &cel::ParseErrors) -> String {
    match errors.errors.first() {
        Some(error) => cut(&format!("is no CEL expression: line {}, column {}: {}", error.pos.0, error.pos.1, error.msg)),
        None => "is no CEL expression".to_owned(),
    }
}

/// What went wrong, without what the event holds.
fn reason_of(error: &ExecutionError) -> String {
    let reason = match error {
        ExecutionError::NoSuchKey(key) => format!("no such key: {key}"),
        ExecutionError::ValuesNotComparable(a, b) | ExecutionError::UnsupportedBinaryOperator(_, a, b) => {
            format!("a value of type {} does not go with one of type {}", a.type_of(), b.type_of())
        }
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => "division by zero".to_owned(),
        ExecutionError::Overflow(..) => "a number becomes too large".to_owned(),
        ExecutionError::IndexOutOfBounds(_) => "there is no item of this number".to_owned(),
        ExecutionError::NoSuchOverload(_)
        | ExecutionError::UnexpectedType { .. }
        | ExecutionError::FunctionError { .. }
        | ExecutionError::InvalidArgumentCount { .. } => error.to_string().replace('@', ""),
        _ => "the expression cannot be evaluated on this event".to_owned(),
    };
    cut(&reason)
}

fn cut(reason: &str) -> String {
    reason.chars().map(|c| if c.is_control() { ' ' } else { c }).take(REASON_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests;
