//! Login, limits and vhost: the methods of class connection.
//!
//! Mechanisms: PLAIN, AMQPLAIN, and ANONYMOUS where it is switched on. Faults before the vhost is
//! open are answered with `connection.close` where RabbitMQ 3.10 only drops the socket.

use std::sync::Arc;

use super::{
    codec::method::{self, AMQPClass, AMQPValue, FieldTable, connection},
    options::FRAME_MAX_MIN,
    reply::{Code, Failure},
    session::{Login, Session, Stage},
};
use crate::broker::{
    Broker,
    access::{Checker, LoginRefused, User},
    time::Time,
    turn::Turn,
    value::{Table, Value},
    vhost::Vhost,
};

impl Session {
    pub(super) fn send_start(&mut self) {
        let text = |text: &str| AMQPValue::LongString(text.into());
        let mut capabilities = FieldTable::default();
        for name in CAPABILITIES {
            capabilities.insert(method::short_text(name), AMQPValue::Boolean(true));
        }
        let mut properties = FieldTable::default();
        for (name, value) in [
            ("product", self.options.product.as_str()),
            ("version", self.options.product_version.as_str()),
            ("platform", concat!("Tern ", env!("CARGO_PKG_VERSION"))),
            ("tern_version", env!("CARGO_PKG_VERSION")),
            ("cluster_name", self.broker.options.cluster_name.as_str()),
            ("copyright", "Copyright (c) the Tern authors"),
            ("information", "Licensed under the Apache License 2.0"),
        ] {
            properties.insert(method::short_text(name), text(value));
        }
        properties.insert(method::short_text("capabilities"), AMQPValue::FieldTable(capabilities));
        let start = connection::Start {
            version_major: 0,
            version_minor: 9,
            server_properties: properties,
            mechanisms: self.mechanisms().join(" ").into(),
            locales: "en_US".into(),
        };
        self.send(0, &AMQPClass::Connection(connection::AMQPMethod::Start(start)));
    }

    fn mechanisms(&self) -> Vec<String> {
        let mut offered = self.options.mechanisms.clone();
        if self.options.anonymous_login_user.is_some() && !offered.iter().any(|name| name == "ANONYMOUS") {
            offered.push("ANONYMOUS".to_owned());
        }
        offered
    }

    pub(super) fn handle_connection(
        &mut self,
        method: connection::AMQPMethod,
        payload: &[u8],
        turn: &mut Turn<'_>,
    ) -> Result<(), Failure> {
        use connection::AMQPMethod as M;
        match (self.stage(), method) {
            (Stage::Start, M::StartOk(start)) => self.start_ok(&start, payload),
            (Stage::Tune, M::TuneOk(tune)) => self.tune_ok(&tune),
            (Stage::Open, M::Open(open)) => self.open(open.virtual_host.as_str(), turn.now),
            (_, M::Close(_)) => {
                self.settle_up(turn);
                // Consumers stop before the answer goes out: nothing may follow it.
                // As RabbitMQ: whoever has seen the answer finds no exclusive queue any more.
                self.drop_everything(turn);
                self.send(0, &AMQPClass::Connection(M::CloseOk(connection::CloseOk {})));
                self.set_stage(Stage::Over, Time::NEVER);
                Ok(())
            }
            (_, M::CloseOk(_)) => {
                self.set_stage(Stage::Over, Time::NEVER);
                Ok(())
            }
            (Stage::Running, M::UpdateSecret(_)) => {
                self.send(0, &AMQPClass::Connection(M::UpdateSecretOk(connection::UpdateSecretOk {})));
                Ok(())
            }
            _ => {
                let text = format!("unexpected method in connection state {}", self.stage_name());
                Err(Failure::connection(Code::ChannelError, text))
            }
        }
    }

