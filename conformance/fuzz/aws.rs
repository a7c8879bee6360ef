//! What is fuzzed of SQS and SNS: forms, calls in JSON, access policies, signatures.

use std::{
    borrow::Cow,
    cell::RefCell,
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Weak},
};

use ternmq::{
    aws::{
        Aws, Call, Caller, Service, Step, Wire,
        call::Input,
        dispatch,
        policy::{Decision, Policy, Request, edit},
        query::Form,
        sigv4::{self, Signature, SigningKeys},
        xml,
    },
    broker::{
        self, Broker,
        connections::{ChannelStatus, ConnectionHandle, Traffic},
        time::Time,
        turn::Turn,
    },
};

/// A form, as the input of one operation of each service.
pub(crate) fn query(input: &[u8]) {
    let Some((&which, form)) = input.split_first() else { return };
    let Ok(form) = Form::parse(form) else { return };
    for service in [Service::Sqs, Service::Sns] {
        let operations = service.model().operations;
        let operation = &operations[usize::from(which) % operations.len()];
        let Ok(value) = form.decode(service, operation.input) else { continue };
        assert!(value.is_object());
        let answer = xml::answer(service, operation, &value, "id");
        assert!(String::from_utf8(answer).is_ok());
        call(service, usize::from(which), Wire::Query, Input::Decoded(Arc::new(value)));
    }
}

/// A body in JSON, as one operation's.
pub(crate) fn json(input: &[u8]) {
    let Some((&which, body)) = input.split_first() else { return };
    call(Service::Sqs, usize::from(which), Wire::Json, Input::Json(body.to_vec().into()));
}

thread_local! {
    static BROKER: RefCell<Option<(Broker, Arc<Aws>)>> = const { RefCell::new(None) };
}

fn call(service: Service, which: usize, wire: Wire, input: Input) {
    let operations = service.model().operations;
    BROKER.with_borrow_mut(|kept| {
        let (broker, aws) = kept.get_or_insert_with(|| {
            let broker = Broker::new(broker::Options::default(), Time(1)).expect("a broker");
            (broker, Arc::new(Aws::default()))
        });
        let caller = Caller {
            user: "guest".into(),
            account: "000000000000".into(),
            region: "us-east-1".into(),
            access_key: None,
            is_trusted: true,
        };
        let waiter: Weak<dyn ConnectionHandle> = Weak::<Nobody>::new();
        let mut call = Call {
            aws: aws.clone(),
            service,
            operation: &operations[which % operations.len()],
            wire,
            caller,
            base_url: "http://localhost".into(),
            input,
            request_id: "id".into(),
            source_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            trace: None,
            waiter,
            state: None,
        };
        let mut turn = Turn::new(broker, Time(2));
        let step = dispatch::dispatch(&mut call, &mut turn);
        turn.end();
        match step {
            Ok(Step::Done(reply)) => assert!(String::from_utf8(reply.body).is_ok()),
            Ok(Step::Wait { .. }) => {}
            Err(error) => {
                assert!((400..600).contains(&error.status));
                assert!(String::from_utf8(error.body(service, wire, "id")).is_ok());
            }
        }
        // What one input leaves must not grow over millions of them.
        if broker.queues_count().load(std::sync::atomic::Ordering::Relaxed) > 100 {
            *kept = None;
        }
    });
}

struct Nobody;

impl ConnectionHandle for Nobody {
    fn close(&self, _: &str) {}

    fn channels(&self) -> Vec<ChannelStatus> {
        Vec::new()
    }

    fn traffic(&self) -> Traffic {
        Traffic::default()
    }

    fn alarm_changed(&self) {}
}

/// An access policy, held against a request.
pub(crate) fn policies(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let context = [("aws:sourcearn", Cow::Borrowed("arn:aws:sns:r:1:t")), ("aws:sourceip", Cow::Borrowed("10.0.0.1"))];
    let request = Request {
        principal: "arn:aws:iam::1:user/u",
        account: "1",
        action: "sqs:SendMessage",
        resource: "arn:aws:sqs:r:1:q",
        context: &context,
    };
    let parsed = Policy::parse(text);
    if let Ok(policy) = &parsed {
        let decision = policy.decide(&request);
        assert_eq!(policy.allows(&request, false), decision == Decision::Allow);
        assert_eq!(policy.allows(&request, true), decision != Decision::Deny);
    }
    let actions = ["sqs:SendMessage".to_owned()];
    if let Ok(added) = edit::add(Some(text), "id", "fuzzed label", &["1"], &actions, "arn:aws:sqs:r:1:q") {
        let removed = edit::remove(Some(&added), "fuzzed label").expect("what was added can be removed");
        assert!(removed.is_none_or(|left| !left.contains("fuzzed label") || text.contains("fuzzed label")));
    }
}

/// An `Authorization` header in the first line, a query in the second, a date in the third.
pub(crate) fn signatures(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let mut lines = text.lines();
    let mut next = || lines.next().unwrap_or_default().to_owned();
    let (authorization, query, date) = (next(), next(), next());
    let header = |name: &str| match name {
        "authorization" if !authorization.is_empty() => Some(Cow::Owned(authorization.clone())),
        "x-amz-date" => Some(Cow::Owned(date.clone())),
        "host" => Some(Cow::Borrowed("localhost")),
        _ => None,
    };
    let request = sigv4::Request { method: "POST", path: "/a/../b", query: &query, header: &header, body: b"" };
    if let Ok(Some(signature)) = Signature::read(&request) {
        // Nobody guesses one.
        assert!(signature.verify(&request, "secret", &SigningKeys::default(), 1_795_435_200, 900).is_err());
    }
}
