//! A parsed expression is judged before it is used: which names it knows, how deep it goes, how much work it can cause; and
//! what is to be charged for is marked in it.
//!
//! Loops may stand inside each other twice; what grows (lists of lists, lists made in loops) is refused, because no count of
//! steps bounds what doubles in each of them.

use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, ListExpr, LiteralValue, MapExpr, operators};

use super::facts::VARIABLES;
use super::library::{ADD, FUNCTIONS, MATCHES, METHODS, Pattern, Signature, TYPES};

/// Deepest nesting of an expression.
pub const DEPTH_MAX: usize = 32;
/// Loops (`all`, `exists`, `exists_one`, `map`, `filter`) inside each other.
pub const LOOPS_NESTED_MAX: usize = 2;
/// `map` and `filter` in one expression.
pub const LISTS_MADE_MAX: usize = 4;

/// Marks the steps of a loop, followed by its number.
pub(super) const STEP: &str = "@step";
/// Stands for a compiled regular expression, followed by its number.
pub(super) const PATTERN: &str = "@pattern";

/// What one evaluation costs, the insides of loops not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cost {
    /// Operators, names and values.
    pub(super) nodes: usize,
    /// How many of them may look at a whole text.
    pub(super) texts: usize,
}

impl Cost {
    const NODE: Self = Self { nodes: 1, texts: 0 };

    fn and(self, other: Self) -> Self {
        Self { nodes: self.nodes + other.nodes, texts: self.texts + other.texts }
    }
}

/// An expression ready to be evaluated.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) patterns: Vec<Pattern>,
    /// What a turn of each loop costs.
    pub(super) steps: Vec<Cost>,
    pub(super) cost: Cost,
}

/// Judges and marks an expression.
///
/// # Errors
/// The first thing that is wrong with it, for a person.
pub(super) fn prepare(expression: &mut IdedExpr) -> Result<Prepared, String> {
    let mut walk = Walk::default();
    let cost = walk.visit(expression, 0)?;
    Ok(Prepared { patterns: walk.patterns, steps: walk.steps, cost })
}

#[derive(Default)]
struct Walk {
    /// Variables of the loops around.
    scope: Vec<String>,
    patterns: Vec<Pattern>,
    steps: Vec<Cost>,
    lists_made: usize,
    /// Literal lists and maps around.
    literals: usize,
}

impl Walk {
    fn visit(&mut self, node: &mut IdedExpr, depth: usize) -> Result<Cost, String> {
        if depth > DEPTH_MAX {
            return Err(format!("is nested deeper than {DEPTH_MAX} levels"));
        }
        match &mut node.expr {
            Expr::Literal(_) => Ok(Cost::NODE),
            Expr::Ident(name) => self.name(name),
            Expr::Select(select) => Ok(Cost::NODE.and(self.visit(&mut select.operand, depth + 1)?)),
            Expr::Call(call) => self.call(call, depth),
            Expr::List(list) => self.list(list, depth),
            Expr::Map(map) => self.map(map, depth),
            Expr::Comprehension(looped) => self.looped(looped, depth),
            Expr::Struct(made) => Err(format!("makes a {:?}, which is not known; allowed: lists and maps", made.type_name)),
            Expr::Unspecified => Err("is not complete".to_owned()),
        }
    }

    fn name(&self, name: &str) -> Result<Cost, String> {
        if self.scope.iter().any(|known| known == name) || VARIABLES.contains(&name) || TYPES.contains(&name) {
            return Ok(Cost::NODE);
        }
        let allowed = VARIABLES.join(", ");
        Err(format!("names {name:?}, which is not known{}; allowed: {allowed}", nearest(name, VARIABLES.iter().copied())))
    }

