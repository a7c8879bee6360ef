//! Tests of selectors: one table a rule.

use super::*;

/// A message of many properties.
fn lookup(name: &str) -> Value<'static> {
    match name {
        "name" => "James".into(),
        "location" => "London".into(),
        "quote" => "'In God We Trust'".into(),
        "foo" => "_foo".into(),
        "punctuation" => "!#$&()*+,-./:;<=>?@[\\]^`{|}~".into(),
        "endingUnderScore" => "XD7xlJIQn_".into(),
        "empty" => "".into(),
        "five" => "5".into(),
        "half" => "0.5".into(),
        "ten" => "10".into(),
        "yes" => "TRUE".into(),
        "no" => "false".into(),
        "rank" => 123.into(),
        "version" => 2.into(),
        "zero" => 0.into(),
        "least" => i64::MIN.into(),
        "most" => i64::MAX.into(),
        "real" => 123.0.into(),
        "pi" => 3.25.into(),
        "trueProp" => true.into(),
        "falseProp" => false.into(),
        "größe" => 42.into(),
        "content-type" => "text/plain".into(),
        "a \"b\"" => 1.into(),
        _ => Value::Null,
    }
}

fn answer(text: &str, conversion: Conversion) -> bool {
    let selector = Selector::parse(text, conversion).unwrap_or_else(|error| panic!("{text}: {error}"));
    let again = Selector::parse(&selector.to_string(), selector.conversion())
        .unwrap_or_else(|error| panic!("{selector}: {error}"));
    assert_eq!(again.to_string(), selector.to_string(), "{text} is written and read again");
    let matches = selector.matches(&lookup);
    assert_eq!(again.matches(&lookup), matches, "{text} means what {again} means");
    matches
}

/// Without writing it: what is written plainly may be too long or too deep.
fn matches(text: &str) -> bool {
    Selector::parse(text, Conversion::None).unwrap_or_else(|error| panic!("{error}")).matches(&lookup)
}

/// Each is TRUE or FALSE: its NOT is the other.
fn check(rows: &[(&str, bool)]) {
    for (text, expected) in rows {
        assert_eq!(answer(text, Conversion::None), *expected, "{text}");
        assert_eq!(answer(&format!("NOT ({text})"), Conversion::None), !expected, "NOT ({text})");
    }
}

/// Neither these nor their NOTs match.
fn check_unknown(rows: &[&str]) {
    for text in rows {
        assert!(!answer(text, Conversion::None), "{text}");
        assert!(!answer(&format!("not({text})"), Conversion::None), "not({text})");
    }
}

fn check_converted(rows: &[(&str, bool)]) {
    for (text, expected) in rows {
        assert_eq!(answer(text, Conversion::NumericStrings), *expected, "{text}");
        assert_eq!(answer(&format!("convert_string_expressions:{text}"), Conversion::None), *expected, "{text}");
    }
}

fn check_refused(rows: &[(&str, &str)]) {
    for (text, expected) in rows {
        match Selector::parse(text, Conversion::None) {
            Ok(selector) => panic!("{text:?} is taken for {selector}"),
            Err(error) => assert_eq!(error.to_string(), *expected, "{text:?}"),
        }
    }
}

#[test]
fn name_is_a_condition_by_its_truth() {
    check(&[("trueProp", true), ("falseProp", false), ("(trueProp)", true), ("name", false), ("rank", false)]);
    check(&[("TRUE", true), ("false", false), ("True AND tRUE", true)]);
    check_unknown(&["dummy", "NULL", "not dummy"]);
}

#[test]
fn and_or_and_not_count_in_three_values() {
    check(&[
        ("(trueProp OR falseProp) AND trueProp", true),
        ("(trueProp OR falseProp) AND falseProp", false),
        ("trueProp AND trueProp", true),
        ("falseProp AND trueProp", false),
        ("falseProp AND dummy", false),
        ("dummy AND falseProp", false),
        ("trueProp OR dummy", true),
        ("dummy OR trueProp", true),
        ("falseProp OR falseProp", false),
        ("falseProp OR falseProp OR falseProp OR trueProp", true),
        ("trueProp AND trueProp AND trueProp AND falseProp", false),
    ]);
    check_unknown(&["trueProp AND dummy", "dummy AND trueProp", "dummy AND dummy"]);
    check_unknown(&["falseProp OR dummy", "dummy OR falseProp", "dummy OR dummy"]);
}

