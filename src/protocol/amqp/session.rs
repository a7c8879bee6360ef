//! One client connection as a state machine: bytes in, bytes out, no socket and no clock.
//!
//! ```text
//!   Greeting ──header──▶ Start ──start-ok──▶ Tune ──tune-ok──▶ Open ──open──▶ Running
//!       └── any other header: answer and end        any ── fault ──▶ Closing ──close-ok──▶ Over
//! ```
//!
//! Publishes and settles of one call of [`Session::handle_input`] are gathered and take effect
//! together, before any other verb and at the end of the call.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
};

use super::{
    channel::{Channel, Content},
    codec::{
        frame::{self, Frame, FrameKind},
        header::Greeting,
        hot,
        method::{self, AMQPClass, Fault, MethodError},
    },
    options::Options,
    output::{Event, Shared},
    reply::{Code, Failure},
};
use crate::{
    broker::{
        Broker,
        access::{Checker, User},
        block::Block,
        connections::{Connection, ConnectionId, ConnectionInfo},
        publish::{BATCH_MAX, Batch, RouteCache},
        queue::Queue,
        record::QueueId,
        time::Time,
        turn::Turn,
        value::Table,
        vhost::Vhost,
    },
    protocol::{
        session::{self, Phase},
        settles::Settles,
    },
};

pub use crate::protocol::session::Progress;

/// How far the connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The protocol header is expected.
    Greeting,
    /// The login is expected.
    Start,
    /// The answer to the proposed limits is expected.
    Tune,
    /// The vhost is expected.
    Open,
    /// Everything is possible.
    Running,
    /// The broker has closed the connection and waits for the answer.
    Closing,
    /// The socket is to be closed once the output is written.
    Over,
}

/// See the module's text.
pub struct Session {
    pub(super) broker: Arc<Broker>,
    pub(super) options: Arc<Options>,
    pub(super) shared: Arc<Shared>,
    pub(super) id: ConnectionId,
    pub(super) peer: SocketAddr,
    pub(super) local: SocketAddr,
    stage: Stage,
    /// When the present stage ends by itself.
    pub(super) stage_deadline: Time,
    pub(super) login: Option<Box<Login>>,
    pub(super) vhost: Option<Arc<Vhost>>,
    pub(super) frame_max: u32,
    pub(super) channel_max: u16,
    pub(super) heartbeat_ms: u64,
    pub(super) channels: HashMap<u16, Box<Channel>, foldhash::fast::FixedState>,
    /// Queues that go with the connection.
    pub(super) exclusive_queues: HashMap<QueueId, Arc<Queue>, foldhash::fast::FixedState>,
    pub(super) routes: RouteCache,
    pub(super) routes_generation: u64,
    pub(super) batch: Batch,
    /// Messages of the batch that are to be confirmed: index in the batch, channel, number there.
    pub(super) batch_confirms: Vec<(u32, u16, u64)>,
    pub(super) settles: Settles,
    last_input: Time,
    /// Input was welcome when that was last looked at. While it is not, the peer cannot be silent.
    was_reading: bool,
    last_output: Time,
    /// Its vhost is traced, as of the last input.
    pub(super) is_traced: bool,
    /// Octets of the last input that were not used and come again.
    unused_bytes: usize,
    /// Octets of output up to `last_output`.
    noted_bytes: u64,
    /// It publishes under an alarm: nothing is read from it until that is over.
    is_held: bool,
    /// When deliveries are looked at that nobody has settled.
    pub(super) next_timeout_check: Time,
    /// A channel has as many publishes waiting for their confirm as it may: nothing is read until
    /// the log has come further.
    pub(super) has_full_confirms: bool,
    /// Octets of frames that wait on their channels.
    parked_bytes: usize,
    /// Why the connection ended, for the log.
    pub(super) ended_by: Option<String>,
}

