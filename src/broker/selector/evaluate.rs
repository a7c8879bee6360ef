//! Evaluates a selector for one message, in three-valued logic and within a bound of steps.
//!
//! Nothing is allocated, unless the selector appends texts.

use std::{borrow::Cow, cmp::Ordering};

use super::{
    Conversion, STEPS_MAX, Value,
    expression::{Comparison, Expression, Literal, Operator},
};

/// One evaluation.
pub(super) struct Evaluation<'e, 'a> {
    lookup: &'e dyn Fn(&str) -> Value<'a>,
    conversion: Conversion,
    /// Steps that may still be taken. Once they ran out every answer is UNKNOWN.
    steps: usize,
    is_exhausted: bool,
}

/// A value on its way.
enum Operand<'v> {
    Null,
    Bool(bool),
    Long(i64),
    Double(f64),
    Text(Cow<'v, [u8]>),
}

impl<'a> Evaluation<'_, 'a> {
    pub(super) fn new<'e>(lookup: &'e dyn Fn(&str) -> Value<'a>, conversion: Conversion) -> Evaluation<'e, 'a> {
        Evaluation { lookup, conversion, steps: STEPS_MAX, is_exhausted: false }
    }

    /// Whether the condition is TRUE.
    pub(super) fn holds(mut self, condition: &Expression) -> bool {
        self.condition(condition) == Some(true) && !self.is_exhausted
    }

    /// TRUE, FALSE, or UNKNOWN as `None`.
    fn condition(&mut self, expression: &Expression) -> Option<bool> {
        self.spend(1)?;
        match expression {
            Expression::Any(terms) => {
                let mut answer = Some(false);
                for term in terms {
                    match self.condition(term) {
                        Some(true) => return Some(true),
                        Some(false) => {}
                        None => answer = None,
                    }
                }
                answer
            }
            Expression::All(terms) => {
                let mut answer = Some(true);
                for term in terms {
                    match self.condition(term) {
                        Some(true) => {}
                        Some(false) => return Some(false),
                        None => answer = None,
                    }
                }
                answer
            }
            Expression::Not(operand) => self.condition(operand).map(|truth| !truth),
            Expression::Compare { comparison, left, right } => {
                let left = self.value(left);
                let right = self.value(right);
                self.compare(*comparison, &left, &right)
            }
            Expression::Between { is_negated, operand, low, high } => {
                let operand = self.value(operand);
                let low = self.value(low);
                let high = self.value(high);
                match is_negated {
                    false => and(
                        self.compare(Comparison::GreaterOrEqual, &operand, &low),
                        self.compare(Comparison::LessOrEqual, &operand, &high),
                    ),
                    true => or(
                        self.compare(Comparison::Less, &operand, &low),
                        self.compare(Comparison::Greater, &operand, &high),
                    ),
                }
            }
            Expression::In { is_negated, name, texts } => {
                let text = match (self.lookup)(name) {
                    Value::Text(text) => Cow::Borrowed(text),
                    Value::Joined(first, second) => Cow::Owned([first.as_bytes(), second].concat()),
                    _ => return None,
                };
                self.spend(text.len())?;
                let is_in = texts.binary_search_by(|one| one.as_bytes().cmp(&text)).is_ok();
                Some(is_in != *is_negated)
            }
            Expression::Like { is_negated, operand, pattern, .. } => match self.value(operand) {
                Operand::Null => None,
                Operand::Text(text) => match pattern.matches(&text, &mut self.steps) {
                    Some(is_like) => Some(is_like != *is_negated),
                    None => self.give_up(),
                },
                _ => Some(*is_negated),
            },
            Expression::IsNull { is_negated, operand } => {
                let is_null = matches!(self.value(operand), Operand::Null);
                Some(is_null != *is_negated)
            }
            Expression::Literal(_) | Expression::Name(_) | Expression::Arithmetic { .. } | Expression::Negative(_) => {
                match self.value(expression) {
                    Operand::Null => None,
                    Operand::Bool(truth) => Some(truth),
                    Operand::Text(text) if self.converts() => Some(text.eq_ignore_ascii_case(b"true")),
                    _ => Some(false),
                }
            }
        }
    }

    fn value<'v>(&mut self, expression: &'v Expression) -> Operand<'v>
    where
        'a: 'v,
    {
        if self.spend(1).is_none() {
            return Operand::Null;
        }
        match expression {
            Expression::Literal(literal) => match literal {
                Literal::Null => Operand::Null,
                Literal::Bool(truth) => Operand::Bool(*truth),
                Literal::Long(number) => Operand::Long(*number),
                Literal::Double(number) => Operand::Double(*number),
                Literal::Text(text) => Operand::Text(Cow::Borrowed(text.as_bytes())),
            },
            Expression::Name(name) => match (self.lookup)(name) {
                Value::Null => Operand::Null,
                Value::Bool(truth) => Operand::Bool(truth),
                Value::Long(number) => Operand::Long(number),
                Value::Double(number) => Operand::Double(number),
                Value::Text(text) => Operand::Text(Cow::Borrowed(text)),
                Value::Joined(first, second) => Operand::Text(Cow::Owned([first.as_bytes(), second].concat())),
            },
            Expression::Arithmetic { first, rest } => {
                let mut sum = self.value(first);
                for (operator, term) in rest {
                    if matches!(sum, Operand::Null) {
                        break;
                    }
                    let term = self.value(term);
                    sum = self.calculate(sum, *operator, term);
                }
                sum
            }
            Expression::Negative(operand) => {
                let operand = self.value(operand);
                match self.number(&operand) {
                    Some(Number::Long(number)) => match number.checked_neg() {
                        Some(negative) => Operand::Long(negative),
                        None => Operand::Double(-(number as f64)),
                    },
                    Some(Number::Double(number)) => Operand::Double(-number),
                    None => Operand::Null,
                }
            }
            condition => self.condition(condition).map_or(Operand::Null, Operand::Bool),
        }
    }

    /// `left operator right`; NULL if that has no value.
    fn calculate<'v>(&mut self, left: Operand<'v>, operator: Operator, right: Operand<'v>) -> Operand<'v> {
        if matches!(left, Operand::Null) || matches!(right, Operand::Null) {
            return Operand::Null;
        }
        let is_text = matches!((&left, &right), (Operand::Text(_), Operand::Text(_)));
        if let (false, Some(left), Some(right)) =
            (is_text && operator == Operator::Plus, self.number(&left), self.number(&right))
        {
            return calculate_numbers(left, operator, right);
        }
        match left {
            Operand::Text(left) if operator == Operator::Plus => self.append(left.into_owned(), &right),
            _ => Operand::Null,
        }
    }

    fn append<'v>(&mut self, mut left: Vec<u8>, right: &Operand<'v>) -> Operand<'v> {
        let before = left.len();
        match right {
            Operand::Text(text) => left.extend_from_slice(text),
            Operand::Long(number) => left.extend_from_slice(number.to_string().as_bytes()),
            Operand::Double(number) => left.extend_from_slice(format!("{number:?}").as_bytes()),
            Operand::Bool(truth) => left.extend_from_slice(truth.to_string().as_bytes()),
            Operand::Null => return Operand::Null,
        }
        match self.spend(left.len() - before) {
            Some(()) => Operand::Text(Cow::Owned(left)),
            None => Operand::Null,
        }
    }

    fn compare(&mut self, comparison: Comparison, left: &Operand<'_>, right: &Operand<'_>) -> Option<bool> {
        let order = match (left, right) {
            (Operand::Null, _) | (_, Operand::Null) => return None,
            (Operand::Text(left), Operand::Text(right)) => {
                self.spend(left.len().min(right.len()))?;
                Some(left.cmp(right))
            }
            (Operand::Bool(left), Operand::Bool(right)) => Some(left.cmp(right)),
            (Operand::Bool(truth), Operand::Text(text)) if self.converts() => Some(truth.cmp(&is_true(text))),
            (Operand::Text(text), Operand::Bool(truth)) if self.converts() => Some(is_true(text).cmp(truth)),
            (left, right) => match (self.number(left), self.number(right)) {
                (Some(Number::Long(left)), Some(Number::Long(right))) => Some(left.cmp(&right)),
                (Some(left), Some(right)) => left.double().partial_cmp(&right.double()),
                _ => None,
            },
        };
        // Values of unlike kinds have no order, and are not equal.
        Some(match comparison {
            Comparison::Equal => order == Some(Ordering::Equal),
            Comparison::NotEqual => order != Some(Ordering::Equal),
            Comparison::Less => order == Some(Ordering::Less),
            Comparison::LessOrEqual => matches!(order, Some(Ordering::Less | Ordering::Equal)),
            Comparison::Greater => order == Some(Ordering::Greater),
            Comparison::GreaterOrEqual => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
        })
    }

    fn number(&self, operand: &Operand<'_>) -> Option<Number> {
        match operand {
            Operand::Long(number) => Some(Number::Long(*number)),
            Operand::Double(number) => Some(Number::Double(*number)),
            Operand::Text(text) if self.converts() => number_of(text),
            _ => None,
        }
    }

    fn converts(&self) -> bool {
        self.conversion == Conversion::NumericStrings
    }

    fn spend(&mut self, steps: usize) -> Option<()> {
        match self.steps.checked_sub(steps) {
            Some(left) => {
                self.steps = left;
                Some(())
            }
            None => self.give_up(),
        }
    }

    fn give_up<T>(&mut self) -> Option<T> {
        self.steps = 0;
        self.is_exhausted = true;
        None
    }
}

