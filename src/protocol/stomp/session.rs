//! One client connection as a state machine: octets in, octets out, no socket and no clock.
//!
//! ```text
//!   Login ──CONNECT──▶ Running ──DISCONNECT, or an error that closes──▶ Ending ──all said──▶ Over
//!     └── a login that is refused leaves it here, until the time for it is over
//! ```
//!
//! SENDs and acknowledgements of one read are gathered and take effect together, before any other frame
//! and at the end of the read. Answers leave in the order of their frames, each once the log is safe as
//! far as its frame has changed it. A SUBSCRIBE that has to wait for that stays unread, so that its
//! receipt comes before its first message.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet, VecDeque},
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
};

use super::{
    codec::{self, BodyEnd, Head, Header, Limits, Trim},
    dialect::{self, Dialect, activemq, rabbitmq},
    options::Options,
    output::Shared,
    repeated::Repeated,
    reply::{self, Refusal},
    subscription::Subscription,
    transaction::Transactions,
};
use crate::{
    broker::{
        Broker,
        access::{Checker, User},
        block::{Block, Slice},
        connections::ConnectionId,
        consumer::SharedCredit,
        publish::{BATCH_MAX, Batch, RouteCache},
        queue::Queue,
        record::{Position, QueueId},
        time::Time,
        turn::Turn,
        vhost::Vhost,
    },
    protocol::{
        amqp::{
            delivery_timeout::DeliveryMarks,
            reply::{Code, Failure},
        },
        session::{self, Phase, Progress},
        settles::Settles,
        shared::Event,
    },
};

/// How far the connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// CONNECT is expected.
    Login,
    /// Everything is possible.
    Running,
    /// Nothing is read any more; what was promised is still said.
    Ending,
    /// The socket is to be closed once the output is written.
    Over,
}

/// What a session needs to know of where it runs.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Settings.
    pub options: Options,
    /// Whose STOMP is spoken.
    pub dialect: Dialect,
    /// Names that clients go by, of all listeners together.
    pub clients: Arc<activemq::Clients>,
    /// Product and version, as clients are told.
    pub server_name: String,
    /// Milliseconds before a failed login is answered.
    pub login_failure_delay_ms: u64,
}

/// See the module's text.
pub struct Session {
    pub(super) broker: Arc<Broker>,
    pub(super) surroundings: Arc<Surroundings>,
    pub(super) shared: Arc<Shared>,
    pub(super) id: ConnectionId,
    pub(super) peer: SocketAddr,
    pub(super) local: SocketAddr,
    stage: Stage,
    /// When the present stage ends by itself.
    stage_deadline: Time,
    /// What it is in listings.
    pub(super) protocol_name: &'static str,
    pub(super) version: Version,
    pub(super) login: Option<Box<Login>>,
    pub(super) vhost: Option<Arc<Vhost>>,
    /// What messages of this connection are acknowledged by has this in it.
    pub(super) session_id: String,
    /// Milliseconds of silence that the client was promised not to hear, and that it promised; zero is
    /// no promise.
    pub(super) heartbeat_ms: (u64, u64),
    /// By consumer tag.
    pub(super) subscriptions: HashMap<Box<[u8]>, Subscription, foldhash::fast::RandomState>,
    /// Their consumer tags, by their sources in the ledger.
    pub(super) tags: HashMap<u32, Box<[u8]>, foldhash::fast::FixedState>,
    /// What only one of the dialects has.
    pub(super) rabbitmq: rabbitmq::State,
    pub(super) activemq: activemq::State,
    /// Queues that were declared for this connection.
    pub(super) declared: HashSet<Box<[u8]>, foldhash::fast::RandomState>,
    /// Queues that go with the connection.
    pub(super) exclusive_queues: HashMap<QueueId, Arc<Queue>, foldhash::fast::FixedState>,
    /// Unsettled deliveries that a new subscription may hold.
    pub(super) prefetch: u32,
    /// Holds all subscriptions together to the bound on unsettled deliveries.
    pub(super) credit: Arc<SharedCredit>,
    pub(super) transactions: Transactions,
    pub(super) repeated: Repeated,
    pub(super) routes: RouteCache,
    pub(super) routes_generation: u64,
    pub(super) batch: Batch,
    /// Receipts that messages of the batch have asked for: index in the batch, and the receipt.
    pub(super) batch_receipts: Vec<(u32, Vec<u8>)>,
    pub(super) settles: Settles,
    /// Answers that wait for the log, or for those before them.
    replies: VecDeque<(Option<Position>, Vec<u8>)>,
    replies_bytes: usize,
    /// A frame is left unread until the log is safe as far as this and all is answered.
    waits_for: Option<Position>,
    /// Nothing is read until then; then this is said.
    late: Option<(Time, Vec<u8>)>,
    /// A SEND whose body has not come whole.
    partial: Option<Box<Partial>>,
    /// Room for the headers of the next frame.
    headers: Vec<Header>,
    /// Octets of an unfinished head, and of its body, that hold no end.
    head_seen: usize,
    pub(super) body_seen: usize,
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
    pub(super) delivery_marks: DeliveryMarks,
    /// When deliveries are looked at that nobody has settled.
    pub(super) next_timeout_check: Time,
    ended_by: Option<String>,
}

