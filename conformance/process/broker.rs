//! A broker process of one test: started on a free port, killed when the test is over.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// A running broker.
pub(crate) struct Broker {
    child: Child,
    /// Removed when the test is over.
    dir: TempDir,
    pub(crate) port: u16,
    stderr: Receiver<String>,
    seen: Vec<String>,
    settings: Vec<String>,
}

/// How long anything may take before a test gives up. Generous: machines are shared.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

impl Broker {
    /// With default settings.
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    /// With some settings, as `section.key=value`.
    pub(crate) fn with(settings: &[&str]) -> Self {
        Self::with_environment(settings, &[])
    }

    /// With some settings and variables of the environment.
    pub(crate) fn with_environment(settings: &[&str], variables: &[(&str, &str)]) -> Self {
        Self::on(tempfile::tempdir().unwrap(), settings, variables)
    }

    /// On what is in a directory.
    pub(crate) fn on(dir: TempDir, settings: &[&str], variables: &[(&str, &str)]) -> Self {
        let (child, stderr, port) = start(dir.path(), settings, variables);
        let settings = settings.iter().map(|&setting| setting.to_owned()).collect();
        Self { child, dir, port, stderr, seen: Vec::new(), settings }
    }

    /// Where its data is.
    pub(crate) fn data(&self) -> PathBuf {
        data(self.dir.path())
    }

    /// Where it speaks STOMP.
    pub(crate) fn stomp_port(&self) -> u16 {
        self.port_of("stomp")
    }

    /// Where it speaks a protocol, by its name in the ports file.
    pub(crate) fn port_of(&self, protocol: &str) -> u16 {
        port_of(self.dir.path(), protocol)
    }

    /// Where it speaks STOMP over WebSocket.
    pub(crate) fn web_stomp_port(&self) -> u16 {
        port_of(self.dir.path(), "web_stomp")
    }

    /// Ends the process as a crash would.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again, on the same data and with the same settings, after its end.
    pub(crate) fn start_again(&mut self) {
        let settings: Vec<&str> = self.settings.iter().map(String::as_str).collect();
        self.seen.extend(self.stderr.iter());
        (self.child, self.stderr, self.port) = start(self.dir.path(), &settings, &[]);
    }

    /// Gives it other settings for the next start.
    pub(crate) fn set_settings(&mut self, settings: &[&str]) {
        self.settings = settings.iter().map(|&setting| setting.to_owned()).collect();
    }

    /// Tries to start it again, after its end, when that is expected to be refused.
    pub(crate) fn start_again_refused(&self) -> Refused {
        let settings: Vec<&str> = self.settings.iter().map(String::as_str).collect();
        refused(command(self.dir.path(), &settings, &[]).spawn().unwrap())
    }

    /// Kills it where it stands, and starts it again with the same settings on what it has left.
    pub(crate) fn crash(&mut self) {
        self.kill();
        self.start_again();
    }

    /// Waits for a line of the log that contains `text`.
    pub(crate) fn await_log(&mut self, text: &str) -> String {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.stderr.recv_timeout(left).unwrap_or_else(|_| panic!("no {text:?} in {:#?}", self.seen));
            self.seen.push(line.clone());
            if line.contains(text) {
                return line;
            }
        }
    }

    /// Names of the files of a folder in the data directory; of one that is not there, none.
    pub(crate) fn files(&self, folder: &str) -> Vec<String> {
        let Ok(found) = std::fs::read_dir(self.data().join(folder)) else { return Vec::new() };
        found.map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// Resident bytes now.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// CPU time of the process until now. Linux shows it in hundredths of a second.
    pub(crate) fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        // The name before the bracket may hold anything; user and system time are fields 14 and 15.
        let (_, fields) = stat.rsplit_once(')').unwrap();
        let ticks: u64 = fields.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum();
        Duration::from_millis(ticks * 10)
    }

    /// Administers it: carries out one command line of `tern ctl`, which must succeed.
    pub(crate) fn ctl(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tern"));
        command.current_dir(self.dir.path()).env("TERN_SERVER_DATA_DIR", self.data()).arg("ctl");
        let output = command.args(arguments).stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Sends SIGTERM.
    pub(crate) fn terminate(&self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }

    /// Waits until the process is over.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        wait(&mut self.child)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // It may be over already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            self.seen.extend(self.stderr.try_iter());
            for line in self.seen.iter().rev().take(20).rev() {
                eprintln!("broker: {line}");
            }
        }
    }
}

/// What came of a broker that was expected not to start.
pub(crate) struct Refused {
    pub(crate) status: ExitStatus,
    pub(crate) stderr: String,
}

/// Starts a broker that is expected not to start.
pub(crate) fn start_refused(settings: &[&str], variables: &[(&str, &str)]) -> Refused {
    let dir = tempfile::tempdir().unwrap();
    refused(command(dir.path(), settings, variables).spawn().unwrap())
}

fn refused(mut child: Child) -> Refused {
    let status = wait(&mut child);
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    Refused { status, stderr }
}

/// Waits until everything listens: the process, its log and its port.
fn start(dir: &Path, settings: &[&str], variables: &[(&str, &str)]) -> (Child, Receiver<String>, u16) {
    let mut child = command(dir, settings, variables).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (tell, stderr) = mpsc::channel();
    let errors = BufReader::new(child.stderr.take().unwrap());
    thread::spawn(move || errors.lines().map_while(Result::ok).try_for_each(|line| tell.send(line)));
    let started = lines.by_ref().map_while(Result::ok).any(|line| line == "Server startup complete");
    // Nobody reads on, and nothing more is written there.
    if !started {
        panic!("the broker did not start: {:?}", stderr.iter().collect::<Vec<_>>());
    }
    (child, stderr, port_of(dir, "amqp"))
}

fn port_of(dir: &Path, protocol: &str) -> u16 {
    let ports = std::fs::read_to_string(ports_file(dir)).unwrap();
    let ports: serde_json::Value = serde_json::from_str(&ports).unwrap();
    u16::try_from(ports[protocol].as_u64().unwrap()).unwrap()
}

fn command(dir: &Path, settings: &[&str], variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tern"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TERN_") || name.starts_with("RABBITMQ_")) {
        command.env_remove(name);
    }
    // A settings file of the directory that the tests run in is not meant.
    command.current_dir(dir).envs(variables.iter().copied());
    command.args(["--amqp-port", "0", "--stomp-port", "0", "--bind", "127.0.0.1", "--log-level", "info"]);
    command.arg("--data").arg(data(dir)).arg("--ports-file").arg(ports_file(dir));
    for setting in settings {
        match setting.strip_prefix("--") {
            Some(_) => command.args(setting.split('=')),
            None => command.args(["--set", setting]),
        };
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn data(dir: &Path) -> PathBuf {
    dir.join("data")
}

fn ports_file(dir: &Path) -> PathBuf {
    dir.join("ports.json")
}

fn wait(child: &mut Child) -> ExitStatus {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(Instant::now() < deadline, "the process does not end");
        thread::sleep(POLL);
    }
}

/// Asks again and again until `condition` holds.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        thread::sleep(POLL);
    }
}

const POLL: Duration = Duration::from_millis(10);
