//! SUBSCRIBE and UNSUBSCRIBE: one subscription is a consumer of each queue behind its destination.
//!
//! A subscription to a topic has a queue of its own that goes with it. A durable one has an ordinary durable
//! queue, named after the client and the subscription, which stays until somebody unsubscribes by name.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use super::{
    super::super::{
        codec::{self, Head},
        output::{self, Shared},
        reply::Refusal,
        session::{Flow, Version},
        subscription::{AckMode, Subscription, Wanted},
    },
    DEAD_QUEUE, Speaker,
    advisory::is_of_advisories,
    browse::Browser,
    destination::{self, Destination, binding_key, is_pattern, matches, virtual_topic},
    queues, refusal,
};
use crate::{
    broker::{
        access::Access,
        exchange::Target,
        queue::{Queue, properties::Properties as QueueProperties},
        record::QueueId,
        selector::{Conversion, Selector},
        topology::{DeclareQueue, random_name},
        turn::Turn,
        value::{Table, Value},
        vhost::QueueWatcher,
    },
    protocol::shared::Event,
};

/// A subscription of this connection.
pub(super) struct Subscribed {
    pub(super) number: u64,
    /// What the client calls it.
    pub(super) id: Option<Box<[u8]>>,
    pub(super) parts: Vec<Destination>,
    /// Its consumers by their names on this connection.
    pub(super) consumers: Vec<Box<[u8]>>,
    /// Queues that go with it.
    own_queues: Vec<Arc<Queue>>,
    /// What consumers for later queues are started with.
    wish: Wish,
    /// Tells of later queues, while somebody holds it.
    _watcher: Option<Arc<dyn QueueWatcher>>,
    consumers_count: u64,
}

/// What a client wants of a subscription.
#[derive(Clone)]
pub(super) struct Wish {
    mode: AckMode,
    pub(super) prefetch: Option<u32>,
    pub(super) priority: i32,
    pub(super) selector: Option<Arc<Selector>>,
    /// Nothing that this connection has sent.
    pub(super) is_not_local: bool,
    pub(super) is_sole: bool,
    pub(super) is_browser: bool,
}

impl Subscribed {
    /// Whether it looks at messages and takes none.
    pub(super) fn is_browser(&self) -> bool {
        self.wish.is_browser
    }
}

/// How queues of durable subscriptions are named: this, the client, a colon, and the subscription.
pub(super) const DURABLE_PREFIX: &str = "ActiveMQ.Durable.";

/// ActiveMQ's own numbers of messages that a consumer may hold.
const QUEUE_PREFETCH: u32 = 1000;
const DURABLE_PREFETCH: u32 = 100;
const TOPIC_PREFETCH: u32 = 32_766;

/// Queues that one subscription to a pattern consumes from. Further ones are left to others.
const MATCHES_MAX: usize = 1024;

/// Names of the header that names a durable subscription: ActiveMQ's, as it was once misspelt, and those of its
/// successor.
const SUBSCRIPTION_NAMES: [&str; 4] =
    ["activemq.subscriptionName", "activemq.subcriptionName", "durable-subscriber-name", "durable-subscription-name"];

