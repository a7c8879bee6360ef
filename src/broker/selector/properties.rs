//! Properties of selectors: no text makes the parser panic, what is written reads back the same,
//! and evaluation agrees with a plain evaluator of trees.

use proptest::prelude::*;

use super::{Conversion, Selector, Value};

/// A condition, as the plain evaluator has it.
#[derive(Clone, Debug)]
enum Condition {
    Name(usize),
    Truth(Option<bool>),
    Or(Box<Condition>, Box<Condition>),
    And(Box<Condition>, Box<Condition>),
    Not(Box<Condition>),
    Compare(&'static str, Term, Term),
    Between(bool, Term, Term, Term),
    In(bool, usize, Vec<String>),
    Like(bool, Term, String),
    IsNull(bool, Term),
}

#[derive(Clone, Debug)]
enum Term {
    Name(usize),
    Long(i64),
    Double(f64),
    Text(String),
    Calculate(char, Box<Term>, Box<Term>),
    Negative(Box<Term>),
}

#[derive(Clone, Debug, PartialEq)]
enum Plain {
    Null,
    Bool(bool),
    Long(i64),
    Double(f64),
    Text(String),
}

const NAMES: [&str; 6] = ["a", "b", "c", "\"d-e\"", "LIKES", "not_"];

impl Condition {
    fn write(&self) -> String {
        match self {
            Self::Name(name) => NAMES[*name].to_owned(),
            Self::Truth(truth) => match truth {
                Some(truth) => truth.to_string(),
                None => "NULL".to_owned(),
            },
            Self::Or(left, right) => format!("({}) OR ({})", left.write(), right.write()),
            Self::And(left, right) => format!("({}) AND ({})", left.write(), right.write()),
            Self::Not(operand) => format!("NOT ({})", operand.write()),
            Self::Compare(operator, left, right) => format!("{} {operator} {}", left.write(), right.write()),
            Self::Between(not, term, low, high) => {
                format!("{}{} BETWEEN {} AND {}", term.write(), is_not(*not), low.write(), high.write())
            }
            Self::In(not, name, texts) => {
                let texts: Vec<String> = texts.iter().map(|text| Term::Text(text.clone()).write()).collect();
                format!("{}{} IN ({})", NAMES[*name], is_not(*not), texts.join(", "))
            }
            Self::Like(not, term, pattern) => {
                format!("{}{} LIKE {} ESCAPE '!'", term.write(), is_not(*not), Term::Text(pattern.clone()).write())
            }
            Self::IsNull(not, term) => format!("{} IS{} NULL", term.write(), is_not(*not)),
        }
    }

    fn answer(&self, values: &[Plain]) -> Option<bool> {
        match self {
            Self::Name(name) => match &values[*name] {
                Plain::Null => None,
                value => Some(*value == Plain::Bool(true)),
            },
            Self::Truth(truth) => *truth,
            Self::Or(left, right) => match (left.answer(values), right.answer(values)) {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (Some(false), Some(false)) => Some(false),
                _ => None,
            },
            Self::And(left, right) => match (left.answer(values), right.answer(values)) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (Some(true), Some(true)) => Some(true),
                _ => None,
            },
            Self::Not(operand) => operand.answer(values).map(|truth| !truth),
            Self::Compare(operator, left, right) => compare(operator, &left.value(values), &right.value(values)),
            Self::Between(not, term, low, high) => {
                let (term, low, high) = (term.value(values), low.value(values), high.value(values));
                let (low, high) = match not {
                    false => (compare(">=", &term, &low), compare("<=", &term, &high)),
                    true => (compare("<", &term, &low), compare(">", &term, &high)),
                };
                let decisive = Some(*not);
                if low == decisive || high == decisive { decisive } else { low.and(high) }
            }
            Self::In(not, name, texts) => match &values[*name] {
                Plain::Text(text) => Some(texts.contains(text) != *not),
                _ => None,
            },
            Self::Like(not, term, pattern) => match term.value(values) {
                Plain::Null => None,
                Plain::Text(text) => {
                    let (text, pattern): (Vec<char>, Vec<char>) = (text.chars().collect(), pattern.chars().collect());
                    Some(is_like(&text, &pattern) != *not)
                }
                _ => Some(*not),
            },
            Self::IsNull(not, term) => Some((term.value(values) == Plain::Null) != *not),
        }
    }
}

impl Term {
    fn write(&self) -> String {
        match self {
            Self::Name(name) => NAMES[*name].to_owned(),
            Self::Long(number) => number.to_string(),
            Self::Double(number) => format!("{number:?}"),
            Self::Text(text) => format!("'{}'", text.replace('\'', "''")),
            Self::Calculate(operator, left, right) => format!("({} {operator} {})", left.write(), right.write()),
            Self::Negative(term) => format!("-({})", term.write()),
        }
    }

