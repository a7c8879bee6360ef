//! Settings: defaults < file < environment < flags, checked before anything starts.
//!
//! [`Settings`] holds one `Options` per layer. Every value passes the one table in `table`, which
//! has its bounds and reason; an error names the setting, the value, where that came from and what
//! is allowed. All errors are found in one go. Nothing outside this module reads a file of settings
//! or the environment.

mod alias;
mod fields;
mod layer;
mod report;
mod table;
mod value;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use config::{Config, Value, ValueKind};

use crate::store::options::Sync;
use layer::Layer;

/// What every layer is given at its start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// For the broker core.
    pub broker: crate::broker::Options,
    /// For AMQP sessions.
    pub amqp: crate::protocol::amqp::Options,
    /// For STOMP sessions.
    pub stomp: crate::protocol::stomp::Options,
    /// For SQS and SNS.
    pub aws: crate::aws::Options,
    /// For the process.
    pub server: crate::server::Options,
    /// For the log, the index of cold messages and their checkpoints.
    pub persistence: crate::server::options::Persistence,
}

impl Settings {
    /// Settings from all sources; or every problem that they have.
    pub fn load(sources: &Sources) -> Result<Self, Problems> {
        let reading = read(sources);
        if reading.problems.is_empty() { Ok(reading.settings) } else { Err(Problems(reading.problems)) }
    }

    /// What an operator should know about these settings before trouble teaches it.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.persistence.log.sync == Sync::Os {
            warnings.push(
                "CONFIRMED MESSAGES ARE LOST IN A POWER CUT: store.sync is \"os\", which is for benchmarks only; \
                 set it to \"always\""
                    .into(),
            );
        }
        let is_open = self.server.listeners().iter().any(|listener| !listener.addr.ip().is_loopback());
        let user = &self.broker.default_user;
        if is_open && self.broker.default_pass == "guest" && !self.broker.loopback_users.contains(user) {
            warnings.push(format!(
                "anyone who reaches a listener can log in as {user} with the password guest: set broker.default_pass"
            ));
        }
        if is_open && self.amqp.anonymous_login_user.is_some() {
            warnings
                .push("anyone who reaches a listener can log in without a password: amqp.anonymous_login_user".into());
        }
        let is_stomp_open = self.server.stomp().iter().any(|listener| !listener.addr.ip().is_loopback());
        // With the password that everybody knows there is a warning already.
        if let Some(name) = &self.stomp.default_user
            && is_stomp_open
            && !self.broker.loopback_users.contains(name)
            && (name != user || self.stomp.default_pass == self.broker.default_pass)
            && self.broker.default_pass != "guest"
        {
            warnings.push(format!("anyone who reaches a STOMP listener is {name} without a login: stomp.default_user"));
        }
        if self.server.proxy_protocol_trusted.iter().any(|range| range.to_string().ends_with("/0")) {
            warnings.push(
                "every peer is trusted with PROXY headers and can pretend to be local: server.proxy_protocol_trusted"
                    .into(),
            );
        }
        if self.aws.reset && !self.server.aws().is_empty() {
            warnings.push("whoever reaches SQS and SNS can delete everything by POST /_tern/reset: aws.reset".into());
        }
        warnings
    }
}

/// Where settings come from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The TOML file, if there is one; it must be readable.
    pub file: Option<PathBuf>,
    /// The environment.
    pub environment: Vec<(String, String)>,
    /// The command line, in its order.
    pub flags: Vec<Flag>,
    /// This machine's name, part of the default node name.
    pub host_name: Option<String>,
}

/// A flag that sets something.
#[derive(Clone, Debug)]
pub struct Flag {
    /// As the user writes it, `--amqp-port`.
    pub name: String,
    /// The setting.
    pub key: String,
    /// Its text.
    pub value: String,
}

/// The file that is read when none is named.
pub const DEFAULT_FILE: &str = "tern.toml";

impl Sources {
    /// The sources of this process: `file` or else `./tern.toml` where there is one, its
    /// environment, its host's name, and `flags`.
    pub fn of_process(file: Option<PathBuf>, flags: Vec<Flag>) -> Self {
        let file = file.or_else(|| Some(PathBuf::from(DEFAULT_FILE)).filter(|path| path.exists()));
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let uname = rustix::system::uname();
        // The short name, as RabbitMQ uses it.
        let host_name = uname.nodename().to_str().ok().and_then(|name| name.split('.').next());
        let host_name = host_name.filter(|name| !name.is_empty()).map(str::to_owned);
        Self { file, environment, flags, host_name }
    }
}

/// Something wrong with the settings, for the person who made them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem(String);

impl Problem {
    fn bad(source: &str, key: &str, value: &str, allowed: &str) -> Self {
        Self(format!("{key} = {value} ({source}) is not allowed: it may be {allowed}"))
    }

    fn unknown(source: &str, written: &str, nearest: Option<&str>) -> Self {
        let advice = match nearest {
            Some(nearest) => format!("did you mean {nearest}?"),
            None => "nothing has a similar name; `tern config check` lists all settings".into(),
        };
        Self(format!("{written} ({source}) is no setting: {advice}"))
    }

