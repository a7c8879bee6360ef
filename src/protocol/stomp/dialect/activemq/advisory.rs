//! Advisories: messages to topics `ActiveMQ.Advisory...` that tell of clients, destinations and consumers.
//!
//! They are made only while somebody listens to such a topic, and go to the queues of those subscriptions alone:
//! nobody else who listens to topics gets them. They tell what sessions of this dialect do; the counts in them
//! are of all protocols. Producers are not told of, as with ActiveMQ where they speak STOMP.

use std::sync::{
    Arc, Weak,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use parking_lot::Mutex;
use serde_json::{Value as Json, json};

use super::{
    super::super::{
        publish::{build, put_route},
        session::Body,
    },
    Speaker,
    destination::{Destination, is_pattern, matches},
    message::TIMESTAMP_IN_MS,
    send::{put_number, put_text},
    subscribe::{Wish, is_common},
};
use crate::{
    broker::{
        exchange::{Routing, Target},
        message::{Message, Traits},
        queue::Queue,
        turn::Turn,
    },
    protocol::amqp::properties::Fields,
};

/// Who listens, of all sessions.
#[derive(Debug, Default)]
pub(super) struct Advisories {
    /// Length of `listeners`, for those who have something to tell.
    count: AtomicUsize,
    listeners: Mutex<Vec<Listener>>,
    /// Advisories until now.
    told: AtomicU64,
}

/// A subscription to advisories, as long as its queue is there.
#[derive(Debug)]
struct Listener {
    vhost: Arc<str>,
    pattern: Vec<u8>,
    queue: Weak<Queue>,
}

/// What topics of advisories begin with.
const PREFIX: &str = "ActiveMQ.Advisory.";
/// Things of each kind that a new listener is told of.
const REPLAYED_MAX: usize = 1024;

/// What has happened to a destination.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Made,
    Gone,
}

impl Advisories {
    /// Whether nobody listens, and nothing has to be told.
    fn is_quiet(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    fn listen(&self, listener: Listener) {
        let mut listeners = self.listeners.lock();
        listeners.retain(|other| !other.queue.ptr_eq(&listener.queue) || other.pattern != listener.pattern);
        listeners.push(listener);
        self.count.store(listeners.len(), Ordering::Relaxed);
    }

    /// The queues that get what is told by a topic.
    fn queues(&self, vhost: &str, topic: &[u8]) -> Vec<Arc<Queue>> {
        let mut listeners = self.listeners.lock();
        listeners.retain(|one| one.queue.upgrade().is_some_and(|queue| !queue.is_deleted()));
        self.count.store(listeners.len(), Ordering::Relaxed);
        let meant = listeners.iter().filter(|one| *one.vhost == *vhost && matches(&one.pattern, topic));
        let mut queues: Vec<Arc<Queue>> = meant.filter_map(|one| one.queue.upgrade()).collect();
        // A durable subscription may have several patterns.
        queues.sort_by_key(|queue| queue.id);
        queues.dedup_by_key(|queue| queue.id);
        queues
    }
}

/// Whether that is a topic of advisories.
pub(super) fn is_of_advisories(part: &Destination) -> bool {
    matches!(part, Destination::Topic(name) if name.starts_with(PREFIX.as_bytes()))
}

impl Speaker<'_> {
    fn advisories(&self) -> &Advisories {
        &self.surroundings.clients.advisories
    }

    fn is_anybody_told(&self) -> bool {
        !self.advisories().is_quiet()
    }

