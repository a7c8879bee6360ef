//! What a broker is: vhosts, exchanges, queues, consumers, users and policies.
//!
//! Knows no wire protocol, no async runtime, no file and no clock: protocols translate their verbs
//! into calls on [`Broker`] and [`Vhost`], and time is an argument. A verb is called
//! with a [`Turn`], which gathers what is to be done once no lock is held.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};

use dashmap::DashMap;
use parking_lot::{Mutex, RwLock};

pub mod access;
pub mod block;
pub mod connections;
pub mod consumer;
mod dead_letter;
pub mod definitions;
pub mod error;
pub mod exchange;
pub mod limits;
pub mod message;
pub mod options;
pub mod parameters;
pub mod pattern;
pub mod policy;
pub mod publish;
pub mod queue;
pub mod record;
pub mod recovery;
pub mod redrive;
pub mod route;
pub mod schedule;
pub mod selection;
pub mod selector;
pub mod snapshot;
pub mod term;
pub mod time;
pub mod timers;
pub mod topology;
pub mod trace;
pub mod turn;
pub mod validation;
pub mod value;
pub mod verb;
pub mod vhost;

use access::{Permissions, Users};
use connections::Connections;
use consumer::ConsumerId;
use exchange::Exchange;
use limits::AllVhostLimits;
use options::MemoryShare;
pub use options::Options;
use parameters::Parameters;
use policy::{ObjectKind, Policies, QueuePolicy};
use queue::{PolicyNames, Queue, arguments::QueueType, settings};
use record::{Definition, DefinitionKey, Haste, HoldId, Journal, Log, Pin, Position, QueueId, Record};
use recovery::{ReplayError, Replayed};
use time::Time;
use timers::{Owner, Timers};
use turn::Turn;
use verb::{ColdPages, Spill, Waiting};
use vhost::Vhost;

/// A broker.
pub struct Broker {
    /// Its settings.
    pub options: Options,
    /// Users and what they may do.
    pub access: Users,
    /// Policies and operator policies.
    pub policies: Policies,
    /// Runtime parameters.
    pub parameters: Parameters,
    /// Limits of vhosts.
    pub vhost_limits: AllVhostLimits,
    /// Open connections.
    pub connections: Connections,
    /// Who wants to be looked at when.
    pub timers: Timers,
    pub(in crate::broker) redrives: redrive::Redrives,
    vhosts: DashMap<Arc<str>, Arc<Vhost>, foldhash::fast::RandomState>,
    /// Held while a vhost, exchange, queue or binding changes, and alone while all of them are told.
    pub(in crate::broker) snapshot_gate: RwLock<()>,
    /// Queues that were deleted, as far as an index has not been told.
    pub(in crate::broker) gone_queues: Mutex<Vec<(QueueId, u8)>>,
    /// The same of exchanges that held messages back, by their identities.
    pub(in crate::broker) gone_exchanges: Mutex<Vec<Position>>,
    queue_ids: AtomicU64,
    consumer_ids: AtomicU64,
    hold_ids: AtomicU64,
    queues_count: AtomicUsize,
    random: AtomicU64,
    journal: OnceLock<Arc<dyn Journal>>,
    /// The same journal, shared with what administration defines.
    definitions_log: Log,
    show_properties: OnceLock<trace::ShowProperties>,
    fields: OnceLock<Arc<dyn selection::Fields>>,
    renderer: OnceLock<Arc<dyn exchange::envelopes::Renderer>>,
    cold_pages: OnceLock<Arc<dyn ColdPages>>,
    spill: OnceLock<Arc<dyn Spill>>,
    /// Connections that wait for the log or for a page.
    pub waiting: Waiting,
    memory_alarm: AtomicBool,
    memory_high_watermark: Mutex<MemoryShare>,
    disk_free_limit: Mutex<MemoryShare>,
    disk_alarm: AtomicBool,
    /// The log has no room for more messages.
    log_alarm: AtomicBool,
    /// What is damaged on the disk, for whoever asks which alarms are on.
    damages: Mutex<Vec<String>>,
    started_at: Time,
}