/// Who logged in, and how.
pub struct Login {
    /// The user.
    pub user: Arc<User>,
    /// Answers whether the user may, once the vhost is open.
    pub checker: Option<Checker>,
    /// Name of the mechanism.
    pub mechanism: String,
    /// What the client says of itself.
    pub client_properties: Table,
    /// The client understands `connection.close` during login.
    pub wants_close: bool,
    /// The client understands `connection.blocked`.
    pub wants_blocked: bool,
}

impl Session {
    /// A connection that was accepted at `now`.
    pub fn new(
        broker: Arc<Broker>,
        options: Arc<Options>,
        shared: Arc<Shared>,
        peer: SocketAddr,
        local: SocketAddr,
        now: Time,
    ) -> Self {
        let id = broker.connections.next_id();
        let stage_deadline = now.after_ms(options.handshake_timeout_ms);
        Self {
            broker,
            shared,
            id,
            peer,
            local,
            stage: Stage::Greeting,
            stage_deadline,
            login: None,
            vhost: None,
            frame_max: options.frame_max,
            channel_max: options.channel_max,
            heartbeat_ms: 0,
            channels: HashMap::default(),
            exclusive_queues: HashMap::default(),
            routes: RouteCache::default(),
            routes_generation: 0,
            batch: Batch::default(),
            batch_confirms: Vec::new(),
            settles: Settles::default(),
            last_input: now,
            was_reading: true,
            last_output: now,
            is_traced: false,
            unused_bytes: 0,
            noted_bytes: 0,
            is_held: false,
            next_timeout_check: Time::NEVER,
            has_full_confirms: false,
            parked_bytes: 0,
            ended_by: None,
            options,
        }
    }

    /// How far the connection has come.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// The user who logged in.
    pub fn user_name(&self) -> Option<&str> {
        self.login.as_ref().map(|login| &*login.user.name)
    }

    /// The vhost that was opened.
    pub fn vhost_name(&self) -> Option<&str> {
        self.vhost.as_ref().map(|vhost| &*vhost.name)
    }

    /// Why it ended, if it was not by the client's wish.
    pub fn ended_by(&self) -> Option<&str> {
        self.ended_by.as_deref()
    }

    /// Whether input is left unread because the connection publishes under an alarm. When that is
    /// over, what was not used is to be handed in again.
    pub fn is_held(&self) -> bool {
        self.is_held
    }

    /// Whether more input is welcome. It is not while an alarm is on and this connection
    /// publishes, not while its own output piles up, not while too much waits for the log, and not while
    /// the log has no room.
    pub fn wants_input(&self) -> bool {
        let is_held = self.is_held && self.stage == Stage::Running;
        let is_waiting = self.has_full_confirms || self.parked_bytes > PARKED_BYTES_MAX;
        !is_held && !is_waiting && !self.shared.is_full() && self.has_room()
    }

    /// Whoever does not read because the log has no room is told when to look again.
    pub fn wait_for_room(&self) {
        if !self.has_room() {
            self.shared.wait(&self.broker);
        }
    }

    fn has_room(&self) -> bool {
        self.broker.journal().is_none_or(|journal| journal.has_room())
    }

    /// Some octets have come that are not worth handing in yet: the peer is not silent.
    pub fn note_trickle(&mut self, now: Time) {
        self.last_input = now;
    }