impl Speaker<'_> {
    pub(super) fn subscribe(&mut self, head: &Head<'_>, turn: &mut Turn<'_>) -> Result<Flow, Refusal> {
        let id = head.get("id");
        if id.is_none() && self.version != Version::V1_0 {
            return Err(Refusal::new("SUBSCRIBE received without a subscription id!", ""));
        }
        let text = head.get("destination").filter(|text| !text.trim_ascii().is_empty());
        let text = text.ok_or_else(destination::empty)?;
        let parts = Destination::parse(&text)?;
        let mut name = None;
        for header in SUBSCRIPTION_NAMES {
            name = name.or_else(|| head.get(header));
        }
        if name.is_some() && parts.iter().any(Destination::is_queue) {
            let text = "Invalid Subscription: cannot durably subscribe to a Queue destination!";
            return Err(Refusal::new(text, ""));
        }
        let selector = self.selector(head)?;
        let is_not_local = is_true(head, "activemq.noLocal");
        let is_browser = is_true(head, "browser");
        if is_browser && self.version == Version::V1_0 {
            return Err(Refusal::new("Queue Browser feature only valid for Stomp v1.1+ clients!", ""));
        }
        if is_browser && !parts.iter().all(|part| matches!(part, Destination::Queue(name) if !is_pattern(name))) {
            return Err(Refusal::new("Only queues can be browsed", ""));
        }
        let wish = Wish {
            mode: match head.get("ack").as_deref() {
                Some(b"client") => AckMode { is_auto: false, is_cumulative: true },
                Some(b"client-individual") => AckMode { is_auto: false, is_cumulative: false },
                _ => AckMode { is_auto: true, is_cumulative: false },
            },
            // A number that is none counts as none, as with ActiveMQ; a prefetch of zero would mean to pull,
            // for which STOMP has no frame.
            prefetch: number_of(head, "activemq.prefetchSize").map(|count| u32::try_from(count).unwrap_or(1).max(1)),
            priority: number_of(head, "activemq.priority").map_or(0, |number| number.clamp(-127, 127) as i32),
            selector,
            is_not_local,
            is_sole: is_true(head, "activemq.exclusive"),
            is_browser,
        };
        if self.subscriptions.len() + parts.len() > self.options().subscriptions_max {
            let max = self.options().subscriptions_max;
            return Err(Refusal::fatal("Too many subscriptions", format!("A connection has at most {max}.")));
        }
        let wants_receipt = head.get("receipt").is_some();
        if wants_receipt && !self.is_safe(None) {
            return Ok(Flow::Waits);
        }
        // First what stays, and what may have to wait for the log and so come again.
        let mut queues: Vec<(Arc<Queue>, Option<Vec<u8>>)> = Vec::new();
        let (mut own, mut watched) = (Vec::new(), false);
        if let Some(name) = &name {
            let queue = self.durable_queue(&parts, name, wish.selector.as_deref(), turn)?;
            if is_not_local {
                self.withhold(queue.id);
            }
            queues.push((queue, None));
        }
        for part in &parts {
            match part {
                Destination::Queue(pattern) if is_pattern(pattern) && virtual_topic(pattern).is_none() => {
                    watched = true;
                }
                Destination::Queue(name) => {
                    let name_text = queues::text(name)?;
                    self.ensure_queue(name_text, turn)?;
                    // Not one that another connection has for itself.
                    let queue = self.vhost()?.find_queue(name_text, Some(self.id))?;
                    if let Some(topic) = virtual_topic(name) {
                        self.bind_topic(&queue, topic, turn)?;
                    }
                    let told = [b"/queue/", &name[..]].concat();
                    queues.push((queue, Some(told)));
                }
                Destination::TempQueue(text) => {
                    let real = self.temporary(part, turn)?;
                    queues.push((self.vhost()?.find_queue(&real, Some(self.id))?, Some(text.clone())));
                }
                Destination::RemoteTempQueue(name) => {
                    let queue = self.vhost()?.find_queue(queues::text(name)?, Some(self.id))?;
                    queues.push((queue, Some([b"/remote-temp-queue/", &name[..]].concat())));
                }
                _ => {}
            }
        }
        for (queue, _) in &queues {
            self.require(&queue.name.clone(), Access::Read, "queue")?;
        }
        let gate = turn.take_gate();
        if wants_receipt && !self.is_safe(gate) {
            return Ok(Flow::Waits);
        }
        if name.is_none() {
            for part in parts.iter().filter(|part| !part.is_queue()) {
                let intake = self.intake(wish.selector.as_deref(), std::slice::from_ref(part), is_not_local);
                let queue = match self.topic_queue(part, intake, turn) {
                    Ok(queue) => queue,
                    Err(refusal) => {
                        self.abandon(own, turn);
                        return Err(refusal);
                    }
                };
                own.push(queue.clone());
                queues.push((queue, None));
            }
        }
        self.activemq.subscribed_count += 1;
        let number = self.activemq.subscribed_count;
        let watcher = if watched { Some(self.watch(&parts, number)?) } else { None };
        let mut subscribed = Subscribed {
            number,
            id: id.as_deref().map(Into::into),
            parts,
            consumers: Vec::new(),
            own_queues: own,
            wish,
            _watcher: watcher,
            consumers_count: 0,
        };
        let prefetch = if name.is_some() { DURABLE_PREFETCH } else { QUEUE_PREFETCH };
        let listened: Vec<(Destination, Arc<Queue>)> = self.listened(&subscribed, &queues, name.is_some());
        let mut answers = Some(head);
        for (queue, told) in queues {
            if is_browser {
                if let Some(head) = answers.take() {
                    self.receipt(head, turn);
                }
                let shown = self.shown((number, &subscribed), told);
                let selector = subscribed.wish.selector.clone();
                self.activemq.browsers.push(Browser::new(number, queue, selector, shown));
                continue;
            }
            let prefetch = if told.is_none() && name.is_none() { TOPIC_PREFETCH } else { prefetch };
            let started = self.consume((number, &mut subscribed), queue, told, (prefetch, answers.take()), turn);
            if let Err(refusal) = started {
                self.end_subscribed(subscribed, turn);
                return Err(refusal);
            }
        }
        if let Some(head) = answers {
            self.receipt(head, turn);
        }
        if let Some(id) = &subscribed.id {
            self.activemq.by_id.insert(id.clone(), number);
        }
        let patterns = patterns(&subscribed.parts);
        let (parts, wish) = (subscribed.parts.clone(), subscribed.wish.clone());
        self.activemq.subscriptions.insert(number, subscribed);
        if is_browser {
            self.browse(turn);
        }
        for pattern in patterns {
            for name in self.matching(&pattern)? {
                let queue = self.vhost()?.queue(&String::from_utf8_lossy(&name));
                if let Some(queue) = queue {
                    self.queue_declared(&queue, number, turn);
                }
            }
        }
        parts.iter().for_each(|part| self.advise_topic(part, turn));
        self.advise_subscribed((&parts, number), (&wish, name.as_deref(), prefetch), turn);
        listened.iter().for_each(|(part, queue)| self.listen(part, queue, turn));
        Ok(Flow::Done)
    }

    /// Topics of advisories among the parts of a subscription, and the queue that is for each.
    fn listened(
        &self,
        subscribed: &Subscribed,
        queues: &[(Arc<Queue>, Option<Vec<u8>>)],
        is_durable: bool,
    ) -> Vec<(Destination, Arc<Queue>)> {
        let topics = subscribed.parts.iter().filter(|part| !part.is_queue()).enumerate();
        let own = &subscribed.own_queues;
        let with_queue = |(index, part): (usize, &Destination)| {
            let queue = if is_durable { queues.first().map(|(queue, _)| queue) } else { own.get(index) };
            Some((part.clone(), queue?.clone()))
        };
        topics.filter(|(_, part)| is_of_advisories(part)).filter_map(with_queue).collect()
    }

    /// Starts one consumer of a subscription. `told` is what its messages have as their destination; without it
    /// that is their topic.
    fn consume(
        &mut self,
        (number, subscribed): (u64, &mut Subscribed),
        queue: Arc<Queue>,
        told: Option<Vec<u8>>,
        (prefetch, answers): (u32, Option<&Head<'_>>),
        turn: &mut Turn<'_>,
    ) -> Result<(), Refusal> {
        let shown = self.shown((number, subscribed), told);
        let is_for_queue = shown.destination.is_some();
        subscribed.consumers_count += 1;
        let mode = subscribed.wish.mode;
        let tag = tag_of(number, subscribed.consumers_count).into_bytes();
        let priority = subscribed.wish.priority;
        // A queue of a subscription's own has taken in nothing else.
        let selector = if is_for_queue { self.taken_of_a_queue(&subscribed.wish)? } else { None };
        let mut arguments = Table::new();
        if priority != 0 {
            arguments.push("x-priority", Value::I32(priority));
        }
        let wanted = Wanted {
            queue,
            tag: tag.clone(),
            description: Vec::new(),
            mode,
            topic: None,
            prefetch: subscribed.wish.prefetch.unwrap_or(prefetch),
            priority,
            arguments,
            selector,
            is_sole: subscribed.wish.is_sole && is_for_queue,
            subscribed: shown,
        };
        self.start_consumer(wanted, answers, turn)?;
        subscribed.consumers.push(tag.into());
        Ok(())
    }

    /// What a client wants to see, if it does not want everything. Its headers are text, so text counts as a
    /// number beside one.
    fn selector(&self, head: &Head<'_>) -> Result<Option<Arc<Selector>>, Refusal> {
        let Some(text) = head.get("selector").filter(|text| !text.trim_ascii().is_empty()) else { return Ok(None) };
        let text = String::from_utf8_lossy(&text).into_owned();
        match Selector::parse(&text, Conversion::NumericStrings) {
            Ok(selector) => Ok(Some(Arc::new(selector))),
            // The text itself is all that ActiveMQ has to say in the header.
            Err(error) => Err(Refusal { message: text.into(), ..Refusal::new("", error.to_string()) }),
        }
    }

    /// Has a queue take in nothing of this connection from now on: what it keeps for later is to have nothing of it
    /// either.
    fn withhold(&mut self, queue: QueueId) {
        self.activemq.not_local.push(queue);
        self.routes = Default::default();
    }

    /// What a consumer takes of a queue, where the rest stays for others.
    fn taken_of_a_queue(&self, wish: &Wish) -> Result<Option<Arc<Selector>>, Refusal> {
        if !wish.is_not_local {
            return Ok(wish.selector.clone());
        }
        let text = match &wish.selector {
            None => self.foreign(),
            Some(selector) => format!("({}) AND ({})", selector.text(), self.foreign()),
        };
        let selector = Selector::parse(&text, Conversion::NumericStrings);
        let selector = selector.map_err(|error| Refusal::new("The selector is too long", error.to_string()))?;
        Ok(Some(Arc::new(selector)))
    }

    /// What a queue of a subscription takes in, as its argument has it: what is selected, and if it is so wished
    /// nothing that this connection sends.
    fn intake(&self, selector: Option<&Selector>, parts: &[Destination], is_not_local: bool) -> Option<String> {
        let mut wanted: Vec<String> = selector.iter().map(|selector| selector.text().to_owned()).collect();
        wanted.extend(is_not_local.then(|| self.foreign()));
        // One part alone: of several, each would need a selector of its own.
        if let [part] = parts {
            wanted.extend(destination::exact_selector(part.name()));
        }
        let wanted = match &wanted[..] {
            [] => return None,
            [only] => only.clone(),
            all => all.iter().map(|one| format!("({one})")).collect::<Vec<_>>().join(" AND "),
        };
        Some(format!("convert_string_expressions:{wanted}"))
    }

    /// What selects the messages that this connection has not sent.
    fn foreign(&self) -> String {
        let own = self.session_id.replace('\'', "''");
        format!("JMSMessageID IS NULL OR JMSMessageID NOT LIKE '{own}:%'")
    }

    /// How messages of a subscription are written. `told` is what they have as their destination; without it that
    /// is their topic.
    fn shown(&self, (number, subscribed): (u64, &Subscribed), told: Option<Vec<u8>>) -> output::Subscribed {
        let escapes = self.dialect().escapes(self.version);
        let mut head = b"MESSAGE\n".to_vec();
        if let Some(id) = &subscribed.id {
            codec::put_header_escaped(b"subscription", id, escapes, &mut head);
        }
        let mode = subscribed.wish.mode;
        output::Subscribed {
            head,
            message_id: Vec::new(),
            has_ack: !mode.is_auto && self.version == Version::V1_2,
            is_known_by_id: !mode.is_auto && self.version != Version::V1_2,
            is_cumulative: mode.is_cumulative,
            group: number,
            destination: told,
        }
    }

    /// A queue for what is sent to a topic from now on.
    fn topic_queue(
        &mut self,
        part: &Destination,
        intake: Option<String>,
        turn: &mut Turn<'_>,
    ) -> Result<Arc<Queue>, Refusal> {
        let pattern = match part {
            Destination::TempTopic(_) => self.temporary(part, turn)?.as_bytes().to_vec(),
            part => part.name().to_vec(),
        };
        let name = random_name("activemq-subscription-");
        self.require(&name, Access::Configure, "queue")?;
        let arguments = intake_arguments(intake);
        let wanted =
            DeclareQueue { name: &name, exclusive: true, auto_delete: true, arguments, ..DeclareQueue::default() };
        let queue = self.vhost()?.declare_queue(&wanted, Some(self.id), turn)?;
        self.exclusive_queues.insert(queue.id, queue.clone());
        match self.bind_topic(&queue, &pattern, turn) {
            Ok(()) => Ok(queue),
            Err(refusal) => {
                self.abandon(vec![queue], turn);
                Err(refusal)
            }
        }
    }

    fn abandon(&mut self, queues: Vec<Arc<Queue>>, turn: &mut Turn<'_>) {
        for queue in queues {
            self.exclusive_queues.remove(&queue.id);
            if let Some(vhost) = &self.vhost {
                vhost.remove_queue(&queue, turn);
            }
        }
    }

    /// The queue of a durable subscription. One for other topics is made anew, and so is one of a client that has
    /// no name, which nobody can come back to: it goes with the connection.
    fn durable_queue(
        &mut self,
        parts: &[Destination],
        name: &[u8],
        selector: Option<&Selector>,
        turn: &mut Turn<'_>,
    ) -> Result<Arc<Queue>, Refusal> {
        let arguments = intake_arguments(self.intake(selector, parts, false));
        let queue_name = self.durable_name(name)?;
        self.require(&queue_name, Access::Configure, "queue")?;
        let vhost = self.vhost()?;
        let exchange = vhost.find_exchange(&self.options().default_topic_exchange.clone())?;
        let mut keys: Vec<Vec<u8>> = parts.iter().map(|part| binding_key(part.name())).collect();
        keys.sort();
        keys.dedup();
        if vhost.queue(&queue_name).is_some() {
            let queue = vhost.find_queue(&queue_name, Some(self.id))?;
            if queue.status().consumers > 0 {
                let client = String::from_utf8_lossy(&self.client_id()).into_owned();
                let name = String::from_utf8_lossy(name);
                let text = format!("Durable consumer is in use for client: {client} and subscriptionName: {name}");
                return Err(refusal(text));
            }
            let target = Target::Queue(queue.clone());
            let bindings = exchange.bindings();
            let mut bound: Vec<Vec<u8>> = bindings
                .iter()
                .filter(|binding| binding.target == target)
                .map(|binding| binding.key.to_vec())
                .collect();
            bound.sort();
            if bound == keys && queue.declaration.arguments == arguments {
                turn.wait_for(queue.declared_at());
                return Ok(queue);
            }
            vhost.delete_queue(&queue_name, false, false, Some(self.id), turn)?;
        }
        let is_named = self.activemq.client.is_some();
        let wanted = DeclareQueue {
            name: &queue_name,
            durable: is_named,
            exclusive: !is_named,
            dead_queue: is_named.then_some(DEAD_QUEUE),
            properties: QueueProperties::default(),
            arguments,
            ..DeclareQueue::default()
        };
        if is_named {
            self.ensure_queue(DEAD_QUEUE, turn)?;
        }
        let queue = vhost.declare_queue(&wanted, Some(self.id), turn)?;
        if !is_named {
            self.exclusive_queues.insert(queue.id, queue.clone());
        }
        for part in parts {
            self.bind_topic(&queue, part.name(), turn)?;
        }
        Ok(queue)
    }

    fn durable_name(&self, name: &[u8]) -> Result<String, Refusal> {
        let mut queue = DURABLE_PREFIX.as_bytes().to_vec();
        for &octet in &self.client_id() {
            match octet {
                b':' | b'\\' => queue.extend_from_slice(&[b'\\', octet]),
                octet => queue.push(octet),
            }
        }
        queue.push(b':');
        queue.extend_from_slice(name);
        if queue.len() > u8::MAX.into() {
            return Err(Refusal::new("The names of client and subscription are too long", ""));
        }
        String::from_utf8(queue).map_err(|_| Refusal::new("Names are UTF-8", ""))
    }

    /// Has this connection told of queues that come later.
    fn watch(&mut self, parts: &[Destination], number: u64) -> Result<Arc<dyn QueueWatcher>, Refusal> {
        let watcher: Arc<dyn QueueWatcher> = Arc::new(Watcher {
            shared: self.shared.clone(),
            patterns: patterns(parts),
            watch: number,
            told_count: AtomicUsize::new(0),
        });
        self.vhost()?.watch_queues(Arc::downgrade(&watcher));
        Ok(watcher)
    }

    /// Consumes from a queue too that fits the pattern of a subscription.
    pub(super) fn queue_declared(&mut self, queue: &Arc<Queue>, number: u64, turn: &mut Turn<'_>) {
        let is_known = |session: &Speaker<'_>, subscribed: &Subscribed| {
            let consumers = subscribed.consumers.iter().filter_map(|tag| session.subscriptions.get(tag));
            consumers.into_iter().any(|consumer| Arc::ptr_eq(&consumer.queue, queue))
        };
        let Some(subscribed) = self.activemq.subscriptions.get(&number) else { return };
        let is_full = self.subscriptions.len() >= self.options().subscriptions_max
            || subscribed.consumers.len() >= MATCHES_MAX + subscribed.parts.len();
        if is_full || queue.is_deleted() || is_known(self, subscribed) {
            return;
        }
        if self.require(&queue.name.clone(), Access::Read, "queue").is_err() {
            return;
        }
        let Some(mut subscribed) = self.activemq.subscriptions.remove(&number) else { return };
        let told = [b"/queue/", queue.name.as_bytes()].concat();
        let consumer = (number, &mut subscribed);
        if let Err(refusal) = self.consume(consumer, queue.clone(), Some(told), (QUEUE_PREFETCH, None), turn) {
            tracing::debug!(queue = %queue.name, refusal = %refusal.detail, "a matching queue is left out");
        }
        self.activemq.subscriptions.insert(number, subscribed);
    }

    pub(super) fn unsubscribe(&mut self, head: &Head<'_>, turn: &mut Turn<'_>) -> Result<(), Refusal> {
        let id = head.get("id");
        let text = head.get("destination");
        if id.is_none() && self.version != Version::V1_0 {
            return Err(Refusal::new("UNSUBSCRIBE received without a subscription id!", ""));
        }
        if id.is_none() && text.is_none() {
            let text = "Must specify the subscriptionId or the destination you are unsubscribing from";
            return Err(Refusal::new(text, ""));
        }
        let parts = match &text {
            Some(text) => Destination::parse(text)?,
            None => Vec::new(),
        };
        let mut name = None;
        for header in SUBSCRIPTION_NAMES {
            name = name.or_else(|| head.get(header));
        }
        if let Some(name) = name {
            return self.forget_durable(&name, turn);
        }
        let number = match &id {
            Some(id) => self.activemq.by_id.remove(&**id),
            None => self.activemq.subscriptions.iter().find(|(_, one)| one.parts == parts).map(|(number, _)| *number),
        };
        let subscribed = number.and_then(|number| self.activemq.subscriptions.remove(&number));
        let subscribed = subscribed.ok_or_else(|| Refusal::new("No subscription matched.", ""))?;
        self.end_subscribed(subscribed, turn);
        Ok(())
    }

    fn forget_durable(&mut self, name: &[u8], turn: &mut Turn<'_>) -> Result<(), Refusal> {
        let queue_name = self.durable_name(name)?;
        let vhost = self.vhost()?;
        let Some(queue) = vhost.queue(&queue_name) else {
            let client = String::from_utf8_lossy(&self.client_id()).into_owned();
            let name = String::from_utf8_lossy(name);
            let text = format!("No durable subscription exists for clientID: {client} and subscriptionName: {name}");
            return Err(refusal(text));
        };
        if queue.status().consumers > 0 {
            return Err(Refusal::new("Durable consumer is in use", ""));
        }
        self.require(&queue_name, Access::Configure, "queue")?;
        vhost.delete_queue(&queue_name, false, false, Some(self.id), turn)?;
        self.exclusive_queues.remove(&queue.id);
        Ok(())
    }

    /// Ends the consumers of a subscription; what they hold goes back to their queues.
    fn end_subscribed(&mut self, subscribed: Subscribed, turn: &mut Turn<'_>) {
        let number = subscribed.number;
        self.activemq.browsers.retain(|browser| browser.number != number);
        for tag in &subscribed.consumers {
            let Some(consumer) = self.subscriptions.remove(tag) else { continue };
            if subscribed.wish.is_not_local {
                self.activemq.not_local.retain(|queue| *queue != consumer.queue.id);
                self.routes = Default::default();
            }
            self.leave_queue(&consumer, turn);
        }
        self.abandon(subscribed.own_queues, turn);
        self.advise_unsubscribed(&subscribed.parts, number, turn);
    }

    fn leave_queue(&mut self, consumer: &Subscription, turn: &mut Turn<'_>) {
        let source = consumer.source;
        let held = {
            let shared = self.shared.clone();
            let mut output = shared.output();
            let sent_bytes = output.sent_bytes();
            let ledger = &mut output.wire.ledger;
            let mut taken = Vec::new();
            ledger.take_of(0, |other| other == source, &mut taken);
            ledger.leave(taken, sent_bytes)
        };
        let (requeued, returned) =
            held.into_iter().next().map(|(_, requeued, returned)| (requeued, returned)).unwrap_or_default();
        let is_over = consumer.queue.leave(&[consumer.consumer], &requeued, &returned, turn);
        self.forget_source(source);
        if is_over && let Some(vhost) = &self.vhost {
            vhost.remove_queue(&consumer.queue, turn);
            self.exclusive_queues.remove(&consumer.queue.id);
        }
    }

    /// A queue is gone, or has thrown a consumer out.
    pub(super) fn queue_cancelled(&mut self, source: u32, turn: &mut Turn<'_>) {
        let Some((tag, consumer)) = self.take_cancelled(source) else { return };
        if let Some(subscribed) = number_in(&tag).and_then(|number| self.activemq.subscriptions.get_mut(&number)) {
            subscribed.consumers.retain(|known| *known != tag);
        }
        self.exclusive_queues.remove(&consumer.queue.id);
        let text = format!("The destination queue://{} was deleted", consumer.queue.name);
        self.refuse(refusal(text), turn);
    }
}

