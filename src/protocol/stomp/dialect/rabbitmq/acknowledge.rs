//! ACK and NACK: from what a message was called to its delivery.

use super::{
    super::super::{
        codec::{self, Head},
        reply::{self, Refusal},
        session::{Flow, Session, Version},
        settle::Verdict,
    },
    properties::boolean,
    transaction::unknown,
};
use crate::broker::{consumer::Settle, turn::Turn};

impl Session {
    pub(super) fn acknowledge(&mut self, head: &Head<'_>, is_ack: bool, turn: &mut Turn<'_>) -> Result<Flow, Refusal> {
        let command = if is_ack { "ACK" } else { "NACK" };
        let header = if self.version == Version::V1_2 { "id" } else { "message-id" };
        let Some(message_id) = head.get(header) else {
            let detail = format!("\"{command}\" must include the \"{header}\" header\n");
            return Err(Refusal::new("Missing header", detail));
        };
        let Some((consumer_tag, tag)) = split_message_id(&message_id) else {
            let detail = format!("\"{command}\" must include a valid \"{header}\" header\n");
            return Err(Refusal::new("Invalid header", detail));
        };
        let tag = tag.ok_or_else(Refusal::processing)?;
        let Some(subscription) = self.subscriptions.get(consumer_tag) else {
            let detail = format!("Message with id {} has no subscription", reply::quoted(&message_id));
            return Err(Refusal::new("Subscription not found", detail));
        };
        let requeues = head.get("requeue").as_deref().and_then(boolean).unwrap_or(self.options().default_nack_requeue);
        let how = match (is_ack, requeues) {
            (true, _) => Settle::Accepted,
            (false, true) => Settle::Requeued,
            (false, false) => Settle::Rejected,
        };
        let verdict = Verdict { tag, is_cumulative: subscription.is_cumulative, how, is_lenient: false };
        match head.get("transaction") {
            Some(name) if !self.settle_at_commit(&name, verdict)? => return Err(unknown(&name)),
            Some(_) => {}
            None => self.settle(verdict)?,
        }
        if head.get("receipt").is_some() {
            // What was said before has had its answer by then; this one waits for this frame alone.
            self.settle_up(turn);
            self.receipt(head, turn);
        }
        Ok(Flow::Done)
    }
}

/// `TAG@@SESSION@@NUMBER`: the consumer tag, and the number if it is one.
fn split_message_id(id: &[u8]) -> Option<(&[u8], Option<u64>)> {
    let split = |text: &[u8]| text.windows(2).position(|pair| pair == b"@@");
    let first = split(id)?;
    let rest = &id[first + 2..];
    let second = split(rest)?;
    let number = &rest[second + 2..];
    if split(number).is_some() {
        return None;
    }
    Some((&id[..first], codec::integer(number).and_then(|number| u64::try_from(number).ok())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_ids_have_three_parts() {
        for (id, expected) in [
            ("T_0@@session-x@@17", Some(("T_0", Some(17)))),
            ("@@@@", Some(("", None))),
            ("T_0@@s@@x", Some(("T_0", None))),
            ("T_0@@s", None),
            ("T_a@@b@@s@@1", None),
            ("", None),
        ] {
            let split = split_message_id(id.as_bytes());
            let expected = expected.map(|(tag, number): (&str, _)| (tag.as_bytes(), number));
            assert_eq!(split, expected, "{id}");
        }
    }
}
