//! SEND: a frame becomes a message.

use super::{
    super::super::{
        codec::Head,
        publish::{build, put_route},
        reply::{self, Refusal},
        session::{Body, Flow, Session},
    },
    destination::Destination,
    properties::Said,
    transaction::unknown,
};
use crate::{
    broker::{
        message::{Message, Traits, Ttl},
        turn::Turn,
    },
    protocol::amqp::publish::{REPLY_TO, parse_expiration},
};

/// The destination of the last SEND: most go where the one before went.
#[derive(Default)]
pub(super) struct Destined {
    text: Vec<u8>,
    /// Exchange and key, each with its length in front.
    route: Vec<u8>,
}

impl Session {
    pub(super) fn send(&mut self, head: &Head<'_>, body: Body<'_>, turn: &mut Turn<'_>) -> Result<Flow, Refusal> {
        if head.get("message-id").is_some() {
            return Err(Refusal::new("Invalid header", "'message-id' is not allowed on 'SEND'.\n"));
        }
        let Some(destination) = head.get("destination") else {
            return Err(Refusal::new("Missing destination", "\"SEND\" must include a 'destination' header\n"));
        };
        if self.rabbitmq.destined.route.is_empty() || self.rabbitmq.destined.text != *destination {
            self.destine(&destination, head, turn)?;
        }
        let mut said = Said::read(head)?;
        let mut is_temporary = false;
        if let Some(to) = said.reply_to() {
            // Others than those of this connection are forwarded as they are.
            if let Destination::TempQueue(name) = Destination::parse(to).map_err(|_| Refusal::processing())? {
                is_temporary = true;
                let queue = self.reply_queue(&name, turn)?;
                said.set_reply_to(queue.as_bytes());
            }
        }
        let message = self.message(&said, body)?;
        let receipt = head.get("receipt").map(|id| id.into_owned());
        let transaction = head.get("transaction");
        if receipt.is_none() && transaction.is_none() && !is_temporary && said.user_id().is_none() {
            self.repeated.set(head, &message);
        }
        match transaction {
            Some(name) => {
                if !self.send_at_commit(&name, message, receipt)? {
                    return Err(unknown(&name));
                }
            }
            None => self.publish(message, receipt, turn)?,
        }
        Ok(Flow::Done)
    }

    /// Finds out where a destination leads; a queue is declared for the first SEND to it.
    fn destine(&mut self, text: &[u8], head: &Head<'_>, turn: &mut Turn<'_>) -> Result<(), Refusal> {
        let destination = Destination::parse(text)?;
        self.ensure(&destination, "SEND", text, head, turn)?;
        let topic_exchange = self.options().default_topic_exchange.clone();
        let (exchange, key) = destination.route(&topic_exchange);
        if exchange.len() > u8::MAX.into() || key.len() > u8::MAX.into() {
            return Err(Refusal::processing());
        }
        let mut route = Vec::with_capacity(2 + exchange.len() + key.len());
        put_route(exchange, key, &mut route);
        self.repeated.clear();
        self.rabbitmq.destined = Destined { text: text.to_vec(), route };
        Ok(())
    }

    /// The message that a SEND to the present destination makes.
    fn message(&self, said: &Said<'_>, body: Body<'_>) -> Result<Message, Refusal> {
        let fields = said.fields()?;
        let mut traits = Traits {
            persistent: fields.delivery_mode == Some(2),
            priority: fields.priority.unwrap_or(0),
            ..Traits::default()
        };
        if let (Some(user_id), Some(login)) = (said.user_id(), &self.login)
            && user_id != login.user.name.as_bytes()
            && !login.user.is_impersonator()
        {
            return Err(reply::precondition_failed(format!(
                "user_id property set to '{}' but authenticated user was '{}'",
                String::from_utf8_lossy(user_id),
                login.user.name
            )));
        }
        if let Some(expiration) = said.expiration() {
            traits.ttl = Ttl::of_ms(parse_expiration(expiration).map_err(reply::precondition_failed)?);
        }
        if let Some(name) = said.copies {
            let text = format!("invalid message: {{unacceptable_type_in_header,\"{name}\",longstr}}");
            return Err(reply::precondition_failed(text));
        }
        if said.reply_to() == Some(REPLY_TO.as_bytes()) {
            return Err(reply::precondition_failed("fast reply consumer does not exist"));
        }
        Ok(build(&self.rabbitmq.destined.route, &fields, &said.headers, traits, body))
    }
}
