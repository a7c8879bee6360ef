//! A broker process that is killed and started again on the same data directory and port.

use std::{
    fs::OpenOptions,
    io::{BufRead as _, BufReader},
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use crate::{
    aim::{self, Aim, Phase},
    power::Disk,
    rng::Rng,
};

pub(crate) struct Node {
    disk: Disk,
    settings: Vec<String>,
    pub(crate) ports: Ports,
    child: Option<Child>,
}

/// Where it listens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    pub(crate) amqp: u16,
    pub(crate) stomp: u16,
    pub(crate) activemq: u16,
    pub(crate) aws: u16,
}

/// What a start or a kill found that must not be.
#[derive(Debug)]
pub(crate) struct Broken(pub(crate) String);

/// How long a start may take. Generous: machines are shared.
const START_MAX: Duration = Duration::from_secs(60);

/// What it prints when it serves.
const STARTED: &str = "Server startup complete";

impl Node {
    /// Of a directory that may hold data already.
    pub(crate) fn new(disk: Disk, settings: Vec<String>, rng: &mut Rng) -> Self {
        let [amqp, stomp, activemq, aws] = [(); 4].map(|()| free_port(rng));
        Self { disk, settings, ports: Ports { amqp, stomp, activemq, aws }, child: None }
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.disk.dir().join("data")
    }

    pub(crate) fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// Starts it and waits until it serves; returns how long that took.
    pub(crate) fn start(&mut self) -> Result<Duration, Broken> {
        let started = Instant::now();
        let lines = self.spawn();
        let deadline = started + START_MAX;
        loop {
            match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) if line == STARTED => return Ok(started.elapsed()),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => return Err(self.broken("the broker does not start")),
                Err(RecvTimeoutError::Disconnected) => return Err(self.broken("the broker ended while it started")),
            }
        }
    }

    /// Starts it and kills it after a while, whether it serves by then or not. The while is that after the
    /// launch, or from when it has its data directory.
    pub(crate) fn start_and_crash(&mut self, is_from_lock: bool, after: Duration) -> Result<Phase, Broken> {
        let logged = std::fs::metadata(self.log_path()).map_or(0, |log| log.len());
        let lines = self.spawn();
        let deadline = Instant::now() + START_MAX;
        while is_from_lock && !self.has_lock() && Instant::now() < deadline {
            thread::sleep(Duration::from_micros(100));
        }
        thread::sleep(after);
        let has_lock = self.has_lock();
        self.crash()?;
        // What it said until then is there: the process is over.
        let log = std::fs::read(self.log_path()).unwrap_or_default();
        let log = String::from_utf8_lossy(log.get(usize::try_from(logged).unwrap_or(0)..).unwrap_or_default());
        Ok(if lines.iter().any(|line| line == STARTED) {
            Phase::Started
        } else if log.contains("the log was replayed") {
            Phase::Opening
        } else if has_lock {
            Phase::Recovery
        } else {
            Phase::Launch
        })
    }

    fn has_lock(&self) -> bool {
        self.child.as_ref().is_some_and(|child| aim::has_lock(child.id()))
    }

    /// Kills it when it does that, or at once; says what was hit. `warn` is called just before.
    pub(crate) fn crash_at(&mut self, aim: Option<Aim>, warn: impl FnOnce()) -> Result<Phase, Broken> {
        let data = self.data_dir();
        let before = aim.and_then(|aim| aim::await_moment(&data, aim));
        warn();
        self.crash()?;
        Ok(aim::judge(before, &data))
    }

    /// Ends it without a warning. It must have been running until then.
    pub(crate) fn crash(&mut self) -> Result<(), Broken> {
        self.disk.cut();
        let child = self.child.as_mut().expect("only a started broker is killed");
        // A broker that loses its disk may end by itself.
        if let (false, Some(status)) = (self.disk.is_cuttable(), child.try_wait().unwrap()) {
            return Err(self.broken(&format!("the broker ended by itself ({status})")));
        }
        self.end();
        self.disk.restore();
        Ok(())
    }

    /// The last lines that it logged.
    pub(crate) fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(self.log_path()).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// The directory stays, and is named.
    pub(crate) fn keep(&mut self) -> PathBuf {
        self.end();
        self.disk.keep()
    }

    fn spawn(&mut self) -> mpsc::Receiver<String> {
        let mut command = Command::new(binary());
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TERN_") || name.starts_with("RABBITMQ_"))
        {
            command.env_remove(name);
        }
        // A settings file of the directory that the tests run in is not meant.
        command.current_dir(self.disk.home());
        let Ports { amqp, stomp, activemq, aws } = self.ports;
        command.args(["--bind", "127.0.0.1", "--log-level", "info"]);
        command.args(["--amqp-port", &amqp.to_string(), "--stomp-port", &stomp.to_string()]);
        command.args(["--set", "web_stomp.listeners=none", "--set", &format!("aws.port={aws}")]);
        command.args(["--set", &format!("stomp.activemq_port={activemq}")]);
        command.arg("--data").arg(self.data_dir());
        for setting in &self.settings {
            command.args(["--set", setting]);
        }
        let log = OpenOptions::new().create(true).append(true).open(self.log_path()).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        assert!(self.child.replace(child).is_none(), "one broker a directory");
        let (tell, lines) = mpsc::channel();
        // Ends with the process, whose output it reads.
        thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| tell.send(line)));
        lines
    }

    fn broken(&self, what: &str) -> Broken {
        Broken(format!("{what}; its last words:\n{}", self.log_tail()))
    }

    fn end(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may be over already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn log_path(&self) -> PathBuf {
        self.disk.home().join("broker.log")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.end();
    }
}

/// The binary under test: another one than cargo's where `CRASH_BINARY` names it.
fn binary() -> PathBuf {
    std::env::var_os("CRASH_BINARY").map_or_else(|| env!("CARGO_BIN_EXE_tern").into(), PathBuf::from)
}

/// One that nobody listens on, and that the system gives no client: it stays free while the broker is down.
fn free_port(rng: &mut Rng) -> u16 {
    // Cycles with equal seeds may run beside each other.
    let mut rng = Rng::new(rng.next() ^ u64::from(std::process::id()));
    loop {
        let port = u16::try_from(rng.within(20_000..32_000)).expect("the range fits");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
