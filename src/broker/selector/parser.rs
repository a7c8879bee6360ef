//! Builds the tree of a selector: operators by precedence, with a bound on nesting.

use super::{
    DEPTH_MAX, SelectorError,
    expression::{Comparison, Expression, Literal, Operator},
    lexer::{Keyword, Lexer, Token, syntax},
    like::Pattern,
};

/// Parses `text` from octet `start`.
pub(super) fn parse(text: &str, start: usize) -> Result<Expression, SelectorError> {
    let mut lexer = Lexer::new(text, start);
    let (token, at, end) = lexer.next()?;
    let mut parser = Parser { text, lexer, token, at, end, taken_end: start, depth: 0 };
    let parsed = parser.expression(OR)?;
    if parser.token != Token::End {
        return parser.fail("an operator or the end");
    }
    Ok(parsed.condition()?.expression)
}

/// How tightly an operator binds.
type Precedence = u8;
const OR: Precedence = 1;
const AND: Precedence = 2;
const NOT: Precedence = 3;
const EQUALITY: Precedence = 4;
const ORDER: Precedence = 5;
const SUM: Precedence = 6;
const PRODUCT: Precedence = 7;
const SIGN: Precedence = 8;

struct Parser<'a> {
    text: &'a str,
    lexer: Lexer<'a>,
    /// The token in hand, and where it begins and ends.
    token: Token<'a>,
    at: usize,
    end: usize,
    /// Where the token before it ends.
    taken_end: usize,
    /// How many `expression`s are being parsed within one another.
    depth: usize,
}

struct Parsed {
    expression: Expression,
    /// Nodes from here to the deepest leaf.
    depth: usize,
    /// Where it begins.
    at: usize,
}

impl Parsed {
    /// Itself, if it may stand where a condition must: a name is one if its value is.
    fn condition(self) -> Result<Self, SelectorError> {
        match self.expression {
            Expression::Name(_) => Ok(self),
            _ if self.expression.is_condition() => Ok(self),
            _ => self.refuse("this is no condition"),
        }
    }

    /// Itself, if it may be compared by order: ActiveMQ refuses what never could be.
    fn ordered(self) -> Result<Self, SelectorError> {
        match self.expression {
            Expression::Literal(Literal::Long(_) | Literal::Double(_)) => Ok(self),
            Expression::Literal(_) => self.refuse("only numbers have an order"),
            _ if self.expression.is_condition() => self.refuse("conditions have no order"),
            _ => Ok(self),
        }
    }

    /// Itself, if it may be compared at all.
    fn comparable(self) -> Result<Self, SelectorError> {
        match self.expression {
            Expression::Literal(Literal::Null) => self.refuse("NULL equals nothing; say IS NULL"),
            _ => Ok(self),
        }
    }

    fn refuse(self, reason: &'static str) -> Result<Self, SelectorError> {
        Err(SelectorError::Invalid { at: self.at, reason })
    }
}

