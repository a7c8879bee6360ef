//! The operations of SNS on exchanges and bindings of the broker.
//!
//! - `topic` and `topics`: topics, which are exchanges, and what SNS knows of them;
//! - `permissions`: their access policies; `delivery_policy`: how often a delivery is tried;
//! - `subscription` and `subscribe`: subscriptions, which are bindings; `confirmation`: endpoints that are asked first;
//! - `publish`: messages in; `envelope` and `signing`: the form in which they go out;
//! - `archive` and `replay`: what FIFO topics keep, and deliver again;
//! - `outbox`: what waits for a deliverer; `handover`: what a webhook or a mail relay is handed of it;
//! - `platform` and `sms`: mobile push and text messages;
//! - `arn`, `page` and `store`: what all of them use.

mod archive;
mod arn;
mod confirmation;
pub mod deliveries;
mod delivery_policy;
pub mod envelope;
pub mod handover;
pub mod outbox;
mod page;
mod permissions;
mod platform;
mod publish;
pub mod replay;
pub mod retries;
pub mod rsa_signer;
pub mod signing;
mod sms;
mod store;
mod subscribe;
pub mod subscription;
mod topic;
mod topics;

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
};

use parking_lot::Mutex;

use super::{
    Aws, Options,
    call::Handler,
    pages::{Page, Request},
    policy::Policy,
};
use crate::broker::Broker;
use envelope::Envelope;
use signing::{Signer, Unsigned};
pub(super) use subscription::policy_changed;

/// What is kept between calls.
#[derive(Default)]
pub struct State {
    envelope: OnceLock<Arc<Envelope>>,
    signer: OnceLock<Arc<dyn Signer>>,
    bindings: publish::Bindings,
    named: publish::Named,
    /// Access policies of topics by their texts.
    policies: Mutex<HashMap<String, Arc<Policy>>>,
    /// Archived messages on their way to subscriptions.
    pub replays: replay::Replays,
    /// How deliveries over HTTP have gone.
    pub outcomes: deliveries::Outcomes,
}

/// Compiled policies that are remembered. Full: all are forgotten.
const POLICIES_MAX: usize = 1_000;

/// Components whose parameters hold what SNS knows.
const COMPONENTS: [&str; 7] = [
    subscription::COMPONENT,
    replay::COMPONENT,
    "sns-platform-application",
    "sns-platform-endpoint",
    "sns-sms-attributes",
    "sns-sandbox-number",
    sms::OPTED_OUT,
];

impl State {
    /// Has a broker keep what SNS knows and render what topics deliver. Addresses in messages begin with `base_url`
    /// until a client shows how it reaches this broker. Called once, before anybody publishes.
    pub fn begin(&self, broker: &Broker, options: &Options, signer: Arc<dyn Signer>, base_url: &str) {
        COMPONENTS.iter().for_each(|component| broker.parameters.register(component));
        subscription::Subscription::index(broker);
        let accounts = options.clone();
        let account = move |vhost: &str| accounts.account_of(vhost).unwrap_or(&accounts.account).to_owned();
        let envelope = Arc::new(Envelope::new(signer.clone(), base_url, &options.region, account));
        broker.attach_renderer(envelope.clone());
        self.signer.get_or_init(|| signer);
        self.envelope.get_or_init(|| envelope);
    }

    /// Forgets what calls and deliveries have left; the key for signing stays.
    pub fn reset(&self) {
        self.replays.clear();
        self.outcomes.clear();
        self.named.clear();
        self.bindings.clear();
        self.policies.lock().clear();
    }

    /// Who signs.
    pub fn signer(&self) -> Arc<dyn Signer> {
        self.signer.get().cloned().unwrap_or_else(|| Arc::new(Unsigned))
    }

    /// Calls are taken here: addresses in messages begin with it until a client shows another way.
    pub fn listens_on(&self, address: std::net::SocketAddr) {
        let host = if address.ip().is_unspecified() { "localhost".to_owned() } else { address.ip().to_string() };
        let host = if address.is_ipv6() && host.contains(':') { format!("[{host}]") } else { host };
        self.reached_by(&format!("http://{host}:{}", address.port()).into());
    }

