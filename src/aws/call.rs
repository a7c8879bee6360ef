//! One call of an operation: who calls, with what, and what it came to.
//!
//! An operation is a function that takes the call and a turn of the broker. It never waits: what has to wait says until
//! when, and is called again at that time or as soon as [`Call::waiter`] was told to proceed. Its answer goes out when
//! everything that was recorded in its turns is flushed.

use std::{
    any::Any,
    borrow::Cow,
    net::IpAddr,
    sync::{Arc, Weak},
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Aws,
    error::Error,
    model,
    policy::{self, Policy},
    xml,
};
use crate::broker::{access::Access, connections::ConnectionHandle, time::Time, turn::Turn, vhost::Vhost};

/// A function that does what an operation does. It is called again with the same call when it said that it waits.
pub type Handler = fn(&mut Call, &mut Turn<'_>) -> Result<Step, Error>;

/// What an operation came to.
#[derive(Debug)]
pub enum Step {
    /// It is done. The answer waits until what its turns recorded is flushed.
    Done(Reply),
    /// It wants to be called again when the call's waiter is told to proceed, or at that time.
    #[expect(missing_docs, reason = "see the variant")]
    Wait { until: Time },
}

/// A finished answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Reply {
    /// Its body.
    pub body: Vec<u8>,
}

/// A service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Service {
    /// Queues.
    Sqs,
    /// Topics.
    Sns,
}

impl Service {
    /// What its model says.
    pub fn model(self) -> &'static model::Model {
        match self {
            Self::Sqs => &model::sqs::MODEL,
            Self::Sns => &model::sns::MODEL,
        }
    }
}

/// How a call is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// AWS JSON 1.0.
    Json,
    /// A form, answered in XML.
    Query,
}

/// Who calls.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The broker's user whose permissions hold; empty: nobody has signed, and only access policies let it do anything.
    pub user: Arc<str>,
    /// The account that it belongs to.
    pub account: Arc<str>,
    /// The region that it speaks to: ARNs of answers have it.
    pub region: Arc<str>,
    /// The key that signed; none where nothing had to be signed.
    pub access_key: Option<Arc<str>>,
    /// It comes from this machine and was let in without its signature being looked at.
    pub is_trusted: bool,
}

impl Caller {
    /// Nobody has signed.
    pub fn is_anonymous(&self) -> bool {
        self.user.is_empty()
    }

    /// Its ARN; of whom nobody knows the word for that.
    pub fn arn(&self) -> String {
        match self.is_anonymous() {
            true => "anonymous".to_owned(),
            false => format!("arn:aws:iam::{}:user/{}", self.account, self.user),
        }
    }

    /// The ARN of something of the caller's account and region.
    pub fn arn_of(&self, service: Service, name: &str) -> String {
        format!("arn:aws:{}:{}:{}:{name}", service.model().name, self.region, self.account)
    }
}

/// What an operation is called with.
#[derive(Clone, Debug)]
pub enum Input {
    /// A body in JSON.
    Json(Bytes),
    /// A form, decoded by the shape of the input.
    Decoded(Arc<Value>),
}

impl Input {
    /// The input as the operation's own type. It may borrow texts from the input: clone that first, which is cheap.
    pub fn parse<'a, T: Deserialize<'a>>(&'a self) -> Result<T, Error> {
        match self {
            Self::Json(body) if body.is_empty() => Self::parse_json(b"{}"),
            Self::Json(body) => Self::parse_json(body),
            Self::Decoded(value) => {
                T::deserialize(&**value).map_err(|error| Error::new("MalformedInput", 400, error.to_string()))
            }
        }
    }

    fn parse_json<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Error> {
        serde_json::from_slice(body).map_err(|error| Error::new("SerializationException", 400, error.to_string()))
    }
}

/// One call.
pub struct Call {
    /// The process's state of both services.
    pub aws: Arc<Aws>,
    /// The service that is called.
    pub service: Service,
    /// The operation.
    pub operation: &'static model::Operation,
    /// How it is written and answered.
    pub wire: Wire,
    /// Who calls.
    pub caller: Caller,
    /// Scheme and host as the client said them, `http://localhost:9324`: addresses of queues begin with it.
    pub base_url: Arc<str>,
    /// What the operation is called with.
    pub input: Input,
    /// Identity of this call, a UUID.
    pub request_id: Arc<str>,
    /// Where it comes from.
    pub source_ip: IpAddr,
    /// The header `X-Amzn-Trace-Id` that came with it.
    pub trace: Option<Arc<str>>,
    /// Whoever has something for this call tells this to proceed.
    pub waiter: Weak<dyn ConnectionHandle>,
    /// What the operation wants to find when it is called again.
    pub state: Option<Box<dyn Any + Send>>,
}

