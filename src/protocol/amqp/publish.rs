//! Publishing: content frames become messages, messages are checked and routed, and the batch of
//! one read is placed into its queues and confirmed.

use std::sync::Arc;

use super::{
    channel::{Channel, Confirms, Content, Incoming, Mode, Notes},
    codec::{
        frame::{self, Frame, FrameKind},
        hot,
    },
    output::{Extra, Output},
    properties::{self, Properties, Rewrite, Scan},
    reply::{Code, Failure},
    session::Session,
};
use crate::broker::{
    access::Access,
    block::{Block, Slice},
    consumer::{Settle, Taken},
    exchange::Kind,
    message::{Layout, Message, Traits},
    publish::{self, Batch},
    record::Position,
    route::Route,
    turn::Turn,
    value::{HeadersBuilder, ValueRef},
};

/// Name under which a client consumes, and addresses, replies to itself.
pub(super) const REPLY_TO: &str = "amq.rabbitmq.reply-to";

impl Session {
    pub(super) fn handle_content(&mut self, input: &Block, found: &Frame, turn: &mut Turn<'_>) -> Result<(), Failure> {
        let Some(channel) = self.channels.get_mut(&found.channel) else {
            let text = "expected method frame, got non method frame instead";
            return Err(Failure::connection(Code::UnexpectedFrame, text));
        };
        if channel.is_closing {
            return Ok(());
        }
        let max = self.broker.options.max_message_bytes;
        match std::mem::take(&mut channel.content) {
            Content::Method | Content::Parked => {
                // RabbitMQ tells the method frame that it expected, of whatever type this one is.
                let text = "expected method frame, got non method frame instead";
                Err(Failure::connection(Code::UnexpectedFrame, text))
            }
            Content::Header { block, publish } => {
                if found.kind != FrameKind::Header {
                    let text = format!(
                        "expected content header for class {}, got non content header frame instead",
                        hot::BASIC
                    );
                    return Err(Failure::connection(Code::UnexpectedFrame, text).at((hot::BASIC, 40)));
                }
                let header = hot::content_header(input, found).ok_or_else(|| {
                    Failure::connection(Code::FrameError, frame::unexpected_text(found.kind, found.payload(input)))
                })?;
                if header.class_id != hot::BASIC {
                    let text = format!(
                        "expected content header for class {}, got one for class {} instead",
                        hot::BASIC,
                        header.class_id
                    );
                    return Err(Failure::connection(Code::UnexpectedFrame, text).at((hot::BASIC, 40)));
                }
                if header.body_size > max {
                    let text = format!("message size {} is larger than configured max size {max}", header.body_size);
                    return Err(Failure::channel(Code::PreconditionFailed, text).at((hot::BASIC, 40)));
                }
                let incoming = incoming(&block, &publish, input, &header);
                if header.body_size == 0 {
                    return self.complete(found.channel, incoming, turn);
                }
                channel.content = Content::Body { incoming, missing: header.body_size, parts: Vec::new() };
                Ok(())
            }
            Content::Body { incoming, missing, mut parts } => {
                if found.kind != FrameKind::Body {
                    let text = "expected content body, got non content body frame instead";
                    return Err(Failure::connection(Code::UnexpectedFrame, text).at((hot::BASIC, 40)));
                }
                let len = found.payload_len as u64;
                if len > missing {
                    let text = format!("content body of {len} bytes, expected at most {missing}");
                    return Err(Failure::connection(Code::FrameError, text).at((hot::BASIC, 40)));
                }
                if len == missing && parts.is_empty() {
                    let mut incoming = incoming;
                    incoming.message = if incoming.message.is_in(input) {
                        incoming.message.with_body_inline(found.payload_at, found.payload_len)
                    } else {
                        let part = Slice::new(input.clone(), found.payload_at, found.payload_len);
                        incoming.message.with_body_parts(vec![part])
                    };
                    return self.complete(found.channel, incoming, turn);
                }
                if len > 0 {
                    parts.push(Slice::new(input.clone(), found.payload_at, found.payload_len));
                }
                if len == missing {
                    let mut incoming = incoming;
                    incoming.message = incoming.message.with_body_parts(parts);
                    return self.complete(found.channel, incoming, turn);
                }
                channel.content = Content::Body { incoming, missing: missing - len, parts };
                Ok(())
            }
        }
    }

