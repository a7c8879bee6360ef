//! SEND: a frame becomes a message, or several if its destination is composite.

use super::{
    super::super::{
        codec::{self, Head},
        publish::{build, put_route},
        reply::Refusal,
        session::{Body, Flow},
    },
    Speaker,
    destination::{self, Destination, is_pattern, matches, put_composite},
    message::{CONTENT_LENGTH, EXPIRES, ORIGINAL_DESTINATION, REPLY_TO, TIMESTAMP_IN_MS},
    queues, refusal, unknown_transaction,
};
use crate::{
    broker::{
        message::{Traits, Ttl},
        schedule::{Repeats, Schedule, cron::Cron},
        turn::Turn,
        value::Headers,
    },
    protocol::{amqp::properties::Fields, jms},
};

/// The destination of the last SEND: most go where the one before went.
#[derive(Default)]
pub(super) struct Destined {
    text: Vec<u8>,
    /// Routes, and the name of the queue that must be there for one.
    routes: Vec<(Vec<u8>, Option<String>)>,
    /// What a composite destination is told as.
    composite: Option<Vec<u8>>,
}

/// What a frame says of its message.
struct Said {
    content_type: Option<Vec<u8>>,
    content_encoding: Option<Vec<u8>>,
    app_id: Option<Vec<u8>>,
    correlation_id: Option<Vec<u8>>,
    message_type: Option<Vec<u8>>,
    reply_to: Option<Vec<u8>>,
    is_persistent: bool,
    priority: Option<u8>,
    timestamp_ms: u64,
    /// When it expires; zero for never.
    expires_ms: u64,
    /// All else, encoded as headers.
    headers: Vec<u8>,
    /// It is to be published later.
    schedule: Option<Schedule>,
}

/// Queues that one SEND to a pattern goes to.
const MATCHES_MAX: usize = 1024;