    /// Acts on received bytes, which are all of `input`.
    pub fn handle_input(&mut self, input: &Block, now: Time) -> Progress {
        self.last_input = now;
        self.is_traced = self.vhost.as_ref().is_some_and(|vhost| vhost.is_traced.load(Ordering::Relaxed));
        let broker = self.broker.clone();
        let mut turn = Turn::new(&broker, now);
        let mut at = 0;
        let mut wanted = 0;
        let has_alarm = broker.has_alarm();
        while self.stage != Stage::Over {
            if self.stage == Stage::Greeting {
                match self.greet(&input[at..]) {
                    Some(used) => at += used,
                    None => break,
                }
                continue;
            }
            let limit = self.frame_limit();
            match frame::split(input, at, limit) {
                Ok(Some(found)) if has_alarm && self.is_held_back(input, &found) => break,
                Ok(Some(found)) => {
                    let mut result = Ok(());
                    let whole = match self.stage {
                        Stage::Running => self.try_whole_publish(input, &found, &mut turn, &mut result),
                        _ => None,
                    };
                    match whole {
                        Some(next_at) => at = next_at,
                        None => {
                            at = found.next_at();
                            result = self.handle_frame(input, &found, &mut turn);
                        }
                    }
                    if let Err(failure) = result {
                        self.fail(found.channel, failure, &mut turn);
                    }
                    if self.batch.len() >= BATCH_MAX {
                        self.settle_up(&mut turn);
                    }
                }
                Ok(None) => {
                    wanted = frame::wanted(input, at).unwrap_or(0);
                    break;
                }
                Err(error) => {
                    let code = match error {
                        frame::FrameError::BadEnd { .. }
                        | frame::FrameError::UnknownKind { .. }
                        | frame::FrameError::TooLarge { .. } => Code::FrameError,
                    };
                    self.fail(0, Failure::connection(code, error.text()), &mut turn);
                    at = input.len();
                    break;
                }
            }
        }
        if self.stage == Stage::Over {
            at = input.len();
        }
        self.settle_up(&mut turn);
        self.proceed(&mut turn);
        self.note_input(input.len(), at);
        self.note_output(now);
        turn.end();
        self.note_reading(now);
        Progress { consumed: at, wanted }
    }

    /// Acts on what happened elsewhere.
    pub fn handle_events(&mut self, now: Time) {
        let events = self.shared.take_events();
        let broker = self.broker.clone();
        let mut turn = Turn::new(&broker, now);
        for event in events {
            match event {
                Event::ConsumerCancelled { channel, source } => self.consumer_cancelled(channel, source, &mut turn),
                Event::Close(reason) => {
                    if self.stage == Stage::Running {
                        self.fail(0, Failure::connection(Code::ConnectionForced, reason), &mut turn);
                    } else if self.stage != Stage::Closing {
                        self.stage = Stage::Over;
                    }
                }
                Event::AlarmChanged if !broker.has_alarm() => self.set_held(false),
                // A connection is held only when it publishes.
                Event::AlarmChanged => {}
                Event::Drained => {
                    for (queue, consumer) in self.shared.take_parked() {
                        queue.resume(consumer, &mut turn);
                    }
                }
                Event::Proceed | Event::QueueDeclared { .. } => {}
            }
        }
        self.proceed(&mut turn);
        self.note_output(now);
        turn.end();
        self.note_reading(now);
    }

    /// When [`Self::handle_timeout`] is to be called next.
    pub fn poll_timeout(&self) -> Time {
        let mut at = self.stage_deadline.min(self.next_timeout_check);
        if self.heartbeat_ms > 0 && self.stage == Stage::Running {
            at = at.min(self.last_output.after_ms(self.heartbeat_ms / 2));
            if self.was_reading && self.wants_input() {
                at = at.min(self.last_input.after_ms(2 * self.heartbeat_ms));
            }
        }
        at
    }

    /// Does what is due: sends a heartbeat, gives up a silent peer, closes channels that hold
    /// deliveries for too long.
    pub fn handle_timeout(&mut self, now: Time) {
        if self.stage_deadline <= now {
            self.ended_by = Some(match self.stage {
                Stage::Closing => "no answer to connection.close".to_owned(),
                _ => "handshake_timeout".to_owned(),
            });
            self.stage = Stage::Over;
            return;
        }
        if self.heartbeat_ms > 0 && self.stage == Stage::Running {
            self.note_reading(now);
            if self.was_reading && self.last_input.after_ms(2 * self.heartbeat_ms) <= now {
                let secs = self.heartbeat_ms / 1000;
                self.ended_by = Some(format!("missed heartbeats from client, timeout: {secs}s"));
                self.stage = Stage::Over;
                return;
            }
            self.note_output(now);
            if self.last_output.after_ms(self.heartbeat_ms / 2) <= now {
                self.shared.output().encode(hot::put_heartbeat);
                self.note_output(now);
            }
        }
        if self.next_timeout_check <= now {
            let broker = self.broker.clone();
            let mut turn = Turn::new(&broker, now);
            self.check_delivery_timeouts(&mut turn);
            turn.end();
        }
    }

