//! Sockets, tasks, the clock and the end of the process.
//!
//! Tasks: one per listener, one per connection, one that serves appointments ([`tick`]), one that
//! watches memory and disk ([`watch`]), and the one that waits for the signal to stop.

pub mod aside;
pub mod aws;
pub mod clock;
pub mod connection;
pub mod control;
pub mod limits;
pub mod listen;
pub mod node;
pub mod options;
pub mod persistence;
pub mod proxy_protocol;
pub mod read_buffer;
pub mod sns;
pub mod socket;
pub mod watch;
mod web_socket;
mod web_stomp;

use std::{
    fs,
    path::Path,
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    sync::Notify,
};

pub use options::{Options, Persistence, Protocol};

use crate::{
    admin::{definitions, node::Node},
    aws::{Aws, declared},
    broker::{Broker, definitions::Definitions},
    config::Settings,
    protocol::{
        amqp, jms,
        stomp::{self, options::Dialect},
    },
};
use connection::Context;
use listen::{Bound, StartError};
use node::Process;
use persistence::Watcher;

/// Runs the broker until it is told to stop, and calls `ready` once everything listens.
pub fn run(settings: &Settings, ready: fn(&Settings, &[Bound])) -> Result<(), StartError> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = settings.server.worker_threads {
        builder.worker_threads(threads);
    }
    let runtime = builder
        .enable_all()
        .thread_name("tern")
        .build()
        .map_err(|error| StartError::Other(format!("cannot start the runtime: {error}")))?;
    let result = runtime.block_on(serve(settings, ready));
    runtime.shutdown_timeout(Duration::from_millis(200));
    result
}

async fn serve(settings: &Settings, ready: fn(&Settings, &[Bound])) -> Result<(), StartError> {
    let data_dir = &settings.server.data_dir;
    fs::create_dir_all(data_dir).map_err(|error| StartError::File { what: "create", path: data_dir.clone(), error })?;
    let control = control::bind(data_dir, settings.server.control_socket_mode)
        .map_err(|error| StartError::Other(error.to_string()))?;
    let stop = Arc::new(Notify::new());
    let watcher = Arc::new(Watcher::new(stop.clone()));
    let opened = persistence::open(data_dir, settings.broker.clone(), &settings.persistence, &watcher)?;
    let (broker, log) = (opened.broker.clone(), opened.log.clone());
    broker.show_properties_by(amqp::properties::show);
    broker.attach_fields(Arc::new(jms::JmsFields));
    broker.access.digest_aside(aside::run);
    let aws = Arc::new(Aws::new(settings.aws.clone()));
    let trusted = match &settings.aws.trusted_ca_file {
        Some(path) => {
            let failed = |error| StartError::File { what: "trust what is in", path: path.clone(), error };
            sns::read_trusted(path).map_err(failed)?
        }
        None => Vec::new(),
    };
    let signer = Arc::new(sns::KeptSigner::new(data_dir, &settings.aws.signing_cert_url));
    aws.sns.begin(&broker, &settings.aws, signer, "http://localhost:9324");
    if let Some(path) = &settings.server.definitions_file {
        load_definitions(&broker, path)?;
    }
    let bound = listen::open_all(&settings.server)?;
    if let Some(listener) = bound.iter().find(|bound| bound.protocol == Protocol::Aws) {
        aws.sns.listens_on(listener.addr);
    }
    for problem in declared::declare(&aws, &broker, clock::now()) {
        tracing::warn!(problem, "what the settings declare was not made");
    }
    let is_development = is_development(settings, &bound);
    let web = Arc::new(aws::Web::new(broker.clone(), aws.clone(), is_development));
    let context = Arc::new(Context {
        broker: broker.clone(),
        aws: web.clone(),
        amqp: Arc::new(settings.amqp.clone()),
        stomp: surroundings_of_stomp(settings),
        server: Arc::new(settings.server.clone()),
        handshakes: AtomicUsize::new(0),
    });
    let process = Arc::new(Process::start(context, settings, Vec::new(), &bound, &opened, stop.clone())?);
    let node: Arc<dyn Node> = process.clone();
    let tasks = [
        tokio::spawn(tick(broker.clone())),
        tokio::spawn(watch::run(broker.clone(), log.clone(), data_dir.clone())),
        tokio::spawn(control::serve(control, broker.clone(), node.clone())),
        tokio::spawn(sns::run(broker.clone(), aws, trusted)),
    ];
    // Before anybody is told that the broker runs: a signal that came earlier would kill it.
    let signals = Signals::new().map_err(|error| StartError::Other(format!("cannot wait for signals: {error}")))?;
    if let Some(path) = &settings.server.ports_file {
        listen::write_ports_file(path, &bound)?;
    }
    ready(settings, &bound);
    // What `stop_app` closes must not stay open here.
    drop(bound);
    signals.stop(&stop).await;
    tracing::info!(connections = broker.connections.len(), "stopping");
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
    process.close().await;
    drain(&broker, &web, Duration::from_millis(settings.server.shutdown_drain_ms)).await;
    // Its threads tell the watcher, which may wake tasks of this runtime: not from one of them.
    let closed = tokio::task::spawn_blocking(move || opened.close()).await;
    if let Err(error) = closed {
        tracing::error!(%error, "the log could not be closed");
    }
    match watcher.failure() {
        Some(failure) => Err(StartError::Other(failure.to_owned())),
        None => Ok(()),
    }
}