impl Speaker<'_> {
    pub(super) fn send(&mut self, head: &Head<'_>, body: Body<'_>, turn: &mut Turn<'_>) -> Result<Flow, Refusal> {
        let Some(text) = head.get("destination") else {
            return Err(Refusal::new("SEND received without a Destination specified!", ""));
        };
        let transaction = head.get("transaction");
        let said = self.read_send(head, &body, turn)?;
        if let Some(name) = &transaction
            && !self.has_transaction(name)
        {
            return Err(unknown_transaction(name));
        }
        if self.activemq.destined.text != *text || !self.is_destined() {
            self.destine(&text, turn)?;
        }
        self.activemq.sent_count += 1;
        let message_id = format!("{}:-1:1:{}", self.session_id, self.activemq.sent_count);
        let user = self.login.as_ref().filter(|_| self.options().populate_user_id).map(|login| login.user.clone());
        let ttl = (said.expires_ms > 0).then(|| said.expires_ms.saturating_sub(turn.now.0));
        let expiration = ttl.map(|ms| ms.to_string());
        let fields = Fields {
            content_type: said.content_type.as_deref(),
            content_encoding: said.content_encoding.as_deref(),
            delivery_mode: said.is_persistent.then_some(2),
            priority: said.priority,
            correlation_id: said.correlation_id.as_deref(),
            reply_to: said.reply_to.as_deref(),
            expiration: expiration.as_deref().map(str::as_bytes),
            message_id: Some(message_id.as_bytes()),
            timestamp: Some(said.timestamp_ms / 1000),
            message_type: said.message_type.as_deref(),
            user_id: user.as_ref().map(|user| user.name.as_bytes()),
            app_id: said.app_id.as_deref(),
            headers: (0, 0),
        };
        let traits = Traits {
            persistent: said.is_persistent,
            priority: said.priority.unwrap_or(0),
            ttl: ttl.map_or(Ttl::NONE, |ms| if ms == 0 { Ttl::EXPIRED } else { Ttl::of_ms(ms) }),
            has_group: jms::has_group(Headers::new(&said.headers)),
        };
        let mut headers = said.headers;
        if said.schedule.is_some() {
            put_text(b"scheduledJobId", message_id.as_bytes(), &mut headers);
        }
        let rest = (head, transaction, said.schedule);
        // Nobody gets what has expired already, and the queue of the dead is for what is persistent.
        if ttl == Some(0) && !said.is_persistent {
            return self.send_to(&Destined::default(), (&fields, traits), headers, body, rest, turn);
        }
        let destined = std::mem::take(&mut self.activemq.destined);
        let sent = self.send_to(&destined, (&fields, traits), headers, body, rest, turn);
        self.activemq.destined = destined;
        sent
    }

    /// Sends a message to all parts of a destination.
    fn send_to(
        &mut self,
        destined: &Destined,
        (fields, traits): (&Fields<'_>, Traits),
        mut headers: Vec<u8>,
        body: Body<'_>,
        (head, transaction, schedule): (&Head<'_>, Option<std::borrow::Cow<'_, [u8]>>, Option<Schedule>),
        turn: &mut Turn<'_>,
    ) -> Result<Flow, Refusal> {
        if let Some(composite) = &destined.composite {
            put_text(ORIGINAL_DESTINATION, composite, &mut headers);
        }
        let receipt = head.get("receipt").map(|id| id.into_owned());
        let last = destined.routes.len().saturating_sub(1);
        let mut parts = body;
        for (index, (route, _)) in destined.routes.iter().enumerate() {
            let body = match &mut parts {
                Body::Inline(block, at, len) => Body::Inline(block, *at, *len),
                Body::Parts(parts) if index == last => Body::Parts(std::mem::take(parts)),
                Body::Parts(parts) => Body::Parts(parts.to_vec()),
            };
            let message = build(route, fields, &headers, traits, body);
            match (&transaction, &schedule) {
                (None, Some(schedule)) => {
                    // It is in the log behind what was sent before it.
                    self.settle_up(turn);
                    self.schedule(&message, schedule, turn)?;
                }
                (Some(name), Some(schedule)) => {
                    if !self.schedule_at_commit(name, message, schedule.clone())? {
                        return Err(unknown_transaction(name));
                    }
                }
                (Some(name), None) => {
                    if !self.send_at_commit(name, message, None)? {
                        return Err(unknown_transaction(name));
                    }
                }
                (None, None) => self.publish(message, receipt.clone().filter(|_| index == last), turn)?,
            }
        }
        if transaction.is_some() || destined.routes.is_empty() {
            // Nothing has happened that an answer could promise; clients wait for one before they commit.
            self.settle_up(turn);
            turn.take_gate();
            self.receipt(head, turn);
        } else if schedule.is_some() {
            self.receipt(head, turn);
        }
        Ok(Flow::Done)
    }

    /// Whether the queues of the last destination are still there.
    fn is_destined(&self) -> bool {
        let Some(vhost) = &self.vhost else { return false };
        let destined = &self.activemq.destined;
        !destined.routes.is_empty()
            && destined.routes.iter().all(|(_, queue)| queue.as_ref().is_none_or(|name| vhost.queue(name).is_some()))
    }

    /// Finds out where a destination leads; queues are declared for the first SEND to them.
    fn destine(&mut self, text: &[u8], turn: &mut Turn<'_>) -> Result<(), Refusal> {
        if text.trim_ascii().is_empty() {
            return Err(destination::empty());
        }
        let parts = Destination::parse(text)?;
        let topic_exchange = self.options().default_topic_exchange.clone().into_bytes();
        let mut destined = Destined { text: text.to_vec(), ..Destined::default() };
        for part in &parts {
            self.advise_topic(part, turn);
            let (exchange, keys) = match part {
                Destination::Queue(name) if is_pattern(name) => {
                    // All that there are; what stands for queues is none itself.
                    destined.text.clear();
                    (&[][..], self.matching(name)?)
                }
                Destination::Queue(name) => {
                    self.ensure_queue(queues::text(name)?, turn)?;
                    (&[][..], vec![name.clone()])
                }
                Destination::Topic(name) | Destination::RemoteTempTopic(name) => {
                    (&topic_exchange[..], vec![name.clone()])
                }
                Destination::TempQueue(_) => (&[][..], vec![self.temporary(part, turn)?.as_bytes().to_vec()]),
                Destination::TempTopic(_) => {
                    (&topic_exchange[..], vec![self.temporary(part, turn)?.as_bytes().to_vec()])
                }
                Destination::RemoteTempQueue(name) => {
                    self.check_remote(name)?;
                    (&[][..], vec![name.clone()])
                }
            };
            for key in keys {
                let mut route = Vec::with_capacity(2 + exchange.len() + key.len());
                put_route(exchange, &key, &mut route);
                let queue = part.is_queue().then(|| String::from_utf8_lossy(&key).into_owned());
                // A destination that is said twice is one.
                if destined.routes.iter().all(|(other, _)| *other != route) {
                    destined.routes.push((route, queue));
                }
            }
        }
        if parts.len() > 1 {
            let names: Vec<&[u8]> = parts.iter().map(|part| self.real_name(part)).collect();
            let mut composite = Vec::new();
            put_composite(&parts, names.into_iter(), &mut composite);
            destined.composite = Some(composite);
        }
        self.activemq.destined = destined;
        Ok(())
    }

    /// Names of queues that fit a pattern and that everybody may use.
    pub(super) fn matching(&self, pattern: &[u8]) -> Result<Vec<Vec<u8>>, Refusal> {
        let vhost = self.vhost()?;
        let mut names: Vec<Vec<u8>> = vhost
            .queues()
            .iter()
            .filter(|queue| super::subscribe::is_common(queue) && matches(pattern, queue.name.as_bytes()))
            .map(|queue| queue.name.as_bytes().to_vec())
            .collect();
        names.sort();
        names.truncate(MATCHES_MAX);
        Ok(names)
    }

    fn read_send(&mut self, head: &Head<'_>, body: &Body<'_>, turn: &mut Turn<'_>) -> Result<Said, Refusal> {
        let mut said = Said {
            content_type: None,
            content_encoding: None,
            app_id: None,
            correlation_id: None,
            message_type: None,
            reply_to: None,
            is_persistent: false,
            priority: None,
            timestamp_ms: turn.now.0,
            expires_ms: 0,
            headers: Vec::new(),
            schedule: None,
        };
        let mut plan = Plan::default();
        let mut is_bytes = false;
        for (name, value) in head.iter() {
            match &*name {
                b"destination" | b"transaction" | b"receipt" => {}
                // What these say of a message is ours to say.
                b"message-id"
                | b"redelivered"
                | b"subscription"
                | b"JMSXUserID"
                | b"ack"
                | b"original-destination"
                | b"dlqDeliveryFailureCause"
                | b"originalExpiration"
                | b"browser" => {}
                b"content-type" if value.len() < 256 => said.content_type = Some(value.into_owned()),
                b"content-encoding" if value.len() < 256 => said.content_encoding = Some(value.into_owned()),
                b"app-id" if value.len() < 256 => said.app_id = Some(value.into_owned()),
                b"correlation-id" | b"JMSCorrelationID" if value.len() < 256 => {
                    said.correlation_id = Some(value.into_owned());
                }
                b"type" | b"JMSType" if value.len() < 256 => said.message_type = Some(value.into_owned()),
                b"reply-to" | b"JMSReplyTo" => {
                    let to = self.reply_to(&value, turn)?;
                    // A name without a prefix means a queue, and is told to STOMP clients as it was written.
                    if to == *value && !to.is_empty() && !to.starts_with(b"/") {
                        put_text(REPLY_TO, &value, &mut said.headers);
                    }
                    said.reply_to = Some(to);
                }
                b"persistent" => said.is_persistent = &*value == b"true",
                b"JMSDeliveryMode" => said.is_persistent = matches!(&*value, b"2" | b"PERSISTENT"),
                b"JMSRedelivered" => {}
                b"priority" | b"JMSPriority" => said.priority = Some(number(&value)?.clamp(0, 9) as u8),
                b"timestamp" | b"JMSTimestamp" => said.timestamp_ms = u64::try_from(number(&value)?).unwrap_or(0),
                b"expires" | b"JMSExpiration" => said.expires_ms = u64::try_from(number(&value)?).unwrap_or(0),
                b"content-length" => is_bytes = true,
                b"AMQ_SCHEDULED_DELAY" => plan.delay_ms = Some(plain_number(&value)?),
                b"AMQ_SCHEDULED_PERIOD" => plan.period_ms = Some(plain_number(&value)?),
                b"AMQ_SCHEDULED_REPEAT" => plan.repeat = plain_number(&value)?,
                b"AMQ_SCHEDULED_CRON" => plan.cron = Some(cron(&value)?),
                b"scheduledJobId" => {}
                _ if name.starts_with(b"x-death") || *name == *TIMESTAMP_IN_MS => {}
                _ => {
                    if &*name == b"amq-msg-type" {
                        match value.to_ascii_lowercase().as_slice() {
                            b"text" => {}
                            b"bytes" => is_bytes = true,
                            _ => {
                                let kind = String::from_utf8_lossy(&value);
                                return Err(refusal(format!("Unsupported message type '{kind}'")));
                            }
                        }
                    }
                    if name.len() > u8::MAX.into() {
                        return Err(Refusal::new("Names of headers have at most 255 bytes", ""));
                    }
                    put_text(&name, &value, &mut said.headers);
                }
            }
        }
        said.schedule = plan.schedule();
        put_number(TIMESTAMP_IN_MS, said.timestamp_ms, &mut said.headers);
        if said.expires_ms > 0 {
            put_number(EXPIRES, said.expires_ms, &mut said.headers);
        }
        if is_bytes {
            let len = match body {
                Body::Inline(_, _, len) => *len,
                Body::Parts(parts) => parts.iter().map(|part| part.len()).sum(),
            };
            put_text(CONTENT_LENGTH, len.to_string().as_bytes(), &mut said.headers);
        }
        Ok(said)
    }

    /// Where answers go, in AMQP's words: the name of a queue, or else what was written.
    fn reply_to(&mut self, text: &[u8], turn: &mut Turn<'_>) -> Result<Vec<u8>, Refusal> {
        let Ok(parts) = Destination::parse(text) else { return Ok(text.to_vec()) };
        let name = match &parts[..] {
            [Destination::Queue(name)] if text.trim_ascii().starts_with(b"/queue/") => name.clone(),
            [part @ Destination::TempQueue(_)] => self.temporary(part, turn)?.as_bytes().to_vec(),
            [part @ Destination::TempTopic(_)] => {
                [b"/remote-temp-topic/", self.temporary(part, turn)?.as_bytes()].concat()
            }
            [Destination::RemoteTempQueue(name)] => name.clone(),
            [_, _, ..] if text.starts_with(b"/") => {
                let mut composite = Vec::new();
                put_composite(&parts, parts.iter().map(|part| self.real_name(part)), &mut composite);
                composite
            }
            _ => text.to_vec(),
        };
        if name.len() > u8::MAX.into() {
            return Err(Refusal::new("reply-to has at most 255 bytes", ""));
        }
        Ok(name)
    }
}

