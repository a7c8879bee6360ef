//! Replays: archived messages of a FIFO topic for one subscription.
//!
//! ```text
//!               below `live_from`            from `live_from` on             nothing left
//!   ReplayPolicy ───▶ Replaying ─────────────────▶ Following ─────────────────────▶ Completed
//!                     said to be replayed          what was published meanwhile     the binding takes again
//! ```
//!
//! While a subscription is replayed to, its binding takes nothing: what is published then is in the archive like
//! everything else, and follows from there. The binding takes again in a moment in which nothing passes the exchange
//! and the archive has nothing more, so that nothing is delivered twice, left out, or out of order. What was routed
//! before the binding was paused and came to the archive after says so itself: it names the subscription's queue.
//!
//! How far a replay is, is a parameter of the vhost (`sns-replay`, by the subscription's name). It is kept every now
//! and then, so that after a crash some messages come again; each has a name of its own in FIFO queues, which take it
//! once.
//!
//! Whoever drives replays calls [`Replays::step`]; there is neither a task nor a clock here.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use parking_lot::{Mutex, MutexGuard};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    archive::Archive,
    arn::{invalid, new_uuid},
    envelope::Label,
    store,
    subscription::Subscription,
    topic::Topic,
};
use crate::{
    aws::{Aws, error::Error},
    broker::{
        Broker,
        exchange::{Replaced, Target, envelopes::Wrapped, filtered::Intake},
        message::Message,
        parameters::Parameter,
        queue::Queue,
        queue::stream::StreamMessage,
        time::Time,
        turn::Turn,
        value::Table,
        verb::Verb,
    },
};

/// The component whose parameters say how far replays are.
pub const COMPONENT: &str = "sns-replay";
/// Replays at a time. Full: further ones are refused.
const REPLAYS_MAX: usize = 100;
/// Milliseconds between two times that it is kept how far a replay is.
const KEPT_EVERY_MS: u64 = 500;

/// What a replay policy asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    since: Time,
    until: Option<Time>,
}

/// Reads a replay policy; `None`: it asks for nothing. `Err` says what is wrong with it.
pub(super) fn wanted(policy: &str) -> Result<Option<Wanted>, String> {
    if policy.is_empty() {
        return Ok(None);
    }
    let Ok(Json::Object(policy)) = serde_json::from_str(policy) else {
        return Err("ReplayPolicy: Invalid JSON".to_owned());
    };
    if policy.is_empty() {
        return Ok(None);
    }
    const KNOWN: [&str; 3] = ["PointType", "StartingPoint", "EndingPoint"];
    if let Some(other) = policy.keys().find(|name| !KNOWN.contains(&name.as_str())) {
        return Err(format!("ReplayPolicy: Attribute {other} is unknown"));
    }
    let text = |name: &str| policy.get(name).and_then(Json::as_str);
    if text("PointType") != Some("Timestamp") {
        return Err("ReplayPolicy: PointType must be Timestamp".to_owned());
    }
    let point = |name: &str| -> Result<Option<Time>, String> {
        let Some(value) = policy.get(name).filter(|value| !value.is_null()) else { return Ok(None) };
        let time = value.as_str().and_then(parse_time);
        time.map(Some).ok_or_else(|| format!("ReplayPolicy: Invalid value {value} for {name}. Must be a timestamp."))
    };
    let since = point("StartingPoint")?.ok_or("ReplayPolicy: StartingPoint is required")?;
    let until = point("EndingPoint")?;
    if until.is_some_and(|until| until < since) {
        return Err("ReplayPolicy: EndingPoint must not be before StartingPoint".to_owned());
    }
    Ok(Some(Wanted { since, until }))
}

/// A time as ISO 8601 writes it. Without a zone it is UTC.
fn parse_time(text: &str) -> Option<Time> {
    let parsed =
        OffsetDateTime::parse(text, &Rfc3339).or_else(|_| OffsetDateTime::parse(&format!("{text}Z"), &Rfc3339));
    let ms = parsed.ok()?.unix_timestamp_nanos() / 1_000_000;
    u64::try_from(ms).ok().map(Time)
}