/// Whether calls of SQS and SNS from this machine are taken with any credentials.
fn is_development(settings: &Settings, bound: &[Bound]) -> bool {
    let mut listeners = bound.iter().filter(|bound| bound.protocol == Protocol::Aws).peekable();
    if listeners.peek().is_none() {
        return false;
    }
    let is_local = listeners.all(|bound| bound.addr.ip().is_loopback());
    let is_on = settings.aws.development.unwrap_or(is_local);
    if is_on {
        tracing::info!("SQS and SNS take calls from this machine with any credentials: aws.development");
    } else {
        tracing::info!("SQS and SNS take calls that an access key has signed, and no others: aws.development is off");
    }
    is_on
}

/// What sessions of STOMP know of where they run, by dialect.
fn surroundings_of_stomp(settings: &Settings) -> [Arc<stomp::Surroundings>; 2] {
    let clients = Arc::<stomp::Clients>::default();
    Dialect::ALL.map(|dialect| {
        Arc::new(stomp::Surroundings {
            options: settings.stomp.clone(),
            dialect,
            clients: clients.clone(),
            server_name: format!("{}/{}", settings.amqp.product, settings.amqp.product_version),
            login_failure_delay_ms: settings.server.login_failure_delay_ms,
        })
    })
}

/// Applies the definitions of a file, all of them or none of the process.
fn load_definitions(broker: &Broker, path: &Path) -> Result<(), StartError> {
    let bytes = fs::read(path).map_err(|error| StartError::File { what: "read", path: path.to_owned(), error })?;
    let refused = |error: &dyn std::fmt::Display| StartError::Other(format!("definitions {}: {error}", path.display()));
    let definitions = Definitions::parse(&bytes).map_err(|error| refused(&error))?;
    let summary = definitions::import(broker, clock::now(), &definitions).map_err(|error| refused(&error))?;
    for place in &summary.differing {
        tracing::warn!(path = %path.display(), place, "a definition differs from what exists, which stays");
    }
    tracing::info!(path = %path.display(), applied = summary.applied_count, "definitions loaded");
    Ok(())
}

/// Accepts connections until it is aborted. Running out of files only pauses it.
async fn accept(context: Arc<Context>, protocol: Protocol, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                tracing::debug!(%peer, protocol = protocol.name(), "accepted a connection");
                tokio::spawn(connection::serve(context.clone(), protocol, stream, peer));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections; trying again");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// How long accepting pauses after a failure.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves the broker's appointments until it is aborted.
async fn tick(broker: Arc<Broker>) {
    let earlier = Arc::new(Notify::new());
    let waker = earlier.clone();
    broker.timers.on_earlier(Arc::new(move || waker.notify_one()));
    loop {
        let next = broker.tick(clock::now()).and_then(clock::instant_at);
        tokio::select! {
            () = earlier.notified() => {}
            () = async { match next {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            } } => {}
        }
    }
}

/// The signals that end the process in good order.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Catches them from now on.
    fn new() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Returns when one has come, or somebody has asked.
    async fn stop(mut self, asked: &Notify) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            () = asked.notified() => {}
        }
    }
}

/// Closes all connections and waits until their clients have answered, or the time is over.
async fn drain(broker: &Broker, web: &aws::Web, limit: Duration) {
    web.close();
    broker.halt_deliveries(true, clock::now());
    for connection in broker.connections.list() {
        connection.handle.close("broker forced connection closure with reason 'shutdown'");
    }
    let emptied = async {
        while !broker.connections.is_empty() || web.connections_count() > 0 {
            tokio::time::sleep(DRAIN_POLL).await;
        }
    };
    if tokio::time::timeout(limit, emptied).await.is_err() {
        tracing::warn!(connections = broker.connections.len() + web.connections_count(), "some clients did not answer");
    }
}

const DRAIN_POLL: Duration = Duration::from_millis(5);