/// What policies come to for one queue.
pub struct EffectiveQueuePolicy {
    /// The merged keys.
    pub policy: QueuePolicy,
    /// Names of the policy and of the operator policy.
    pub names: PolicyNames,
}

impl Broker {
    /// A broker with the default vhost and user of its settings, and nothing else. Records nothing
    /// until a journal is attached.
    pub fn new(options: Options, now: Time) -> Result<Self, String> {
        let broker = Self::blank(options, now)?;
        broker.create_defaults()?;
        Ok(broker)
    }

    /// A broker as `records`, the whole of its log, say, which goes on recording to `journal`. The
    /// default vhost and user are made when there are no records at all, and never again: whoever
    /// deletes them has them deleted. With `cold`, the records begin where its index was written, and
    /// definitions come before: its messages stay in it.
    pub fn open(
        options: Options,
        now: Time,
        cold: Option<Arc<dyn ColdPages>>,
        records: impl Iterator<Item = (Position, Record)>,
        journal: Arc<dyn Journal>,
    ) -> Result<(Self, Replayed), OpenError> {
        let broker = Self::blank(options, now).map_err(OpenError::Defaults)?;
        cold.into_iter().for_each(|pages| broker.attach_cold_pages(pages));
        let replayed = broker.replay(records, now)?;
        broker.begin(&replayed, journal)?;
        Ok((broker, replayed))
    }

    /// Goes on after a [`recovery::Replay`]: whatever changes from now on is recorded.
    pub fn begin(&self, replayed: &Replayed, journal: Arc<dyn Journal>) -> Result<(), OpenError> {
        if replayed.is_new() {
            self.create_defaults().map_err(OpenError::Defaults)?;
            // One record: a broker that crashed half-way through would start without a user.
            journal.append(&Record::Transaction(self.definitions()), Haste::Due);
        }
        self.attach_journal(journal);
        self.resume_redrives();
        Ok(())
    }