/// What was agreed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Version {
    #[default]
    V1_0,
    V1_1,
    V1_2,
}

impl Version {
    pub(super) const ALL: [Self; 3] = [Self::V1_0, Self::V1_1, Self::V1_2];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::V1_0 => "1.0",
            Self::V1_1 => "1.1",
            Self::V1_2 => "1.2",
        }
    }
}

/// Who logged in.
pub(super) struct Login {
    pub(super) user: Arc<User>,
    pub(super) checker: Checker,
}

/// A SEND whose head has come.
struct Partial {
    head: Vec<u8>,
    command_len: usize,
    headers: Vec<Header>,
    end: BodyEnd,
    parts: Vec<Slice>,
    parts_bytes: u64,
}

/// The body of a frame.
pub(super) enum Body<'a> {
    /// One place in one block.
    Inline(&'a Block, usize, usize),
    /// As it arrived.
    Parts(Vec<Slice>),
}

/// What a frame came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    /// It is done.
    Done,
    /// It has to wait for the log, and comes again.
    Waits,
}

/// What a look at the input came to.
enum Step {
    /// So many octets were used.
    Used(usize),
    /// More is needed; this is how much the frame needs in all, or zero.
    Wants(usize),
    /// Nothing is read for now.
    Waits,
}

/// Octets of a body that are worth keeping apart from what follows.
const PART_BYTES_MIN: usize = 16 * 1024;
/// Octets of a frame that are waited for in one piece.
const WHOLE_BYTES_MAX: usize = 128 * 1024;
/// Octets of answers that wait. Full: the connection is not read from until they flow.
const REPLIES_BYTES_MAX: usize = 1 << 20;
/// Milliseconds for which the last answers may wait for the log.
const ENDING_TIMEOUT_MS: u64 = 10_000;

impl Session {
    /// A connection that was accepted at `now`.
    pub fn new(
        broker: Arc<Broker>,
        surroundings: Arc<Surroundings>,
        shared: Arc<Shared>,
        peer: SocketAddr,
        local: SocketAddr,
        now: Time,
    ) -> Self {
        let id = broker.connections.next_id();
        let options = &surroundings.options;
        let credit = SharedCredit::default();
        credit.set_limit(options.unsettled_max.min(u32::MAX as usize) as u32);
        shared.output().wire.begin(surroundings.dialect, options);
        let stage_deadline = now.after_ms(options.login_timeout_ms);
        Self {
            broker,
            shared,
            id,
            peer,
            local,
            stage: Stage::Login,
            stage_deadline,
            protocol_name: "STOMP",
            version: Version::default(),
            login: None,
            vhost: None,
            session_id: String::new(),
            heartbeat_ms: (0, 0),
            subscriptions: HashMap::default(),
            tags: HashMap::default(),
            rabbitmq: rabbitmq::State::default(),
            activemq: activemq::State::default(),
            declared: HashSet::default(),
            exclusive_queues: HashMap::default(),
            prefetch: 0,
            credit: Arc::new(credit),
            transactions: Transactions::default(),
            repeated: Repeated::default(),
            routes: RouteCache::default(),
            routes_generation: 0,
            batch: Batch::default(),
            batch_receipts: Vec::new(),
            settles: Settles::default(),
            replies: VecDeque::new(),
            replies_bytes: 0,
            waits_for: None,
            late: None,
            partial: None,
            headers: Vec::new(),
            head_seen: 0,
            body_seen: 0,
            last_input: now,
            was_reading: true,
            last_output: now,
            is_traced: false,
            unused_bytes: 0,
            noted_bytes: 0,
            is_held: false,
            delivery_marks: DeliveryMarks::default(),
            next_timeout_check: Time::NEVER,
            ended_by: None,
            surroundings,
        }
    }