    /// A subscription to advisories begins: those that it is about go to its queue.
    pub(super) fn listen(&mut self, part: &Destination, queue: &Arc<Queue>, turn: &mut Turn<'_>) {
        let Some(vhost) = self.vhost.clone() else { return };
        let pattern = part.name().to_vec();
        let listener = Listener { vhost: vhost.name.clone(), pattern: pattern.clone(), queue: Arc::downgrade(queue) };
        self.advisories().listen(listener);
        // What is there already, where the kind of it is asked for, as with ActiveMQ.
        let asks =
            |kind: &str| pattern.strip_prefix(PREFIX.as_bytes()).is_some_and(|rest| rest.starts_with(kind.as_bytes()));
        if asks("Connection") {
            for connection in self.broker.connections.list().iter().filter(|one| *one.info.vhost == *vhost.name) {
                let info = &connection.info;
                let told =
                    connection_info(&format!("ID:{}", info.id.0), &info.name, &info.peer.to_string(), &info.user);
                self.replay(queue, &pattern, "Connection", told, None, turn);
            }
        }
        let queues = || vhost.queues().into_iter().filter(|queue| is_common(queue)).take(REPLAYED_MAX);
        if asks("Queue") {
            for known in queues() {
                let told = destination_info(&format!("ID:{}", self.id.0), "ActiveMQQueue", &known.name, Change::Made);
                self.replay(queue, &pattern, "Queue", told, None, turn);
            }
        }
        if asks("Consumer") {
            for known in queues() {
                let consumers = known.consumers();
                for one in consumers.iter().take(REPLAYED_MAX) {
                    let id = json!({"connectionId": format!("ID:{}", one.options.connection.0), "sessionId": one.options.channel, "value": one.id.0});
                    let told = json!({"ConsumerInfo": {
                        "commandId": 0,
                        "responseRequired": false,
                        "consumerId": id,
                        "destination": destination("ActiveMQQueue", &known.name),
                        "prefetchSize": one.options.prefetch,
                        "browser": false,
                        "exclusive": one.options.is_sole || one.options.exclusive,
                        "priority": one.options.priority,
                    }});
                    let topic = format!("Consumer.Queue.{}", known.name);
                    self.replay(queue, &pattern, &topic, told, Some(consumers.len() as u64), turn);
                }
            }
        }
    }

    /// Tells one listener.
    fn replay(
        &self,
        queue: &Arc<Queue>,
        pattern: &[u8],
        kind: &str,
        told: Json,
        consumers_count: Option<u64>,
        turn: &mut Turn<'_>,
    ) {
        let topic = format!("{PREFIX}{kind}");
        if matches(pattern, topic.as_bytes())
            && let Some(message) = self.advisory(&topic, &told, consumers_count)
        {
            queue.publish(std::iter::once(message), turn, &mut Vec::new());
        }
    }

    /// Tells everybody who listens.
    fn advise(&self, kind: &str, told: &Json, consumers_count: Option<u64>, turn: &mut Turn<'_>) {
        let Some(vhost) = &self.vhost else { return };
        let topic = format!("{PREFIX}{kind}");
        let queues = self.advisories().queues(&vhost.name, topic.as_bytes());
        if queues.is_empty() {
            return;
        }
        let Some(message) = self.advisory(&topic, told, consumers_count) else { return };
        for queue in queues {
            queue.publish(std::iter::once(message.clone()), turn, &mut Vec::new());
        }
    }

    /// A message as ActiveMQ makes one. There is none by a topic that is too long.
    fn advisory(&self, topic: &str, told: &Json, consumers_count: Option<u64>) -> Option<Message> {
        if topic.len() > u8::MAX.into() {
            return None;
        }
        let node = &self.broker.options.node_name;
        let mut headers = Vec::new();
        put_number(TIMESTAMP_IN_MS, 0, &mut headers);
        put_text(b"transformation", b"jms-advisory-json", &mut headers);
        put_text(b"originBrokerName", node.as_bytes(), &mut headers);
        put_text(b"originBrokerId", format!("ID:{node}").as_bytes(), &mut headers);
        put_text(b"originBrokerURL", format!("stomp://{}", self.local).as_bytes(), &mut headers);
        if let Some(count) = consumers_count {
            put_number(b"consumerCount", count, &mut headers);
        }
        let told_count = self.advisories().told.fetch_add(1, Ordering::Relaxed) + 1;
        let id = format!("ID:tern-{}-{}-2:1:0:0:{told_count}", self.local.port(), self.broker.started_at().0);
        let fields = Fields {
            message_id: Some(id.as_bytes()),
            message_type: Some(b"Advisory"),
            priority: Some(0),
            ..Fields::default()
        };
        let mut route = Vec::new();
        put_route(self.options().default_topic_exchange.as_bytes(), topic.as_bytes(), &mut route);
        let body = Arc::new(told.to_string().into_bytes());
        let body = Body::Inline(&body, 0, body.len());
        Some(build(&route, &fields, &headers, Traits::default(), body))
    }

