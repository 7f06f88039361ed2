//! Expressions, written again with a charge wherever the engine looks at whole values.

use minijinja::machinery::ast::{BinOpKind, CallArg, CompareOpKind, Expr, UnaryOpKind};

use super::{Writer, Written};
use crate::template::filters::{FILTERS, TESTS, metered};

/// Filters behind each other.
pub const FILTERS_CHAINED_MAX: usize = 8;
/// Names of what an event carries.
const DATA: &[&str] = &["data", "data_base64"];
/// What tells a loop's turns.
const LOOP: &str = "loop";
/// Arguments of one filter or test.
const ARGUMENTS_MAX: usize = 16;
/// Longest constant that is looked for in an object without being charged.
const KEY_BYTES_FREE: usize = 128;

impl Writer {
    /// An expression that a filter may stand behind.
    pub(super) fn expression(&mut self, expression: &Expr<'_>) -> Written {
        self.nodes += 1;
        if matches!(expression, Expr::Var(_) | Expr::Const(_) | Expr::UnaryOp(_) | Expr::List(_) | Expr::Tuple(_) | Expr::Map(_))
        {
            self.reach(expression.span());
        }
        match expression {
            // It remembers what it is asked about, and would never be let go if that were itself.
            Expr::Var(name) if name.id == LOOP => {
                return Err(
                    "uses `loop` as a value, which is not allowed; name what you need of it, such as `loop.index`".to_owned()
                );
            }
            Expr::Var(name) => {
                self.needs_data |= DATA.contains(&name.id);
                self.put(name.id);
            }
            Expr::Const(constant) => self.constant(&constant.value)?,
            Expr::Filter(filter) => {
                known("filter", filter.name, FILTERS)?;
                let Some(inner) = &filter.expr else { return Err("has a filter of nothing".to_owned()) };
                if chained(inner) >= FILTERS_CHAINED_MAX {
                    return Err(format!("has more than {FILTERS_CHAINED_MAX} filters behind each other"));
                }
                self.expression(inner)?;
                self.reach(filter.span());
                self.put("|");
                self.put(filter.name);
                self.arguments(&filter.args, false)?;
            }
            Expr::Test(test) => {
                known("test", test.name, TESTS)?;
                self.put("(");
                self.expression(&test.expr)?;
                self.reach(test.span());
                self.put(" is ");
                self.put(test.name);
                self.arguments(&test.args, false)?;
                self.put(")");
            }
            Expr::GetAttr(attribute) => {
                self.base(&attribute.expr)?;
                self.put(".");
                self.put(attribute.name);
            }
            Expr::GetItem(item) => self.item(&item.expr, &item.subscript_expr)?,
            Expr::Call(call) => {
                self.base(&call.expr)?;
                self.arguments(&call.args, true)?;
            }
            Expr::List(list) => self.listed(&list.items, "[", "]")?,
            Expr::Tuple(tuple) => self.listed(&tuple.items, "(", ")")?,
            Expr::Map(map) => {
                self.put("{");
                for (key, value) in map.keys.iter().zip(&map.values) {
                    self.charged(key, metered::WEIGHED)?;
                    self.put(": ");
                    self.expression(value)?;
                    self.put(", ");
                }
                self.put("}");
            }
            operator => self.operator(operator)?,
        }
        Ok(())
    }

    /// What has operands.
    fn operator(&mut self, expression: &Expr<'_>) -> Written {
        match expression {
            Expr::Slice(slice) => {
                self.put("(");
                self.charged(&slice.expr, metered::WEIGHED)?;
                self.put(")[");
                for (index, part) in [&slice.start, &slice.stop, &slice.step].into_iter().enumerate() {
                    if index > 0 {
                        self.put(":");
                    }
                    if let Some(part) = part {
                        self.expression(part)?;
                    }
                }
                self.put("]|");
                self.put(metered::MADE);
            }
            Expr::UnaryOp(unary) => {
                self.put(if matches!(unary.op, UnaryOpKind::Not) { "(not " } else { "(-" });
                self.expression(&unary.expr)?;
                self.put(")");
            }
            Expr::BinOp(binary) => self.binary(binary.op, &binary.left, &binary.right)?,
            Expr::Compare(compare) => {
                self.put("(");
                self.charged(&compare.expr, metered::WEIGHED)?;
                for next in &compare.ops {
                    self.put(comparison(next.op));
                    self.charged(&next.expr, metered::WEIGHED)?;
                }
                self.put(")");
            }
            Expr::IfExpr(choice) => {
                self.put("(");
                self.expression(&choice.true_expr)?;
                self.put(" if ");
                self.expression(&choice.test_expr)?;
                if let Some(other) = &choice.false_expr {
                    self.put(" else ");
                    self.expression(other)?;
                }
                self.put(")");
            }
            _ => return Err("has an expression that is not known".to_owned()),
        }
        Ok(())
    }