    /// Has listings call it something else than STOMP, for what STOMP is carried by.
    pub fn set_protocol_name(&mut self, name: &'static str) {
        self.protocol_name = name;
    }

    /// How far the connection has come.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    pub(super) fn options(&self) -> &Options {
        &self.surroundings.options
    }

    pub(super) fn dialect(&self) -> Dialect {
        self.surroundings.dialect
    }

    /// Acts on received bytes, which are all of `input`.
    pub fn handle_input(&mut self, input: &Block, now: Time) -> Progress {
        self.last_input = now;
        self.is_traced = self.vhost.as_ref().is_some_and(|vhost| vhost.is_traced.load(Ordering::Relaxed));
        let broker = self.broker.clone();
        let mut turn = Turn::new(&broker, now);
        let mut at = 0;
        let mut wanted;
        loop {
            (at, wanted) = self.read(input, at, &mut turn);
            self.settle_up(&mut turn);
            let waited = self.waits_for.is_some();
            self.proceed();
            if !waited || self.waits_for.is_some() {
                break;
            }
        }
        if matches!(self.stage, Stage::Ending | Stage::Over) {
            at = input.len();
        }
        self.note_input(input.len(), at);
        self.note_output(now);
        turn.end();
        self.note_reading(now);
        Progress { consumed: at, wanted }
    }

    /// Works off whole frames from `at` on; returns where it stopped, and what is wanted there.
    fn read(&mut self, input: &Block, mut at: usize, turn: &mut Turn<'_>) -> (usize, usize) {
        while matches!(self.stage, Stage::Login | Stage::Running) && !self.has_unread() {
            match self.step(input, at, turn) {
                Ok(Step::Used(octets)) => at += octets,
                Ok(Step::Wants(octets)) => return (at, octets),
                Ok(Step::Waits) => return (at, 0),
                Err(error) => {
                    self.malformed(error, turn);
                    return (input.len(), 0);
                }
            }
            if self.batch.len() >= BATCH_MAX {
                self.settle_up(turn);
            }
        }
        (at, 0)
    }

    fn step(&mut self, input: &Block, at: usize, turn: &mut Turn<'_>) -> Result<Step, codec::Error> {
        if let Some(partial) = self.partial.take() {
            return self.step_body(partial, input, at, turn);
        }
        let rest = &input[at..];
        let skipped = codec::skip_between(rest, self.dialect().syntax())?;
        if skipped > 0 {
            return Ok(Step::Used(skipped));
        }
        if self.head_seen == 0
            && let Some(octets) = self.send_again(input, at, turn)
        {
            return Ok(Step::Used(octets));
        }
        let Some(end) = codec::find_head_end(rest, self.head_seen) else {
            if rest.len() > self.head_limits().head_bytes_max {
                return Err(codec::Error::HeadTooLarge);
            }
            self.head_seen = rest.len();
            return Ok(Step::Wants(0));
        };
        self.head_seen = 0;
        let mut headers = std::mem::take(&mut self.headers);
        let step = self.step_head(input, at, end, &mut headers, turn);
        if headers.capacity() <= HEADERS_KEPT_MAX {
            self.headers = headers;
        }
        step
    }

    fn step_head(
        &mut self,
        input: &Block,
        at: usize,
        head_len: usize,
        headers: &mut Vec<Header>,
        turn: &mut Turn<'_>,
    ) -> Result<Step, codec::Error> {
        let rest = &input[at..];
        let bytes = &rest[..head_len];
        let command_len = codec::decode_head(bytes, &self.head_limits(), headers)?;
        let head = Head::new(bytes, command_len, headers, self.trim()).without_return(self.lacks_return());
        let is_send = head.command() == b"SEND" && self.stage == Stage::Running;
        if is_send && self.broker.has_alarm() {
            self.set_held(true);
            return Ok(Step::Waits);
        }
        let end = head.body_end()?;
        let available = rest.len() - head_len;
        let (found, needed) = match end {
            BodyEnd::Length(length) => {
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                self.check_body(length, head_len, is_send)?;
                (if available > length { Some(length) } else { None }, head_len + length + 1)
            }
            BodyEnd::Nul => {
                let seen = self.body_seen.min(available);
                let found = rest[head_len + seen..].iter().position(|&octet| octet == 0).map(|at| seen + at);
                self.check_body(found.unwrap_or(available), head_len, is_send)?;
                self.body_seen = if found.is_some() { 0 } else { available };
                (found, 0)
            }
        };
        if let Some(length) = found {
            if rest[head_len + length] != 0 {
                return Err(codec::Error::NoNul);
            }
            let body = Body::Inline(input, at + head_len, length);
            return Ok(match self.handle_frame(&head, body, turn) {
                Flow::Done => Step::Used(head_len + length + 1),
                Flow::Waits => Step::Waits,
            });
        }
        if !is_send || needed <= WHOLE_BYTES_MAX && rest.len() < WHOLE_BYTES_MAX {
            return Ok(Step::Wants(needed));
        }
        self.body_seen = 0;
        self.partial = Some(Box::new(Partial {
            head: bytes.to_vec(),
            command_len,
            headers: headers.clone(),
            end,
            parts: Vec::new(),
            parts_bytes: 0,
        }));
        Ok(Step::Used(head_len))
    }

    fn step_body(
        &mut self,
        mut partial: Box<Partial>,
        input: &Block,
        at: usize,
        turn: &mut Turn<'_>,
    ) -> Result<Step, codec::Error> {
        let rest = &input[at..];
        let (found, needed) = match partial.end {
            BodyEnd::Length(length) => {
                let missing = (length - partial.parts_bytes) as usize;
                (if rest.len() > missing { Some(missing) } else { None }, missing + 1)
            }
            BodyEnd::Nul => {
                let seen = self.body_seen.min(rest.len());
                let found = rest[seen..].iter().position(|&octet| octet == 0).map(|at| seen + at);
                self.body_seen = if found.is_some() { 0 } else { rest.len() };
                (found, 0)
            }
        };
        let take = |partial: &mut Partial, octets: usize| {
            if octets > 0 {
                partial.parts.push(Slice::new(input.clone(), at, octets));
                partial.parts_bytes += octets as u64;
            }
        };
        if let Some(octets) = found {
            if rest[octets] != 0 {
                return Err(codec::Error::NoNul);
            }
            take(&mut partial, octets);
            self.check_body(partial.parts_bytes as usize, 0, true)?;
            let Partial { head, command_len, headers, parts, .. } = *partial;
            let head = Head::new(&head, command_len, &headers, self.trim()).without_return(self.lacks_return());
            // A SEND never waits.
            self.handle_frame(&head, Body::Parts(parts), turn);
            return Ok(Step::Used(octets + 1));
        }
        // The NUL behind a body of a known length is left for when it comes.
        let octets = if needed == 0 { rest.len() } else { rest.len().min(needed - 1) };
        if octets < PART_BYTES_MIN && rest.len() < needed.max(PART_BYTES_MIN) {
            self.partial = Some(partial);
            return Ok(Step::Wants(needed.min(WHOLE_BYTES_MAX)));
        }
        take(&mut partial, octets);
        self.body_seen = 0;
        self.check_body(partial.parts_bytes as usize, 0, true)?;
        self.partial = Some(partial);
        Ok(Step::Used(octets))
    }

    fn head_limits(&self) -> Limits {
        let options = self.options();
        let head_bytes_max = match self.stage {
            Stage::Login => options.head_bytes_max.min(options.pre_login_frame_max),
            _ => options.head_bytes_max,
        };
        self.dialect().limits(head_bytes_max, options)
    }

    /// Refuses a body of which so many octets have come or are announced.
    fn check_body(&self, body_bytes: usize, head_bytes: usize, is_send: bool) -> Result<(), codec::Error> {
        let max = match self.stage {
            Stage::Login => self.options().pre_login_frame_max.saturating_sub(head_bytes),
            _ if is_send => usize::try_from(self.broker.options.max_message_bytes).unwrap_or(usize::MAX),
            _ => self.options().head_bytes_max,
        };
        if body_bytes > max { Err(codec::Error::BodyTooLarge) } else { Ok(()) }
    }

    fn trim(&self) -> Trim {
        match (self.stage, self.version) {
            (Stage::Running, Version::V1_0) => self.dialect().trim(),
            _ => Trim::Nothing,
        }
    }

    fn lacks_return(&self) -> bool {
        self.dialect().lacks_return(self.version)
    }

    /// What cannot be read ends the connection.
    fn malformed(&mut self, error: codec::Error, turn: &mut Turn<'_>) {
        self.settle_up(turn);
        match self.dialect().malformed(error) {
            Some(refusal) => self.refuse(refusal, turn),
            None => self.end_in_silence(error.text()),
        }
    }

    /// Closes the socket without a word.
    pub(super) fn end_in_silence(&mut self, reason: &str) {
        self.ended_by = Some(reason.to_owned());
        self.stage = Stage::Over;
    }

    fn handle_frame(&mut self, head: &Head<'_>, body: Body<'_>, turn: &mut Turn<'_>) -> Flow {
        match dialect::handle(self, head, body, turn) {
            Ok(flow) => flow,
            Err(refusal) => {
                self.settle_up(turn);
                dialect::refuse(self, refusal, head, turn);
                Flow::Done
            }
        }
    }

    /// Readies for a frame that is not of the message path.
    pub(super) fn begin_rare(&mut self, turn: &mut Turn<'_>) {
        self.settle_up(turn);
        // The answer waits for what this frame does, not for what nobody asked about.
        turn.take_gate();
    }

    /// The client has said good-bye.
    pub(super) fn disconnect(&mut self, head: &Head<'_>, turn: &mut Turn<'_>) {
        self.drop_everything(turn);
        self.receipt(head, turn);
        self.end(turn.now);
    }

    /// Answers a frame that has been done, if it asks for it.
    pub(super) fn receipt(&mut self, head: &Head<'_>, turn: &mut Turn<'_>) {
        if let Some(id) = head.get("receipt") {
            let gate = turn.take_gate();
            self.reply(self.encode_receipt(&id), gate);
        }
    }

    /// Says why not. What closes the connection ends it here.
    pub(super) fn refuse(&mut self, refusal: Refusal, turn: &mut Turn<'_>) {
        self.refuse_and_answer(refusal, None, turn);
    }

    pub(super) fn refuse_and_answer(&mut self, refusal: Refusal, receipt: Option<Cow<'_, [u8]>>, turn: &mut Turn<'_>) {
        tracing::debug!(connection = self.id.0, message = %refusal.message, detail = %refusal.detail, "refused");
        if refusal.is_fatal {
            self.drop_everything(turn);
        }
        if !refusal.is_said {
            self.reply(self.encode_refusal(&refusal), None);
        }
        if let Some(id) = receipt {
            self.reply(self.encode_receipt(&id), None);
        }
        if refusal.is_fatal {
            self.ended_by = Some(format!("{}: {}", refusal.message, refusal.detail.trim_end()));
            self.end(turn.now);
        }
    }

    pub(super) fn encode_receipt(&self, id: &[u8]) -> Vec<u8> {
        reply::receipt(id, self.version, self.dialect(), self.options().trailing_lf)
    }

    pub(super) fn encode_refusal(&self, refusal: &Refusal) -> Vec<u8> {
        self.dialect().encode_refusal(refusal, self.version, self.options().trailing_lf)
    }

    /// Reads no more, and closes the socket when all is said.
    pub(super) fn end(&mut self, now: Time) {
        self.stage = Stage::Ending;
        self.stage_deadline = now.after_ms(ENDING_TIMEOUT_MS);
        self.end_when_all_is_said();
    }

    fn end_when_all_is_said(&mut self) {
        if self.stage == Stage::Ending && self.replies.is_empty() && self.late.is_none() {
            self.stage = Stage::Over;
        }
    }

    /// Everything is possible from now on.
    pub(super) fn start(&mut self) {
        self.stage = Stage::Running;
        self.stage_deadline = Time::NEVER;
    }

    /// Says something once everything that it depends on is safe, and everything before it is said.
    pub(super) fn reply(&mut self, frame: Vec<u8>, gate: Option<Position>) {
        if !self.broker.is_safe(gate) || !self.replies.is_empty() {
            self.replies_bytes += frame.len();
            self.replies.push_back((gate, frame));
        } else {
            self.say(&frame);
        }
    }

    /// Says something when a time has come, and reads nothing before.
    pub(super) fn reply_late(&mut self, frame: Vec<u8>, at: Time) {
        self.late = Some((at, frame));
    }

    fn say(&self, frame: &[u8]) {
        self.shared.output().encode(|out| out.extend_from_slice(frame));
    }

    /// Whether all was said that an answer to `gate` would have to wait for. If not, the frame that asks
    /// comes again when it was.
    pub(super) fn is_safe(&mut self, gate: Option<Position>) -> bool {
        if !self.broker.is_safe(gate) || !self.replies.is_empty() {
            self.waits_for = Some(gate.unwrap_or_default());
        }
        self.waits_for.is_none()
    }

    /// Says what waited for the log, as far as that has come.
    fn proceed(&mut self) {
        if self.replies.is_empty() && self.waits_for.is_none() {
            self.end_when_all_is_said();
            return;
        }
        // Registered first: what comes after this look wakes the connection again.
        self.shared.wait(&self.broker);
        let broker = self.broker.clone();
        while let Some((_, frame)) = self.replies.pop_front_if(|(gate, _)| broker.is_safe(*gate)) {
            self.replies_bytes -= frame.len();
            self.say(&frame);
        }
        if self.replies.is_empty() && broker.is_safe(self.waits_for) {
            self.waits_for = None;
        }
        self.shared.output().wire.status.unconfirmed = self.replies.len() as u64;
        self.end_when_all_is_said();
    }

    /// Makes gathered publishes and settles take effect.
    pub(super) fn settle_up(&mut self, turn: &mut Turn<'_>) {
        if !self.batch.is_empty() {
            self.place_batch(turn);
        }
        if !self.settles.is_empty() {
            self.settles.apply(turn);
            if self.credit.take_wanted() {
                for subscription in self.subscriptions.values() {
                    subscription.queue.resume(subscription.consumer, turn);
                }
            }
        }
        turn.drain();
    }

    /// Acts on what happened elsewhere.
    pub fn handle_events(&mut self, now: Time) {
        let events = self.shared.take_events();
        let broker = self.broker.clone();
        let mut turn = Turn::new(&broker, now);
        for event in events {
            match event {
                Event::ConsumerCancelled { source, .. } => dialect::cancelled(self, source, &mut turn),
                Event::Close(reason) => match self.stage {
                    Stage::Running => {
                        let failure = Failure::connection(Code::ConnectionForced, reason);
                        self.refuse(failure.into(), &mut turn);
                    }
                    Stage::Login => self.stage = Stage::Over,
                    Stage::Ending | Stage::Over => {}
                },
                Event::AlarmChanged if !broker.has_alarm() => self.set_held(false),
                // A connection is held only when it publishes.
                Event::AlarmChanged => {}
                Event::Drained => {
                    for (queue, consumer) in self.shared.take_parked() {
                        queue.resume(consumer, &mut turn);
                    }
                }
                Event::QueueDeclared { queue, watch } => dialect::activemq::declared(self, &queue, watch, &mut turn),
                Event::Proceed => {}
            }
        }
        self.proceed();
        dialect::proceed(self, &mut turn);
        self.note_output(now);
        turn.end();
        self.note_reading(now);
    }

    fn set_held(&mut self, is_held: bool) {
        self.is_held = is_held;
        self.shared.output().is_blocked = is_held;
    }

    /// Whether more input is welcome.
    pub fn wants_input(&self) -> bool {
        let is_waiting = self.replies.len() >= self.options().unanswered_max || self.replies_bytes > REPLIES_BYTES_MAX;
        !self.has_unread() && !is_waiting && !self.shared.is_full() && self.has_room()
    }

    /// See [`session::Session::has_unread`].
    pub fn has_unread(&self) -> bool {
        self.is_held && self.stage == Stage::Running || self.waits_for.is_some() || self.late.is_some()
    }

    fn has_room(&self) -> bool {
        self.broker.journal().is_none_or(|journal| journal.has_room())
    }

    /// When [`Self::handle_timeout`] is to be called next.
    pub fn poll_timeout(&self) -> Time {
        let mut at = self.stage_deadline.min(self.next_timeout_check).min(self.activemq.browse_at);
        if let Some((late, _)) = &self.late {
            at = at.min(*late);
        }
        if self.stage == Stage::Running {
            let (send_ms, receive_ms) = self.heartbeat_ms;
            if send_ms > 0 {
                at = at.min(self.last_output.after_ms(send_ms / 2));
            }
            if receive_ms > 0 && self.was_reading && self.wants_input() {
                at = at.min(self.last_input.after_ms(self.patience_ms()));
            }
        }
        at
    }

    /// How long the client may be silent.
    fn patience_ms(&self) -> u64 {
        self.heartbeat_ms.1.saturating_mul(self.options().heartbeat_grace_percent) / 100
    }

    /// Does what is due: answers late, beats, gives up a silent peer.
    pub fn handle_timeout(&mut self, now: Time) {
        if let Some((_, frame)) = self.late.take_if(|(at, _)| *at <= now) {
            self.reply(frame, None);
            self.note_output(now);
        }
        self.proceed();
        if self.stage_deadline <= now {
            self.ended_by = Some(match self.stage {
                Stage::Login => "login_timeout".to_owned(),
                _ => "the log was not flushed in time".to_owned(),
            });
            self.stage = Stage::Over;
            return;
        }
        if self.stage == Stage::Running {
            self.note_reading(now);
            let (send_ms, receive_ms) = self.heartbeat_ms;
            let is_heard = self.was_reading && receive_ms > 0;
            if is_heard && self.last_input.after_ms(self.patience_ms()) <= now {
                self.ended_by = Some(format!("missed heartbeats from client, timeout: {}s", receive_ms / 1000));
                self.stage = Stage::Over;
                return;
            }
            self.note_output(now);
            if send_ms > 0 && self.last_output.after_ms(send_ms / 2) <= now {
                self.say(b"\n");
                self.note_output(now);
            }
        }
        if self.activemq.browse_at <= now {
            let broker = self.broker.clone();
            let mut turn = Turn::new(&broker, now);
            dialect::proceed(self, &mut turn);
            turn.end();
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
        dialect::closed(self, &mut turn);
        if let Some(vhost) = self.vhost.take() {
            vhost.connection_closed();
            self.broker.connections.remove(self.id);
        }
        turn.end();
        self.stage = Stage::Over;
    }

    /// A peer that was not read from starts anew to be silent: its heart-beats wait in the socket.
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
}

/// Room for headers that a connection keeps.
const HEADERS_KEPT_MAX: usize = 256;

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
            Stage::Login | Stage::Ending => Phase::Other,
        }
    }

    fn wants_input(&self) -> bool {
        Self::wants_input(self)
    }

    fn has_unread(&self) -> bool {
        Self::has_unread(self)
    }

    fn wait_for_room(&self) {
        if !self.has_room() {
            self.shared.wait(&self.broker);
        }
    }

    fn note_trickle(&mut self, now: Time) {
        self.last_input = now;
    }

    fn close(&mut self, now: Time) {
        Self::close(self, now);
    }

    fn is_closed_by_peer(&self) -> bool {
        false
    }

    fn user_name(&self) -> Option<&str> {
        self.login.as_ref().map(|login| &*login.user.name)
    }

    fn vhost_name(&self) -> Option<&str> {
        self.vhost.as_ref().map(|vhost| &*vhost.name)
    }

    fn ended_by(&self) -> Option<&str> {
        self.ended_by.as_deref()
    }
}