    /// A whole message has come.
    fn complete(&mut self, number: u16, incoming: Incoming, turn: &mut Turn<'_>) -> Result<(), Failure> {
        if !self.has_published || self.broker.has_alarm() {
            self.note_published();
        }
        let Some(channel) = self.channels.get_mut(&number) else { return Ok(()) };
        if matches!(channel.mode, Mode::Transaction(_)) {
            let checked = self.check_publish(number, incoming)?;
            let Some(Mode::Transaction(transaction)) = self.channels.get_mut(&number).map(|open| &mut open.mode) else {
                return Ok(());
            };
            transaction.bytes += checked.message.held_bytes();
            transaction.published.push(checked);
            return Ok(());
        }
        let checked = if incoming.notes == Notes::default() { incoming } else { self.check_publish(number, incoming)? };
        self.publish(number, checked, turn).map_err(|failure| failure.at((hot::BASIC, 40)))
    }

    /// The rare properties: what they forbid, and what they change.
    fn check_publish(&mut self, number: u16, mut incoming: Incoming) -> Result<Incoming, Failure> {
        let precondition = |text: String| Err(Failure::channel(Code::PreconditionFailed, text).at((hot::BASIC, 40)));
        // The exchange comes first in RabbitMQ's checks.
        self.find_route_exchange(&incoming.message).map_err(|failure| failure.at((hot::BASIC, 40)))?;
        if incoming.notes.is_immediate {
            return Err(Failure::connection(Code::NotImplemented, "immediate=true").at((hot::BASIC, 40)));
        }
        if incoming.notes.is_malformed {
            let failure = Failure::connection(Code::SyntaxError, "malformed message properties");
            return Err(failure.at((hot::BASIC, 40)));
        }
        if !incoming.notes.is_special {
            return Ok(incoming);
        }
        let raw = incoming.message.properties();
        let scan = properties::scan(raw).unwrap_or_default();
        if let (Some(user_id), Some(login)) = (scan.user_id, &self.login)
            && user_id != login.user.name.as_bytes()
            && !login.user.is_impersonator()
        {
            return precondition(format!(
                "user_id property set to '{}' but authenticated user was '{}'",
                String::from_utf8_lossy(user_id),
                login.user.name
            ));
        }
        if let Some(text) = scan.expiration {
            incoming.message.traits.ttl_ms = match parse_expiration(text) {
                Ok(ms) => Some(ms),
                Err(reason) => return precondition(reason),
            };
        }
        let raw = incoming.message.properties();
        let scan = properties::scan(raw).unwrap_or_default();
        let mut without_bcc = None;
        if scan.headers.1 > 0 {
            let headers = incoming.message.headers();
            for name in ["CC", "BCC"] {
                if let Some(value) = headers.get(name)
                    && let Err(reason) = check_copies(value)
                {
                    return precondition(format!(
                        "invalid message: {{unacceptable_type_in_header,\"{name}\",{reason}}}"
                    ));
                }
            }
            if headers.get("BCC").is_some() {
                let mut kept = HeadersBuilder::new();
                kept.extend(headers, |name| name != b"BCC");
                without_bcc = Some(kept.finish());
            }
        }
        let mut reply_to = None;
        if scan.reply_to == Some(REPLY_TO.as_bytes()) {
            let Some(queue) = self.channels.get(&number).and_then(|open| open.reply_queue.clone()) else {
                return precondition("fast reply consumer does not exist".to_owned());
            };
            reply_to = Some(queue.name.clone());
        }
        if without_bcc.is_some() || reply_to.is_some() {
            let rewrite = Rewrite {
                headers: without_bcc.as_deref().map(Some),
                reply_to: reply_to.as_deref().map(str::as_bytes),
                ..Rewrite::default()
            };
            let mut rewritten = Vec::new();
            properties::rewrite(raw, &rewrite, &mut rewritten);
            let headers = properties::scan(&rewritten).unwrap_or_default().headers;
            incoming.copies = blind_copies(&incoming.message);
            incoming.message = incoming.message.with_properties(&rewritten, headers);
        }
        Ok(incoming)
    }

    fn find_route_exchange(&mut self, message: &Message) -> Result<Arc<crate::broker::exchange::Exchange>, Failure> {
        let name = String::from_utf8_lossy(message.exchange()).into_owned();
        let Some(vhost) = self.vhost.clone() else {
            return Err(Failure::connection(Code::InternalError, ""));
        };
        self.require(if name.is_empty() { DEFAULT_EXCHANGE } else { &name }, Access::Write, "exchange")?;
        let exchange = vhost.find_exchange(&name)?;
        if exchange.declaration.is_internal {
            let text = format!("cannot publish to internal exchange '{name}' in vhost '{}'", vhost.name);
            return Err(Failure::channel(Code::AccessRefused, text));
        }
        if matches!(exchange.declaration.kind.routing(), Kind::Topic) {
            self.require_topic(&exchange, message.key(), Access::Write)?;
        }
        Ok(exchange)
    }