    /// An access policy, compiled; one that makes no sense says nothing.
    fn policy(&self, text: &str) -> Arc<Policy> {
        let mut known = self.policies.lock();
        if let Some(policy) = known.get(text) {
            return policy.clone();
        }
        if known.len() >= POLICIES_MAX {
            known.clear();
        }
        let policy = Arc::new(topic::own_policy(text));
        known.insert(text.to_owned(), policy.clone());
        policy
    }

    /// A client reaches this broker like this.
    fn reached_by(&self, base_url: &Arc<str>) {
        if let Some(envelope) = self.envelope.get() {
            envelope.reached_by(base_url);
        }
    }
}

/// Operations by name, and who does them.
pub const OPERATIONS: &[(&str, Handler)] = &[
    ("AddPermission", permissions::add),
    ("CheckIfPhoneNumberIsOptedOut", sms::is_opted_out),
    ("ConfirmSubscription", subscribe::confirm),
    ("CreatePlatformApplication", platform::create_application),
    ("CreatePlatformEndpoint", platform::create_endpoint),
    ("CreateSMSSandboxPhoneNumber", sms::create_sandbox),
    ("CreateTopic", topics::create),
    ("DeleteEndpoint", platform::delete_endpoint),
    ("DeletePlatformApplication", platform::delete_application),
    ("DeleteSMSSandboxPhoneNumber", sms::delete_sandbox),
    ("DeleteTopic", topics::delete),
    ("GetDataProtectionPolicy", topics::get_data_protection),
    ("GetEndpointAttributes", platform::get_endpoint),
    ("GetPlatformApplicationAttributes", platform::get_application),
    ("GetSMSAttributes", sms::get_attributes),
    ("GetSMSSandboxAccountStatus", sms::sandbox_status),
    ("GetSubscriptionAttributes", subscribe::get_attributes),
    ("GetTopicAttributes", topics::get_attributes),
    ("ListEndpointsByPlatformApplication", platform::list_endpoints),
    ("ListOriginationNumbers", sms::origination_numbers),
    ("ListPhoneNumbersOptedOut", sms::list_opted_out),
    ("ListPlatformApplications", platform::list_applications),
    ("ListSMSSandboxPhoneNumbers", sms::list_sandbox),
    ("ListSubscriptions", subscribe::list),
    ("ListSubscriptionsByTopic", subscribe::list_by_topic),
    ("ListTagsForResource", topics::list_tags),
    ("ListTopics", topics::list),
    ("OptInPhoneNumber", sms::opt_in),
    ("Publish", publish::publish),
    ("PublishBatch", publish::publish_batch),
    ("PutDataProtectionPolicy", topics::put_data_protection),
    ("RemovePermission", permissions::remove),
    ("SetEndpointAttributes", platform::set_endpoint),
    ("SetPlatformApplicationAttributes", platform::set_application),
    ("SetSMSAttributes", sms::set_attributes),
    ("SetSubscriptionAttributes", subscribe::set_attribute),
    ("SetTopicAttributes", topics::set_attribute),
    ("Subscribe", subscribe::subscribe),
    ("TagResource", topics::tag),
    ("Unsubscribe", subscribe::unsubscribe),
    ("UntagResource", topics::untag),
    ("VerifySMSSandboxPhoneNumber", sms::verify_sandbox),
];

/// A page under `/_tern/sns/`.
pub fn page(aws: &Aws, broker: &Broker, request: &Request<'_>) -> Option<Page> {
    match (request.method, request.path) {
        // It shows messages of everybody.
        ("GET", "sns/outbox") if request.is_trusted => Some(outbox::page(aws, broker, request)),
        ("POST", "sns/opt-out") if request.is_trusted => Some(sms::opt_out(aws, broker, request)),
        ("GET", "sns/deliveries") if request.is_trusted => Some(deliveries::page(aws, broker)),
        ("GET", path) => {
            let certificate = aws.sns.signer().certificate(path.strip_prefix("sns/")?)?;
            Some(Page { status: 200, content_type: "application/x-pem-file", body: certificate.into_bytes() })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