/// Where a replay is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Phase {
    /// Nothing was looked at.
    Pending,
    /// Archived messages are delivered.
    Replaying,
    /// They have been; what was published meanwhile is.
    Following,
    /// The binding takes again.
    Completed,
    /// It could not go on.
    Failed,
}

/// A replay to one subscription.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Replay {
    /// Tells its messages from those of others.
    id: String,
    stream: String,
    phase: Phase,
    since_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until_ms: Option<u64>,
    /// The offset that is looked at next.
    next: u64,
    /// From this offset on messages are delivered for the first time, unless they were live.
    live_from: u64,
    #[serde(default)]
    delivered: u64,
    #[serde(skip)]
    kept_at: Time,
}

impl Replay {
    fn is_active(&self) -> bool {
        !matches!(self.phase, Phase::Completed | Phase::Failed)
    }

    fn status(&self) -> &'static str {
        match self.phase {
            Phase::Pending => "Pending",
            Phase::Replaying => "In progress",
            Phase::Following | Phase::Completed => "Completed",
            Phase::Failed => "Failed",
        }
    }
}

/// A vhost and the name of a subscription there.
type Key = (String, String);

/// The replays of a broker.
#[derive(Default)]
pub struct Replays(Mutex<Active>);

/// Replays that are not at their end. Guards what they do to subscriptions, too: whoever changes a subscription to a
/// FIFO topic holds it. Topology and queues may be locked under it.
#[derive(Default)]
pub(super) struct Active {
    all: BTreeMap<Key, Replay>,
    is_loaded: bool,
    /// Which one had its turn last.
    last: Option<Key>,
    /// How the filters of subscriptions came out, by their bindings' arguments.
    intakes: HashMap<String, (Table, Arc<Intake>)>,
}

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stepped {
    /// So many messages were delivered or passed over.
    Looked(usize),
    /// There was nothing to do for the replay whose turn it was.
    Nothing,
    /// There is no replay.
    None,
}

impl Replays {
    /// Has no replay do anything to a subscription while the guard is there.
    pub(super) fn lock(&self) -> MutexGuard<'_, Active> {
        self.0.lock()
    }

    /// The next replay delivers at most `max` messages.
    pub fn step(&self, aws: &Aws, max: usize, turn: &mut Turn<'_>) -> Stepped {
        let mut active = self.0.lock();
        active.load(turn.broker);
        let after = active.last.take();
        let next = |from: Option<&Key>| match from {
            Some(key) => {
                active.all.range::<Key, _>((std::ops::Bound::Excluded(key), std::ops::Bound::Unbounded)).next()
            }
            None => active.all.iter().next(),
        };
        let found = next(after.as_ref()).or_else(|| next(None)).map(|(key, replay)| (key.clone(), replay.clone()));
        let Some((key, mut replay)) = found else { return Stepped::None };
        let before = (replay.next, replay.phase);
        active.last = Some(key.clone());
        let looked = match advance(aws, &mut active.intakes, &key, &mut replay, max, turn) {
            Ok(looked) => looked,
            Err(Over::Failed(reason)) => {
                let (vhost, subscription) = &key;
                tracing::warn!(vhost, subscription, reason, "archived messages are replayed no further");
                replay.phase = Phase::Failed;
                0
            }
            // Its subscription or its topic is gone.
            Err(Over::Gone) => {
                active.forget(&key, turn);
                return Stepped::Looked(0);
            }
        };
        let is_changed = before != (replay.next, replay.phase);
        if before.1 != replay.phase || is_changed && turn.now.ms_since(replay.kept_at) >= KEPT_EVERY_MS {
            replay.kept_at = turn.now;
            keep(&key, &replay, turn);
        }
        if replay.is_active() {
            active.all.insert(key, replay);
        } else {
            active.forget_active(&key);
        }
        if is_changed { Stepped::Looked(looked) } else { Stepped::Nothing }
    }

    /// Forgets everything: the parameters are gone.
    pub(super) fn clear(&self) {
        *self.0.lock() = Active { is_loaded: true, ..Active::default() };
    }
}