impl Call {
    /// The vhost of the caller's account.
    pub fn vhost(&self, turn: &Turn<'_>) -> Result<Arc<Vhost>, Error> {
        self.vhost_of(&self.caller.account, turn)
    }

    /// The vhost of an account. One that has none is answered as if it were somebody else's.
    pub fn vhost_of(&self, account: &str, turn: &Turn<'_>) -> Result<Arc<Vhost>, Error> {
        let vhost = self.aws.options.vhost_of(account).and_then(|name| turn.broker.vhost(name));
        vhost.ok_or_else(|| self.denied())
    }

    /// Whether the permissions of the caller's broker user grant access to the queue or exchange of that name on the
    /// vhost.
    pub fn may(&self, turn: &Turn<'_>, vhost: &str, name: &str, access: Access) -> bool {
        !self.caller.is_anonymous()
            && self.aws.checkers.check(&turn.broker.access, &self.caller.user, vhost, name, access)
    }

    /// The same, with the error to answer.
    pub fn check(&self, turn: &Turn<'_>, vhost: &str, name: &str, access: Access) -> Result<(), Error> {
        if self.may(turn, vhost, name, access) { Ok(()) } else { Err(self.denied()) }
    }

    /// Whether an access policy and what the caller `is_permitted` without it come to that the call may be done with
    /// `resource`.
    pub fn is_allowed(&self, policy: &Policy, resource: &str, is_permitted: bool, now: Time) -> bool {
        let (service, operation) = (self.service.model().name, self.operation.name);
        let action = format!("{service}:{}", operation.strip_suffix("Batch").unwrap_or(operation));
        let (arn, caller) = (self.caller.arn(), &self.caller);
        let is_anonymous = caller.is_anonymous();
        let epoch_secs = (now.0 / 1_000).to_string();
        let mut context: Vec<(&str, Cow<'_, str>)> = vec![
            ("aws:sourceip", self.source_ip.to_string().into()),
            ("aws:currenttime", epoch_secs.clone().into()),
            ("aws:epochtime", epoch_secs.into()),
            ("aws:principaltype", if is_anonymous { "Anonymous" } else { "User" }.into()),
        ];
        if !is_anonymous {
            context.push(("aws:username", (&*caller.user).into()));
            if self.service == Service::Sns {
                context.push(("aws:sourceowner", (&*caller.account).into()));
            }
        }
        let request = policy::Request {
            principal: if is_anonymous { "" } else { &arn },
            account: if is_anonymous { "" } else { &caller.account },
            action: &action,
            resource,
            context: &context,
        };
        policy.allows(&request, is_permitted)
    }

    /// The caller may not do this.
    pub fn denied(&self) -> Error {
        if self.caller.is_anonymous() && self.service == Service::Sns {
            return Error::unsigned();
        }
        let (service, operation) = (self.service.model().name, self.operation.name);
        let message = match self.service {
            Service::Sqs => "Access to the resource is denied.".to_owned(),
            Service::Sns => format!(
                "User: {} is not authorized to perform: {}:{operation} on this resource",
                self.caller.arn(),
                service.to_uppercase()
            ),
        };
        match self.service {
            Service::Sqs => Error::sqs("AccessDeniedException", message),
            Service::Sns => Error::sns("AuthorizationErrorException", message),
        }
    }

    /// A parameter that has to be there.
    pub fn required<T>(&self, value: Option<T>, parameter: &str) -> Result<T, Error> {
        value.ok_or_else(|| match self.service {
            Service::Sqs => Error::missing(parameter),
            Service::Sns => {
                let message = format!("Invalid parameter: {parameter} Reason: no value for required parameter");
                Error::sns("InvalidParameterException", message)
            }
        })
    }

    /// Answers with `output`, whose fields have the names of the operation's output in the model.
    pub fn reply<T: Serialize>(&self, output: &T) -> Result<Step, Error> {
        let failed = |error: serde_json::Error| Error::internal(error.to_string());
        let body = match self.wire {
            Wire::Json => serde_json::to_vec(output).map_err(failed)?,
            Wire::Query => {
                let value = serde_json::to_value(output).map_err(failed)?;
                xml::answer(self.service, self.operation, &value, &self.request_id)
            }
        };
        Ok(Step::Done(Reply { body }))
    }

