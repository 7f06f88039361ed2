//! Makes of a template one that is metered: the same, with the engine's operators, loops and slices put behind filters of
//! ours that charge what goes into them.
//!
//! The engine offers no other way to watch its operators. What is written here was parsed before, so it knows no syntax but
//! what it writes; lines stay where they were, so that problems name the line that the author sees.

use std::fmt::Write as _;

use minijinja::Error;
use minijinja::machinery::ast::{Expr, Stmt};
use minijinja::machinery::{Span, parse};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::ValueKind;

use super::filters::metered;

mod expressions;

pub use expressions::FILTERS_CHAINED_MAX;

/// Why a text cannot be prepared.
pub(super) enum Problem {
    /// It does not parse.
    Syntax(Error),
    /// It holds what it must not hold.
    Refused(String),
}

/// A metered template, and how much work its outermost statements are.
pub(super) struct Metered {
    pub(super) text: String,
    pub(super) nodes: u64,
    /// Whether it reads what an event carries.
    pub(super) needs_data: bool,
}

/// Prepares a text that [`super::scan`] let through.
pub(super) fn prepare(body: &str) -> Result<Metered, Problem> {
    let parsed = parse(body, super::NAME, SyntaxConfig::default()).map_err(Problem::Syntax)?;
    let Stmt::Template(root) = &parsed else { return Err(Problem::Refused("cannot be read".to_owned())) };
    let mut writer = Writer { out: String::with_capacity(body.len() * 2), line: 1, nodes: 0, needs_data: false };
    if let Err(problem) = writer.statements(&root.children) {
        return Err(Problem::Refused(format!("{problem} (line {})", writer.line)));
    }
    Ok(Metered { text: writer.out, nodes: writer.nodes, needs_data: writer.needs_data })
}

type Written = Result<(), String>;

struct Writer {
    out: String,
    line: u16,
    /// Nodes of the loop that is being written, without those of loops in it.
    nodes: u64,
    needs_data: bool,
}

impl Writer {
    fn put(&mut self, text: &str) {
        self.out.push_str(text);
    }

    /// Goes to the line where something stands; only between the parts of a tag.
    fn reach(&mut self, span: Span) {
        while self.line < span.start_line {
            self.out.push('\n');
            self.line += 1;
        }
    }

    fn statements(&mut self, statements: &[Stmt<'_>]) -> Written {
        statements.iter().try_for_each(|statement| self.statement(statement))
    }

    fn statement(&mut self, statement: &Stmt<'_>) -> Written {
        self.nodes += 1;
        match statement {
            Stmt::EmitRaw(raw) if is_plain(raw.raw) => {
                self.put(raw.raw);
                self.line = self.line.saturating_add(u16::try_from(raw.raw.matches('\n').count()).unwrap_or(u16::MAX));
                Ok(())
            }
            Stmt::EmitRaw(raw) => {
                self.put("{{ ");
                self.text(raw.raw);
                self.put(" }}");
                Ok(())
            }
            Stmt::EmitExpr(emitted) => {
                self.put("{{ ");
                self.expression(&emitted.expr)?;
                self.put(" }}");
                Ok(())
            }
            Stmt::IfCond(condition) => {
                self.put("{% if ");
                let mut condition = condition;
                loop {
                    self.expression(&condition.expr)?;
                    self.put(" %}");
                    self.statements(&condition.true_body)?;
                    match condition.false_body.as_slice() {
                        [] => break,
                        [Stmt::IfCond(next)] => {
                            self.put("{% elif ");
                            condition = next;
                        }
                        other => {
                            self.put("{% else %}");
                            self.statements(other)?;
                            break;
                        }
                    }
                }
                self.put("{% endif %}");
                Ok(())
            }
            Stmt::ForLoop(looped) => {
                self.put("{% for ");
                self.target(&looped.target)?;
                self.put(" in ");
                self.expression(&looped.iter)?;
                write!(self.out, "|{}(", metered::WALKED).map_err(|error| error.to_string())?;
                // What a turn costs is known once it is written.
                let at = self.out.len();
                self.put(")");
                let outside = std::mem::take(&mut self.nodes);
                if let Some(filter) = &looped.filter_expr {
                    self.put(" if ");
                    self.expression(filter)?;
                }
                self.put(" %}");
                self.statements(&looped.body)?;
                let turn = std::mem::replace(&mut self.nodes, outside) + 1;
                self.out.insert_str(at, &turn.to_string());
                if !looped.else_body.is_empty() {
                    self.put("{% else %}");
                    self.statements(&looped.else_body)?;
                }
                self.put("{% endfor %}");
                Ok(())
            }
            _ => Err("has a statement that is not known".to_owned()),
        }
    }

    /// What a loop names its items.
    fn target(&mut self, target: &Expr<'_>) -> Written {
        match target {
            Expr::Var(name) => self.put(name.id),
            Expr::List(list) => {
                self.put("(");
                for item in &list.items {
                    self.target(item)?;
                    self.put(", ");
                }
                self.put(")");
            }
            _ => return Err("has a loop over something that is no name".to_owned()),
        }
        Ok(())
    }

    fn constant(&mut self, value: &minijinja::Value) -> Written {
        if let Some(text) = value.as_str() {
            self.text(text);
            return Ok(());
        }
        let written = match value.kind() {
            ValueKind::None => "none".to_owned(),
            ValueKind::Bool => if value.is_true() { "true" } else { "false" }.to_owned(),
            ValueKind::Number if value.is_integer() => value.to_string(),
            ValueKind::Number => match f64::try_from(value.clone()) {
                Ok(number) if number.is_finite() => format!("{number:?}"),
                _ => return Err("has a number that is too large".to_owned()),
            },
            kind => return Err(format!("has a constant that is not known: {kind}")),
        };
        self.put(&written);
        Ok(())
    }

    fn text(&mut self, text: &str) {
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                c => self.out.push(c),
            }
        }
        self.out.push('"');
    }
}

/// Whether a text means itself wherever it stands.
fn is_plain(text: &str) -> bool {
    !["{{", "{%", "{#", "\r"].iter().any(|part| text.contains(part)) && !text.ends_with(['{', '\n'])
}