impl Active {
    /// Looks for replays of before the start.
    fn load(&mut self, broker: &Broker) {
        if std::mem::replace(&mut self.is_loaded, true) {
            return;
        }
        for Parameter { value, vhost, name, .. } in broker.parameters.list(None, Some(COMPONENT)) {
            if let Ok(replay) = serde_json::from_value::<Replay>(value)
                && replay.is_active()
            {
                self.all.insert((vhost, name), replay);
            }
        }
    }

    /// How the replay to a subscription is getting on.
    pub(super) fn status(&self, vhost: &str, name: &str, broker: &Broker) -> Option<&'static str> {
        if let Some(replay) = self.all.get(&(vhost.to_owned(), name.to_owned())) {
            return Some(replay.status());
        }
        let kept = broker.parameters.get(vhost, COMPONENT, name)?;
        Some(Replay::deserialize(&*kept).ok()?.status())
    }

    /// Begins a replay to a subscription, in place of one that is under way. The subscription's binding is to take
    /// nothing from now on.
    pub(super) fn begin(
        &mut self,
        of: &Subscription,
        topic: &Topic,
        wanted: Wanted,
        turn: &mut Turn<'_>,
    ) -> Result<(), Error> {
        self.load(turn.broker);
        let key = (topic.vhost.name.to_string(), of.name());
        let stream = Archive::of(topic).and_then(|archive| Some((archive.begins(turn.now), archive.stream?)));
        let Some((begins, stream)) = stream else {
            return Err(invalid("ReplayPolicy: The topic has no message archive"));
        };
        if wanted.since < begins && wanted.until.is_some_and(|until| until < begins) {
            return Err(invalid("ReplayPolicy: EndingPoint must not be before the topic's BeginningArchiveTime"));
        }
        let known = self.all.get(&key).cloned();
        if known.is_none() && self.all.len() >= REPLAYS_MAX {
            let message = "The maximum number of concurrent message replays has been reached.";
            return Err(Error::sns("ReplayLimitExceededException", message));
        }
        let since = wanted.since.max(begins);
        let (next, end) = stream.stream_range(since).unwrap_or_default();
        // What an earlier replay had yet to deliver for the first time is not delivered by anybody else.
        let live_from = match known.filter(|known| *known.stream == *stream.name) {
            Some(known) => known.live_from.max(if known.phase == Phase::Following { known.next } else { 0 }),
            None => end,
        };
        let replay = Replay {
            id: new_uuid(),
            stream: stream.name.to_string(),
            phase: Phase::Pending,
            since_ms: since.0,
            until_ms: wanted.until.map(|until| until.0),
            next: next.min(live_from),
            live_from,
            delivered: 0,
            kept_at: turn.now,
        };
        keep(&key, &replay, turn);
        self.all.insert(key, replay);
        Ok(())
    }

    /// Ends a replay: what was published meanwhile follows at once. False: there is none under way.
    pub(super) fn stop(&mut self, vhost: &str, name: &str, turn: &mut Turn<'_>) -> bool {
        self.load(turn.broker);
        let key = (vhost.to_owned(), name.to_owned());
        let Some(replay) = self.all.get_mut(&key) else {
            store::remove(turn, vhost, COMPONENT, name);
            return false;
        };
        if replay.phase != Phase::Following {
            (replay.phase, replay.next) = (Phase::Following, replay.live_from);
        }
        keep(&key, replay, turn);
        true
    }

    /// Forgets the replay to a subscription that ends.
    pub(super) fn forget(&mut self, key: &Key, turn: &mut Turn<'_>) {
        self.load(turn.broker);
        self.forget_active(key);
        if turn.broker.parameters.get(&key.0, COMPONENT, &key.1).is_some() {
            store::remove(turn, &key.0, COMPONENT, &key.1);
        }
    }

    fn forget_active(&mut self, key: &Key) {
        self.all.remove(key);
        self.intakes.remove(&key.1);
    }
}