/// Whether a queue is there for everybody and for no subscription to a topic.
pub(super) fn is_common(queue: &Queue) -> bool {
    let declaration = &queue.declaration;
    queue.is_durable
        && declaration.owner.is_none()
        && !declaration.is_auto_delete
        && !queue.is_stream()
        && !queue.name.starts_with(DURABLE_PREFIX)
        && !queue.name.starts_with("stomp-subscription-")
}

fn patterns(parts: &[Destination]) -> Vec<Vec<u8>> {
    let is_watched = |part: &&Destination| match part {
        Destination::Queue(name) => is_pattern(name) && virtual_topic(name).is_none(),
        _ => false,
    };
    parts.iter().filter(is_watched).map(|part| part.name().to_vec()).collect()
}

/// What a consumer of a subscription is called on its connection.
fn tag_of(subscription: u64, consumer: u64) -> String {
    format!("{subscription}.{consumer}")
}

/// The subscription that a consumer belongs to.
fn number_in(tag: &[u8]) -> Option<u64> {
    std::str::from_utf8(tag).ok()?.split_once('.')?.0.parse().ok()
}

fn intake_arguments(intake: Option<String>) -> Table {
    let mut arguments = Table::new();
    if let Some(intake) = intake {
        arguments.push("x-selector", Value::text(intake));
    }
    arguments
}

fn is_true(head: &Head<'_>, name: &str) -> bool {
    head.get(name).as_deref() == Some(b"true")
}

fn number_of(head: &Head<'_>, name: &str) -> Option<i64> {
    codec::integer(&head.get(name)?)
}

/// Tells a connection of queues that one of its subscriptions may be for.
struct Watcher {
    shared: Arc<Shared>,
    patterns: Vec<Vec<u8>>,
    watch: u64,
    told_count: AtomicUsize,
}

impl QueueWatcher for Watcher {
    fn declared(&self, queue: &Arc<Queue>) {
        let is_meant = self.patterns.iter().any(|pattern| matches(pattern, queue.name.as_bytes()));
        // It takes no more consumers than that, so whoever declares queues for ever tells nobody for ever.
        if is_meant && is_common(queue) && self.told_count.fetch_add(1, Ordering::Relaxed) < 16 * MATCHES_MAX {
            self.shared.tell(Event::QueueDeclared { queue: queue.clone(), watch: self.watch });
        }
    }
}
