//! ACK and NACK: which delivery a client means, and what becomes of it.
//!
//! A NACK means that the message can never be worked off: a persistent one goes to the queue of the dead at
//! once, another is dropped. It can be no part of a transaction.

use super::{
    super::super::{
        codec::Head,
        reply::Refusal,
        session::{Flow, Version},
        settle::Verdict,
    },
    Speaker, refusal, unknown_transaction,
};
use crate::broker::{consumer::Settle, turn::Turn};

impl Speaker<'_> {
    pub(super) fn acknowledge(&mut self, head: &Head<'_>, is_ack: bool, turn: &mut Turn<'_>) -> Result<Flow, Refusal> {
        let missing = |text: &'static str| Err(Refusal::new(text, ""));
        if !is_ack && self.version == Version::V1_0 {
            return missing("NACK received but connection is in v1.0 mode.");
        }
        let is_newest = self.version == Version::V1_2;
        let (id, message_id, subscription) = (head.get("id"), head.get("message-id"), head.get("subscription"));
        let lacks_subscription = subscription.is_none() && self.version == Version::V1_1;
        match (is_ack, &id, &message_id) {
            (true, None, _) if is_newest => return missing("ACK received without a ack id for acknowledge!"),
            (false, None, _) if is_newest => return missing("NACK received without an ack header to acknowledge!"),
            (true, _, None) if !is_newest => return missing("ACK received without a message-id to acknowledge!"),
            (true, ..) if lacks_subscription => {
                return missing("ACK received without a subscription id for acknowledge!");
            }
            (false, ..) if lacks_subscription => {
                return missing("NACK received without a subscription id for acknowledge!");
            }
            (false, _, None) if !is_newest => return missing("NACK received without a message-id to acknowledge!"),
            _ => {}
        }
        let transaction = head.get("transaction");
        if let Some(name) = &transaction
            && !self.has_transaction(name)
        {
            return Err(unknown_transaction(name));
        }
        let tag = match &id {
            Some(id) if is_newest => self.tag_of_ack(id),
            _ => self.tag_of_message(message_id.as_deref().unwrap_or_default(), subscription.as_deref()),
        };
        let Some(tag) = tag else {
            if self.is_shown(id.as_deref(), subscription.as_deref()) {
                self.settle_up(turn);
                self.receipt(head, turn);
                return Ok(Flow::Done);
            }
            let command = if is_ack { "ACK" } else { "NACK" };
            let id = message_id.as_deref().map_or("null".into(), String::from_utf8_lossy);
            return Err(refusal(format!("Unexpected {command} received for message-id [{id}]")));
        };
        if !is_ack && transaction.is_some() {
            return Err(Refusal::new("Poison ack cannot be transacted", ""));
        }
        let mut tags = Tags::new();
        // A NACK is always about one message.
        if is_ack {
            self.earlier_tags(tag, &mut tags);
        }
        tags.push(tag);
        let how = if is_ack { Settle::Accepted } else { Settle::Rejected };
        for tag in tags {
            let verdict = Verdict { tag, is_cumulative: false, how, is_lenient: true };
            match &transaction {
                Some(name) => {
                    if !self.settle_at_commit(name, verdict)? {
                        return Err(unknown_transaction(name));
                    }
                    self.lend(name, tag, turn);
                }
                None => self.settle(verdict)?,
            }
        }
        if head.get("receipt").is_some() {
            // What was said before has had its answer by then; this one waits for this frame alone.
            self.settle_up(turn);
            self.receipt(head, turn);
        }
        Ok(Flow::Done)
    }

    /// The delivery that `ack` named.
    fn tag_of_ack(&self, id: &[u8]) -> Option<u64> {
        let number = id.strip_prefix(self.session_id.as_bytes())?.strip_prefix(b":")?;
        let tag = std::str::from_utf8(number).ok()?.parse().ok()?;
        self.shared.output().wire.ledger.contains(tag).then_some(tag)
    }

    /// Whether a browser was shown it, which some clients acknowledge as all else.
    fn is_shown(&self, id: Option<&[u8]>, subscription: Option<&[u8]>) -> bool {
        if self.version == Version::V1_2 {
            let number = id.and_then(|id| id.strip_prefix(self.session_id.as_bytes()));
            return number == Some(b":0");
        }
        let number = subscription.and_then(|id| self.activemq.by_id.get(id));
        number.and_then(|number| self.activemq.subscriptions.get(number)).is_some_and(|one| one.is_browser())
    }

    /// The oldest delivery of a message that is not settled, of one subscription or of any.
    fn tag_of_message(&self, id: &[u8], subscription: Option<&[u8]>) -> Option<u64> {
        let group = match subscription {
            None => None,
            Some(subscription) => Some(*self.activemq.by_id.get(subscription)?),
        };
        self.shared.output().wire.find_delivery(id, group)
    }

    /// What an acknowledgement of a delivery stands for besides: all that its subscription holds and was delivered
    /// before.
    fn earlier_tags(&self, tag: u64, tags: &mut Tags) {
        let output = self.shared.output();
        let wire = &output.wire;
        let subscription = |source| wire.subscription(source);
        let Some(own) = wire.ledger.source_of(tag).and_then(subscription) else { return };
        if own.is_cumulative {
            let is_of = |source| subscription(source).is_some_and(|one| one.group == own.group);
            wire.ledger.earlier(tag, is_of, |tag| tags.push(tag));
        }
    }
}

/// Tags of deliveries; mostly it is one.
type Tags = smallvec::SmallVec<[u64; 4]>;