fn keep((vhost, name): &Key, replay: &Replay, turn: &mut Turn<'_>) {
    // It always serialises; where there is no room for it, it begins again after a restart.
    if let Ok(value) = serde_json::to_value(replay) {
        let _ = store::put(turn, vhost, COMPONENT, name, value);
    }
}

/// Why a replay does not go on.
enum Over {
    Gone,
    Failed(&'static str),
}

/// One step of one replay. Returns how many messages were looked at.
fn advance(
    aws: &Aws,
    intakes: &mut HashMap<String, (Table, Arc<Intake>)>,
    (vhost, name): &Key,
    replay: &mut Replay,
    max: usize,
    turn: &mut Turn<'_>,
) -> Result<usize, Over> {
    let vhost = turn.broker.vhost(vhost).ok_or(Over::Gone)?;
    let (topic, id) = name.rsplit_once(':').ok_or(Over::Gone)?;
    let of = Subscription::find(turn.broker, &vhost.name, topic, id).filter(|of| !of.is_gone).ok_or(Over::Gone)?;
    let topic = Topic::of(&vhost, &of.topic, &of.owner).ok_or(Over::Gone)?;
    let found = of.target(&vhost, turn).ok().flatten();
    let stream = vhost.queue(&replay.stream).filter(|stream| stream.is_stream());
    let (Some(Target::Queue(queue)), Some(stream)) = (found, stream) else {
        give_back(&of, &topic, turn);
        return Err(Over::Failed("the archive or the subscribed queue is gone"));
    };
    if replay.phase == Phase::Pending {
        replay.phase = Phase::Replaying;
    }
    let page = match stream.read_stream(replay.next, max, turn) {
        Verb::Done(Some(page)) => page,
        Verb::Done(None) => {
            give_back(&of, &topic, turn);
            return Err(Over::Failed("the archive cannot be read"));
        }
        // It is being read from disk.
        Verb::Pending(_) => return Ok(0),
    };
    let arguments = of.arguments();
    let intake = match intakes.get(name).filter(|(known, _)| *known == arguments) {
        Some((_, intake)) => intake.clone(),
        None => {
            let intake = Intake::new(&arguments).map_err(|_| Over::Failed("the filter policy is no longer valid"))?;
            let intake = Arc::new(intake);
            intakes.insert(name.clone(), (arguments, intake.clone()));
            intake
        }
    };
    let delivery = Delivery { aws, of: &of, stream: &stream, queue: &queue, intake: &intake };
    let looked = page.messages.len();
    let mut messages = Vec::with_capacity(looked);
    for found in &page.messages {
        let is_replayed = found.offset < replay.live_from;
        let is_wanted = if is_replayed {
            replay.phase == Phase::Replaying
                && found.at.0 >= replay.since_ms
                && replay.until_ms.is_none_or(|until| found.at.0 <= until)
        } else {
            !delivery.was_live(&found.message)
        };
        if is_wanted {
            let name = is_replayed.then(|| format!("{}:{}", replay.id, found.offset));
            messages.extend(delivery.make(found, name, turn));
        }
    }
    let passed = |replay: &Replay| {
        replay.until_ms.is_some_and(|until| page.messages.last().is_some_and(|last| last.at.0 > until))
    };
    replay.delivered += messages.len() as u64;
    queue.publish(messages.into_iter(), turn, &mut Vec::new());
    replay.next = page.next;
    if replay.phase == Phase::Replaying && replay.next < replay.live_from && passed(replay) {
        // What came later than asked for is passed over at once.
        replay.next = replay.live_from;
    }
    if replay.phase == Phase::Replaying && replay.next >= replay.live_from {
        replay.phase = Phase::Following;
    }
    if replay.phase == Phase::Following && page.next >= page.end && release(&of, &topic, (&stream, page.next), turn) {
        replay.phase = Phase::Completed;
        tracing::info!(vhost = %vhost.name, subscription = name, delivered = replay.delivered, "archived messages were replayed");
    }
    Ok(looked)
}

/// Has the binding of a subscription take again what is published, if the stream has nothing from an offset on and
/// nothing is on its way there. False: not now.
fn release(of: &Subscription, topic: &Topic, (stream, from): (&Arc<Queue>, u64), turn: &mut Turn<'_>) -> bool {
    let taking = Subscription { is_replayed_to: false, ..of.clone() };
    let Some(target) = of.bound(topic) else {
        // Whoever publishes next looks after it.
        return taking.keep(&topic.vhost.name, turn).is_ok();
    };
    let is_quiet = || stream.stream_range(Time(0)).is_none_or(|(_, end)| end == from);
    let (old, new) = (of.arguments(), taking.arguments());
    match topic.vhost.rebind_quietly(topic.name(), &target, b"", (&old, &new), is_quiet, turn) {
        Ok(Replaced::Done) => taking.keep(&topic.vhost.name, turn).is_ok(),
        Ok(Replaced::Busy) | Err(_) => false,
    }
}

/// The same at once: nothing follows from the archive any more.
fn give_back(of: &Subscription, topic: &Topic, turn: &mut Turn<'_>) {
    let taking = Subscription { is_replayed_to: false, ..of.clone() };
    if let Err(error) = taking.bind(Some(of), topic, turn).and_then(|()| taking.keep(&topic.vhost.name, turn)) {
        tracing::warn!(subscription = of.name(), %error, "a subscription takes nothing any more");
    }
}

/// From an archive to a queue.
struct Delivery<'a> {
    aws: &'a Aws,
    of: &'a Subscription,
    stream: &'a Arc<Queue>,
    queue: &'a Arc<Queue>,
    intake: &'a Intake,
}