    /// The peer is gone, or the connection is over: everything that it held goes back.
    pub fn close(&mut self, now: Time) {
        let broker = self.broker.clone();
        let mut turn = Turn::new(&broker, now);
        self.settle_up(&mut turn);
        self.drop_everything(&mut turn);
        if let Some(vhost) = self.vhost.take() {
            vhost.connection_closed();
            self.broker.connections.remove(self.id);
        }
        turn.end();
        self.stage = Stage::Over;
    }

    /// Closes the connection from the broker's side.
    pub fn force_close(&mut self, reason: &str, now: Time) {
        let broker = self.broker.clone();
        let mut turn = Turn::new(&broker, now);
        if self.stage == Stage::Running {
            self.fail(0, Failure::connection(Code::ConnectionForced, reason), &mut turn);
        } else if self.stage != Stage::Closing {
            self.stage = Stage::Over;
        }
    }

    /// Ends all channels, and the queues that go with the connection.
    pub(super) fn drop_everything(&mut self, turn: &mut Turn<'_>) {
        for channel in self.channels.keys().copied().collect::<Vec<_>>() {
            self.drop_channel(channel, turn);
        }
        if let Some(vhost) = self.vhost.clone() {
            for queue in std::mem::take(&mut self.exclusive_queues).into_values() {
                vhost.remove_queue(&queue, turn);
            }
        }
    }

    /// A peer that was not read from starts anew to be silent: its heartbeats wait in the socket.
    fn note_reading(&mut self, now: Time) {
        let is_reading = self.wants_input();
        if is_reading && !self.was_reading {
            self.last_input = now;
        }
        self.was_reading = is_reading;
    }

    fn note_input(&mut self, input_bytes: usize, used_bytes: usize) {
        let new_bytes = input_bytes.saturating_sub(self.unused_bytes);
        self.unused_bytes = input_bytes - used_bytes;
        if new_bytes > 0 {
            let mut output = self.shared.output();
            output.received_bytes += new_bytes as u64;
            output.reads_count += 1;
        }
    }

    fn note_output(&mut self, now: Time) {
        let encoded = self.shared.output().encoded_bytes();
        if encoded != self.noted_bytes {
            self.noted_bytes = encoded;
            self.last_output = now;
        }
    }

    fn frame_limit(&self) -> u32 {
        match self.stage {
            Stage::Start => self.options.start_ok_max,
            Stage::Tune | Stage::Open => self.options.pre_login_frame_max,
            _ => self.frame_max,
        }
    }

    fn greet(&mut self, input: &[u8]) -> Option<usize> {
        match Greeting::detect(input) {
            Greeting::Incomplete => None,
            Greeting::Amqp091 => {
                self.stage = Stage::Start;
                self.send_start();
                Some(8)
            }
            other => {
                self.shared.output().encode(|out| out.extend_from_slice(other.answer()));
                self.ended_by = Some(format!("refused: {}", other.describe()));
                self.stage = Stage::Over;
                Some(input.len())
            }
        }
    }

    pub(super) fn set_stage(&mut self, stage: Stage, deadline: Time) {
        self.stage = stage;
        self.stage_deadline = deadline;
    }