    /// The client has come.
    pub(super) fn advise_connected(&mut self, turn: &mut Turn<'_>) {
        if self.is_anybody_told() {
            let client = String::from_utf8_lossy(&self.client_id()).into_owned();
            let user = self.login.as_ref().map_or("", |login| &*login.user.name);
            let told = connection_info(&self.session_id, &client, &self.peer.to_string(), user);
            self.advise("Connection", &told, None, turn);
        }
    }

    /// The client has gone, and everything of it.
    pub(super) fn advise_closed(&mut self, turn: &mut Turn<'_>) {
        if !self.is_anybody_told() || self.session_id.is_empty() {
            return;
        }
        for subscribed in std::mem::take(&mut self.activemq.subscriptions).into_values() {
            self.advise_unsubscribed(&subscribed.parts, subscribed.number, turn);
        }
        for (text, name) in std::mem::take(&mut self.activemq.temporary) {
            self.advise_temporary(&text, &name, Change::Gone, turn);
        }
        let told =
            json!({"RemoveInfo": {"commandId": 0, "responseRequired": true, "objectId": {"value": self.session_id}}});
        self.advise("Connection", &told, None, turn);
    }

    /// A queue was declared.
    pub(super) fn advise_queue(&mut self, name: &str, turn: &mut Turn<'_>) {
        if self.is_anybody_told() {
            let told = destination_info(&self.session_id, "ActiveMQQueue", name, Change::Made);
            self.advise("Queue", &told, None, turn);
        }
    }

    /// A topic is spoken of, perhaps for the first time on this connection.
    pub(super) fn advise_topic(&mut self, part: &Destination, turn: &mut Turn<'_>) {
        let Destination::Topic(name) = part else { return };
        if !self.is_anybody_told() || is_pattern(name) || is_of_advisories(part) {
            return;
        }
        let told = destination_info(&self.session_id, "ActiveMQTopic", &String::from_utf8_lossy(name), Change::Made);
        self.advise("Topic", &told, None, turn);
    }

    /// A temporary destination was made, or is gone.
    pub(super) fn advise_temporary(&self, text: &[u8], name: &str, change: Change, turn: &mut Turn<'_>) {
        if self.is_anybody_told() {
            let (class, kind) = match text.starts_with(b"/temp-queue/") {
                true => ("ActiveMQTempQueue", "TempQueue"),
                false => ("ActiveMQTempTopic", "TempTopic"),
            };
            let told = destination_info(&self.session_id, class, name, change);
            self.advise(kind, &told, None, turn);
        }
    }

    /// A consumer has come.
    pub(super) fn advise_subscribed(
        &mut self,
        (parts, number): (&[Destination], u64),
        (wish, name, prefetch): (&Wish, Option<&[u8]>, u32),
        turn: &mut Turn<'_>,
    ) {
        if !self.is_anybody_told() {
            return;
        }
        let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
        for part in parts.iter().filter(|part| !is_of_advisories(part)) {
            let (class, kind, real) = self.told_as(part);
            let told = json!({"ConsumerInfo": {
                "commandId": 0,
                "responseRequired": false,
                "consumerId": self.consumer_id(number),
                "destination": destination(class, &real),
                "prefetchSize": wish.prefetch.unwrap_or(prefetch),
                "maximumPendingMessageLimit": 0,
                "browser": wish.is_browser,
                "dispatchAsync": true,
                "selector": wish.selector.as_ref().map(|selector| selector.text()),
                "subscriptionName": name.map(text),
                "noLocal": wish.is_not_local,
                "exclusive": wish.is_sole,
                "retroactive": false,
                "priority": wish.priority,
                "optimizedAcknowledge": false,
                "noRangeAcks": false,
            }});
            let count = self.consumers_of(part) + u64::from(wish.is_browser);
            self.advise(&format!("Consumer.{kind}.{real}"), &told, Some(count), turn);
        }
    }