    fn value(&self, values: &[Plain]) -> Plain {
        match self {
            Self::Name(name) => values[*name].clone(),
            Self::Long(number) => Plain::Long(*number),
            Self::Double(number) => Plain::Double(*number),
            Self::Text(text) => Plain::Text(text.clone()),
            Self::Negative(term) => match term.value(values) {
                Plain::Long(i64::MIN) => Plain::Double(-(i64::MIN as f64)),
                Plain::Long(number) => Plain::Long(-number),
                Plain::Double(number) => Plain::Double(-number),
                _ => Plain::Null,
            },
            Self::Calculate(operator, left, right) => match (left.value(values), right.value(values)) {
                (Plain::Null, _) | (_, Plain::Null) => Plain::Null,
                (Plain::Text(left), right) if *operator == '+' => Plain::Text(
                    left + &match right {
                        Plain::Null => String::new(),
                        Plain::Bool(truth) => truth.to_string(),
                        Plain::Long(number) => number.to_string(),
                        Plain::Double(number) => format!("{number:?}"),
                        Plain::Text(text) => text,
                    },
                ),
                (left, right) => match (double(&left), double(&right)) {
                    (Some(x), Some(y)) => {
                        if let (Plain::Long(left), Plain::Long(right)) = (left, right) {
                            let (left, right) = (i128::from(left), i128::from(right));
                            let exact = match operator {
                                '+' => Some(left + right),
                                '-' => Some(left - right),
                                '*' => Some(left * right),
                                _ => None,
                            };
                            if let Some(Ok(exact)) = exact.map(i64::try_from) {
                                return Plain::Long(exact);
                            }
                        }
                        Plain::Double(match operator {
                            '+' => x + y,
                            '-' => x - y,
                            '*' => x * y,
                            '/' => x / y,
                            _ => x % y,
                        })
                    }
                    _ => Plain::Null,
                },
            },
        }
    }
}

fn is_not(not: bool) -> &'static str {
    if not { " NOT" } else { "" }
}

fn double(value: &Plain) -> Option<f64> {
    match value {
        Plain::Long(number) => Some(*number as f64),
        Plain::Double(number) => Some(*number),
        _ => None,
    }
}

fn compare(operator: &str, left: &Plain, right: &Plain) -> Option<bool> {
    let order = match (left, right) {
        (Plain::Null, _) | (_, Plain::Null) => return None,
        (Plain::Text(left), Plain::Text(right)) => Some(left.as_bytes().cmp(right.as_bytes())),
        (Plain::Bool(left), Plain::Bool(right)) => Some(left.cmp(right)),
        (Plain::Long(left), Plain::Long(right)) => Some(left.cmp(right)),
        (left, right) => double(left).zip(double(right)).and_then(|(left, right)| left.partial_cmp(&right)),
    };
    Some(match operator {
        "=" => order.is_some_and(|order| order.is_eq()),
        "<>" | "!=" => !order.is_some_and(|order| order.is_eq()),
        "<" => order.is_some_and(|order| order.is_lt()),
        "<=" => order.is_some_and(|order| order.is_le()),
        ">" => order.is_some_and(|order| order.is_gt()),
        _ => order.is_some_and(|order| order.is_ge()),
    })
}

/// LIKE by its definition, with `!` as the escape.
fn is_like(text: &[char], pattern: &[char]) -> bool {
    match pattern {
        [] => text.is_empty(),
        ['!', escaped @ ('%' | '_' | '!'), rest @ ..] => text.first() == Some(escaped) && is_like(&text[1..], rest),
        ['%', rest @ ..] => (0..=text.len()).any(|taken| is_like(&text[taken..], rest)),
        ['_', rest @ ..] => !text.is_empty() && is_like(&text[1..], rest),
        [c, rest @ ..] => text.first() == Some(c) && is_like(&text[1..], rest),
    }
}

fn short_text() -> impl Strategy<Value = String> {
    prop_oneof!["[ab%_!é']{0,6}", "[0-9]{1,2}"]
}

fn leaf() -> impl Strategy<Value = Term> {
    prop_oneof![
        (0..NAMES.len()).prop_map(Term::Name),
        prop_oneof![-5..5_i64, any::<i64>()].prop_map(Term::Long),
        prop_oneof![-2.0..2.0, any::<f64>().prop_filter("is a number", |number| number.is_finite())]
            .prop_map(Term::Double),
    ]
}