    fn handle_frame(&mut self, input: &Block, found: &Frame, turn: &mut Turn<'_>) -> Result<(), Failure> {
        if self.stage == Stage::Closing {
            if found.kind == FrameKind::Method
                && found.channel == 0
                && hot::method_id(found.payload(input)) == Some(CONNECTION_CLOSE_OK)
            {
                self.stage = Stage::Over;
            }
            return Ok(());
        }
        match found.kind {
            FrameKind::Heartbeat if found.channel == 0 => Ok(()),
            FrameKind::Heartbeat => Err(unexpected(found, input)),
            _ if found.channel == 0 => self.handle_connection_frame(input, found, turn),
            _ if self.stage != Stage::Running => Err(unexpected(found, input)),
            _ => match self.channels.get_mut(&found.channel) {
                Some(channel) if must_park(channel, input, found) => {
                    channel.park(input, *found);
                    Ok(())
                }
                _ => self.handle_channel_frame(input, found, turn),
            },
        }
    }

    fn handle_channel_frame(&mut self, input: &Block, found: &Frame, turn: &mut Turn<'_>) -> Result<(), Failure> {
        match found.kind {
            FrameKind::Method => self.handle_channel_method(input, found, turn),
            _ => self.handle_content(input, found, turn),
        }
    }

    /// Lets go what waited for the log or for a page, as far as that has come.
    fn proceed(&mut self, turn: &mut Turn<'_>) {
        self.parked_bytes = 0;
        self.has_full_confirms = false;
        if !self.broker.is_logged() && self.broker.cold_pages().is_none() {
            return;
        }
        if !self.channels.values().any(|channel| channel.is_waiting()) {
            return;
        }
        // Registered first: what comes after this look wakes the connection again.
        self.shared.wait(&self.broker);
        self.release_gated();
        for number in self.channels.keys().copied().collect::<Vec<_>>() {
            self.unpark(number, turn);
        }
        self.settle_up(turn);
        self.parked_bytes = self.channels.values().map(|channel| channel.parked_bytes).sum();
        let unconfirmed_max = self.options.unconfirmed_per_channel_max;
        self.has_full_confirms = self.channels.values().any(|channel| channel.unconfirmed() >= unconfirmed_max);
    }

    /// Goes on with a channel whose frames wait, as far as its verbs are answered at once.
    fn unpark(&mut self, number: u16, turn: &mut Turn<'_>) {
        while self.stage == Stage::Running {
            let Some(channel) = self.channels.get_mut(&number) else { return };
            let result = if let Some(get) = channel.pending.take() {
                self.get_from(number, &get.queue, get.no_ack, turn)
            } else {
                let Some((input, found)) = channel.unpark() else { return };
                self.handle_channel_frame(&input, &found, turn)
            };
            if let Err(failure) = result {
                self.fail(number, failure, turn);
                return;
            }
            match self.channels.get_mut(&number) {
                Some(channel) if channel.pending.is_some() => return,
                Some(channel) if !channel.parked.is_empty() => channel.start_parking(),
                _ => {}
            }
        }
    }

    fn handle_connection_frame(&mut self, input: &Block, found: &Frame, turn: &mut Turn<'_>) -> Result<(), Failure> {
        if found.kind != FrameKind::Method {
            return Err(unexpected(found, input));
        }
        let payload = found.payload(input);
        let id = hot::method_id(payload).unwrap_or_default();
        let decoded = method::decode(payload).map_err(|error| decode_failure(&error))?;
        let result = match decoded {
            AMQPClass::Connection(method) => self.handle_connection(method, payload, turn),
            _ => {
                let text = format!("unexpected method in connection state {}", self.stage_name());
                Err(Failure::connection(Code::ChannelError, text))
            }
        };
        result.map_err(|failure| failure.at(id))
    }