#[test]
fn precedence_is_or_and_not_equality_order_sum_product_sign() {
    check(&[
        ("trueProp OR trueProp AND falseProp", true),
        ("NOT falseProp AND falseProp", false),
        ("NOT falseProp OR trueProp", true),
        ("NOT rank = 1", true),
        ("NOT NOT rank = 123", true),
        ("NOT rank BETWEEN 1 AND 2", true),
        ("NOT name IS NULL", true),
        ("version < 3 = trueProp", true),
        ("1 + 2 * 3 = 7", true),
        ("(1 + 2) * 3 = 9", true),
        ("2 * -3 = -6", true),
        ("10 - 4 - 3 = 3", true),
        ("100 / 10 / 5 = 2", true),
        ("7 % 4 * 2 = 6", true),
        ("rank BETWEEN 100 + 20 AND 100 + 30 AND trueProp", true),
        ("trueProp = NOT falseProp", true),
        ("trueProp = (rank > 1) AND falseProp", false),
    ]);
}

#[test]
fn comparison_by_every_operator() {
    check(&[
        ("name = 'James'", true),
        ("name = 'james'", false),
        ("name <> 'Bob'", true),
        ("name != 'James'", false),
        ("rank > 100", true),
        ("rank >= 123", true),
        ("rank >= 124", false),
        ("rank < 123", false),
        ("rank <= 123", true),
        ("125 = rank + 2", true),
        ("name = location", false),
        ("name < location", true),
        ("trueProp = TRUE", true),
        ("trueProp <> falseProp", true),
        ("quote = '''In God We Trust'''", true),
        ("empty = ''", true),
    ]);
}

#[test]
fn integers_and_floats_compare_as_numbers() {
    check(&[
        ("real = 123", true),
        ("rank = 123.0", true),
        ("pi > 3", true),
        ("3 < pi", true),
        ("version = 2.5", false),
        ("1.0 < 1.1", true),
        ("-1.1E1 < 1.E1", true),
        ("-.5E1 < .1E1", true),
        ("4E10 < 5E10", true),
        ("-5E8 < 2E2", true),
        ("4E-10 < 5E-10", true),
        ("4E+10 < 5e+10", true),
    ]);
}

#[test]
fn comparison_with_null_is_unknown() {
    check_unknown(&["dummy = 0", "dummy > 0", "dummy >= 0", "dummy < 0", "dummy <= 0", "dummy <> 0", "0 <> dummy"]);
    check_unknown(&["dummy LIKE 'zero'", "dummy NOT LIKE 'zero'", "dummy IN ('zero')", "dummy NOT IN ('zero')"]);
    check_unknown(&["dummy BETWEEN 1 AND 2", "dummy NOT BETWEEN 1 AND 2", "2 BETWEEN 1 AND dummy", "dummy = dummy"]);
    check_unknown(&["-dummy = 0", "+dummy = 0", "dummy * 2 = 0", "2 / dummy = 0", "dummy + 2 = 0", "2 - dummy = 0"]);
    check_unknown(&["name + dummy = 'x'"]);
    // One bound alone may say no.
    check(&[("5 BETWEEN 6 AND dummy", false), ("5 NOT BETWEEN 6 AND dummy", true)]);
}

#[test]
fn values_of_unlike_kinds_are_different_and_have_no_order() {
    check(&[
        ("name = 5", false),
        ("name <> 5", true),
        ("name < 5", false),
        ("name >= 5", false),
        ("five = 5", false),
        ("rank = '123'", false),
        ("trueProp = 1", false),
        ("trueProp = 'true'", false),
        ("name BETWEEN 1 AND 5", false),
        ("name NOT BETWEEN 1 AND 5", false),
    ]);
}

#[test]
fn text_that_reads_as_a_number_converts_where_asked() {
    check_converted(&[
        ("five = 5", true),
        ("five > 3", true),
        ("3 < five", true),
        ("five < 10", true),
        ("five = 5.0", true),
        ("half = 0.5", true),
        ("half < 1", true),
        ("five = '5'", true),
        ("rank = '123'", true),
        ("five <> 5", false),
        ("five BETWEEN 1 AND 10", true),
        ("five NOT BETWEEN 1 AND 4", true),
        ("name = 5", false),
        ("name <> 5", true),
        ("name > 5", false),
        ("empty = 0", false),
        ("five * 2 = 10", true),
        ("five + 2 = 7", true),
        ("-five = -5", true),
        ("yes = TRUE", true),
        ("no = FALSE", true),
        ("TRUE = no", false),
        ("yes", true),
        ("no", false),
        ("name", false),
        // Texts among themselves stay texts.
        ("ten < five", true),
        ("five + five = '55'", true),
        ("dummy = 5", false),
    ]);
    assert!(answer("name + 2 = 'James2'", Conversion::NumericStrings));
    for text in [&b"inf"[..], b"NaN", b"1e", b" 5", b"0x5", b"5L", b"+", b"", b"\xFF", &[b'1'; 500]] {
        let selector = Selector::parse("n = n + 0 OR n > 0 OR n <= 0", Conversion::NumericStrings).unwrap();
        assert!(!selector.matches(&|_| Value::Text(text)), "{text:?} is no number");
    }
}