    /// Answers that it is done.
    pub fn reply_done(&self) -> Result<Step, Error> {
        let body = match self.wire {
            Wire::Json if self.operation.output.is_some() => b"{}".to_vec(),
            Wire::Json => Vec::new(),
            Wire::Query => xml::answer(self.service, self.operation, &Value::Null, &self.request_id),
        };
        Ok(Step::Done(Reply { body }))
    }

    /// The address of a queue of the caller's account.
    pub fn queue_url(&self, name: &str) -> String {
        self.queue_url_of(&self.caller.account, name)
    }

    /// The address of a queue of an account.
    pub fn queue_url_of(&self, account: &str, name: &str) -> String {
        format!("{}/{account}/{}", self.base_url, encoded(name))
    }
}

/// A name as it stands in an address or an ARN: what is no name of SQS is percent-encoded.
pub fn encoded(name: &str) -> Cow<'_, str> {
    percent_encoding::utf8_percent_encode(name, OTHER_THAN_NAMES).into()
}

/// The name that [`encoded`] made this of.
pub fn decoded(name: &str) -> Cow<'_, str> {
    percent_encoding::percent_decode_str(name).decode_utf8_lossy()
}

/// What a queue's name in SQS has not.
const OTHER_THAN_NAMES: &percent_encoding::AsciiSet =
    &percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');

/// The account and the name that an address of a queue ends with.
///
/// Whatever stands before them does not matter: the name of the host differs by the network that a client is in.
pub fn parse_queue_url(url: &str) -> Option<(&str, Cow<'_, str>)> {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let path = url.split_once("://").map_or(url, |(_, rest)| rest);
    let (before, name) = path.trim_end_matches('/').rsplit_once('/')?;
    let account = before.rsplit('/').next().unwrap_or_default();
    (!name.is_empty()).then(|| (account, decoded(name)))
}

/// Parts of an ARN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arn<'a> {
    /// `sqs`, `sns`.
    pub service: &'a str,
    /// Any.
    pub region: &'a str,
    /// Twelve digits.
    pub account: &'a str,
    /// What follows, decoded.
    pub name: Cow<'a, str>,
}

impl<'a> Arn<'a> {
    /// Reads `arn:aws:SERVICE:REGION:ACCOUNT:NAME`.
    pub fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.splitn(6, ':');
        let (arn, partition) = (parts.next()?, parts.next()?);
        let (service, region, account, name) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let is_arn = arn == "arn" && partition.starts_with("aws") && !service.is_empty() && !name.is_empty();
        is_arn.then(|| Self { service, region, account, name: decoded(name) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_of_a_queue_ends_with_account_and_name() {
        let parse = |url| parse_queue_url(url).map(|(account, name)| (account.to_owned(), name.into_owned()));
        let of = |account: &str, name: &str| Some((account.to_owned(), name.to_owned()));
        assert_eq!(parse("http://localhost:9324/000000000000/q.fifo"), of("000000000000", "q.fifo"));
        assert_eq!(parse("https://sqs.eu-west-1.amazonaws.com/1/a%20b/"), of("1", "a b"));
        assert_eq!(parse("/1/q"), of("1", "q"));
        assert_eq!(parse("1/q"), of("1", "q"));
        assert_eq!(parse("q"), None);
        assert_eq!(parse(""), None);
        assert_eq!(decoded(&encoded("amq.gen-x/ä")), "amq.gen-x/ä");
    }

    #[test]
    fn arn_has_six_parts() {
        let arn = Arn::parse("arn:aws:sqs:eu-west-1:000000000000:a%3Ab").unwrap();
        assert_eq!((arn.service, arn.region, arn.account, &*arn.name), ("sqs", "eu-west-1", "000000000000", "a:b"));
        let topic = Arn::parse("arn:aws:sns:r:1:t:some-id").unwrap();
        assert_eq!(&*topic.name, "t:some-id");
        for text in ["", "arn:aws:sqs:r:1", "arn:aws:sqs:r:1:", "arm:aws:sqs:r:1:q"] {
            assert_eq!(Arn::parse(text), None, "{text}");
        }
    }
}
