//! Publishing: content frames become messages, messages are checked and routed, and the batch of
//! one read is placed into its queues and confirmed.

use std::sync::Arc;

use super::{
    channel::{Channel, Content, Incoming, Mode, Notes},
    codec::{
        frame::{self, Frame, FrameKind},
        hot,
    },
    output::{Extra, Output, Shared},
    properties::{self, Properties, Rewrite, Scan},
    reply::{Code, Failure},
    session::Session,
};
use crate::{
    broker::{
        access::Access,
        block::{Block, Slice},
        consumer::{Settle, Taken},
        exchange::Kind,
        message::{Layout, Message, Traits, Ttl},
        publish::{self, Batch},
        record::Position,
        route::Route,
        trace::Party,
        turn::Turn,
        value::{Headers, HeadersBuilder},
    },
    protocol::jms,
};
/// Name under which a client consumes, and addresses, replies to itself.
pub(in crate::protocol) const REPLY_TO: &str = "amq.rabbitmq.reply-to";

impl Session {
    /// The common case of a publish: header and body lie whole behind the method, in one read.
    /// Returns where the next frame is, or `None` when it is not that case; then nothing has
    /// happened. A refusal is left in `result`, which the common case does not touch.
    #[inline]
    pub(super) fn try_whole_publish(
        &mut self,
        input: &Block,
        found: &Frame,
        turn: &mut Turn<'_>,
        result: &mut Result<(), Failure>,
    ) -> Option<usize> {
        if found.kind != FrameKind::Method || hot::method_id(found.payload(input)) != Some((hot::BASIC, 40)) {
            return None;
        }
        let channel = self.channels.get_mut(&found.channel)?;
        if channel.is_closing
            || !matches!(channel.content, Content::Method)
            || matches!(channel.mode, Mode::Transaction(_))
        {
            return None;
        }
        let publish = hot::publish(input, found)?;
        let header_frame = frame::split(input, found.next_at(), self.frame_max).ok()??;
        if header_frame.kind != FrameKind::Header || header_frame.channel != found.channel {
            return None;
        }
        let header = hot::content_header(input, &header_frame)?;
        if header.class_id != hot::BASIC || header.body_size > self.broker.options.max_message_bytes {
            return None;
        }
        let mut next_at = header_frame.next_at();
        let mut body = (0, 0);
        if header.body_size > 0 {
            let body_frame = frame::split(input, next_at, self.frame_max).ok()??;
            let is_whole = body_frame.kind == FrameKind::Body
                && body_frame.channel == found.channel
                && body_frame.payload_len as u64 == header.body_size;
            if !is_whole {
                return None;
            }
            body = (body_frame.payload_at, body_frame.payload_len);
            next_at = body_frame.next_at();
        }
        let raw = &input[header.properties_at..][..header.properties_len];
        let mut layout = Layout {
            route_at: publish.route_at,
            properties: (header.properties_at, header.properties_len),
            headers: (0, 0),
        };
        let plain = match properties::peek(raw) {
            Some(persistent) => Some(Traits { persistent, ..Traits::default() }),
            None => plain_traits(raw, &mut layout),
        };
        if let Some(traits) = plain
            && !publish.immediate
            && !self.is_traced
            && self.broker.access.generation() == self.routes_generation
            && let Some(route) = self.routes.get(publish.route_bytes(input))
            && !(publish.mandatory && route.queues.is_empty())
        {
            if let Mode::Confirm(confirms) = &mut channel.mode {
                confirms.last += 1;
                self.batch_confirms.push((self.batch.len() as u32, found.channel, confirms.last));
            }
            self.batch.push(Message::inline(input.clone(), layout, traits, body), route);
            return Some(next_at);
        }
        let mut incoming = incoming(input, &publish, input, &header);
        incoming.message = incoming.message.with_body_inline(body.0, body.1);
        *result = self.complete(found.channel, incoming, turn);
        Some(next_at)
    }

