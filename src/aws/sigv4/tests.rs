//! Requests as botocore signs them, and what must not pass.

use std::borrow::Cow;

use serde_json::Value;

use super::*;

const SKEW_SECS: i64 = 900;

struct Vector {
    name: String,
    method: String,
    path: String,
    query: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

fn vectors() -> (Value, Vec<Vector>) {
    let text = include_str!("../../../conformance/aws/sigv4_vectors.json");
    let all: Value = serde_json::from_str(text).unwrap();
    let of = |case: &Value, name: &str| case[name].as_str().unwrap().to_owned();
    let cases = all["cases"].as_array().unwrap().iter().map(|case| {
        let hex = of(case, "body");
        let body = (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect();
        let headers = case["headers"].as_object().unwrap().iter();
        let headers = headers.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect();
        let (name, method) = (of(case, "name"), of(case, "method"));
        Vector { name, method, path: of(case, "path"), query: of(case, "query"), headers, body }
    });
    let cases = cases.collect();
    (all, cases)
}

fn check(vector: &Vector, secret: &str, now_secs: i64) -> Result<(), Refused> {
    let header = |name: &str| {
        let found = vector.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| Cow::Borrowed(value.as_str()))
    };
    let request = Request {
        method: &vector.method,
        path: &vector.path,
        query: &vector.query,
        header: &header,
        body: &vector.body,
    };
    let signature = Signature::read(&request)?.expect("it is signed");
    assert_eq!(signature.access_key, "AKIDEXAMPLE");
    signature.verify(&request, secret, &SigningKeys::default(), now_secs, SKEW_SECS)
}

#[test]
fn requests_as_botocore_signs_them_pass() {
    let (all, cases) = vectors();
    let (secret, now) = (all["secret"].as_str().unwrap(), all["now_secs"].as_i64().unwrap());
    for vector in &cases {
        assert_eq!(check(vector, secret, now), Ok(()), "{}", vector.name);
        assert_eq!(check(vector, "another", now), Err(Refused::Differs), "{}", vector.name);
    }
}

#[test]
fn nothing_that_was_signed_can_be_changed() {
    let (all, cases) = vectors();
    let (secret, now) = (all["secret"].as_str().unwrap(), all["now_secs"].as_i64().unwrap());
    for mut vector in cases {
        let name = vector.name.clone();
        let is_body_signed = name != "a body that is not signed";
        vector.body.push(b'x');
        let changed = check(&vector, secret, now);
        assert_eq!(changed.is_ok(), !is_body_signed, "{name}");
        vector.body.pop();
        vector.path.push_str("/other");
        assert_eq!(check(&vector, secret, now), Err(Refused::Differs), "{name}");
        vector.path.truncate(vector.path.len() - "/other".len());
        vector.query.push_str("&x=y");
        assert_eq!(check(&vector, secret, now), Err(Refused::Differs), "{name}");
        vector.query.truncate(vector.query.len() - "&x=y".len());
        vector.method = "PUT".into();
        assert_eq!(check(&vector, secret, now), Err(Refused::Differs), "{name}");
    }
}

#[test]
fn signature_holds_for_a_quarter_of_an_hour_and_a_presigned_one_as_long_as_it_says() {
    let (all, cases) = vectors();
    let (secret, now) = (all["secret"].as_str().unwrap(), all["now_secs"].as_i64().unwrap());
    for vector in &cases {
        let is_presigned = vector.query.contains("X-Amz-Signature");
        let later = check(vector, secret, now + SKEW_SECS + 1);
        let earlier = check(vector, secret, now - SKEW_SECS - 1).unwrap_err().to_string();
        assert!(earlier.starts_with("Signature not yet current: 20261123T120000Z is still later than "), "{earlier}");
        if is_presigned {
            assert_eq!(later, Err(Refused::Expired));
        } else {
            let expected = "Signature expired: 20261123T120000Z is now earlier than 20261123T120001Z \
                            (20261123T121501Z - 15 min.)";
            assert_eq!(later.unwrap_err().to_string(), expected);
        }
    }
}

fn read(headers: &[(&str, &str)], query: &str) -> Result<bool, Refused> {
    let header = |name: &str| headers.iter().find(|(known, _)| *known == name).map(|(_, value)| Cow::Borrowed(*value));
    let request = Request { method: "POST", path: "/", query, header: &header, body: b"" };
    Signature::read(&request).map(|signature| signature.is_some())
}

#[test]
fn incomplete_signature_is_said_to_be() {
    assert_eq!(read(&[], ""), Ok(false));
    assert_eq!(read(&[], "X-Amz-Nothing=1"), Ok(false));
    let scope = "Credential=A/20261123/r/s/aws4_request";
    let date = ("x-amz-date", "20261123T120000Z");
    let whole = format!("{ALGORITHM} {scope}, SignedHeaders=host;x-amz-date, Signature=00");
    assert_eq!(read(&[("authorization", &whole), date], ""), Ok(true));
    for (authorization, text) in [
        ("Basic YQ==".to_owned(), "Unsupported Authorization type: Basic."),
        (format!("{ALGORITHM} nonsense"), "'nonsense' not a valid key=value pair (missing equal-sign) in"),
        (format!("{ALGORITHM} {scope}"), "Authorization header requires 'Signature' parameter. Authorization header"),
        (format!("{ALGORITHM} Credential=A/b, SignedHeaders=host;x-amz-date, Signature=0"), "Credential must have"),
        (format!("{ALGORITHM} {scope}, SignedHeaders=host, Signature=0"), "'x-amz-date' must be a 'SignedHeader'"),
    ] {
        let Err(Refused::Incomplete(said)) = read(&[("authorization", &authorization), date], "") else {
            panic!("{authorization} was read")
        };
        assert!(said.starts_with(text), "{said}");
    }
    let unsigned_target = [("authorization", whole.as_str()), date, ("x-amz-target", "AmazonSQS.DeleteQueue")];
    assert!(matches!(read(&unsigned_target, ""), Err(Refused::Incomplete(_))));
    let bad_time = [("authorization", whole.as_str()), ("x-amz-date", "yesterday")];
    assert!(matches!(read(&bad_time, ""), Err(Refused::Incomplete(_))));
    assert!(matches!(read(&[], "X-Amz-Algorithm=AWS4-HMAC-SHA256"), Err(Refused::Incomplete(_))));
    let long = format!(
        "X-Amz-Algorithm={ALGORITHM}&X-Amz-Credential=A/20261123/r/s/aws4_request&X-Amz-Date=20261123T120000Z\
         &X-Amz-SignedHeaders=host&X-Amz-Signature=0&X-Amz-Expires="
    );
    assert_eq!(read(&[], &format!("{long}604800")), Ok(true));
    assert!(matches!(read(&[], &format!("{long}604801")), Err(Refused::Incomplete(_))));
    assert!(matches!(read(&[], &format!("{long}-1")), Err(Refused::Incomplete(_))));
}

#[test]
fn signing_key_is_the_documented_one() {
    let key = signing_key("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "20150830", "us-east-1", "iam");
    assert_eq!(hex(&key), "c4afb1cc5771d871763a393e44b703571b55cc28424d1a5e86da6ed3c154a4b9");
}

#[test]
fn remembered_keys_are_bounded() {
    let keys = SigningKeys::default();
    for index in 0..3 * SIGNING_KEYS_COUNT_MAX {
        keys.get("secret", "20261123", &format!("r{index}"), "sqs");
    }
    assert!(keys.known.lock().len() <= SIGNING_KEYS_COUNT_MAX);
    assert_eq!(keys.get("s", "20261123", "r", "sqs"), signing_key("s", "20261123", "r", "sqs"));
}