    fn call(&mut self, call: &mut CallExpr, depth: usize) -> Result<Cost, String> {
        if !is_operator(&call.func_name) {
            let known = if call.target.is_some() { METHODS } else { FUNCTIONS };
            check_signature(known, &call.func_name, call.args.len(), call.target.is_some())?;
        }
        let mut cost = Cost { nodes: 1, texts: 1 };
        if call.func_name == "matches"
            && let Some(pattern) = call.args.pop()
        {
            let Expr::Literal(LiteralValue::String(text)) = &pattern.expr else {
                return Err("matches with what is computed; allowed: a regular expression in quotes".to_owned());
            };
            self.patterns.push(Pattern::compile(text.inner())?);
            let name = format!("{PATTERN}{}", self.patterns.len() - 1);
            for arg in &mut call.args {
                cost = cost.and(self.visit(arg, depth + 1)?);
            }
            call.args.push(IdedExpr { id: pattern.id, expr: Expr::Ident(name) });
            MATCHES.clone_into(&mut call.func_name);
        } else {
            for arg in &mut call.args {
                cost = cost.and(self.visit(arg, depth + 1)?);
            }
        }
        if let Some(target) = &mut call.target {
            cost = cost.and(self.visit(target, depth + 1)?);
        }
        if call.func_name == operators::ADD {
            ADD.clone_into(&mut call.func_name);
        }
        if matches!(call.func_name.as_str(), operators::EQUALS | operators::NOT_EQUALS) && call.args.first().is_some_and(is_made)
        {
            // What came with the event compares itself with what was made, not the other way round.
            call.args.reverse();
        }
        Ok(cost)
    }

    fn list(&mut self, list: &mut ListExpr, depth: usize) -> Result<Cost, String> {
        self.literals += 1;
        let mut cost = Cost::NODE;
        for element in &mut list.elements {
            self.check_in_literal(element)?;
            cost = cost.and(self.visit(element, depth + 1)?);
        }
        self.literals -= 1;
        Ok(cost)
    }

    fn map(&mut self, map: &mut MapExpr, depth: usize) -> Result<Cost, String> {
        self.literals += 1;
        let mut cost = Cost::NODE;
        for entry in &mut map.entries {
            let EntryExpr::MapEntry(entry) = &mut entry.expr else { return Err("holds a field outside of a map".to_owned()) };
            for part in [&mut entry.key, &mut entry.value] {
                self.check_in_literal(part)?;
                cost = cost.and(self.visit(part, depth + 1)?);
            }
        }
        self.literals -= 1;
        Ok(cost)
    }

    fn check_in_literal(&self, part: &IdedExpr) -> Result<(), String> {
        if self.scope.is_empty() || is_constant(part) {
            return Ok(());
        }
        Err("makes a list or a map of what is not constant inside a loop; compare the parts one by one".to_owned())
    }

    fn looped(&mut self, looped: &mut ComprehensionExpr, depth: usize) -> Result<Cost, String> {
        let range = self.visit(&mut looped.iter_range, depth + 1)?;
        if self.scope.len() >= LOOPS_NESTED_MAX {
            return Err(format!("has more than {LOOPS_NESTED_MAX} loops inside each other"));
        }
        if looped.iter_var2.is_some() || looped.iter_var.starts_with('@') {
            return Err("has a loop that is not known; allowed: all, exists, exists_one, map, filter".to_owned());
        }
        let makes_list = matches!(looped.accu_init.expr, Expr::List(_));
        if makes_list {
            self.lists_made += 1;
            if !self.scope.is_empty() || self.literals > 0 || self.lists_made > LISTS_MADE_MAX {
                return Err(format!(
                    "makes lists with `map` or `filter` inside a loop, a list or a map, or more than {LISTS_MADE_MAX} times; \
                     use `all` or `exists`"
                ));
            }
        }
        let mark = self.steps.len();
        self.steps.push(Cost::default());
        self.scope.push(looped.iter_var.clone());
        let cost = self.body(&mut looped.loop_step, mark, depth + 1);
        self.scope.pop();
        // What a list is made of is copied into it.
        self.steps[mark] = cost?.and(Cost { nodes: 3, texts: if makes_list { 8 } else { 0 } });
        Ok(range.and(Cost { nodes: 3, texts: 0 }))
    }

