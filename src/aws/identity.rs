//! Who calls: by the signature of a request, or by where it comes from.

use std::sync::Arc;

use super::{
    Aws,
    call::{Caller, Service},
    error::Error,
    sigv4::{Refused, Request, Signature},
};
use crate::broker::Broker;

/// What was found out about a request before its signature is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// The service that is called: codes of refusals differ.
    pub service: Service,
    /// The operation that is called.
    pub operation: &'a str,
    /// It comes from this machine, and development mode is on.
    pub is_trusted: bool,
    /// Seconds since 1970.
    pub now_secs: i64,
    /// The region in the ARN of what is called for: who signs nothing says no other.
    pub named_region: Option<&'a str>,
}

/// Who calls; or why nobody believes it.
///
/// A key that is known is checked even where any would do: whoever configures one wants to act as its user.
pub fn identify(aws: &Aws, broker: &Broker, request: &Request<'_>, origin: Origin<'_>) -> Result<Caller, Error> {
    let signature = match Signature::read(request) {
        Ok(signature) => signature,
        // Clients that sign nonsense are as good as those that sign nothing.
        Err(_) if origin.is_trusted => None,
        Err(refused) => return Err(refusal(origin.service, &refused)),
    };
    let key = signature.as_ref().and_then(|signature| aws.keys.find(broker, &signature.access_key));
    let options = &aws.options;
    let region = signature.as_ref().map(|signature| &*signature.region).filter(|region| !region.is_empty());
    let named = origin.named_region.filter(|region| !region.is_empty());
    let region: Arc<str> = region.or(named).unwrap_or(&options.region).into();
    if let (Some(signature), Some(key)) = (&signature, &key) {
        let skew_secs = options.clock_skew_secs as i64;
        let checked = signature.verify(request, &key.secret, &aws.signing_keys, origin.now_secs, skew_secs);
        checked.map_err(|refused| refusal(origin.service, &refused))?;
        let (user, account) = (key.user.as_str().into(), options.account.as_str().into());
        return Ok(Caller { user, account, region, access_key: Some(key.id.as_str().into()), is_trusted: false });
    }
    if origin.is_trusted {
        // Emulators take a key of twelve digits for the account.
        let said = signature.as_ref().map(|signature| &*signature.access_key);
        let account = said.filter(|said| options.vhost_of(said).is_some()).unwrap_or(&options.account);
        let user = broker.options.default_user.as_str().into();
        return Ok(Caller { user, account: account.into(), region, access_key: None, is_trusted: true });
    }
    if signature.is_some() {
        let message = "The security token included in the request is invalid.";
        return Err(coded("UnrecognizedClientException", "InvalidClientTokenId", 403, message));
    }
    if may_be_anonymous(&origin) {
        let (user, account) = ("".into(), options.account.as_str().into());
        return Ok(Caller { user, account, region, access_key: None, is_trusted: false });
    }
    Err(Error::unsigned())
}

/// Whether a call that nobody has signed is looked at: an access policy may let everybody do it, or it follows a link
/// that can be known only from a message. What is the owner's business alone is not, and neither is what is of no
/// queue and no topic.
fn may_be_anonymous(origin: &Origin<'_>) -> bool {
    match origin.service {
        Service::Sqs => OF_QUEUES.contains(&origin.operation),
        Service::Sns => origin.named_region.is_some() && OF_TOPICS.contains(&origin.operation),
    }
}

/// What the policy of a queue may let others do.
const OF_QUEUES: [&str; 11] = [
    "SendMessage",
    "SendMessageBatch",
    "ReceiveMessage",
    "DeleteMessage",
    "DeleteMessageBatch",
    "ChangeMessageVisibility",
    "ChangeMessageVisibilityBatch",
    "GetQueueAttributes",
    "GetQueueUrl",
    "ListDeadLetterSourceQueues",
    "PurgeQueue",
];
/// What the policy of a topic may let anybody do, and the two links.
const OF_TOPICS: [&str; 7] = [
    "Publish",
    "PublishBatch",
    "Subscribe",
    "GetTopicAttributes",
    "ListSubscriptionsByTopic",
    "ConfirmSubscription",
    "Unsubscribe",
];

fn refusal(service: Service, refused: &Refused) -> Error {
    let message = refused.to_string();
    match refused {
        Refused::Incomplete(_) => coded("IncompleteSignatureException", "IncompleteSignature", 400, &message),
        Refused::Differs | Refused::Time(_) => {
            coded("InvalidSignatureException", "SignatureDoesNotMatch", 403, &message)
        }
        Refused::Expired => Error::of(service, "RequestExpired", message),
    }
}