#[test]
fn arithmetic_promotes_and_never_panics() {
    check(&[
        ("rank + 2 = 125", true),
        ("rank - version = 121", true),
        ("rank * version = 246", true),
        ("rank / version = 61.5", true),
        ("version / 2 = 1", true),
        ("rank / 3 > 100.0", false),
        ("rank % 10 = 3", true),
        ("pi + 1 = 4.25", true),
        ("pi % 1 = 0.25", true),
        ("-rank = -123", true),
        ("+rank = 123", true),
        ("- -rank = 123", true),
        ("-(-5) = 5", true),
        ("most + 1 > most - 1000", true),
        ("most * most > 8e37", true),
        ("least - 1 < 0", true),
        ("-least > 0", true),
        ("least / -1 > 0", true),
        ("least % -1 = 0", true),
        ("1 / zero > most", true),
        ("-1 / zero < least", true),
        ("zero / zero = zero / zero", false),
        ("1 % zero > 0", false),
        ("1 % zero <= 0", false),
    ]);
    check_unknown(&["name - 1 = 0", "-name = 0", "trueProp + 1 = 2", "1 + trueProp = 2", "1 + name = '1James'"]);
}

#[test]
fn plus_appends_to_text() {
    check(&[
        ("name + '!' = 'James!'", true),
        ("name + ' ' + location = 'James London'", true),
        ("name + 7 + 1.5 + TRUE = 'James71.5true'", true),
        ("name + location LIKE 'JamesL%'", true),
    ]);
}

#[test]
fn between_includes_its_bounds() {
    check(&[
        ("rank between 100 and 150", true),
        ("rank between 10 and 120", false),
        ("rank BETWEEN 123 AND 123", true),
        ("rank BETWEEN 150 AND 100", false),
        ("rank NOT BETWEEN 100 AND 150", false),
        ("rank NOT BETWEEN 124 AND 150", true),
        ("pi BETWEEN 3 AND 3.5", true),
    ]);
}

#[test]
fn in_compares_with_every_text() {
    check(&[
        ("name in ('James', 'Bob', 'Gromit')", true),
        ("name in ('Gromit', 'Bob', 'James')", true),
        ("name in ('Gromit', 'Bob', 'Cheddar')", false),
        ("name not in ('Gromit', 'Bob', 'Cheddar')", true),
        ("name IN ('James')", true),
        ("(name) IN ('James', 'James')", true),
        ("name IN ('')", false),
    ]);
    check_unknown(&["rank IN ('123')", "rank NOT IN ('123')", "trueProp IN ('true')"]);
}

#[test]
fn is_null_is_never_unknown() {
    check(&[
        ("dummy is null", true),
        ("dummy is not null", false),
        ("name IS NOT NULL", true),
        ("name IS NULL", false),
        ("empty IS NULL", false),
        ("dummy + 1 IS NULL", true),
        ("(dummy = 1) IS NULL", true),
    ]);
}

#[test]
fn like_takes_patterns_of_text() {
    check(&[
        ("quote LIKE '''In G_d We Trust'''", true),
        ("quote LIKE '''In Gd_ We Trust'''", false),
        ("quote NOT LIKE '''In G_d We Trust'''", false),
        ("foo LIKE '%oo'", true),
        ("foo NOT LIKE '%ar'", true),
        ("foo LIKE '!_%' ESCAPE '!'", true),
        ("quote NOT LIKE '!_%' ESCAPE '!'", true),
        ("punctuation LIKE '!#$&()*+,-./:;<=>?@[\\]^`{|}~'", true),
        ("foo LIKE '%_%' ESCAPE '%'", true),
        ("endingUnderScore LIKE '_D7xlJIQn$_' ESCAPE '$'", true),
        ("endingUnderScore LIKE '_D7xlJIQn__' ESCAPE '_'", true),
        ("endingUnderScore LIKE '%D7xlJIQn%'  ESCAPE '%'", true),
        ("endingUnderScore LIKE '%D7xlJIQn%%'  ESCAPE '%'", false),
        ("endingUnderScore LIKE '%D7xlJIQn\\_' ESCAPE '\\'", true),
        ("rank LIKE '123'", false),
        ("rank NOT LIKE '123'", true),
    ]);
}