    pub(super) fn stage_name(&self) -> &'static str {
        match self.stage {
            Stage::Greeting | Stage::Start => "starting",
            Stage::Tune => "tuning",
            Stage::Open => "opening",
            Stage::Running => "running",
            Stage::Closing | Stage::Over => "closing",
        }
    }

    fn handle_channel_method(&mut self, input: &Block, found: &Frame, turn: &mut Turn<'_>) -> Result<(), Failure> {
        let payload = found.payload(input);
        let Some(id) = hot::method_id(payload) else {
            return Err(decode_failure(
                &method::decode(payload).err().unwrap_or(MethodError::Unknown { class: 0, method: 0 }),
            ));
        };
        let Some(channel) = self.channels.get_mut(&found.channel) else {
            return self.handle_unopened(found.channel, id, payload);
        };
        if channel.is_closing {
            return self.handle_closing_channel(found.channel, id);
        }
        if !matches!(channel.content, Content::Method) {
            let text = match std::mem::take(&mut channel.content) {
                Content::Body { .. } => "expected content body, got non content body frame instead",
                _ => "expected content header for class 60, got non content header frame instead",
            };
            return Err(Failure::connection(Code::UnexpectedFrame, text).at((hot::BASIC, 40)));
        }
        match id {
            (hot::BASIC, 40) => {
                let publish = hot::publish(input, found).ok_or_else(|| cannot_decode(payload))?;
                channel.content = Content::Header { block: input.clone(), publish };
                Ok(())
            }
            (hot::BASIC, 80) => {
                let ack = hot::ack(input, found).ok_or_else(|| cannot_decode(payload))?;
                self.ack(found.channel, ack)
            }
            (hot::BASIC, 90) => {
                let reject = hot::reject(input, found).ok_or_else(|| cannot_decode(payload))?;
                self.reject(found.channel, reject.delivery_tag, false, reject.requeue)
            }
            (hot::BASIC, 120) => {
                let nack = hot::nack(input, found).ok_or_else(|| cannot_decode(payload))?;
                self.reject(found.channel, nack.delivery_tag, nack.multiple, nack.requeue)
            }
            (hot::BASIC, 10) => {
                let qos = hot::qos(input, found).ok_or_else(|| cannot_decode(payload))?;
                self.settle_up(turn);
                turn.take_gate();
                self.qos(found.channel, qos, turn)
            }
            _ => {
                self.settle_up(turn);
                // The answer waits for what this verb does, not for settles that nobody confirms.
                turn.take_gate();
                let decoded = method::decode(payload).map_err(|error| decode_failure(&error))?;
                self.handle_method(found.channel, decoded, payload, turn)
            }
        }
        .map_err(|failure| failure.at(id))
    }

    /// Makes gathered publishes and settles take effect.
    pub(super) fn settle_up(&mut self, turn: &mut Turn<'_>) {
        if !self.batch.is_empty() {
            self.place_batch(turn);
        }
        if !self.settles.is_empty() {
            self.settles.apply(turn);
        }
        let (credited, unserved) = self.settles.take_credited();
        for number in credited {
            let credit = self.channels.get(&number).and_then(|channel| channel.shared_credit.as_ref());
            if credit.is_some_and(|credit| credit.take_wanted()) {
                self.resume_sharers(number, turn);
            }
        }
        for queue in unserved {
            queue.serve(turn);
        }
        turn.drain();
    }

    /// Closes a channel or the connection because of a fault.
    pub(super) fn fail(&mut self, channel: u16, failure: Failure, turn: &mut Turn<'_>) {
        self.settle_up(turn);
        let text = format!("{} - {}", failure.code.name(), failure.text);
        let (class_id, method_id) = failure.method.unwrap_or_default();
        let is_channel = !failure.is_connection && channel != 0 && self.stage == Stage::Running;
        tracing::debug!(connection = self.id.0, channel, %text, "closed by a fault");
        if is_channel {
            self.drop_consumers_and_deliveries(channel, turn);
            let close = method::channel::AMQPMethod::Close(method::channel::Close {
                reply_code: failure.code.number(),
                reply_text: method::reply_text(failure.code.name(), &failure.text),
                class_id,
                method_id,
            });
            if let Some(channel) = self.channels.get_mut(&channel) {
                **channel = Channel { is_closing: true, ..Channel::default() };
            }
            self.send(channel, &AMQPClass::Channel(close));
            return;
        }
        if !self.may_close_politely(&failure) {
            self.ended_by = Some(text);
            self.stage = Stage::Over;
            return;
        }
        self.drop_everything(turn);
        let close = method::connection::AMQPMethod::Close(method::connection::Close {
            reply_code: failure.code.number(),
            reply_text: method::reply_text(failure.code.name(), &failure.text),
            class_id,
            method_id,
        });
        self.send(0, &AMQPClass::Connection(close));
        self.ended_by = Some(text);
        let deadline = turn.now.after_ms(CLOSE_OK_TIMEOUT_MS);
        self.set_stage(Stage::Closing, deadline);
    }

    /// Before login a close is sent only to a client that says it understands it.
    fn may_close_politely(&self, failure: &Failure) -> bool {
        match self.stage {
            Stage::Greeting => false,
            Stage::Start => failure.code != Code::AccessRefused || self.login.as_ref().is_some_and(|l| l.wants_close),
            _ => true,
        }
    }

    /// Sends a method at once.
    pub(super) fn send(&self, channel: u16, class: &AMQPClass) {
        self.shared.output().encode(|out| method::encode(channel, class, out));
    }

    /// Sends a method once everything that it depends on is safe.
    pub(super) fn reply(&mut self, channel: u16, class: AMQPClass, turn: &mut Turn<'_>) {
        let gate = turn.take_gate();
        let waits = !self.broker.is_safe(gate);
        match self.channels.get_mut(&channel) {
            Some(open) if waits || !open.replies.is_empty() => open.replies.push_back((gate, class)),
            _ => self.send(channel, &class),
        }
    }

    /// Sends replies and confirms whose gate has opened.
    fn release_gated(&mut self) {
        let Some(flushed) = self.broker.journal().map(|journal| journal.flushed()) else { return };
        let mut output = self.shared.output();
        for (&number, channel) in &mut self.channels {
            while let Some((gate, class)) = channel.replies.front() {
                if gate.is_some_and(|gate| gate > flushed) {
                    break;
                }
                output.encode(|out| method::encode(number, class, out));
                channel.replies.pop_front();
            }
            channel.release_confirms(number, flushed, &mut output);
        }
    }

    /// An alarm stops connections in front of their next publish, so that whoever only consumes and
    /// settles goes on.
    fn is_held_back(&mut self, input: &Block, found: &Frame) -> bool {
        let is_publish = self.stage == Stage::Running
            && found.kind == FrameKind::Method
            && hot::method_id(found.payload(input)) == Some((hot::BASIC, 40));
        if is_publish {
            self.set_held(true);
        }
        is_publish
    }

    fn set_held(&mut self, is_held: bool) {
        if self.is_held == is_held {
            return;
        }
        self.is_held = is_held;
        self.shared.output().is_blocked = is_held;
        if self.stage != Stage::Running || !self.login.as_ref().is_some_and(|login| login.wants_blocked) {
            return;
        }
        let method = if is_held {
            let reason = self.broker.alarm_reason().unwrap_or_default();
            method::connection::AMQPMethod::Blocked(method::connection::Blocked { reason: method::short_text(reason) })
        } else {
            method::connection::AMQPMethod::Unblocked(method::connection::Unblocked {})
        };
        self.send(0, &AMQPClass::Connection(method));
    }

    /// Registers the connection, which has opened its vhost.
    pub(super) fn register(&mut self, vhost: Arc<Vhost>, now: Time) {
        let Some(login) = &self.login else { return };
        let info = ConnectionInfo {
            id: self.id,
            name: format!("{} -> {}", self.peer, self.local).into(),
            peer: self.peer,
            local: self.local,
            user: login.user.name.as_str().into(),
            vhost: vhost.name.clone(),
            protocol: "{0,9,1}".to_owned(),
            auth_mechanism: login.mechanism.clone(),
            frame_max: self.frame_max,
            channel_max: self.channel_max,
            heartbeat_secs: (self.heartbeat_ms / 1000) as u16,
            client_properties: login.client_properties.clone(),
            connected_at: now,
        };
        vhost.connection_opened();
        self.vhost = Some(vhost);
        self.broker.connections.add(Connection { info: Arc::new(info), handle: self.shared.clone() });
    }
}