    /// The parts of a loop's step that its author wrote; the first of them to be evaluated is marked.
    fn body(&mut self, step: &mut IdedExpr, mark: usize, depth: usize) -> Result<Cost, String> {
        const UNKNOWN: &str = "has a loop that is not known; allowed: all, exists, exists_one, map, filter";
        let Expr::Call(call) = &mut step.expr else { return Err(UNKNOWN.to_owned()) };
        match (call.func_name.as_str(), call.args.as_mut_slice()) {
            (operators::LOGICAL_AND | operators::LOGICAL_OR, [_, body]) => self.marked(body, mark, depth),
            (operators::CONDITIONAL, [guard, then, _]) => {
                let cost = self.marked(guard, mark, depth)?;
                match &mut then.expr {
                    Expr::Call(add) if matches!(add.args.get(1), Some(IdedExpr { expr: Expr::List(_), .. })) => {
                        Ok(cost.and(self.made(&mut add.args, None, depth)?))
                    }
                    _ => Ok(cost),
                }
            }
            (operators::ADD, _) => self.made(&mut call.args, Some(mark), depth),
            _ => Err(UNKNOWN.to_owned()),
        }
    }

    /// What `map` and `filter` put into their list.
    fn made(&mut self, args: &mut [IdedExpr], mark: Option<usize>, depth: usize) -> Result<Cost, String> {
        let Some(IdedExpr { expr: Expr::List(list), .. }) = args.get_mut(1) else { return Ok(Cost::default()) };
        let mut cost = Cost::default();
        for element in &mut list.elements {
            cost = cost.and(match mark {
                Some(mark) => self.marked(element, mark, depth)?,
                None => self.visit(element, depth)?,
            });
        }
        Ok(cost)
    }

    fn marked(&mut self, body: &mut IdedExpr, mark: usize, depth: usize) -> Result<Cost, String> {
        let cost = self.visit(body, depth + 1)?;
        let id = body.id;
        let step = IdedExpr { id, expr: Expr::Ident(format!("{STEP}{mark}")) };
        let otherwise = IdedExpr { id, expr: Expr::Literal(LiteralValue::Boolean(false.into())) };
        let guarded = CallExpr {
            func_name: operators::CONDITIONAL.to_owned(),
            target: None,
            args: vec![step, std::mem::take(body), otherwise],
        };
        *body = IdedExpr { id, expr: Expr::Call(guarded) };
        Ok(cost.and(Cost { nodes: 2, texts: 0 }))
    }
}

/// Whether a part is written out: a value, or a list or map of them.
fn is_constant(part: &IdedExpr) -> bool {
    match &part.expr {
        Expr::Literal(_) => true,
        Expr::Call(call) => call.func_name == operators::NEGATE && call.args.iter().all(is_constant),
        Expr::List(list) => list.elements.iter().all(is_constant),
        Expr::Map(map) => map.entries.iter().all(|entry| match &entry.expr {
            EntryExpr::MapEntry(entry) => is_constant(&entry.key) && is_constant(&entry.value),
            EntryExpr::StructField(_) => false,
        }),
        _ => false,
    }
}

/// Whether a part makes a list or a map.
fn is_made(part: &IdedExpr) -> bool {
    matches!(part.expr, Expr::List(_) | Expr::Map(_) | Expr::Comprehension(_))
}

fn is_operator(name: &str) -> bool {
    name.contains('_') || matches!(name, operators::IN | operators::LOGICAL_NOT)
}

fn check_signature(known: &[Signature], name: &str, args: usize, is_method: bool) -> Result<(), String> {
    let what = if is_method { "method" } else { "function" };
    let Some((_, least, most)) = known.iter().find(|(known, ..)| *known == name) else {
        let names = known.iter().map(|(name, ..)| *name);
        let allowed = names.clone().collect::<Vec<_>>().join(", ");
        return Err(format!("calls the {what} {name:?}, which is not known{}; allowed: {allowed}", nearest(name, names)));
    };
    if (*least..=*most).contains(&args) {
        return Ok(());
    }
    Err(format!("calls {name} with {args} arguments; allowed: {least} to {most}"))
}

/// The known name that looks most like this one.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let near = known.map(|known| (strsim::jaro_winkler(name, known), known)).max_by(|a, b| a.0.total_cmp(&b.0));
    near.filter(|(likeness, _)| *likeness > 0.8).map(|(_, known)| format!(", did you mean {known:?}?")).unwrap_or_default()
}