    fn listed(&mut self, items: &[Expr<'_>], open: &str, close: &str) -> Written {
        self.put(open);
        for item in items {
            self.expression(item)?;
            self.put(", ");
        }
        self.put(close);
        Ok(())
    }

    fn binary(&mut self, op: BinOpKind, left: &Expr<'_>, right: &Expr<'_>) -> Written {
        let sign = match op {
            BinOpKind::Concat => {
                // All texts of a row are joined at once: one after the other, the first would be copied again each time.
                self.put("[");
                self.joined(left)?;
                self.put(", ");
                self.expression(right)?;
                self.put("]|");
                self.put(metered::JOINED);
                return Ok(());
            }
            BinOpKind::Add => {
                self.put("(");
                self.charged(left, metered::WEIGHED)?;
                self.put(" + ");
                self.charged(right, metered::WEIGHED)?;
                self.put(")|");
                self.put(metered::MADE);
                return Ok(());
            }
            BinOpKind::Eq => " == ",
            BinOpKind::Ne => " != ",
            BinOpKind::Lt => " < ",
            BinOpKind::Lte => " <= ",
            BinOpKind::Gt => " > ",
            BinOpKind::Gte => " >= ",
            BinOpKind::In => " in ",
            // These take numbers, or look at no more than whether there is something.
            BinOpKind::ScAnd => return self.plain(left, " and ", right),
            BinOpKind::ScOr => return self.plain(left, " or ", right),
            BinOpKind::Sub => return self.plain(left, " - ", right),
            BinOpKind::Div => return self.plain(left, " / ", right),
            BinOpKind::FloorDiv => return self.plain(left, " // ", right),
            BinOpKind::Rem => return self.plain(left, " % ", right),
            BinOpKind::Mul | BinOpKind::Pow => {
                return Err("uses '*', which is not known here; allowed: +, -, /, //, %, ~".to_owned());
            }
        };
        self.put("(");
        self.charged(left, metered::WEIGHED)?;
        self.put(sign);
        self.charged(right, metered::WEIGHED)?;
        self.put(")");
        Ok(())
    }

    /// The parts of a row of `~`, without the last one.
    fn joined(&mut self, left: &Expr<'_>) -> Written {
        match left {
            Expr::BinOp(inner) if matches!(inner.op, BinOpKind::Concat) => {
                self.joined(&inner.left)?;
                self.put(", ");
                self.expression(&inner.right)
            }
            other => self.expression(other),
        }
    }

    fn plain(&mut self, left: &Expr<'_>, sign: &str, right: &Expr<'_>) -> Written {
        self.put("(");
        self.expression(left)?;
        self.put(sign);
        self.expression(right)?;
        self.put(")");
        Ok(())
    }

    fn item(&mut self, base: &Expr<'_>, subscript: &Expr<'_>) -> Written {
        let is_short_key =
            matches!(subscript, Expr::Const(key) if key.value.as_str().is_some_and(|key| key.len() <= KEY_BYTES_FREE));
        if is_short_key {
            self.base(base)?;
        } else {
            // A text is walked to its n-th character.
            self.put("(");
            self.charged(base, metered::INDEXED)?;
            self.put(")");
        }
        self.put("[");
        if is_short_key {
            self.expression(subscript)?;
        } else {
            self.charged(subscript, metered::WEIGHED)?;
        }
        self.put("]");
        Ok(())
    }

    /// What a dot, a bracket or arguments may stand behind.
    fn base(&mut self, base: &Expr<'_>) -> Written {
        if let Expr::Var(name) = base
            && name.id == LOOP
        {
            self.nodes += 1;
            self.reach(base.span());
            self.put(LOOP);
            return Ok(());
        }
        if matches!(base, Expr::Var(_) | Expr::GetAttr(_) | Expr::GetItem(_) | Expr::Call(_)) {
            return self.expression(base);
        }
        self.put("(");
        self.expression(base)?;
        self.put(")");
        Ok(())
    }

    fn charged(&mut self, expression: &Expr<'_>, by: &str) -> Written {
        self.expression(expression)?;
        let is_small = matches!(expression, Expr::Const(constant) if constant.value.as_str().is_none_or(|text| text.len() <= KEY_BYTES_FREE));
        if !is_small {
            self.put("|");
            self.put(by);
        }
        Ok(())
    }

    fn arguments(&mut self, arguments: &[CallArg<'_>], is_call: bool) -> Written {
        if arguments.is_empty() && !is_call {
            return Ok(());
        }
        if arguments.len() > ARGUMENTS_MAX {
            return Err(format!("has more than {ARGUMENTS_MAX} arguments in one place"));
        }
        self.put("(");
        for argument in arguments {
            match argument {
                CallArg::Pos(value) if is_call => self.charged(value, metered::WEIGHED)?,
                CallArg::Pos(value) => self.expression(value)?,
                CallArg::Kwarg(name, value) => {
                    self.put(name);
                    self.put("=");
                    self.expression(value)?;
                }
                CallArg::PosSplat(_) | CallArg::KwargSplat(_) => return Err("uses '*', which is not known here".to_owned()),
            }
            self.put(", ");
        }
        self.put(")");
        Ok(())
    }
}

const fn comparison(op: CompareOpKind) -> &'static str {
    match op {
        CompareOpKind::Eq => " == ",
        CompareOpKind::Ne => " != ",
        CompareOpKind::Lt => " < ",
        CompareOpKind::Lte => " <= ",
        CompareOpKind::Gt => " > ",
        CompareOpKind::Gte => " >= ",
        CompareOpKind::In => " in ",
        CompareOpKind::NotIn => " not in ",
    }
}

/// Filters that stand at the end of an expression.
fn chained(expression: &Expr<'_>) -> usize {
    let (mut at, mut filters) = (expression, 0);
    while let Expr::Filter(filter) = at {
        filters += 1;
        match &filter.expr {
            Some(inner) => at = inner,
            None => break,
        }
    }
    filters
}

fn known(what: &str, name: &str, names: &[&str]) -> Written {
    if names.contains(&name) {
        return Ok(());
    }
    Err(format!("uses the {what} {name:?}, which is not known; allowed: {}", names.join(", ")))
}