/// What a frame says of when its message is to be published.
#[derive(Default)]
struct Plan {
    delay_ms: Option<i64>,
    period_ms: Option<i64>,
    repeat: i64,
    cron: Option<Cron>,
}

impl Plan {
    fn schedule(self) -> Option<Schedule> {
        if self.delay_ms.is_none() && self.period_ms.is_none() && self.cron.is_none() {
            return None;
        }
        let ms = |ms: Option<i64>| ms.and_then(|ms| u64::try_from(ms).ok()).unwrap_or(0);
        let repeats = match self.repeat {
            ..0 => Repeats::Forever,
            times => Repeats::Times(u32::try_from(times).unwrap_or(u32::MAX)),
        };
        let (delay_ms, period_ms) = (ms(self.delay_ms), ms(self.period_ms));
        Some(Schedule { delay_ms, period_ms, repeats, cron: self.cron })
    }
}

fn cron(text: &[u8]) -> Result<Cron, Refusal> {
    Cron::parse(&String::from_utf8_lossy(text)).map_err(|error| refusal(error.to_string()))
}

/// A number; one that is none is refused and no more.
fn plain_number(text: &[u8]) -> Result<i64, Refusal> {
    number(text).map_err(|refusal| Refusal { is_fatal: false, ..refusal })
}

/// A number; ActiveMQ closes the connection over one that is none.
fn number(text: &[u8]) -> Result<i64, Refusal> {
    codec::integer(text).ok_or_else(|| Refusal {
        is_fatal: true,
        ..refusal(format!("For input string: \"{}\"", String::from_utf8_lossy(text)))
    })
}

pub(super) fn put_text(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.push(name.len() as u8);
    out.extend_from_slice(name);
    out.push(b'S');
    out.extend_from_slice(&(value.len() as u32).to_be_bytes());
    out.extend_from_slice(value);
}

pub(super) fn put_number(name: &[u8], value: u64, out: &mut Vec<u8>) {
    out.push(name.len() as u8);
    out.extend_from_slice(name);
    out.push(b'l');
    out.extend_from_slice(&value.to_be_bytes());
}