#[derive(Clone, Copy)]
enum Number {
    Long(i64),
    Double(f64),
}

impl Number {
    fn double(self) -> f64 {
        match self {
            Self::Long(number) => number as f64,
            Self::Double(number) => number,
        }
    }
}

fn calculate_numbers<'v>(left: Number, operator: Operator, right: Number) -> Operand<'v> {
    if let (Number::Long(left), Number::Long(right)) = (left, right) {
        let exact = match operator {
            Operator::Plus => left.checked_add(right),
            Operator::Minus => left.checked_sub(right),
            Operator::Times => left.checked_mul(right),
            Operator::Divide | Operator::Modulo => None,
        };
        if let Some(exact) = exact {
            return Operand::Long(exact);
        }
    }
    let (left, right) = (left.double(), right.double());
    Operand::Double(match operator {
        Operator::Plus => left + right,
        Operator::Minus => left - right,
        Operator::Times => left * right,
        Operator::Divide => left / right,
        Operator::Modulo => left % right,
    })
}

/// The number that a text is: digits with at most a sign, a point and an exponent.
fn number_of(text: &[u8]) -> Option<Number> {
    let is_number = |octet: &u8| octet.is_ascii_digit() || b"+-.eE".contains(octet);
    if text.len() > NUMBER_BYTES_MAX || !text.iter().all(is_number) {
        return None;
    }
    let text = std::str::from_utf8(text).ok()?;
    match text.parse() {
        Ok(number) => Some(Number::Long(number)),
        Err(_) => text.parse().ok().map(Number::Double),
    }
}

fn is_true(text: &[u8]) -> bool {
    text.eq_ignore_ascii_case(b"true")
}

fn and(left: Option<bool>, right: Option<bool>) -> Option<bool> {
    match (left, right) {
        (Some(false), _) | (_, Some(false)) => Some(false),
        (Some(true), Some(true)) => Some(true),
        _ => None,
    }
}

fn or(left: Option<bool>, right: Option<bool>) -> Option<bool> {
    and(left.map(|truth| !truth), right.map(|truth| !truth)).map(|truth| !truth)
}

/// Longer texts are no numbers.
const NUMBER_BYTES_MAX: usize = 400;