    /// Routes a checked message and adds it to the batch.
    fn publish(&mut self, number: u16, incoming: Incoming, turn: &mut Turn<'_>) -> Result<(), Failure> {
        let Incoming { message, mandatory, copies, .. } = incoming;
        let generation = self.broker.access.generation();
        if generation != self.routes_generation {
            self.routes = Default::default();
            self.routes_generation = generation;
        }
        let cached = if copies.is_empty() { self.routes.get(message.route_bytes()) } else { None };
        let route = match cached {
            // Copies are in the headers, which the cache does not look at.
            Some(route) if !message.has_copies() => route,
            _ => self.find_route(&message, copies, turn)?,
        };
        if mandatory && route.queues.is_empty() && !route.is_kept {
            self.return_message(number, &message);
        }
        let seq = match self.channels.get_mut(&number).map(|open| &mut open.mode) {
            Some(Mode::Confirm(confirms)) => {
                confirms.last += 1;
                confirms.last
            }
            _ => 0,
        };
        self.batch_confirms.push((number, seq));
        self.batch.push(message, route);
        Ok(())
    }

    fn find_route(
        &mut self,
        message: &Message,
        mut copies: Vec<Vec<u8>>,
        turn: &mut Turn<'_>,
    ) -> Result<Arc<Route>, Failure> {
        let exchange = self.find_route_exchange(message)?;
        let Some(vhost) = self.vhost.clone() else {
            return Err(Failure::connection(Code::InternalError, ""));
        };
        copies.extend(message.copy_keys());
        let property = |name: &str| property_of(message, name);
        let route = Arc::new(vhost.route(&exchange, message, &copies, Some(&property), turn));
        self.routes.put(message.route_bytes(), &route);
        Ok(route)
    }

    fn return_message(&mut self, number: u16, message: &Message) {
        let code = Code::NoRoute;
        let method =
            |out: &mut Vec<u8>| hot::put_return(out, number, code.number(), code.name(), message.route_bytes());
        self.shared.output().put_content(number, message, method, Extra::default());
    }

    /// Places the gathered messages and confirms them.
    pub(super) fn place_batch(&mut self, turn: &mut Turn<'_>) {
        let mut refused = Vec::new();
        self.batch.place(turn, &mut refused);
        let gate = turn.take_gate();
        let flushed = self.broker.journal().map(|journal| journal.flushed());
        let confirms = std::mem::take(&mut self.batch_confirms);
        let mut refused = refused.into_iter().peekable();
        let shared = self.shared.clone();
        let mut output = None;
        // One answer for a run of equal answers on one channel.
        let mut at = 0;
        while at < confirms.len() {
            let (number, _) = confirms[at];
            let start = at;
            let is_refused = refused.next_if(|&index| index == at).is_some();
            at += 1;
            while !is_refused && at < confirms.len() && confirms[at].0 == number && refused.peek() != Some(&at) {
                at += 1;
            }
            let last = confirms[at - 1].1;
            if last == 0 {
                continue;
            }
            let Some(channel) = self.channels.get_mut(&number) else { continue };
            let Mode::Confirm(state) = &mut channel.mode else { continue };
            let is_multiple = at - start > 1;
            let waits = matches!((gate, flushed), (Some(gate), Some(flushed)) if gate > flushed);
            if waits || !state.waiting.is_empty() {
                state.waiting.push_back((gate.unwrap_or_default(), last, is_refused));
            } else {
                let output = output.get_or_insert_with(|| shared.output());
                put_confirm(output, number, last, is_multiple, is_refused);
            }
        }
        drop(output);
        self.batch_confirms = confirms;
        self.batch_confirms.clear();
        if self.batch_confirms.capacity() > KEPT_CONFIRMS_MAX {
            self.batch_confirms = Vec::new();
            self.batch = Default::default();
        }
    }

    /// Publishes and settles what a transaction gathered, all of it or nothing.
    pub(super) fn commit(
        &mut self,
        number: u16,
        published: Vec<Incoming>,
        settled: Vec<(Vec<Taken>, Settle)>,
        turn: &mut Turn<'_>,
    ) -> Result<(), Failure> {
        debug_assert!(self.batch.is_empty() && self.settles.is_empty());
        for incoming in published {
            if let Err(failure) = self.publish(number, incoming, turn) {
                // An exchange or a permission has gone since.
                self.batch = Batch::default();
                self.batch_confirms.clear();
                return Err(failure);
            }
        }
        self.finish_settles(number, settled, true);
        self.batch_confirms.clear();
        let settles = self.settles.take();
        publish::commit(&mut self.batch, &settles, turn, &mut Vec::new());
        self.settles.give_back(settles);
        turn.drain();
        Ok(())
    }
}