fn coded(code: &'static str, query_code: &'static str, status: u16, message: &str) -> Error {
    Error { code: code.into(), query_code: query_code.into(), status, message: message.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::{
        aws::{Options, options::AccessKey, sigv4},
        broker::{self, time::Time},
    };

    const NOW: i64 = 1_795_000_000;

    fn fixture() -> (Aws, Broker) {
        let key = AccessKey { id: "AKID".into(), secret: "secret".into(), user: "guest".into() };
        let aws = Aws::new(Options { access_keys: vec![key], ..Options::default() });
        (aws, Broker::new(broker::Options::default(), Time::default()).unwrap())
    }

    fn call(key: (&str, &str), at: i64, body: &[u8], is_trusted: bool, changed_body: &[u8]) -> Result<Caller, Error> {
        let (aws, broker) = fixture();
        let time = sigv4::basic_time(at);
        let headers =
            [("host", "localhost:9324"), ("x-amz-date", time.as_str()), ("x-amz-target", "AmazonSQS.ListQueues")];
        let route = ("POST", "/", "");
        let authorization =
            sigv4::authorization(key, ("eu-west-1", "sqs"), at, route, &headers, body, &aws.signing_keys);
        let header = |name: &str| match name {
            "authorization" => Some(Cow::Owned(authorization.clone())),
            _ => headers.iter().find(|(known, _)| *known == name).map(|(_, value)| Cow::Borrowed(*value)),
        };
        let request = Request { method: "POST", path: "/", query: "", header: &header, body: changed_body };
        let origin =
            Origin { service: Service::Sqs, operation: "ListQueues", is_trusted, now_secs: NOW, named_region: None };
        identify(&aws, &broker, &request, origin)
    }

    fn code(result: Result<Caller, Error>) -> (String, u16) {
        let error = result.unwrap_err();
        (error.query_code.into_owned(), error.status)
    }

    #[test]
    fn signed_call_is_its_keys_users() {
        let caller = call(("AKID", "secret"), NOW, b"{}", false, b"{}").unwrap();
        assert_eq!((&*caller.user, &*caller.region, &*caller.account), ("guest", "eu-west-1", "000000000000"));
        assert!(!caller.is_trusted);
    }

    #[test]
    fn refused_signatures_have_the_codes_of_aws() {
        let refused = |key, at, body| code(call(key, at, b"{}", false, body));
        let differs = ("SignatureDoesNotMatch".to_owned(), 403);
        assert_eq!(refused(("AKID", "other"), NOW, b"{}"), differs);
        assert_eq!(refused(("AKID", "secret"), NOW, b"{ }"), differs);
        assert_eq!(refused(("AKID", "secret"), NOW - 901, b"{}"), differs);
        assert_eq!(refused(("AKID", "secret"), NOW + 901, b"{}"), differs);
        assert_eq!(refused(("NOBODY", "secret"), NOW, b"{}"), ("InvalidClientTokenId".to_owned(), 403));
        assert!(call(("AKID", "secret"), NOW - 899, b"{}", false, b"{}").is_ok());
    }

    #[test]
    fn trusted_call_may_have_any_key_but_a_known_one_has_to_be_right() {
        let caller = call(("test", "test"), NOW, b"{}", true, b"{}").unwrap();
        assert_eq!((&*caller.user, caller.is_trusted), ("guest", true));
        assert!(call(("AKID", "wrong"), NOW, b"{}", true, b"{}").is_err());
    }

    #[test]
    fn call_without_a_signature_is_taken_from_this_machine_only() {
        let (aws, broker) = fixture();
        let header = |_: &str| None;
        let request = Request { method: "GET", path: "/", query: "Action=ListQueues", header: &header, body: b"" };
        let origin = Origin {
            service: Service::Sqs,
            operation: "ListQueues",
            is_trusted: true,
            now_secs: NOW,
            named_region: None,
        };
        assert!(identify(&aws, &broker, &request, origin).is_ok());
        let from_elsewhere = |service, operation, named_region| {
            let origin = Origin { service, operation, named_region, is_trusted: false, ..origin };
            identify(&aws, &broker, &request, origin)
        };
        for (service, operation, region) in [
            (Service::Sqs, "ListQueues", None),
            (Service::Sqs, "DeleteQueue", None),
            (Service::Sqs, "AddPermission", None),
            (Service::Sns, "ListTopics", None),
            (Service::Sns, "DeleteTopic", Some("eu-west-1")),
            (Service::Sns, "Publish", None),
        ] {
            let refused = from_elsewhere(service, operation, region);
            assert_eq!(code(refused), ("MissingAuthenticationToken".to_owned(), 403), "{operation}");
        }
        let caller = from_elsewhere(Service::Sns, "ConfirmSubscription", Some("eu-west-1")).unwrap();
        assert!(caller.is_anonymous() && !caller.is_trusted);
        assert_eq!((&*caller.arn(), &*caller.region), ("anonymous", "eu-west-1"));
        assert!(from_elsewhere(Service::Sqs, "SendMessage", None).unwrap().is_anonymous());
    }
}