impl session::Session for Session {
    fn handle_input(&mut self, input: &Block, now: Time) -> Progress {
        Self::handle_input(self, input, now)
    }

    fn handle_events(&mut self, now: Time) {
        Self::handle_events(self, now);
    }

    fn handle_timeout(&mut self, now: Time) {
        Self::handle_timeout(self, now);
    }

    fn poll_timeout(&self) -> Time {
        Self::poll_timeout(self)
    }

    fn phase(&self) -> Phase {
        match self.stage {
            Stage::Running => Phase::Running,
            Stage::Over => Phase::Over,
            _ => Phase::Other,
        }
    }

    fn wants_input(&self) -> bool {
        Self::wants_input(self)
    }

    fn has_unread(&self) -> bool {
        self.is_held
    }

    fn wait_for_room(&self) {
        Self::wait_for_room(self);
    }

    fn note_trickle(&mut self, now: Time) {
        Self::note_trickle(self, now);
    }

    fn close(&mut self, now: Time) {
        Self::close(self, now);
    }

    fn is_closed_by_peer(&self) -> bool {
        true
    }

    fn user_name(&self) -> Option<&str> {
        Self::user_name(self)
    }

    fn vhost_name(&self) -> Option<&str> {
        Self::vhost_name(self)
    }

    fn ended_by(&self) -> Option<&str> {
        Self::ended_by(self)
    }
}