    /// A broker without any vhost or user, for a [`recovery::Replay`].
    pub fn blank(options: Options, now: Time) -> Result<Self, String> {
        let log = Log::default();
        let access = Users::new(access::Options {
            loopback_users: options.loopback_users.clone(),
            hash_algorithm: options.password_hashing,
        })
        .with_log(log.clone());
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).map_err(|error| format!("no random numbers: {error}"))?;
        Ok(Self {
            access,
            policies: Policies::new(log.clone()),
            parameters: Parameters::default().with_log(log.clone()),
            vhost_limits: AllVhostLimits::new(log.clone()),
            connections: Connections::default(),
            timers: Timers::default(),
            redrives: redrive::Redrives::default(),
            vhosts: DashMap::default(),
            snapshot_gate: RwLock::new(()),
            gone_queues: Mutex::default(),
            gone_exchanges: Mutex::default(),
            queue_ids: AtomicU64::new(1),
            consumer_ids: AtomicU64::new(1),
            hold_ids: AtomicU64::new(1),
            queues_count: AtomicUsize::new(0),
            random: AtomicU64::new(u64::from_le_bytes(seed)),
            journal: OnceLock::new(),
            definitions_log: log,
            show_properties: OnceLock::new(),
            fields: OnceLock::new(),
            renderer: OnceLock::new(),
            cold_pages: OnceLock::new(),
            spill: OnceLock::new(),
            waiting: Waiting::default(),
            memory_alarm: AtomicBool::new(false),
            memory_high_watermark: Mutex::new(options.memory_high_watermark),
            disk_free_limit: Mutex::new(options.disk_free_limit),
            disk_alarm: AtomicBool::new(false),
            log_alarm: AtomicBool::new(false),
            damages: Mutex::default(),
            started_at: now,
            options,
        })
    }

    fn create_defaults(&self) -> Result<(), String> {
        let options = &self.options;
        let description = "Default virtual host".to_owned();
        self.add_vhost(&options.default_vhost, vhost::Metadata { description, ..vhost::Metadata::default() });
        let id = topology::random_name("rabbitmq-cluster-id-");
        self.parameters.set_global("internal_cluster_id", id.into());
        let user = &options.default_user;
        let permissions = Permissions {
            configure: options.default_permissions_configure.clone(),
            write: options.default_permissions_write.clone(),
            read: options.default_permissions_read.clone(),
        };
        self.access
            .add(user, &options.default_pass)
            .and_then(|()| self.access.set_tags(user, options.default_user_tags.clone()))
            .and_then(|()| self.access.set_permissions(user, &options.default_vhost, permissions))
            .map_err(|error| format!("cannot make the default user: {error}"))
    }

    /// Deletes everything and makes the defaults anew, as at the first start.
    pub fn reset(&self, turn: &mut Turn<'_>) -> Result<(), String> {
        for vhost in self.vhosts() {
            self.delete_vhost(&vhost.name, turn);
        }
        for user in self.access.list() {
            // Somebody else may have been faster.
            let _ = self.access.delete(&user.name);
        }
        for (name, _) in self.parameters.list_global() {
            let _ = self.parameters.clear_global(&name);
        }
        self.create_defaults()
    }

    /// Has every durable change recorded from now on. What is there already is not recorded:
    /// [`Broker::open`] is how a broker begins that has a log.
    pub fn attach_journal(&self, journal: Arc<dyn Journal>) {
        self.definitions_log.attach(journal.clone());
        // A second journal would see half of the story.
        assert!(self.journal.set(journal).is_ok(), "a broker has one journal");
    }

    /// After the last record of what administration defined: who is told that something was defined
    /// waits until that is flushed.
    pub fn defined_at(&self) -> Position {
        self.definitions_log.last()
    }

    pub(in crate::broker) fn note_defined(&self, end: Position) {
        self.definitions_log.note(end);
    }

    /// Records that define everything that administration has defined, in an order in which they can
    /// be replayed.
    pub fn definitions(&self) -> Vec<Record> {
        let mut all = Vec::new();
        for vhost in self.vhosts() {
            let metadata = vhost.metadata().clone();
            all.push(Definition::Vhost { name: vhost.name.clone(), metadata });
        }
        all.extend(self.access.list().into_iter().map(Definition::User));
        all.extend(self.access.list_permissions(None, None).into_iter().map(Definition::Permissions));
        all.extend(self.access.list_topic_permissions(None, None).into_iter().map(Definition::TopicPermissions));
        for layer in [policy::Layer::User, policy::Layer::Operator] {
            all.extend(self.policies.list(layer, None).into_iter().map(|policy| Definition::Policy(layer, policy)));
        }
        let limits = self.vhost_limits.list().into_iter();
        all.extend(limits.map(|(vhost, limits)| Definition::VhostLimits { vhost, limits }));
        all.extend(self.parameters.list(None, None).into_iter().map(Definition::Parameter));
        let global = self.parameters.list_global().into_iter();
        all.extend(global.map(|(name, value)| Definition::GlobalParameter { name, value }));
        all.into_iter().map(Record::Defined).collect()
    }

    /// Has somebody asked for messages that are not in memory.
    pub fn attach_cold_pages(&self, pages: Arc<dyn ColdPages>) {
        assert!(self.cold_pages.set(pages).is_ok(), "a broker has one store");
    }

    /// Who knows which messages are not in memory, if any can be.
    pub fn cold_pages(&self) -> Option<&Arc<dyn ColdPages>> {
        self.cold_pages.get()
    }

    /// Has somebody told of long queues with messages that are in no log. Pages are read by [`Self::cold_pages`].
    pub fn attach_spill(&self, spill: Arc<dyn Spill>) {
        assert!(self.spill.set(spill).is_ok(), "a broker has one spill");
    }

    /// Who is told of long queues with messages that are in no log.
    #[inline]
    pub(in crate::broker) fn spill(&self) -> Option<&Arc<dyn Spill>> {
        self.spill.get()
    }

    /// Who keeps its records.
    pub fn journal(&self) -> Option<&Arc<dyn Journal>> {
        self.journal.get()
    }

    /// Whether what an answer depends on is on stable storage. Without a log, or a gate, it need not be.
    #[inline]
    pub fn is_safe(&self, gate: Option<record::Position>) -> bool {
        match (gate, self.journal()) {
            (Some(gate), Some(journal)) => gate <= journal.flushed(),
            _ => true,
        }
    }

    /// Begins a group of records that belong together.
    pub fn pin(&self) -> Option<Pin> {
        let journal = self.journal.get()?;
        Some(journal.pins().pin(|| journal.end()))
    }

    /// Whether changes are recorded.
    pub fn is_logged(&self) -> bool {
        self.journal.get().is_some()
    }

    /// The vhost of that name.
    pub fn vhost(&self, name: &str) -> Option<Arc<Vhost>> {
        self.vhosts.get(name).map(|vhost| vhost.clone())
    }

    /// All vhosts, by name.
    pub fn vhosts(&self) -> Vec<Arc<Vhost>> {
        let mut all: Vec<_> = self.vhosts.iter().map(|entry| entry.value().clone()).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// Makes a vhost, or finds it there.
    pub fn add_vhost(&self, name: &str, metadata: vhost::Metadata) -> Arc<Vhost> {
        let made = || {
            let vhost = Vhost::new(name.into());
            self.definitions_log
                .append(|| Record::Defined(Definition::Vhost { name: vhost.name.clone(), metadata: metadata.clone() }));
            vhost.set_metadata(metadata);
            vhost
        };
        let _gate = self.snapshot_gate.read_recursive();
        self.vhosts.entry(name.into()).or_insert_with(made).clone()
    }

    /// Changes what administration knows of a vhost; false if there is none.
    pub fn change_vhost(&self, name: &str, change: impl FnOnce(&mut vhost::Metadata)) -> bool {
        // Nobody can delete it while its place in the map is held.
        let Some(vhost) = self.vhosts.get(name) else { return false };
        vhost.change_metadata(change, |metadata| {
            self.definitions_log
                .append(|| Record::Defined(Definition::Vhost { name: vhost.name.clone(), metadata: metadata.clone() }));
        });
        true
    }

    /// Deletes a vhost with everything in it and closes its connections; false if there is none.
    pub fn delete_vhost(&self, name: &str, turn: &mut Turn<'_>) -> bool {
        let _gate = self.snapshot_gate.read_recursive();
        // Recorded while nobody can make a new one of that name.
        let removed = self.vhosts.remove_if(name, |name, _| {
            turn.record(Record::Removed(DefinitionKey::Vhost(name.clone())));
            self.access.delete_vhost(name);
            self.policies.delete_vhost(name);
            self.parameters.delete_vhost(name);
            self.vhost_limits.delete_vhost(name);
            self.redrives.delete_vhost(name);
            true
        });
        let Some((_, vhost)) = removed else { return false };
        vhost.mark_deleted();
        for exchange in vhost.exchanges().into_iter().filter(|exchange| exchange.delayed.is_some()) {
            exchange.mark_deleted();
            self.note_gone_exchange(&exchange);
        }
        for connection in self.connections.list() {
            if connection.info.vhost == vhost.name {
                connection.handle.close(&format!("vhost '{name}' is deleted"));
            }
        }
        for queue in vhost.queues() {
            vhost.remove_queue(&queue, turn);
        }
        true
    }

    /// A new identity for a queue.
    pub fn next_queue_id(&self) -> QueueId {
        QueueId(self.queue_ids.fetch_add(1, Ordering::Relaxed))
    }

    /// Identities up to this one are taken.
    pub fn reserve_queue_id(&self, id: QueueId) {
        self.queue_ids.fetch_max(id.0 + 1, Ordering::Relaxed);
    }

    /// The next identities of a queue and of a message that an exchange holds back.
    pub fn next_ids(&self) -> (QueueId, HoldId) {
        (QueueId(self.queue_ids.load(Ordering::Relaxed)), HoldId(self.hold_ids.load(Ordering::Relaxed)))
    }

    /// A new identity for a message that an exchange holds back.
    pub fn next_hold_id(&self) -> HoldId {
        HoldId(self.hold_ids.fetch_add(1, Ordering::Relaxed))
    }

    /// Identities up to this one are taken.
    pub fn reserve_hold_id(&self, id: HoldId) {
        self.hold_ids.fetch_max(id.0 + 1, Ordering::Relaxed);
    }

    /// A new identity for a consumer.
    pub fn next_consumer_id(&self) -> ConsumerId {
        ConsumerId(self.consumer_ids.fetch_add(1, Ordering::Relaxed))
    }

    /// Queues in all vhosts.
    pub fn queues_count(&self) -> &AtomicUsize {
        &self.queues_count
    }

    /// When it was started.
    pub fn started_at(&self) -> Time {
        self.started_at
    }

    /// A random number, good enough for spreading load.
    pub fn random(&self) -> u64 {
        let mut n = self.random.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
        n = (n ^ (n >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        n = (n ^ (n >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        n ^ (n >> 31)
    }

    /// What policies come to for a queue of that name.
    pub fn effective_queue_policy(&self, vhost: &Vhost, name: &str, queue_type: QueueType) -> EffectiveQueuePolicy {
        let kind = match queue_type {
            QueueType::Classic => ObjectKind::ClassicQueue,
            QueueType::Quorum => ObjectKind::QuorumQueue,
            QueueType::Stream => ObjectKind::Stream,
        };
        let effective = self.policies.effective(&vhost.name, kind, name);
        EffectiveQueuePolicy {
            policy: effective.queue(),
            names: (effective.policy_name().map(Arc::from), effective.operator_policy_name().map(Arc::from)),
        }
    }

    /// Puts in force what policies come to for an exchange.
    pub fn apply_exchange_policy(&self, vhost: &Vhost, exchange: &Arc<Exchange>) {
        let effective = self.policies.effective(&vhost.name, ObjectKind::Exchange, &exchange.name);
        *exchange.policy.lock() = effective.policy_name().map(Arc::from);
        exchange.set_alternate(effective.exchange().alternate_exchange.map(Arc::from));
    }

    /// Puts changed policies in force on everything in a vhost.
    pub fn apply_policies(&self, vhost: &Arc<Vhost>, turn: &mut Turn<'_>) {
        for queue in vhost.queues() {
            self.apply_queue_policy(vhost, &queue, turn);
        }
        for exchange in vhost.exchanges() {
            self.apply_exchange_policy(vhost, &exchange);
        }
    }

    pub(in crate::broker) fn apply_queue_policy(&self, vhost: &Vhost, queue: &Arc<Queue>, turn: &mut Turn<'_>) {
        let parsed = &queue.declaration.parsed;
        let effective = self.effective_queue_policy(vhost, &queue.name, parsed.queue_type);
        let properties = queue.properties();
        let limits = settings::limits(parsed, &effective.policy, &properties, self.options.delivery_limit);
        *queue.policies.lock() = effective.names;
        let dead_letter = settings::dead_letter(&queue.declaration, &effective.policy, &properties);
        queue.configure(limits, dead_letter, turn);
    }

    /// Does everything that is due, and says when to come again.
    pub fn tick(&self, now: Time) -> Option<Time> {
        let mut turn = Turn::new(self, now);
        for _ in 0..TICKS_MAX {
            match self.timers.take_due(now) {
                None => break,
                Some(Owner::Queue(queue)) => {
                    if let Some(queue) = queue.upgrade()
                        && queue.tick(&mut turn)
                        && let Some(vhost) = queue.vhost.upgrade()
                    {
                        tracing::info!(vhost = %vhost.name, queue = %queue.name, "deleted an expired queue");
                        vhost.remove_queue(&queue, &mut turn);
                    }
                }
                Some(Owner::Redrive(id)) => self.work_redrive(id, &mut turn),
                Some(Owner::Exchange(exchange)) => {
                    if let Some(exchange) = exchange.upgrade()
                        && !exchange.is_deleted()
                        && let Some(vhost) = exchange.vhost.upgrade()
                        && !vhost.is_deleted()
                    {
                        vhost.release_delayed(&exchange, &mut turn);
                    }
                }
            }
        }
        turn.end();
        self.timers.next()
    }

    /// Gives no consumer anything more, or goes on with that: who closes all connections, one after another, is
    /// not to hand what one held to the next.
    pub fn halt_deliveries(&self, is_halted: bool, now: Time) {
        let mut turn = Turn::new(self, now);
        for vhost in self.vhosts() {
            for queue in vhost.queues() {
                queue.halt(is_halted, &mut turn);
            }
        }
        turn.end();
    }

    /// Publishers are not read: memory or disk space is short.
    pub fn has_alarm(&self) -> bool {
        self.alarms() != (false, false)
    }

    /// What is short, in the words that clients are told.
    pub fn alarm_reason(&self) -> Option<&'static str> {
        match self.alarms() {
            (true, true) => Some("low on memory & disk"),
            (true, false) => Some("low on memory"),
            (false, true) => Some("low on disk"),
            (false, false) => None,
        }
    }

    /// Resident memory at which publishers stop being read.
    pub fn memory_high_watermark(&self) -> MemoryShare {
        *self.memory_high_watermark.lock()
    }

    /// Changes it until the next start.
    pub fn set_memory_high_watermark(&self, share: MemoryShare) {
        *self.memory_high_watermark.lock() = share;
    }

    /// Free disk space below which publishers stop being read.
    pub fn disk_free_limit(&self) -> MemoryShare {
        *self.disk_free_limit.lock()
    }

    /// Changes it until the next start.
    pub fn set_disk_free_limit(&self, share: MemoryShare) {
        *self.disk_free_limit.lock() = share;
    }

    /// Which alarms are on: memory, disk.
    pub fn alarms(&self) -> (bool, bool) {
        let is_disk_short = self.disk_alarm.load(Ordering::Relaxed) || self.log_alarm.load(Ordering::Relaxed);
        (self.memory_alarm.load(Ordering::Relaxed), is_disk_short)
    }

    /// Puts the memory and the disk alarm on or off; connections are told when that changes.
    pub fn set_alarms(&self, memory: bool, disk: bool) {
        self.change_alarms(|| {
            self.memory_alarm.store(memory, Ordering::Relaxed);
            self.disk_alarm.store(disk, Ordering::Relaxed);
        });
    }

    /// Notes whether the log has room for more messages; without it the disk alarm is on.
    pub fn set_log_alarm(&self, is_short: bool) {
        self.change_alarms(|| self.log_alarm.store(is_short, Ordering::Relaxed));
    }

    /// Notes that something on the disk is damaged: what, and what to do. An alarm is on until the next
    /// start; publishers go on.
    pub fn set_damage(&self, text: String) {
        let mut damages = self.damages.lock();
        if damages.len() < DAMAGES_MAX && !damages.contains(&text) {
            damages.push(text);
        }
    }

    /// What is damaged on the disk, as far as it was found.
    pub fn damages(&self) -> Vec<String> {
        self.damages.lock().clone()
    }

    fn change_alarms(&self, change: impl FnOnce()) {
        let was = self.alarms();
        change();
        if was != self.alarms() {
            for connection in self.connections.list() {
                connection.handle.alarm_changed();
            }
        }
    }
}

/// Why a broker cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its log makes no sense.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// What every broker begins with cannot be made; the text says why.
    #[error("{0}")]
    Defaults(String),
}

/// Damages that are listed. Full: later ones are in the log file only.
const DAMAGES_MAX: usize = 64;

/// Appointments that one tick serves.
const TICKS_MAX: usize = 10_000;