impl<'a> Parser<'a> {
    /// An expression of operators that bind at least as tightly as `loosest`.
    fn expression(&mut self, loosest: Precedence) -> Result<Parsed, SelectorError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(SelectorError::TooDeep { at: self.at });
        }
        let mut left = self.operand(loosest)?;
        loop {
            let precedence = self.precedence();
            if precedence < loosest || precedence == 0 {
                break;
            }
            left = match precedence {
                OR | AND => self.chain_of_conditions(left, precedence)?,
                EQUALITY => self.equality(left)?,
                ORDER => self.order(left)?,
                _ => self.arithmetic(left, precedence)?,
            };
        }
        self.depth -= 1;
        Ok(left)
    }

    /// The precedence of the operator in hand; 0 if it is none.
    fn precedence(&self) -> Precedence {
        match self.token {
            Token::Keyword(Keyword::Or) => OR,
            Token::Keyword(Keyword::And) => AND,
            Token::Equal | Token::NotEqual | Token::Keyword(Keyword::Is) => EQUALITY,
            Token::Less | Token::LessOrEqual | Token::Greater | Token::GreaterOrEqual => ORDER,
            Token::Keyword(Keyword::Not | Keyword::Between | Keyword::In | Keyword::Like) => ORDER,
            Token::Plus | Token::Minus => SUM,
            Token::Times | Token::Divide | Token::Modulo => PRODUCT,
            _ => 0,
        }
    }

    /// What stands before, between and after operators, with its signs.
    fn operand(&mut self, loosest: Precedence) -> Result<Parsed, SelectorError> {
        let at = self.at;
        let leaf = |expression| Parsed { expression, depth: 1, at };
        let token = self.advance()?;
        Ok(leaf(match token {
            Token::Name(name) => Expression::Name(name.into()),
            Token::QuotedName(inside) => Expression::Name(inside.replace("\"\"", "\"").into()),
            Token::Text(inside) => Expression::Literal(Literal::Text(unquoted(inside))),
            Token::Integer(number) => Expression::Literal(integer(number)),
            Token::Float(number) => Expression::Literal(Literal::Double(number)),
            Token::Keyword(Keyword::True) => Expression::Literal(Literal::Bool(true)),
            Token::Keyword(Keyword::False) => Expression::Literal(Literal::Bool(false)),
            Token::Keyword(Keyword::Null) => Expression::Literal(Literal::Null),
            Token::Open => {
                let inside = self.expression(OR)?;
                self.expect(&Token::Close, "an operator or )")?;
                return Ok(Parsed { at, ..inside });
            }
            // After an operator that binds more tightly, NOT takes the next word only.
            Token::Keyword(Keyword::Not) => {
                let operand = self.expression(if loosest <= NOT { NOT } else { SIGN })?.condition()?;
                return node(at, operand.depth, Expression::Not(operand.expression.into()));
            }
            Token::Plus => {
                let operand = self.expression(SIGN)?;
                return Ok(Parsed { at, ..operand });
            }
            Token::Minus => match self.token {
                // Only so the least integer can be written.
                Token::Integer(number) => {
                    self.advance()?;
                    Expression::Literal(match i64::try_from(number) {
                        Ok(number) => Literal::Long(-number),
                        Err(_) => Literal::Long(i64::MIN),
                    })
                }
                Token::Float(number) => {
                    self.advance()?;
                    Expression::Literal(Literal::Double(-number))
                }
                _ => {
                    let operand = self.expression(SIGN)?;
                    return node(at, operand.depth, Expression::Negative(operand.expression.into()));
                }
            },
            _ => return Err(syntax(at, "a name, a value or (", self.found(at, self.taken_end))),
        }))
    }

    fn chain_of_conditions(&mut self, first: Parsed, precedence: Precedence) -> Result<Parsed, SelectorError> {
        let at = first.at;
        let first = first.condition()?;
        let mut depth = first.depth;
        let mut terms = vec![first.expression];
        while self.precedence() == precedence {
            self.advance()?;
            let term = self.expression(precedence + 1)?.condition()?;
            depth = depth.max(term.depth);
            terms.push(term.expression);
        }
        node(at, depth, if precedence == OR { Expression::Any(terms) } else { Expression::All(terms) })
    }

    fn equality(&mut self, left: Parsed) -> Result<Parsed, SelectorError> {
        let at = left.at;
        let operator = self.advance()?;
        if operator == Token::Keyword(Keyword::Is) {
            let is_negated = self.skip(&Token::Keyword(Keyword::Not))?;
            self.expect(&Token::Keyword(Keyword::Null), if is_negated { "NULL" } else { "NULL or NOT NULL" })?;
            return node(at, left.depth, Expression::IsNull { is_negated, operand: left.expression.into() });
        }
        let left = left.comparable()?;
        let right = self.expression(EQUALITY + 1)?.comparable()?;
        if let (Expression::Literal(Literal::Bool(_)), Expression::Literal(other)) =
            (&left.expression, &right.expression)
            && !matches!(other, Literal::Bool(_))
        {
            return right.refuse("a truth value never equals this");
        }
        let comparison = if operator == Token::Equal { Comparison::Equal } else { Comparison::NotEqual };
        compare(comparison, left, right)
    }

    fn order(&mut self, left: Parsed) -> Result<Parsed, SelectorError> {
        let at = left.at;
        let is_negated = self.skip(&Token::Keyword(Keyword::Not))?;
        let operator = if is_negated { "BETWEEN, IN or LIKE" } else { "an operator" };
        let operator_at = self.at;
        let comparison = match self.advance()? {
            Token::Keyword(Keyword::Like) => return self.like(left, is_negated),
            Token::Keyword(Keyword::In) => return self.one_of(left, is_negated),
            Token::Keyword(Keyword::Between) => {
                let operand = left.ordered()?;
                let low = self.expression(ORDER + 1)?.ordered()?;
                self.expect(&Token::Keyword(Keyword::And), "AND")?;
                let high = self.expression(ORDER + 1)?.ordered()?;
                let depth = operand.depth.max(low.depth).max(high.depth);
                let (low, high) = (low.expression.into(), high.expression.into());
                let between = Expression::Between { is_negated, operand: operand.expression.into(), low, high };
                return node(at, depth, between);
            }
            Token::Less if !is_negated => Comparison::Less,
            Token::LessOrEqual if !is_negated => Comparison::LessOrEqual,
            Token::Greater if !is_negated => Comparison::Greater,
            Token::GreaterOrEqual if !is_negated => Comparison::GreaterOrEqual,
            _ => return Err(syntax(operator_at, operator, self.found(operator_at, self.taken_end))),
        };
        let left = left.ordered()?;
        let right = self.expression(ORDER + 1)?.ordered()?;
        compare(comparison, left, right)
    }

    fn like(&mut self, operand: Parsed, is_negated: bool) -> Result<Parsed, SelectorError> {
        let text = self.text_literal("a pattern in quotes")?;
        let mut escape = None;
        if self.skip(&Token::Keyword(Keyword::Escape))? {
            let at = self.at;
            let literal = self.text_literal("one character in quotes")?;
            let mut chars = literal.chars();
            escape = chars.next();
            if escape.is_none() || chars.next().is_some() {
                return Err(SelectorError::Invalid { at, reason: "ESCAPE takes one character" });
            }
        }
        let pattern = Pattern::new(&text, escape);
        let (at, depth, operand) = (operand.at, operand.depth, operand.expression.into());
        node(at, depth, Expression::Like { is_negated, operand, text, escape, pattern })
    }

    fn one_of(&mut self, operand: Parsed, is_negated: bool) -> Result<Parsed, SelectorError> {
        let Expression::Name(name) = operand.expression else {
            return operand.refuse("only a name may be IN");
        };
        self.expect(&Token::Open, "(")?;
        let mut texts = Vec::new();
        loop {
            texts.push(self.text_literal("a text in quotes")?);
            if !self.skip(&Token::Comma)? {
                break;
            }
        }
        self.expect(&Token::Close, ", or )")?;
        texts.sort_unstable();
        texts.dedup();
        node(operand.at, 0, Expression::In { is_negated, name, texts: texts.into() })
    }

    fn arithmetic(&mut self, first: Parsed, precedence: Precedence) -> Result<Parsed, SelectorError> {
        let (at, mut depth) = (first.at, first.depth);
        let mut rest = Vec::new();
        while self.precedence() == precedence {
            let operator = match self.advance()? {
                Token::Plus => Operator::Plus,
                Token::Minus => Operator::Minus,
                Token::Times => Operator::Times,
                Token::Divide => Operator::Divide,
                _ => Operator::Modulo,
            };
            let term = self.expression(precedence + 1)?;
            depth = depth.max(term.depth);
            rest.push((operator, term.expression));
        }
        node(at, depth, Expression::Arithmetic { first: first.expression.into(), rest })
    }

    fn text_literal(&mut self, expected: &'static str) -> Result<Box<str>, SelectorError> {
        match self.token {
            Token::Text(inside) => {
                self.advance()?;
                Ok(unquoted(inside))
            }
            _ => self.fail(expected),
        }
    }

    /// Takes the token in hand.
    fn advance(&mut self) -> Result<Token<'a>, SelectorError> {
        let (token, at, end) = self.lexer.next()?;
        self.taken_end = std::mem::replace(&mut self.end, end);
        self.at = at;
        Ok(std::mem::replace(&mut self.token, token))
    }

    /// Takes the token in hand if it is `token`.
    fn skip(&mut self, token: &Token<'_>) -> Result<bool, SelectorError> {
        let is_it = self.token == *token;
        if is_it {
            self.advance()?;
        }
        Ok(is_it)
    }

    fn expect(&mut self, token: &Token<'_>, expected: &'static str) -> Result<(), SelectorError> {
        if self.skip(token)? { Ok(()) } else { self.fail(expected) }
    }

    fn fail<T>(&self, expected: &'static str) -> Result<T, SelectorError> {
        Err(syntax(self.at, expected, self.found(self.at, self.end)))
    }

    /// The token from `at` to `end`, for people.
    fn found(&self, at: usize, end: usize) -> String {
        if at == end {
            return "the end".to_owned();
        }
        let shown: String = self.text[at..end].chars().take(FOUND_CHARS_MAX).collect();
        format!("{shown:?}")
    }
}

/// A node above others of `depth`.
fn node(at: usize, depth: usize, expression: Expression) -> Result<Parsed, SelectorError> {
    let depth = depth + 1;
    if depth > DEPTH_MAX {
        return Err(SelectorError::TooDeep { at });
    }
    Ok(Parsed { expression, depth, at })
}

fn compare(comparison: Comparison, left: Parsed, right: Parsed) -> Result<Parsed, SelectorError> {
    let depth = left.depth.max(right.depth);
    let (at, left, right) = (left.at, left.expression.into(), right.expression.into());
    node(at, depth, Expression::Compare { comparison, left, right })
}

fn integer(number: u64) -> Literal {
    i64::try_from(number).map_or(Literal::Double(number as f64), Literal::Long)
}

fn unquoted(inside: &str) -> Box<str> {
    inside.replace("''", "'").into()
}

/// How much of a mistake an error repeats.
const FOUND_CHARS_MAX: usize = 40;