    fn start_ok(&mut self, start: &connection::StartOk, payload: &[u8]) -> Result<(), Failure> {
        let client_properties = Table::decode(method::table(payload)).unwrap_or_default();
        let can = |name: &str| match client_properties.get("capabilities") {
            Some(Value::Table(capabilities)) => capabilities.get(name).and_then(Value::as_bool) == Some(true),
            _ => false,
        };
        let mechanism = start.mechanism.as_str().to_owned();
        let (wants_close, wants_blocked) = (can("authentication_failure_close"), can("connection.blocked"));
        self.shared.output().wire.notifies_cancel = can("consumer_cancel_notify");
        if !self.mechanisms().contains(&mechanism) {
            return Err(Failure::connection(
                Code::CommandInvalid,
                format!("unknown authentication mechanism '{mechanism}'"),
            ));
        }
        let user = match self.authenticate(&mechanism, start.response.as_bytes()) {
            Ok(user) => user,
            Err(Refused::Malformed) => {
                return Err(Failure::connection(
                    Code::SyntaxError,
                    format!("{mechanism} authentication failure: response malformed"),
                ));
            }
            Err(Refused::Login(reason)) => {
                tracing::warn!(peer = %self.peer, %reason, mechanism, "login refused");
                // The client learns no more than that.
                let text = format!(
                    "Login was refused using authentication mechanism {mechanism}. For details see the broker logfile."
                );
                let failure = Failure::connection(Code::AccessRefused, text);
                if !wants_close {
                    self.ended_by = Some("login refused".to_owned());
                    self.set_stage(Stage::Over, Time::NEVER);
                    return Ok(());
                }
                let user = Arc::new(User {
                    name: String::new(),
                    password: crate::broker::access::PasswordHash::none(),
                    tags: Vec::new(),
                    limits: crate::broker::limits::UserLimits::default(),
                });
                self.login = Some(Box::new(Login {
                    user,
                    checker: None,
                    mechanism,
                    client_properties,
                    wants_close,
                    wants_blocked,
                }));
                return Err(failure.at((0, 0)));
            }
        };
        self.login =
            Some(Box::new(Login { user, checker: None, mechanism, client_properties, wants_close, wants_blocked }));
        let tune = connection::Tune {
            channel_max: self.options.channel_max,
            frame_max: self.options.frame_max,
            heartbeat: self.options.heartbeat_secs,
        };
        self.send(0, &AMQPClass::Connection(connection::AMQPMethod::Tune(tune)));
        // One deadline for the whole handshake: an answer wins no time.
        self.set_stage(Stage::Tune, self.stage_deadline);
        Ok(())
    }

    fn authenticate(&self, mechanism: &str, response: &[u8]) -> Result<Arc<User>, Refused> {
        let access = &self.broker.access;
        let user = if mechanism == "ANONYMOUS" {
            let name = self.options.anonymous_login_user.as_deref().unwrap_or_default();
            access
                .get(name)
                .ok_or_else(|| Refused::Login(LoginRefused::InvalidCredentials { user: name.to_owned() }))?
        } else {
            let (name, password) = match mechanism {
                "PLAIN" => plain(response),
                _ => amqplain(response),
            }
            .ok_or(Refused::Malformed)?;
            access.authenticate(&name, &password).map_err(Refused::Login)?
        };
        if access.is_loopback_only(&user.name) && !self.peer.ip().to_canonical().is_loopback() {
            return Err(Refused::Login(LoginRefused::LoopbackOnly { user: user.name.clone() }));
        }
        Ok(user)
    }

    fn tune_ok(&mut self, tune: &connection::TuneOk) -> Result<(), Failure> {
        let (offered_frames, offered_channels) = (self.options.frame_max, self.options.channel_max);
        if tune.frame_max != 0 && tune.frame_max < FRAME_MAX_MIN {
            return Err(Failure::connection(
                Code::NotAllowed,
                format!(
                    "negotiated frame_max = {} is lower than the minimum allowed value ({FRAME_MAX_MIN})",
                    tune.frame_max
                ),
            ));
        }
        negotiate("frame_max", tune.frame_max, offered_frames)?;
        negotiate("channel_max", u32::from(tune.channel_max), u32::from(offered_channels))?;
        // Without a limit on either side, frames still have to fit the read buffer.
        self.frame_max = if tune.frame_max == 0 { UNLIMITED_FRAME_MAX } else { tune.frame_max };
        self.channel_max = tune.channel_max;
        self.heartbeat_ms = u64::from(tune.heartbeat) * 1000;
        self.shared.output().wire.frame_max = self.frame_max;
        self.set_stage(Stage::Open, self.stage_deadline);
        Ok(())
    }