#[test]
fn numbers_are_written_in_every_way() {
    check(&[
        ("31 = 0x1F", true),
        ("31 = 0X1fL", true),
        ("31 = 037", true),
        ("31 = 31l", true),
        ("0 = 00", true),
        ("1.5 = 15e-1", true),
        ("1.5f = 1.5D", true),
        ("5. = 5", true),
        (".5 = 0.5", true),
        ("08.5 = 8.5", true),
        ("-9223372036854775808 = least", true),
        ("9223372036854775807 = most", true),
        ("9223372036854775808 > 9.2e18", true),
        ("123456789012345678901234567890 > most", true),
        ("1e999 > 1e308", true),
        ("-1e999 < -1e308", true),
    ]);
}

#[test]
fn names_are_of_letters_digits_underscore_and_dollar_or_quoted() {
    check(&[
        ("größe = 42", true),
        ("_a IS NULL", true),
        ("$a1_ IS NULL", true),
        ("\"content-type\" = 'text/plain'", true),
        ("\"name\" = 'James'", true),
        ("\"a \"\"b\"\"\" = 1", true),
        ("\"null\" IS NULL", true),
        ("notes IS NULL AND inn IS NULL", true),
    ]);
    // Names heed case.
    check_unknown(&["NAME = 'James'"]);
}

#[test]
fn blanks_and_comments_separate() {
    check(&[
        ("\t\r\n\x0Crank\n=\n123 ", true),
        ("rank=123AND trueProp", true),
        ("rank = /* a * b ** / */ 123", true),
        ("rank = -- go on\n 123", true),
        ("3 -\t-3 = 6", true),
    ]);
    assert!(answer("rank = 123 -- the end", Conversion::None));
}

#[test]
fn mistakes_are_told_with_their_place() {
    check_refused(&[
        ("", "expected a name, a value or ( at position 0, found the end"),
        ("  ", "expected a name, a value or ( at position 2, found the end"),
        ("3+5", "this is no condition at position 0"),
        ("True AND 3+5", "this is no condition at position 9"),
        ("'text'", "this is no condition at position 0"),
        ("NOT 5", "this is no condition at position 4"),
        ("=TEST 'test'", "expected a name, a value or ( at position 0, found \"=\""),
        ("prop1 = prop2 foo AND string = 'Test'", "expected an operator or the end at position 14, found \"foo\""),
        ("a = 1 AMD  b = 2", "expected an operator or the end at position 6, found \"AMD\""),
        ("a =", "expected a name, a value or ( at position 3, found the end"),
        ("a = 'x", "expected a closing ' at position 6, found the end"),
        ("\"a = 1", "expected a closing \" at position 6, found the end"),
        ("a /* b", "expected a closing */ at position 2, found the end"),
        ("(a = 1", "expected an operator or ) at position 6, found the end"),
        ("a = 1)", "expected an operator or the end at position 5, found \")\""),
        ("a # 1", "expected a name, a value or an operator at position 2, found '#'"),
        ("a NOT = 1", "expected BETWEEN, IN or LIKE at position 6, found \"=\""),
        ("a IS 1", "expected NULL or NOT NULL at position 5, found \"1\""),
        ("a IS NOT 1", "expected NULL at position 9, found \"1\""),
        ("a LIKE b", "expected a pattern in quotes at position 7, found \"b\""),
        ("a LIKE 'x' ESCAPE ''", "ESCAPE takes one character at position 18"),
        ("a LIKE 'x' ESCAPE 'ab'", "ESCAPE takes one character at position 18"),
        ("a IN ()", "expected a text in quotes at position 6, found \")\""),
        ("a IN (1)", "expected a text in quotes at position 6, found \"1\""),
        ("a IN ('x' 'y')", "expected , or ) at position 10, found \"'y'\""),
        ("a IN 'x'", "expected ( at position 5, found \"'x'\""),
        ("'x' IN ('x')", "only a name may be IN at position 0"),
        ("a BETWEEN 1 OR 2", "expected AND at position 12, found \"OR\""),
        ("a BETWEEN 'a' AND 'z'", "only numbers have an order at position 10"),
        ("a > 'x'", "only numbers have an order at position 4"),
        ("TRUE < a", "only numbers have an order at position 0"),
        ("(a = 1) < 2", "conditions have no order at position 0"),
        ("a = NULL", "NULL equals nothing; say IS NULL at position 4"),
        ("TRUE = 'true'", "a truth value never equals this at position 7"),
        ("5a = 1", "expected an operator or the end at position 1, found \"a\""),
        ("1e = 1", "expected the digits of an exponent at position 2, found none"),
        ("0x = 1", "a hexadecimal number has 1 to 63 bits, not so the one at position 0"),
        ("a = 0xFFFFFFFFFFFFFFFF", "a hexadecimal number has 1 to 63 bits, not so the one at position 4"),
        ("a = 08", "a number that begins with 0 has octal digits of 63 bits, not so the one at position 4"),
        ("a.b = 1", "expected a name, a value or an operator at position 1, found '.'"),
        ("REGEX('a', b)", "expected an operator or the end at position 5, found \"(\""),
        ("convert_string_expressions:a =", "expected a name, a value or ( at position 30, found the end"),
        ("AND", "expected a name, a value or ( at position 0, found \"AND\""),
    ]);
}