    pub(super) fn handle_content(&mut self, input: &Block, found: &Frame, turn: &mut Turn<'_>) -> Result<(), Failure> {
        let Some(channel) = self.channels.get_mut(&found.channel) else {
            // RabbitMQ tells the method frame that it expected, of whatever type this one is.
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
        let Some(channel) = self.channels.get_mut(&number) else { return Ok(()) };
        if matches!(channel.mode, Mode::Transaction(_)) {
            let checked = self.check_publish(number, incoming).map_err(|failure| failure.at(BASIC_PUBLISH))?;
            let Some(Mode::Transaction(transaction)) = self.channels.get_mut(&number).map(|open| &mut open.mode) else {
                return Ok(());
            };
            let bytes = transaction.bytes + checked.message.held_bytes();
            let (count_max, bytes_max) = (self.options.transaction_messages_max, self.options.transaction_bytes_max);
            if transaction.published.len() >= count_max || bytes > bytes_max {
                let text = format!("transaction is larger than {count_max} messages or {bytes_max} bytes");
                return Err(Failure::channel(Code::PreconditionFailed, text).at(BASIC_PUBLISH));
            }
            transaction.bytes = bytes;
            transaction.published.push(checked);
            let count = transaction.published.len() as u64;
            self.with_status(number, |status| status.uncommitted = count);
            return Ok(());
        }
        let checked =
            if incoming.notes == Notes::default() { Ok(incoming) } else { self.check_publish(number, incoming) };
        checked.and_then(|checked| self.publish(number, checked, turn)).map_err(|failure| failure.at(BASIC_PUBLISH))
    }

    /// The rare properties: what they forbid, and what they change.
    fn check_publish(&mut self, number: u16, mut incoming: Incoming) -> Result<Incoming, Failure> {
        let precondition = |text: String| Err(Failure::channel(Code::PreconditionFailed, text));
        // The exchange comes first in RabbitMQ's checks.
        self.find_route_exchange(&incoming.message).map_err(|failure| failure.at((hot::BASIC, 40)))?;
        if incoming.notes.is_immediate {
            return Err(Failure::connection(Code::NotImplemented, "immediate=true"));
        }
        if incoming.notes.is_malformed {
            return Err(Failure::connection(Code::SyntaxError, "malformed message properties"));
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
            incoming.message.traits.ttl = match parse_expiration(text) {
                Ok(ms) => Ttl::of_ms(ms),
                Err(reason) => return precondition(reason),
            };
        }
        let raw = incoming.message.properties();
        let scan = properties::scan(raw).unwrap_or_default();
        if let Some(mode) = scan.delivery_mode.filter(|mode| !matches!(mode, 1 | 2)) {
            return precondition(format!("invalid message: {{delivery_mode_unknown,{mode}}}"));
        }
        let mut without_bcc = None;
        if scan.headers.1 > 0 {
            let headers = incoming.message.headers();
            for name in ["CC", "BCC"] {
                if let Some(value) = headers.get(name)
                    && value.as_array().is_none()
                {
                    return precondition(format!(
                        "invalid message: {{unacceptable_type_in_header,\"{name}\",{}}}",
                        value.to_value().kind_name()
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
        let Incoming { message, mandatory, copies, notes } = incoming;
        let generation = self.broker.access.generation();
        if generation != self.routes_generation {
            self.routes = Default::default();
            self.routes_generation = generation;
        }
        // Copies are in the headers, which the cache does not look at.
        let is_by_key = !notes.is_special || (copies.is_empty() && !message.has_copies());
        let found;
        let route = match if is_by_key { self.routes.get(message.route_bytes()) } else { None } {
            Some(route) => route,
            None => {
                found = self.find_route(&message, copies, turn)?;
                &found
            }
        };
        if self.is_traced
            && let Some(vhost) = &self.vhost
        {
            let queues = route.queues.iter().map(|queue| &*queue.name);
            turn.trace_published(vhost, &message, queues, Party { connection: self.id, channel: number });
        }
        if mandatory && route.queues.is_empty() && !route.is_kept {
            return_message(&self.shared, number, &message);
        }
        if let Some(Mode::Confirm(confirms)) = self.channels.get_mut(&number).map(|open| &mut open.mode) {
            confirms.last += 1;
            self.batch_confirms.push((self.batch.len() as u32, number, confirms.last));
        }
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
            let (index, number, _) = confirms[at];
            while refused.next_if(|&refused| refused < index as usize).is_some() {}
            let is_refused = refused.next_if_eq(&(index as usize)).is_some();
            let start = at;
            at += 1;
            while !is_refused
                && let Some(&(index, other, _)) = confirms.get(at)
                && other == number
                && refused.peek().is_none_or(|&refused| refused > index as usize)
            {
                at += 1;
            }
            let (.., last) = confirms[at - 1];
            let Some(channel) = self.channels.get_mut(&number) else { continue };
            let Mode::Confirm(state) = &mut channel.mode else { continue };
            let is_multiple = at - start > 1;
            let waits = matches!((gate, flushed), (Some(gate), Some(flushed)) if gate > flushed);
            if waits || !state.waiting.is_empty() {
                state.waiting.push_back((gate.unwrap_or_default(), last, is_refused));
                self.has_full_confirms |= state.unanswered() >= self.options.unconfirmed_per_channel_max;
                output.get_or_insert_with(|| shared.output()).set_unconfirmed(number, state.unanswered());
            } else {
                state.answered = last;
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

fn return_message(shared: &Shared, number: u16, message: &Message) {
    let code = Code::NoRoute;
    let method = |out: &mut Vec<u8>| hot::put_return(out, number, code.number(), code.name(), message.route_bytes());
    shared.output().put_content(number, message, method, Extra::default());
}

const BASIC_PUBLISH: (u16, u16) = (hot::BASIC, 40);
/// Room for confirms that an idle connection keeps.
const KEPT_CONFIRMS_MAX: usize = 256;

/// What permissions call the default exchange.
pub(in crate::protocol) const DEFAULT_EXCHANGE: &str = "amq.default";

impl Channel {
    /// Sends the confirms whose gate has opened.
    pub(super) fn release_confirms(&mut self, number: u16, flushed: Position, output: &mut Output) {
        let Mode::Confirm(confirms) = &mut self.mode else { return };
        let before = confirms.answered;
        while let Some(&(gate, last, is_refused)) = confirms.waiting.front() {
            if gate > flushed {
                break;
            }
            confirms.waiting.pop_front();
            let is_multiple = last - confirms.answered > 1;
            confirms.answered = last;
            put_confirm(output, number, last, is_multiple, is_refused);
        }
        if confirms.answered != before {
            output.set_unconfirmed(number, confirms.unanswered());
        }
    }
}

fn put_confirm(output: &mut Output, channel: u16, last: u64, is_multiple: bool, is_refused: bool) {
    output.encode(|out| {
        if is_refused {
            // As RabbitMQ puts it: all before have had their answer, and `requeue` says nothing.
            hot::put_nack(out, channel, last, true, true);
        } else {
            hot::put_ack(out, channel, last, is_multiple);
        }
    });
}

/// The message without its body, from a publish and its header that may have come in two reads.
#[inline]
fn incoming(block: &Block, publish: &hot::Publish, input: &Block, header: &hot::ContentHeader) -> Incoming {
    let raw = &input[header.properties_at..][..header.properties_len];
    let scanned = properties::scan(raw);
    let scan = scanned.unwrap_or_default();
    let notes =
        Notes { is_special: !is_plain(raw, &scan), is_malformed: scanned.is_none(), is_immediate: publish.immediate };
    let traits = traits(raw, &scan);
    let message = if Arc::ptr_eq(block, input) {
        let layout = layout(publish, header, &scan);
        Message::new(input.clone(), layout, traits)
    } else {
        let mut message = Message::build_route(publish.exchange(block), publish.key(block), raw, scan.headers);
        message.traits = traits;
        message
    };
    Incoming { message, notes, mandatory: publish.mandatory, copies: Vec::new() }
}

fn traits(raw: &[u8], scan: &Scan<'_>) -> Traits {
    Traits {
        persistent: scan.delivery_mode == Some(2),
        priority: scan.priority.unwrap_or(0),
        ttl: Ttl::NONE,
        has_group: scan.headers.1 > 0 && jms::has_group(headers(raw, scan)),
    }
}

/// Where the parts of a publish lie that came in one read.
fn layout(publish: &hot::Publish, header: &hot::ContentHeader, scan: &Scan<'_>) -> Layout {
    let headers = if scan.headers.1 == 0 { (0, 0) } else { (header.properties_at + scan.headers.0, scan.headers.1) };
    Layout { route_at: publish.route_at, properties: (header.properties_at, header.properties_len), headers }
}

/// What queues act on, of properties that forbid and change nothing. Says where their headers lie.
fn plain_traits(raw: &[u8], layout: &mut Layout) -> Option<Traits> {
    let scan = properties::scan(raw).filter(|scan| is_plain(raw, scan))?;
    if scan.headers.1 > 0 {
        layout.headers = (layout.properties.0 + scan.headers.0, scan.headers.1);
    }
    Some(traits(raw, &scan))
}

/// Nothing in the properties forbids or changes anything.
#[inline]
fn is_plain(raw: &[u8], scan: &Scan<'_>) -> bool {
    scan.user_id.is_none()
        && scan.expiration.is_none()
        && scan.delivery_mode.is_none_or(|mode| matches!(mode, 1 | 2))
        && scan.reply_to != Some(REPLY_TO.as_bytes())
        && (scan.headers.1 == 0 || !has_copies(raw, scan))
}

fn has_copies(raw: &[u8], scan: &Scan<'_>) -> bool {
    headers(raw, scan).iter().any(|(name, _)| name == b"CC" || name == b"BCC")
}

fn headers<'r>(raw: &'r [u8], scan: &Scan<'_>) -> Headers<'r> {
    Headers::new(&raw[scan.headers.0..][..scan.headers.1])
}

fn blind_copies(message: &Message) -> Vec<Vec<u8>> {
    let copies = message.headers().get("BCC").and_then(|value| value.as_array());
    copies.into_iter().flatten().filter_map(|item| item.as_text_bytes().map(<[u8]>::to_vec)).collect()
}

/// Milliseconds, in decimal digits.
pub(in crate::protocol) fn parse_expiration(text: &[u8]) -> Result<u64, String> {
    let text = String::from_utf8_lossy(text);
    let refused = |why: &str| Err(format!("invalid expiration '{text}': {why}"));
    let signs = usize::from(text.starts_with(['-', '+']));
    let end = text[signs..].find(|c: char| !c.is_ascii_digit()).map_or(text.len(), |at| signs + at);
    let (number, rest) = text.split_at(end);
    if number.len() == signs {
        return refused("no_integer");
    }
    if !rest.is_empty() {
        return refused(&format!("{{leftover_string,{rest:?}}}"));
    }
    match number.parse::<u64>() {
        Ok(ms) if ms <= EXPIRATION_MS_MAX => Ok(ms),
        _ if number.starts_with('-') && number[1..].bytes().all(|digit| digit == b'0') => Ok(0),
        _ if number.starts_with('-') => refused(&format!("{{value_negative,{number}}}")),
        _ => {
            let number = number.trim_start_matches('+');
            // Erlang begins a new line, indented to the tuple, where 80 columns do not suffice.
            let column = "invalid expiration '': ".len() + text.len();
            let is_long = column + "{value_too_large,}".len() + number.len() > 80;
            let line = if is_long { format!("\n{:column$} ", "") } else { String::new() };
            refused(&format!("{{value_too_large,{line}{number}}}"))
        }
    }
}

/// As RabbitMQ: timers of ten years.
const EXPIRATION_MS_MAX: u64 = 315_360_000_000;

pub(in crate::protocol) fn property_of(message: &Message, name: &str) -> Option<Vec<u8>> {
    let decoded = Properties::decode(message.properties())?;
    match name {
        "message_id" => decoded.message_id.map(String::into_bytes),
        "correlation_id" => decoded.correlation_id.map(String::into_bytes),
        "timestamp" => decoded.timestamp.map(|secs| secs.to_string().into_bytes()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expirations_are_refused_in_erlang_terms() {
        for (text, expected) in [
            ("60000", Ok(60_000)),
            ("+5", Ok(5)),
            ("-0", Ok(0)),
            ("", Err("no_integer")),
            ("abc", Err("no_integer")),
            ("-1", Err("{value_negative,-1}")),
            ("1.5", Err("{leftover_string,\".5\"}")),
            ("5 ", Err("{leftover_string,\" \"}")),
            ("315360000001", Err("{value_too_large,315360000001}")),
        ] {
            let expected = expected.map_err(|why| format!("invalid expiration '{text}': {why}"));
            assert_eq!(parse_expiration(text.as_bytes()), expected);
        }
    }

    #[test]
    fn a_long_expiration_begins_a_new_line_as_erlang_does() {
        let text = "9".repeat(20);
        let indent = " ".repeat(44);
        let expected = format!("invalid expiration '{text}': {{value_too_large,\n{indent}{text}}}");
        assert_eq!(parse_expiration(text.as_bytes()), Err(expected));
    }
}
