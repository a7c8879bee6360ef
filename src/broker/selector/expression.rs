//! What a selector says, as a tree, and how it is written.
//!
//! Chains of one operator are one node, so the tree is as deep as the text nests
//! ([`super::DEPTH_MAX`]) and may be walked, and dropped, by recursion.

use std::fmt::{self, Display, Formatter, Write};

use super::{lexer::needs_quotes, like::Pattern};

/// A value or a condition. The parser sees to it that conditions stand where conditions must.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Expression {
    Literal(Literal),
    Name(Box<str>),
    /// OR of two or more.
    Any(Vec<Expression>),
    /// AND of two or more.
    All(Vec<Expression>),
    Not(Box<Expression>),
    Compare {
        comparison: Comparison,
        left: Box<Expression>,
        right: Box<Expression>,
    },
    Between {
        is_negated: bool,
        operand: Box<Expression>,
        low: Box<Expression>,
        high: Box<Expression>,
    },
    In {
        is_negated: bool,
        name: Box<str>,
        /// In the order of octets, each once.
        texts: Box<[Box<str>]>,
    },
    Like {
        is_negated: bool,
        operand: Box<Expression>,
        text: Box<str>,
        escape: Option<char>,
        pattern: Pattern,
    },
    IsNull {
        is_negated: bool,
        operand: Box<Expression>,
    },
    /// Sums, or products, from left to right.
    Arithmetic {
        first: Box<Expression>,
        rest: Vec<(Operator, Expression)>,
    },
    Negative(Box<Expression>),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Literal {
    Null,
    Bool(bool),
    Long(i64),
    Double(f64),
    Text(Box<str>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Plus,
    Minus,
    Times,
    Divide,
    Modulo,
}

impl Expression {
    /// Whether it is TRUE, FALSE or UNKNOWN, and never anything else.
    pub(super) fn is_condition(&self) -> bool {
        match self {
            Self::Literal(literal) => matches!(literal, Literal::Null | Literal::Bool(_)),
            Self::Name(_) | Self::Arithmetic { .. } | Self::Negative(_) => false,
            _ => true,
        }
    }
}

impl Display for Expression {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(literal) => literal.fmt(f),
            Self::Name(name) => name_to(name, f),
            Self::Any(terms) => joined(terms, " OR ", f),
            Self::All(terms) => joined(terms, " AND ", f),
            Self::Not(operand) => write!(f, "NOT {}", Operand(operand)),
            Self::Compare { comparison, left, right } => {
                write!(f, "{} {} {}", Operand(left), comparison.symbol(), Operand(right))
            }
            Self::Between { is_negated, operand, low, high } => {
                let not = not(*is_negated);
                write!(f, "{} {not}BETWEEN {} AND {}", Operand(operand), Operand(low), Operand(high))
            }
            Self::In { is_negated, name, texts } => {
                name_to(name, f)?;
                write!(f, " {}IN (", not(*is_negated))?;
                for (index, text) in texts.iter().enumerate() {
                    f.write_str(if index == 0 { "" } else { ", " })?;
                    quoted(text, '\'', f)?;
                }
                f.write_char(')')
            }
            Self::Like { is_negated, operand, text, escape, .. } => {
                write!(f, "{} {}LIKE ", Operand(operand), not(*is_negated))?;
                quoted(text, '\'', f)?;
                if let Some(escape) = escape {
                    f.write_str(" ESCAPE ")?;
                    quoted(escape.encode_utf8(&mut [0; 4]), '\'', f)?;
                }
                Ok(())
            }
            Self::IsNull { is_negated, operand } => write!(f, "{} IS {}NULL", Operand(operand), not(*is_negated)),
            Self::Arithmetic { first, rest } => {
                Operand(first).fmt(f)?;
                rest.iter().try_for_each(|(operator, term)| write!(f, " {} {}", operator.symbol(), Operand(term)))
            }
            // Without the parentheses a number would become a negative literal.
            Self::Negative(operand) => match **operand {
                Self::Literal(_) => write!(f, "-({operand})"),
                _ => write!(f, "- {}", Operand(operand)),
            },
        }
    }
}

/// An expression as part of another: in parentheses unless it is one word.
struct Operand<'a>(&'a Expression);

impl Display for Operand<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Expression::Literal(_) | Expression::Name(_) => self.0.fmt(f),
            compound => write!(f, "({compound})"),
        }
    }
}

fn joined(terms: &[Expression], operator: &str, f: &mut Formatter<'_>) -> fmt::Result {
    for (index, term) in terms.iter().enumerate() {
        write!(f, "{}{}", if index == 0 { "" } else { operator }, Operand(term))?;
    }
    Ok(())
}

fn not(is_negated: bool) -> &'static str {
    if is_negated { "NOT " } else { "" }
}

fn name_to(name: &str, f: &mut Formatter<'_>) -> fmt::Result {
    if needs_quotes(name) { quoted(name, '"', f) } else { f.write_str(name) }
}

fn quoted(text: &str, quote: char, f: &mut Formatter<'_>) -> fmt::Result {
    f.write_char(quote)?;
    for c in text.chars() {
        if c == quote {
            f.write_char(quote)?;
        }
        f.write_char(c)?;
    }
    f.write_char(quote)
}

impl Display for Literal {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("NULL"),
            Self::Bool(true) => f.write_str("TRUE"),
            Self::Bool(false) => f.write_str("FALSE"),
            Self::Long(number) => write!(f, "{number}"),
            // As large a literal as this is what infinity was read from.
            Self::Double(number) if number.is_infinite() => f.write_str(if *number > 0.0 { "1e999" } else { "-1e999" }),
            Self::Double(number) => write!(f, "{number:?}"),
            Self::Text(text) => quoted(text, '\'', f),
        }
    }
}

impl Comparison {
    fn symbol(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "<>",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        }
    }
}

impl Operator {
    fn symbol(self) -> &'static str {
        match self {
            Self::Plus => "+",
            Self::Minus => "-",
            Self::Times => "*",
            Self::Divide => "/",
            Self::Modulo => "%",
        }
    }
}