impl Delivery<'_> {
    /// It went to the subscription's queue when it was published.
    fn was_live(&self, message: &Message) -> bool {
        message.sealed_for(self.queue.id).is_some_and(|(_, label)| Label::parse(label).id == self.of.id)
    }

    /// The message as the subscription takes it, if it wants it. `name`: it is said to be replayed, and that is its
    /// name in the queue.
    fn make(&self, found: &StreamMessage, name: Option<String>, turn: &Turn<'_>) -> Option<Message> {
        let renderer = turn.broker.renderer()?;
        if !self.intake.takes(&found.message, Some(&**renderer)) {
            return None;
        }
        let (seal, _) = found.message.sealed_for(self.stream.id)?;
        let label = self.of.label();
        let wrapped = Wrapped {
            message: &found.message,
            exchange: &seal.exchange,
            seal: &seal.bytes,
            label: label.as_bytes(),
            queue: self.queue.id,
        };
        Some(self.aws.sns.envelope.get()?.render_replayed(wrapped, name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_names_points_in_time() {
        let policy = r#"{"PointType":"Timestamp","StartingPoint":"1970-01-01T00:00:01.500Z"}"#;
        assert_eq!(wanted(policy), Ok(Some(Wanted { since: Time(1500), until: None })));
        let policy = r#"{"PointType":"Timestamp","StartingPoint":"1970-01-01T00:00:01","EndingPoint":"1970-01-01T01:00:02+01:00"}"#;
        assert_eq!(wanted(policy), Ok(Some(Wanted { since: Time(1000), until: Some(Time(2000)) })));
        assert_eq!((wanted("{}"), wanted("")), (Ok(None), Ok(None)));
        for wrong in [
            "[]",
            r#"{"PointType":"Offset","StartingPoint":"1970-01-01T00:00:01Z"}"#,
            r#"{"PointType":"Timestamp"}"#,
            r#"{"PointType":"Timestamp","StartingPoint":"yesterday"}"#,
            r#"{"PointType":"Timestamp","StartingPoint":"1970-01-01T00:00:02Z","EndingPoint":"1970-01-01T00:00:01Z"}"#,
            r#"{"PointType":"Timestamp","StartingPoint":"1970-01-01T00:00:02Z","More":"1"}"#,
        ] {
            assert!(wanted(wrong).is_err(), "{wrong}");
        }
    }
}
