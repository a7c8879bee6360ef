//! Documents as users write them, and what they come to.

use serde_json::json;

use super::*;

const QUEUE: &str = "arn:aws:sqs:eu-west-1:000000000000:q";
const TOPIC: &str = "arn:aws:sns:eu-west-1:000000000000:t";
const USER: &str = "arn:aws:iam::111111111111:user/u";

fn request<'a>(context: &'a [(&'a str, Cow<'a, str>)]) -> Request<'a> {
    Request { principal: USER, account: "111111111111", action: "sqs:SendMessage", resource: QUEUE, context }
}

fn policy(statement: Value) -> Policy {
    let text = json!({ "Version": "2012-10-17", "Statement": statement }).to_string();
    Policy::parse(&text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn allow(mut more: Value) -> Policy {
    let statement = more.as_object_mut().unwrap();
    statement.insert("Effect".into(), "Allow".into());
    if !statement.contains_key("NotPrincipal") {
        statement.entry("Principal").or_insert("*".into());
    }
    if !statement.contains_key("NotAction") {
        statement.entry("Action").or_insert("sqs:*".into());
    }
    policy(more)
}

fn is_allowed(policy: &Policy, request: &Request<'_>) -> bool {
    policy.decide(request) == Decision::Allow
}

#[test]
fn statement_that_denies_outweighs_all_that_allow() {
    let both = policy(json!([
        { "Effect": "Allow", "Principal": "*", "Action": "sqs:*", "Resource": QUEUE },
        { "Effect": "Deny", "Principal": { "AWS": USER }, "Action": "SQS:sendmessage", "Resource": "*" },
    ]));
    let send = request(&[]);
    assert_eq!(both.decide(&send), Decision::Deny);
    assert!(!both.allows(&send, true));
    let receive = Request { action: "sqs:ReceiveMessage", ..send };
    assert_eq!(both.decide(&receive), Decision::Allow);
    assert!(both.allows(&receive, false));
    let elsewhere = Request { resource: "arn:aws:sqs:eu-west-1:000000000000:other", ..receive };
    assert_eq!(both.decide(&elsewhere), Decision::Nothing);
    assert!(both.allows(&elsewhere, true) && !both.allows(&elsewhere, false));
    assert_eq!(Policy::parse("").unwrap().decide(&send), Decision::Nothing);
}

#[test]
fn account_is_all_who_belong_to_it() {
    for principal in ["111111111111", "arn:aws:iam::111111111111:root", USER] {
        assert!(is_allowed(&allow(json!({ "Principal": { "AWS": [principal, "x"] } })), &request(&[])), "{principal}");
    }
    let other = allow(json!({ "Principal": { "AWS": "222222222222" } }));
    assert!(!is_allowed(&other, &request(&[])));
    let service = allow(json!({ "Principal": { "Service": "sns.amazonaws.com" } }));
    assert!(!is_allowed(&service, &request(&[])));
    assert!(is_allowed(&service, &Request { principal: "sns.amazonaws.com", account: "", ..request(&[]) }));
    let not = allow(json!({ "NotPrincipal": { "AWS": USER } }));
    assert!(!is_allowed(&not, &request(&[])));
}

#[test]
fn actions_and_resources_may_have_wildcards_and_be_excluded() {
    let of = |statement| is_allowed(&allow(statement), &request(&[]));
    assert!(of(json!({ "Action": ["sqs:Receive*", "sqs:Send*"] })));
    assert!(of(json!({ "Action": "*" })));
    assert!(!of(json!({ "Action": "sns:*" })));
    assert!(of(json!({ "NotAction": "sqs:Delete*" })));
    assert!(!of(json!({ "NotAction": "sqs:Send*" })));
    assert!(of(json!({ "Resource": "arn:aws:sqs:*:000000000000:?" })));
    assert!(!of(json!({ "Resource": "arn:aws:sqs:*:000000000000:??" })));
    assert!(!of(json!({ "NotResource": QUEUE })));
}

#[test]
fn topic_may_send_to_the_queue_by_its_arn() {
    let policy = allow(json!({
        "Principal": { "Service": "sns.amazonaws.com" }, "Action": "sqs:SendMessage", "Resource": QUEUE,
        "Condition": { "ArnEquals": { "aws:SourceArn": TOPIC } },
    }));
    let from = |topic: &'static str| {
        let context = [("aws:sourcearn", Cow::Borrowed(topic))];
        is_allowed(&policy, &Request { principal: "sns.amazonaws.com", ..request(&context) })
    };
    assert!(from(TOPIC));
    assert!(!from("arn:aws:sns:eu-west-1:000000000000:other"));
    assert!(!is_allowed(&policy, &Request { principal: "sns.amazonaws.com", ..request(&[]) }));
}

#[test]
fn every_operator_holds_and_fails() {
    let context: Vec<(&str, Cow<'_, str>)> = [
        ("s", "Text"),
        ("n", "5"),
        ("d", "2026-11-23T12:00:00Z"),
        ("b", "true"),
        ("ip", "10.1.2.3"),
        ("arn", TOPIC),
        ("many", "a"),
        ("many", "b"),
    ]
    .map(|(key, value)| (key, Cow::Borrowed(value)))
    .to_vec();
    let holds = |operator: &str, key: &str, value: Value| {
        is_allowed(&allow(json!({ "Condition": { operator: { key: value } } })), &request(&context))
    };
    for (operator, key, yes, no) in [
        ("StringEquals", "S", json!(["x", "Text"]), json!("text")),
        ("StringNotEquals", "s", json!("x"), json!(["x", "Text"])),
        ("StringEqualsIgnoreCase", "s", json!("tEXT"), json!("x")),
        ("StringNotEqualsIgnoreCase", "s", json!("x"), json!("TEXT")),
        ("StringLike", "s", json!("T*t"), json!("t*")),
        ("StringNotLike", "s", json!("x*"), json!("T?xt")),
        ("ArnLike", "arn", json!("arn:aws:sns:*:*:t"), json!("arn:aws:sns:*:u")),
        ("ArnEquals", "arn", json!("arn:aws:sns:*:000000000000:*"), json!("arn:*:u")),
        ("ArnNotLike", "arn", json!("arn:aws:sqs:*:*:*"), json!("arn:aws:sns:*:*:*")),
        ("NumericEquals", "n", json!(5), json!("6")),
        ("NumericNotEquals", "n", json!(6), json!(5)),
        ("NumericLessThan", "n", json!(6), json!(5)),
        ("NumericLessThanEquals", "n", json!(5), json!(4)),
        ("NumericGreaterThan", "n", json!(4), json!(5)),
        ("NumericGreaterThanEquals", "n", json!(5), json!(6)),
        ("DateEquals", "d", json!("2026-11-23T13:00:00+01:00"), json!("2026-11-23")),
        ("DateLessThan", "d", json!("2026-11-24"), json!("2026-11-23")),
        ("DateGreaterThan", "d", json!("2026-11-23"), json!(4_000_000_000_u64)),
        ("Bool", "b", json!("TRUE"), json!(false)),
        ("IpAddress", "ip", json!(["192.168.0.0/16", "10.0.0.0/8"]), json!("10.1.2.4")),
        ("NotIpAddress", "ip", json!("::1/128"), json!("0.0.0.0/0")),
        ("BinaryEquals", "s", json!("Text"), json!("x")),
        ("Null", "s", json!("false"), json!(true)),
        ("Null", "missing", json!(true), json!("false")),
        ("StringEqualsIfExists", "missing", json!("x"), json!(null)),
        ("ForAnyValue:StringEquals", "many", json!("a"), json!("c")),
        ("ForAllValues:StringEquals", "many", json!(["a", "b"]), json!("a")),
        ("ForAllValues:StringLikeIfExists", "missing", json!("x"), json!(null)),
        ("StringNotEquals", "missing", json!("x"), json!(null)),
    ] {
        assert!(holds(operator, key, yes), "{operator}");
        if !no.is_null() {
            assert!(!holds(operator, key, no), "{operator}");
        }
    }
    assert!(!holds("StringEquals", "missing", json!("x")));
    assert!(holds("StringEquals", "aws:PrincipalArn", json!(USER)));
}

#[test]
fn malformed_documents_are_refused() {
    let whole = json!({ "Effect": "Allow", "Principal": "*", "Action": "sqs:*" });
    let with = |key: &str, value: Value| {
        let mut statement = whole.clone();
        statement[key] = value;
        json!({ "Statement": statement }).to_string()
    };
    let without = |key: &str| {
        let mut statement = whole.clone();
        statement.as_object_mut().unwrap().remove(key);
        json!({ "Statement": statement }).to_string()
    };
    for text in [
        "nonsense".to_owned(),
        "[]".to_owned(),
        "{}".to_owned(),
        r#"{"Statement":[]}"#.to_owned(),
        r#"{"Statement":"x"}"#.to_owned(),
        json!({ "Version": "2000", "Statement": whole }).to_string(),
        json!({ "Versions": "2012-10-17", "Statement": whole }).to_string(),
        without("Effect"),
        without("Principal"),
        without("Action"),
        with("Effect", json!("Maybe")),
        with("Extra", json!(1)),
        with("NotAction", json!("sqs:*")),
        with("Principal", json!("somebody")),
        with("Principal", json!({})),
        with("Principal", json!({ "AWS": [] })),
        with("Principal", json!({ "Nobody": "x" })),
        with("Principal", json!({ "AWS": "arn:aws:iam::1:user/*" })),
        with("Action", json!(5)),
        with("Action", json!("SendMessage")),
        with("Resource", json!("q")),
        with("Condition", json!([])),
        with("Condition", json!({ "StringAlike": { "a": "b" } })),
        with("Condition", json!({ "StringEquals": "b" })),
        with("Condition", json!({ "Sometimes:StringEquals": { "a": "b" } })),
        with("Condition", json!({ "NumericEquals": { "a": "b" } })),
        with("Condition", json!({ "DateEquals": { "a": "b" } })),
        with("Condition", json!({ "IpAddress": { "a": "10.0.0.0/33" } })),
        with("Condition", json!({ "Null": { "a": ["true", "false"] } })),
        with("Condition", json!({ "StringEquals": { "a": {} } })),
        json!({ "Statement": vec![whole.clone(); STATEMENTS_COUNT_MAX + 1] }).to_string(),
        " ".repeat(POLICY_BYTES_MAX) + &without(""),
    ] {
        assert!(Policy::parse(&text).is_err(), "{}", &text[..text.len().min(200)]);
    }
    assert!(Policy::parse(&without("")).is_ok());
}

#[test]
fn wildcards_take_no_more_than_the_product_of_lengths() {
    let pattern = Pattern::new(&"a*".repeat(1000), false);
    assert!(!pattern.matches(&("a".repeat(5000) + "b").replace("ab", "b")[..999]));
    assert!(Pattern::new("*", false).matches(""));
    assert!(!Pattern::new("?", false).matches(""));
    assert!(Pattern::new("?", false).matches("ä"));
    assert!(Pattern::new("a*b*c", false).matches("a-b-b-c"));
    assert!(!Pattern::new("a*b*c", false).matches("a-c-b"));
}

#[test]
fn permissions_are_added_and_removed_by_their_labels() {
    let actions = ["sqs:SendMessage".to_owned()];
    let one = edit::add(None, "id", "l1", &["111111111111"], &actions, QUEUE).unwrap();
    let expected = json!({ "Version": "2008-10-17", "Id": "id", "Statement": [{
        "Sid": "l1", "Effect": "Allow", "Principal": { "AWS": "arn:aws:iam::111111111111:root" },
        "Action": "sqs:SendMessage", "Resource": QUEUE,
    }]});
    assert_eq!(serde_json::from_str::<Value>(&one).unwrap(), expected);
    assert!(is_allowed(&Policy::parse(&one).unwrap(), &request(&[])));
    assert_eq!(edit::add(Some(&one), "id", "l1", &["1"], &actions, QUEUE), Err(edit::EditError::LabelExists));
    let two = edit::add(Some(&one), "id", "l2", &["1", "2"], &actions, QUEUE).unwrap();
    assert_eq!(edit::remove(Some(&two), "l3"), Err(edit::EditError::NoSuchLabel));
    assert_eq!(edit::remove(Some(&two), "l2"), Ok(Some(one.clone())));
    assert_eq!(edit::remove(Some(&one), "l1"), Ok(None));
    assert_eq!(edit::remove(None, "l1"), Err(edit::EditError::NoSuchLabel));
}
