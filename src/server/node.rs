//! The process as administration sees it: how it stands, and its listeners, which `stop_app` closes
//! and `start_app` opens again.

use std::{
    net::SocketAddr,
    path::{self, Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::{Map, Value as Json};
use tokio::{
    net::TcpListener,
    sync::{Mutex as AsyncMutex, Notify},
    task::JoinHandle,
};

use super::{
    accept, clock,
    connection::Context,
    drain,
    limits::{self, MemoryMeter},
    listen::{self, Bound, StartError},
    load_definitions,
    options::Protocol,
    persistence::{Backups, Opened, StoreMeter},
};
use crate::{
    admin::{
        node::{Change, Disk, Environment, Memory, Node},
        wire,
    },
    broker::{message::Message, options::MemoryShare, record::Position, time::Time},
    config::Settings,
    protocol::amqp::properties,
    store::{self, Log},
};

/// This process.
pub struct Process {
    context: Arc<Context>,
    settings: Json,
    started_at: Time,
    config_files: Vec<PathBuf>,
    listeners: Arc<Listeners>,
    log: Arc<Log>,
    backups: Backups,
    meter_of_store: StoreMeter,
    stop: Arc<Notify>,
    meter: Option<MemoryMeter>,
    memory_total_bytes: Option<u64>,
}

/// The listeners, open or not.
struct Listeners {
    context: Arc<Context>,
    is_open: AtomicBool,
    /// Their protocols and addresses with the real ports, the same when they open again.
    addresses: Vec<(Protocol, SocketAddr)>,
    /// One a listener while they are open. Held while they open or close, so that two requests
    /// cannot cross.
    accepting: AsyncMutex<Vec<JoinHandle<()>>>,
}

impl Process {
    /// The process around `context`, which accepts connections on `bound` from now on. `stop` is
    /// notified when it is asked to end.
    pub fn start(
        context: Arc<Context>,
        settings: &Settings,
        config_files: Vec<PathBuf>,
        bound: &[Bound],
        opened: &Opened,
        stop: Arc<Notify>,
    ) -> Result<Self, StartError> {
        let mut accepting = Vec::new();
        for listener in bound {
            let socket = listener.socket.try_clone().and_then(TcpListener::from_std);
            let socket = socket.map_err(|error| StartError::Listen { addr: listener.addr, error })?;
            accepting.push(tokio::spawn(accept(context.clone(), listener.protocol, socket)));
        }
        let listeners = Listeners {
            context: context.clone(),
            is_open: AtomicBool::new(true),
            addresses: bound.iter().map(|listener| (listener.protocol, listener.addr)).collect(),
            accepting: AsyncMutex::new(accepting),
        };
        Ok(Self {
            context,
            settings: shown(settings),
            started_at: clock::now(),
            config_files,
            listeners: Arc::new(listeners),
            log: opened.log.clone(),
            backups: opened.backups(),
            meter_of_store: opened.meter(),
            stop,
            meter: MemoryMeter::open().ok(),
            memory_total_bytes: limits::memory_total_bytes(),
        })
    }

    /// Stops accepting, for good.
    pub async fn close(&self) {
        self.listeners.close().await;
    }

    fn resident_bytes(&self) -> u64 {
        self.meter.as_ref().and_then(|meter| meter.resident_bytes().ok()).unwrap_or(0)
    }

    /// Puts the alarms on or off now, and not only when the watch comes round.
    fn look(&self) {
        let broker = &self.context.broker;
        // Where nothing is known of the memory there is no alarm.
        let total = self.memory_total_bytes.unwrap_or(u64::MAX);
        let is_memory_short = self.resident_bytes() > broker.memory_high_watermark().bytes(total);
        let free = limits::disk_free_bytes(&self.context.server.data_dir);
        let is_disk_short = free.is_ok_and(|free| free < broker.disk_free_limit().bytes(total));
        broker.set_alarms(is_memory_short, is_disk_short);
    }
}

impl Node for Process {
    fn now(&self) -> Time {
        clock::now()
    }

    fn is_running(&self) -> bool {
        self.listeners.is_open.load(Ordering::Acquire)
    }

    fn environment(&self) -> Environment {
        let broker = &self.context.broker;
        let data_dir = &self.context.server.data_dir;
        let listener = |(protocol, addr): &(Protocol, SocketAddr)| wire::Listener {
            interface: match addr {
                SocketAddr::V4(addr) => addr.ip().to_string(),
                SocketAddr::V6(addr) => format!("[{}]", addr.ip()),
            },
            node: broker.options.node_name.clone(),
            port: addr.port(),
            protocol: protocol.name().to_owned(),
            purpose: protocol.title().to_owned(),
        };
        Environment {
            pid: std::process::id(),
            started_at: self.started_at,
            product_version: self.context.amqp.product_version.clone(),
            data_dir: path::absolute(data_dir).unwrap_or_else(|_| data_dir.clone()),
            config_files: self.config_files.clone(),
            log_files: vec!["<stderr>".to_owned()],
            listeners: self.listeners.addresses.iter().map(listener).collect(),
            memory: Memory {
                resident_bytes: self.resident_bytes(),
                total_bytes: self.memory_total_bytes.unwrap_or(0),
                watermark: broker.memory_high_watermark(),
            },
            disk: Disk { free_bytes: limits::disk_free_bytes(data_dir).unwrap_or(0), limit: broker.disk_free_limit() },
            store: self.meter_of_store.read(),
            files: limits::open_files(),
            settings: self.settings.clone(),
        }
    }

    fn wait_until_safe(&self, position: Position) {
        if let Err(failure) = self.log.wait_flushed(store::Position(position.0)) {
            tracing::warn!(%failure, "an answer was given before the log was safe");
        }
    }

    fn timestamp_secs(&self, message: &Message) -> Option<u64> {
        properties::scan(message.properties())?.timestamp
    }

    fn stop_app(&self) -> Change {
        let listeners = self.listeners.clone();
        Box::pin(async move {
            listeners.close().await;
            drain(&listeners.context.broker, &listeners.context.aws, STOP_APP_DRAIN).await;
            Ok(())
        })
    }

    fn backup(&self, to: &Path) -> Change {
        let (backups, to) = (self.backups.clone(), to.to_owned());
        Box::pin(async move {
            let made = tokio::task::spawn_blocking(move || backups.make(&to)).await;
            made.unwrap_or_else(|_| Err("the backup could not be made: see the log".into()))
        })
    }

    fn start_app(&self) -> Change {
        let listeners = self.listeners.clone();
        Box::pin(async move { listeners.open().await.map_err(|error| error.to_string()) })
    }

    fn stop(&self) {
        self.stop.notify_one();
    }

    fn set_memory_watermark(&self, share: MemoryShare) {
        self.context.broker.set_memory_high_watermark(share);
        self.look();
    }

    fn set_disk_free_limit(&self, share: MemoryShare) {
        self.context.broker.set_disk_free_limit(share);
        self.look();
    }
}

impl Listeners {
    async fn close(&self) {
        let mut accepting = self.accepting.lock().await;
        self.is_open.store(false, Ordering::Release);
        for task in accepting.drain(..) {
            task.abort();
            // Its socket is closed once the task is over.
            let _ = task.await;
        }
    }

    /// Does what a start does: definitions first, then whoever wants to connect.
    async fn open(&self) -> Result<(), StartError> {
        let mut accepting = self.accepting.lock().await;
        if self.is_open.load(Ordering::Acquire) {
            return Ok(());
        }
        if let Some(path) = self.context.server.definitions_file.clone() {
            let broker = self.context.broker.clone();
            let loaded = tokio::task::spawn_blocking(move || load_definitions(&broker, &path)).await;
            loaded.map_err(|error| StartError::Other(error.to_string()))??;
        }
        let mut sockets = Vec::new();
        for &(protocol, addr) in &self.addresses {
            let socket = listen::reopen(protocol, addr)?;
            let socket = TcpListener::from_std(socket).map_err(|error| StartError::Listen { addr, error })?;
            sockets.push((protocol, socket));
        }
        self.context.broker.halt_deliveries(false, clock::now());
        let accept = |(protocol, socket)| tokio::spawn(accept(self.context.clone(), protocol, socket));
        accepting.extend(sockets.into_iter().map(accept));
        self.is_open.store(true, Ordering::Release);
        Ok(())
    }
}

/// How long `stop_app` waits for clients to answer: whoever does not has lost its queues all the same,
/// and test suites call it often.
const STOP_APP_DRAIN: Duration = Duration::from_secs(2);

/// The settings as an object of sections.
fn shown(settings: &Settings) -> Json {
    let mut sections = Map::new();
    for (key, value) in settings.shown() {
        let (section, name) = key.split_once('.').unwrap_or(("", key));
        let section = sections.entry(section).or_insert_with(|| Json::Object(Map::new()));
        if let Json::Object(entries) = section {
            entries.insert(name.to_owned(), value.into());
        }
    }
    Json::Object(sections)
}