fn calculation(leaf: BoxedStrategy<Term>) -> BoxedStrategy<Term> {
    let nested = leaf.prop_recursive(3, 8, 2, |inner| {
        prop_oneof![
            (prop::sample::select(vec!['+', '-', '*', '/', '%']), inner.clone(), inner.clone())
                .prop_map(|(operator, left, right)| Term::Calculate(operator, left.into(), right.into())),
            inner.prop_map(|term| Term::Negative(term.into())),
        ]
    });
    nested.boxed()
}

fn condition() -> impl Strategy<Value = Condition> {
    let number = || calculation(leaf().boxed());
    let term = || calculation(prop_oneof![leaf(), short_text().prop_map(Term::Text)].boxed());
    let leaf = prop_oneof![
        (0..NAMES.len()).prop_map(Condition::Name),
        any::<Option<bool>>().prop_map(Condition::Truth),
        (prop::sample::select(vec!["=", "<>", "!="]), term(), term()).prop_map(|(o, l, r)| Condition::Compare(o, l, r)),
        (prop::sample::select(vec!["<", "<=", ">", ">="]), number(), number())
            .prop_map(|(o, l, r)| Condition::Compare(o, l, r)),
        (any::<bool>(), number(), number(), number()).prop_map(|(not, t, l, h)| Condition::Between(not, t, l, h)),
        (any::<bool>(), 0..NAMES.len(), prop::collection::vec(short_text(), 1..4))
            .prop_map(|(not, name, texts)| Condition::In(not, name, texts)),
        (any::<bool>(), term(), short_text()).prop_map(|(not, term, pattern)| Condition::Like(not, term, pattern)),
        (any::<bool>(), term()).prop_map(|(not, term)| Condition::IsNull(not, term)),
    ];
    leaf.prop_recursive(4, 16, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(left, right)| Condition::Or(left.into(), right.into())),
            (inner.clone(), inner.clone()).prop_map(|(left, right)| Condition::And(left.into(), right.into())),
            inner.prop_map(|operand| Condition::Not(operand.into())),
        ]
    })
}

fn plain() -> impl Strategy<Value = Plain> {
    prop_oneof![
        Just(Plain::Null),
        any::<bool>().prop_map(Plain::Bool),
        prop_oneof![-5..5_i64, any::<i64>()].prop_map(Plain::Long),
        prop_oneof![-2.0..2.0, any::<f64>()].prop_map(Plain::Double),
        short_text().prop_map(Plain::Text),
    ]
}

fn value(plain: &Plain) -> Value<'_> {
    match plain {
        Plain::Null => Value::Null,
        Plain::Bool(truth) => Value::Bool(*truth),
        Plain::Long(number) => Value::Long(*number),
        Plain::Double(number) => Value::Double(*number),
        Plain::Text(text) => Value::Text(text.as_bytes()),
    }
}

/// Texts of the words of the language, in any order.
fn words() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "a", "'x'", "5", "1.5", "0x1F", "TRUE", "NULL", "AND", "OR", "NOT", "=", "<>", "<", ">=", "+", "-", "*", "/",
        "%", "(", ")", ",", "BETWEEN", "LIKE", "ESCAPE", "IN", "IS", "'!'", "\"q\"", "--", "/*", "*/", "é", "'", "\n",
    ]);
    prop::collection::vec(word, 0..20).prop_map(|words| words.join(" "))
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in prop_oneof![any::<String>(), words()]) {
        if let Ok(selector) = Selector::parse(&text, Conversion::NumericStrings) {
            selector.matches(&|name| if name.len() > 1 { Value::Null } else { Value::Text(b"5") });
            let again = Selector::parse(&selector.to_string(), Conversion::NumericStrings);
            prop_assert_eq!(again, Ok(selector));
        }
    }

    #[test]
    fn evaluation_agrees_with_the_plain_evaluator(
        condition in condition(),
        values in prop::collection::vec(plain(), NAMES.len()),
    ) {
        let text = condition.write();
        let selector = match Selector::parse(&text, Conversion::None) {
            Ok(selector) => selector,
            Err(error) => return Err(TestCaseError::fail(format!("{text}: {error}"))),
        };
        let lookup = |name: &str| {
            let index = NAMES.iter().position(|known| known.trim_matches('"') == name);
            index.map_or(Value::Null, |index| value(&values[index]))
        };
        prop_assert_eq!(selector.matches(&lookup), condition.answer(&values) == Some(true), "{}", selector);
        let again = Selector::parse(&selector.to_string(), Conversion::None);
        prop_assert_eq!(again.as_ref(), Ok(&selector), "{} is written as {}", text, selector);
    }
}