/// Milliseconds for which the answer to `connection.close` is awaited.
const CLOSE_OK_TIMEOUT_MS: u64 = 10_000;
const CONNECTION_CLOSE_OK: (u16, u16) = (10, 51);
/// Octets of parked frames of one connection. Full: it is not read from until they are done.
const PARKED_BYTES_MAX: usize = 256 * 1024;

/// Whether a frame has to wait because an earlier verb of its channel has not been answered:
/// answers keep their order, and no delivery comes before the answer to its consumer.
fn must_park(channel: &Channel, input: &Block, found: &Frame) -> bool {
    if matches!(channel.content, Content::Parked) {
        return true;
    }
    // Publishes and settles are not answered (a confirm goes apart from the other answers).
    let is_unanswered = || matches!(hot::method_id(found.payload(input)), Some((hot::BASIC, 40 | 80 | 90 | 120)));
    !channel.replies.is_empty() && found.kind == FrameKind::Method && !is_unanswered()
}

fn unexpected(found: &Frame, input: &Block) -> Failure {
    let text = frame::unexpected_text(found.kind, found.payload(input));
    Failure::connection(Code::UnexpectedFrame, text)
}

/// A hot method that could not be read, told as the general decoder tells it.
pub(super) fn cannot_decode(payload: &[u8]) -> Failure {
    match method::decode(payload) {
        Err(error) => decode_failure(&error),
        Ok(_) => Failure::connection(Code::FrameError, "cannot decode method"),
    }
}

pub(super) fn decode_failure(error: &MethodError) -> Failure {
    let code = match error {
        MethodError::Unknown { .. } => Code::CommandInvalid,
        MethodError::Truncated { .. } => Code::FrameError,
        // RabbitMQ finds such a string before it knows the method.
        MethodError::Malformed { fault: Fault::ShortString, .. } => {
            return Failure::connection(Code::FrameError, error.text()).at((0, 0));
        }
        MethodError::Malformed { .. } => Code::SyntaxError,
    };
    Failure::connection(code, error.text()).at(error.id())
}