    /// A consumer has gone.
    pub(super) fn advise_unsubscribed(&mut self, parts: &[Destination], number: u64, turn: &mut Turn<'_>) {
        if !self.is_anybody_told() {
            return;
        }
        for part in parts.iter().filter(|part| !is_of_advisories(part)) {
            let (_, kind, real) = self.told_as(part);
            let told = json!({"RemoveInfo": {
                "commandId": 0,
                "responseRequired": false,
                "objectId": self.consumer_id(number),
                "lastDeliveredSequenceId": -2,
            }});
            let count = self.consumers_of(part);
            self.advise(&format!("Consumer.{kind}.{real}"), &told, Some(count), turn);
        }
    }

    fn consumer_id(&self, number: u64) -> Json {
        json!({"connectionId": self.session_id, "sessionId": -1, "value": number})
    }

    /// Class, kind and real name of a destination.
    fn told_as(&self, part: &Destination) -> (&'static str, &'static str, String) {
        let real = String::from_utf8_lossy(self.real_name(part)).into_owned();
        let (class, kind) = match part {
            Destination::Queue(_) => ("ActiveMQQueue", "Queue"),
            Destination::TempQueue(_) | Destination::RemoteTempQueue(_) => ("ActiveMQTempQueue", "Queue"),
            Destination::Topic(_) => ("ActiveMQTopic", "Topic"),
            Destination::TempTopic(_) | Destination::RemoteTempTopic(_) => ("ActiveMQTempTopic", "Topic"),
        };
        (class, kind, real)
    }

    /// Consumers of a destination, of all protocols: of a topic, the queues that get what is sent to it.
    fn consumers_of(&self, part: &Destination) -> u64 {
        let Some(vhost) = &self.vhost else { return 0 };
        let name = self.real_name(part);
        let of_queue = |name: &[u8]| {
            let queue = vhost.queue(&String::from_utf8_lossy(name));
            queue.map_or(0, |queue| queue.status().consumers)
        };
        match part {
            Destination::Queue(pattern) if is_pattern(pattern) => {
                self.matching(pattern).unwrap_or_default().iter().map(|name| of_queue(name)).sum()
            }
            part if part.is_queue() => of_queue(name),
            _ => match vhost.find_exchange(&self.options().default_topic_exchange) {
                Ok(exchange) => {
                    let mut targets = Vec::new();
                    exchange.route(&Routing::by_key(name), &mut targets, &mut Vec::new());
                    targets.iter().filter(|target| matches!(target, Target::Queue(_))).count() as u64
                }
                Err(_) => 0,
            },
        }
    }
}

fn destination(class: &str, name: &str) -> Json {
    json!({"@class": class, "physicalName": name})
}

fn connection_info(id: &str, client: &str, peer: &str, user: &str) -> Json {
    json!({"ConnectionInfo": {
        "commandId": 0,
        "responseRequired": true,
        "connectionId": {"value": id},
        "clientId": client,
        "clientIp": format!("tcp://{peer}"),
        "userName": user,
        "brokerMasterConnector": false,
        "manageable": false,
        "clientMaster": true,
        "faultTolerant": false,
        "failoverReconnect": false,
    }})
}

fn destination_info(connection: &str, class: &str, name: &str, change: Change) -> Json {
    json!({"DestinationInfo": {
        "commandId": 0,
        "responseRequired": false,
        "connectionId": {"value": connection},
        "destination": destination(class, name),
        "operationType": u8::from(change == Change::Gone),
        "timeout": 0,
    }})
}