#[test]
fn nesting_ends_at_its_bound() {
    let deep = [
        ("(".repeat(10_000), ")".repeat(10_000)),
        ("NOT ".repeat(10_000), String::new()),
        ("NOT(".repeat(5_000), ")".repeat(5_000)),
        ("- ".repeat(10_000), " = 1".to_owned()),
        ("+".repeat(10_000), " = 1".to_owned()),
        ("(".repeat(60_000), String::new()),
        ("a = ".repeat(10_000), String::new()),
        ("a OR b AND NOT c = d < e + f * -(".repeat(1000), String::new()),
        (String::new(), " IS NULL".repeat(5_000)),
    ];
    for (before, after) in deep {
        let error = Selector::parse(&format!("{before}a{after}"), Conversion::None).unwrap_err();
        assert!(matches!(error, SelectorError::TooDeep { .. }), "{error}");
    }
    for (before, after) in [("(", ")"), ("NOT ", "")] {
        let text = format!("{}trueProp{}", before.repeat(DEPTH_MAX - 2), after.repeat(DEPTH_MAX - 2));
        assert!(matches(&text), "{} is not too deep", DEPTH_MAX - 2);
    }
}

#[test]
fn chains_are_as_long_as_the_text_may_be() {
    let text = format!("rank = 0{}", " OR rank = 123".repeat(4000));
    assert!(matches(&text));
    let text = format!("rank = 123{}", " AND rank = 123".repeat(4000));
    assert!(matches(&text));
    let text = format!("0{} = 20000", " + 1".repeat(15_000));
    assert!(!matches(&text));
    let text = format!("name IN ('x'{}, 'James')", ", 'xyz'".repeat(8000));
    assert!(matches(&text));
}

#[test]
fn text_ends_at_its_bound() {
    let text = format!("a = '{}'", "x".repeat(TEXT_BYTES_MAX));
    let error = Selector::parse(&text, Conversion::None).unwrap_err();
    assert_eq!(error, SelectorError::TooLong { bytes: text.len() });
}

#[test]
fn evaluation_that_takes_too_long_is_no_match() {
    let value = vec![b'a'; 200_000];
    let lookup = |_: &str| Value::Text(&value);
    for text in [
        format!("NOT (a LIKE '{}b')", "%aaaaaaaaaaaaaaaa".repeat(1000)),
        format!("a LIKE '%{}b%' OR TRUE", "_".repeat(10_000)),
        format!("NOT (a{} = 'b')", " + a".repeat(10_000)),
        format!("a <> a{} OR TRUE", " OR a <> a".repeat(4_000)),
        format!("a NOT IN ('b'){}", " AND a NOT IN ('b')".repeat(3_000)),
    ] {
        let selector = Selector::parse(&text, Conversion::None).unwrap();
        assert!(!selector.matches(&lookup));
    }
}

#[test]
fn selector_keeps_its_text_and_equals_what_says_the_same() {
    let selector = Selector::parse("a=1  and b<>'x'", Conversion::None).unwrap();
    assert_eq!(selector.text(), "a=1  and b<>'x'");
    assert_eq!(selector.to_string(), "(a = 1) AND (b <> 'x')");
    assert_eq!(selector, Selector::parse("(((a) = 1)) AND b != 'x'", Conversion::None).unwrap());
    assert_ne!(selector, Selector::parse("a = 1 AND b <> 'y'", Conversion::None).unwrap());
    assert_ne!(selector, Selector::parse(selector.text(), Conversion::NumericStrings).unwrap());
    let prefixed = Selector::parse("convert_string_expressions:a = 1", Conversion::None).unwrap();
    assert_eq!(prefixed.conversion(), Conversion::NumericStrings);
}