    fn twice(source: &str, key: &str, first: &str, second: &str) -> Self {
        Self(format!("{key} ({source}) is set twice, by {first} and {second}: keep one"))
    }

    fn of_source(source: &str, what: &str) -> Self {
        Self(format!("{source} {what}"))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Every problem of the settings, one a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            write!(f, "{}{problem}", if index == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// Settings, as good as could be read, with what `tern config check` says of them.
pub struct Reading {
    settings: Settings,
    defaults: Settings,
    origins: BTreeMap<&'static str, String>,
    problems: Vec<Problem>,
}

/// Reads all sources and goes on past problems, to find all of them.
pub fn read(sources: &Sources) -> Reading {
    let mut problems = Vec::new();
    let mut layers = Vec::new();
    if let Some(path) = &sources.file {
        layers.push(Layer::of_file(path, &mut problems));
    }
    layers.push(Layer::of_environment(&sources.environment, &mut problems));
    layers.push(Layer::of_flags(&sources.flags, &mut problems));
    let builder = layers.into_iter().fold(Config::builder(), |builder, layer| builder.add_source(layer));
    let merged = match builder.build() {
        Ok(config) => config.cache,
        Err(error) => {
            problems.push(Problem::of_source("settings", &format!("cannot be merged: {error}")));
            Value::default()
        }
    };

    let host_name = sources.host_name.as_deref().unwrap_or("localhost");
    let mut defaults = Settings::default();
    defaults.broker.node_name = format!("tern@{host_name}");
    defaults.broker.cluster_name = defaults.broker.node_name.clone();

    let mut settings = defaults.clone();
    let mut origins = BTreeMap::new();
    for setting in table::SETTINGS {
        let Some(value) = lookup(&merged, setting.key) else { continue };
        let origin = value.origin().unwrap_or_default().to_owned();
        let written = match setting.rule.parse(value) {
            Some(parsed) => (setting.write)(&mut settings, parsed),
            None => Err(setting.rule.allowed()),
        };
        let Err(allowed) = written else {
            origins.insert(setting.key, origin);
            continue;
        };
        let shown = if setting.is_secret() { "(not shown)".into() } else { value::quoted(value) };
        problems.push(Problem::bad(&origin, setting.key, &shown, &allowed));
    }
    complete(&mut settings, host_name, &origins);
    check_together(&settings, &origins, &mut problems);
    Reading { settings, defaults, origins, problems }
}

/// Fills what follows from other settings.
fn complete(settings: &mut Settings, host_name: &str, origins: &BTreeMap<&'static str, String>) {
    let broker = &mut settings.broker;
    if !broker.node_name.contains('@') {
        broker.node_name = format!("{}@{host_name}", broker.node_name);
    }
    if !origins.contains_key("broker.cluster_name") {
        broker.cluster_name = broker.node_name.clone();
    }
    let amqp = &mut settings.amqp;
    if amqp.anonymous_login_user.is_some() && !amqp.mechanisms.iter().any(|name| name == "ANONYMOUS") {
        amqp.mechanisms.push("ANONYMOUS".into());
    }
}

/// Checks what no setting can check alone.
fn check_together(settings: &Settings, origins: &BTreeMap<&'static str, String>, problems: &mut Vec<Problem>) {
    let origin = |key: &str| origins.get(key).map_or("default", String::as_str);
    let amqp = &settings.amqp;
    for (key, bytes) in
        [("amqp.pre_login_frame_max", amqp.pre_login_frame_max), ("amqp.start_ok_max", amqp.start_ok_max)]
    {
        // Only what somebody set: a small frame_max beside the defaults is fine.
        if bytes > amqp.frame_max && origins.contains_key(key) {
            let allowed = format!("at most amqp.frame_max, {} ({})", amqp.frame_max, origin("amqp.frame_max"));
            problems.push(Problem::bad(origin(key), key, &bytes.to_string(), &allowed));
        }
    }
    if amqp.anonymous_login_user.is_none() && amqp.mechanisms.iter().any(|name| name == "ANONYMOUS") {
        let allowed = "ANONYMOUS only with amqp.anonymous_login_user set";
        let shown = amqp.mechanisms.join(",");
        problems.push(Problem::bad(origin("amqp.mechanisms"), "amqp.mechanisms", &shown, allowed));
    }
    if let Err(refused) = settings.persistence.log.check() {
        let key = format!("store.{}", refused.option);
        let shown = table::find(&key).map_or_else(String::new, |setting| (setting.show)(settings));
        problems.push(Problem::bad(origin(key.as_str()), &key, &shown, &refused.allowed));
    }
}

fn lookup<'a>(tree: &'a Value, key: &str) -> Option<&'a Value> {
    key.split('.').try_fold(tree, |value, name| match &value.kind {
        ValueKind::Table(table) => table.get(name),
        _ => None,
    })
}

#[cfg(test)]
mod tests;
