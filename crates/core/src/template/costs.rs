//! What calls of the engine's filters and tests cost, by what they look at and make; charged before they are made.

use minijinja::value::{Kwargs, ValueKind, from_args};
use minijinja::{Error, Value};

use super::values::{VALUE_BYTES, charge, longest_text, text_bytes, weigh, worded};

/// What one call costs before it is made.
#[derive(Clone, Copy)]
pub(super) enum Cost {
    /// It looks at its texts once.
    Texts,
    /// It writes a number with as many digits as its second value says.
    Digits,
    /// It takes its values as texts.
    Words,
    /// It walks the first value's items and does something small, or something that is charged by itself, with each.
    Items,
    /// It adds up items.
    Sum,
    /// It compares whole values once.
    Whole,
    /// It compares every item with the greatest or least so far.
    Extreme,
    /// It brings items into an order.
    Order,
}

/// Charges a call. Lists and objects that are taken as texts become texts, with the cap of a text.
pub(super) fn pay(cost: Cost, values: &mut [Value]) -> Result<(), Error> {
    if matches!(cost, Cost::Words) {
        for value in values.iter_mut().filter(|value| !value.is_kwargs()) {
            *value = worded(value)?;
        }
    }
    let Some((first, more)) = values.split_first() else { return charge(VALUE_BYTES) };
    let named: u64 = more.iter().map(argument_bytes).sum();
    let count = items(first);
    if matches!(cost, Cost::Items | Cost::Sum) && !more.is_empty() {
        // A path into an item may end in a text, which is walked to its n-th character.
        weigh(first)?;
    }
    match cost {
        Cost::Texts | Cost::Words => charge(VALUE_BYTES + text_bytes(first) + named),
        Cost::Items => charge(text_bytes(first) + count.saturating_mul(2 * VALUE_BYTES + named)),
        Cost::Sum if adds_texts(values) => weigh(&values[0])?.checked_mul(count).map_or_else(|| charge(u64::MAX), charge),
        Cost::Sum => charge(count.saturating_mul(VALUE_BYTES + named)),
        Cost::Whole => {
            charge(count.saturating_mul(named))?;
            values.iter().try_for_each(|value| weigh(value).map(drop))
        }
        Cost::Digits => charge(VALUE_BYTES + text_bytes(first) + more.iter().map(digits_bytes).sum::<u64>()),
        Cost::Extreme => {
            weigh(first)?;
            charge(count.saturating_mul(named + longest_text(first)))
        }
        Cost::Order => {
            let keys = more.iter().map(keys).sum::<u64>() + 1;
            let whole = weigh(first)?.saturating_add(count.saturating_mul(named + VALUE_BYTES)).saturating_mul(keys);
            // One long text may be compared with all others, and each time both sides are copied in lower case.
            charge(count.saturating_mul(longest_text(first)))?;
            charge(whole.saturating_mul(u64::from(count.max(1).ilog2()) + 1))
        }
    }
}

/// Items that a loop over a value has; of a text its bytes, which are as many as its characters or more.
pub(super) fn items(value: &Value) -> u64 {
    match value.kind() {
        ValueKind::Seq | ValueKind::Map | ValueKind::Iterable => value.len().unwrap_or(0) as u64,
        _ => text_bytes(value),
    }
}

/// The texts among the arguments of a filter, which it may look at for every item.
fn argument_bytes(value: &Value) -> u64 {
    argument_values(value).iter().map(text_bytes).sum()
}

/// An argument, or the values of named ones.
fn argument_values(value: &Value) -> Vec<Value> {
    if !value.is_kwargs() {
        return vec![value.clone()];
    }
    value.try_iter().into_iter().flatten().filter_map(|key| value.get_item(&key).ok()).collect()
}

/// Commas in an argument: `sort` makes a key of an item for each name between them.
fn keys(value: &Value) -> u64 {
    argument_values(value).iter().filter_map(Value::as_str).map(|text| text.matches(',').count() as u64).sum()
}

/// What the digits of a rounded number cost; the engine writes them down, and never more than these.
fn digits_bytes(value: &Value) -> u64 {
    const DIGITS_MAX: u64 = 1100;
    const DIGIT_BYTES: u64 = 16;
    let digits = |value: &Value| value.as_i64().map_or(0, |digits| if digits < 0 { DIGITS_MAX } else { digits.unsigned_abs() });
    argument_values(value).iter().map(digits).map(|digits| digits.min(DIGITS_MAX) * DIGIT_BYTES).sum()
}

/// Whether a sum begins with something that grows.
fn adds_texts(values: &[Value]) -> bool {
    let Ok((positional, named)) = from_args::<(&[Value], Kwargs)>(values) else { return true };
    let start = positional.get(2).cloned().or_else(|| named.get::<Option<Value>>("start").ok().flatten());
    start.is_some_and(|start| start.kind() != ValueKind::Number)
}