/// Room for confirms that an idle connection keeps.
const KEPT_CONFIRMS_MAX: usize = 256;

/// What permissions call the default exchange.
pub(super) const DEFAULT_EXCHANGE: &str = "amq.default";

impl Channel {
    /// Sends the confirms whose gate has opened.
    pub(super) fn release_confirms(&mut self, number: u16, flushed: Position, output: &mut Output) {
        let Mode::Confirm(Confirms { waiting, .. }) = &mut self.mode else { return };
        while let Some(&(gate, last, is_refused)) = waiting.front() {
            if gate > flushed {
                return;
            }
            waiting.pop_front();
            put_confirm(output, number, last, !is_refused, is_refused);
        }
    }
}

fn put_confirm(output: &mut Output, channel: u16, last: u64, is_multiple: bool, is_refused: bool) {
    output.encode(|out| {
        if is_refused {
            hot::put_nack(out, channel, last, false, false);
        } else {
            hot::put_ack(out, channel, last, is_multiple);
        }
    });
}

/// The message without its body, from a publish and its header that may have come in two reads.
fn incoming(block: &Block, publish: &hot::Publish, input: &Block, header: &hot::ContentHeader) -> Incoming {
    let raw = &input[header.properties_at..][..header.properties_len];
    let scanned = properties::scan(raw);
    let scan = scanned.unwrap_or_default();
    let notes = Notes {
        is_special: scan.user_id.is_some()
            || scan.expiration.is_some()
            || scan.reply_to == Some(REPLY_TO.as_bytes())
            || scan.headers.1 > 0 && has_copies(raw, &scan),
        is_malformed: scanned.is_none(),
        is_immediate: publish.immediate,
    };
    let traits =
        Traits { persistent: scan.delivery_mode == Some(2), priority: scan.priority.unwrap_or(0), ttl_ms: None };
    let message = if Arc::ptr_eq(block, input) {
        let layout = Layout {
            route_at: publish.route_at,
            properties: (header.properties_at, header.properties_len),
            headers: if scan.headers.1 == 0 { (0, 0) } else { (header.properties_at + scan.headers.0, scan.headers.1) },
        };
        Message::new(input.clone(), layout, traits)
    } else {
        let mut message = Message::build_route(publish.exchange(block), publish.key(block), raw, scan.headers);
        message.traits = traits;
        message
    };
    Incoming { message, notes, mandatory: publish.mandatory, copies: Vec::new() }
}

fn has_copies(raw: &[u8], scan: &Scan<'_>) -> bool {
    let headers = crate::broker::value::Headers::new(&raw[scan.headers.0..][..scan.headers.1]);
    headers.iter().any(|(name, _)| name == b"CC" || name == b"BCC")
}

/// Copies must be an array of long strings.
fn check_copies(value: ValueRef<'_>) -> Result<(), &'static str> {
    match value.as_array() {
        None => Err(value.to_value().kind_name()),
        Some(items) => match items.into_iter().find(|item| item.as_text_bytes().is_none()) {
            Some(item) => Err(item.to_value().kind_name()),
            None => Ok(()),
        },
    }
}

fn blind_copies(message: &Message) -> Vec<Vec<u8>> {
    let copies = message.headers().get("BCC").and_then(|value| value.as_array());
    copies.into_iter().flatten().filter_map(|item| item.as_text_bytes().map(<[u8]>::to_vec)).collect()
}

/// Milliseconds, in decimal digits.
fn parse_expiration(text: &[u8]) -> Result<u64, String> {
    let text = String::from_utf8_lossy(text);
    match text.parse::<i128>() {
        Err(_) => Err(format!("invalid expiration '{text}': no_integer")),
        Ok(ms) if ms < 0 => Err(format!("invalid expiration '{text}': {{value_negative,{ms}}}")),
        Ok(ms) if ms > EXPIRATION_MS_MAX => Err(format!("invalid expiration '{text}': {{value_too_large,{ms}}}")),
        Ok(ms) => Ok(ms as u64),
    }
}

/// As RabbitMQ: timers of ten years.
const EXPIRATION_MS_MAX: i128 = 315_360_000_000;

fn property_of(message: &Message, name: &str) -> Option<Vec<u8>> {
    let decoded = Properties::decode(message.properties())?;
    match name {
        "message_id" => decoded.message_id.map(String::into_bytes),
        "correlation_id" => decoded.correlation_id.map(String::into_bytes),
        "timestamp" => decoded.timestamp.map(|secs| secs.to_string().into_bytes()),
        _ => None,
    }
}