    fn open(&mut self, name: &str, now: Time) -> Result<(), Failure> {
        let refused = |text: String| Err(Failure::connection(Code::NotAllowed, text));
        let Some(login) = &mut self.login else { return refused("not logged in".to_owned()) };
        let user = login.user.clone();
        let Some(vhost) = self.broker.vhost(name) else {
            return refused(format!("vhost {name} not found"));
        };
        let mut checker = Checker::new(&self.broker.access, &user.name, name, None);
        if !checker.has_access(&self.broker.access) {
            return refused(format!("access to vhost '{name}' refused for user '{}'", user.name));
        }
        login.checker = Some(checker);
        check_connection_limits(&self.broker, &vhost, &user)
            .map_err(|text| Failure::connection(Code::NotAllowed, text))?;
        self.register(vhost, now);
        self.set_stage(Stage::Running, Time::NEVER);
        self.send(0, &AMQPClass::Connection(connection::AMQPMethod::OpenOk(connection::OpenOk {})));
        Ok(())
    }
}

/// Whether one more connection may be opened; if not, why.
pub(in crate::protocol) fn check_connection_limits(broker: &Broker, vhost: &Vhost, user: &User) -> Result<(), String> {
    let refused = |text: String| Err(text);
    let node_limit = broker.options.connections_count_max;
    if broker.connections.len() >= node_limit {
        return refused(format!("connection refused: node connection limit ({node_limit}) is reached"));
    }
    if let Some(limit) = broker.vhost_limits.get(&vhost.name).connections()
        && vhost.connections_count() >= limit
    {
        return refused(format!(
            "access to vhost '{}' refused for user '{}': connection limit ({limit}) is reached",
            vhost.name, user.name
        ));
    }
    // The user may have been changed since login.
    let limits = broker.access.get(&user.name).map_or(user.limits, |user| user.limits);
    if let Some(limit) = limits.connections() {
        let open = broker.connections.list();
        let count = open.iter().filter(|connection| *connection.info.user == *user.name).count() as u64;
        if count >= limit {
            return refused(format!(
                "connection refused for user '{}': user connection limit ({limit}) is reached",
                user.name
            ));
        }
    }
    Ok(())
}

enum Refused {
    Malformed,
    Login(LoginRefused),
}

fn negotiate(name: &str, client: u32, server: u32) -> Result<(), Failure> {
    if server != 0 && (client == 0 || client > server) {
        return Err(Failure::connection(
            Code::NotAllowed,
            format!("negotiated {name} = {client} is higher than the maximum allowed value ({server})"),
        ));
    }
    Ok(())
}

/// `authorization NUL user NUL password` (RFC 4616).
fn plain(response: &[u8]) -> Option<(String, Vec<u8>)> {
    let mut parts = response.splitn(3, |&byte| byte == 0);
    let (_, user, password) = (parts.next()?, parts.next()?, parts.next()?);
    Some((String::from_utf8_lossy(user).into_owned(), password.to_vec()))
}

/// A field table without its length, with `LOGIN` and `PASSWORD`.
fn amqplain(response: &[u8]) -> Option<(String, Vec<u8>)> {
    let table = Table::decode(response)?;
    match (table.get("LOGIN")?, table.get("PASSWORD")?) {
        (Value::Text(user), Value::Text(password)) => {
            Some((String::from_utf8_lossy(user).into_owned(), password.clone()))
        }
        _ => None,
    }
}

/// Capabilities that the broker announces; all of them are true.
const CAPABILITIES: [&str; 9] = [
    "publisher_confirms",
    "exchange_exchange_bindings",
    "basic.nack",
    "consumer_cancel_notify",
    "connection.blocked",
    "consumer_priorities",
    "authentication_failure_close",
    "per_consumer_qos",
    "direct_reply_to",
];

/// Bytes of the largest frame of a connection that was agreed to have no limit.
const UNLIMITED_FRAME_MAX: u32 = 1 << 20;
