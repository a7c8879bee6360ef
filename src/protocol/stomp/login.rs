//! CONNECT: version, login, vhost and heart-beats; and what the user may do from then on.

use std::sync::Arc;

use super::{
    codec::{self, Head, Header, Limits},
    output::CHANNEL,
    reply::{self, Refusal, VERSIONS},
    session::{Flow, Login, Session, Version},
};
use crate::{
    broker::{
        access::{Access, Checker, LoginRefused, User},
        connections::{Connection, ConnectionInfo},
        exchange::Exchange,
        topology::random_name,
        turn::Turn,
        value::{Table, Value},
        vhost::Vhost,
    },
    protocol::amqp::handshake::check_connection_limits,
};

impl Session {
    pub(super) fn connect(&mut self, head: &Head<'_>, turn: &mut Turn<'_>) -> Result<Flow, Refusal> {
        self.log_in(head, turn)?;
        self.start();
        let mut headers: Vec<(&str, &[u8])> = Vec::new();
        if !self.options().hide_server_info {
            headers.push(("server", self.surroundings.server_name.as_bytes()));
        }
        let (send_ms, receive_ms) = self.heartbeat_ms;
        let heartbeat = format!("{send_ms},{receive_ms}");
        headers.push(("session", self.session_id.as_bytes()));
        headers.push(("heart-beat", heartbeat.as_bytes()));
        headers.push(("version", self.version.name().as_bytes()));
        let mut out = Vec::new();
        codec::encode("CONNECTED", &headers, b"", self.options().trailing_lf, &mut out);
        self.reply(out, None);
        Ok(Flow::Done)
    }

    /// Logs the default user in, without a word. A refusal closes the connection.
    pub(super) fn connect_implicitly(&mut self, turn: &mut Turn<'_>) -> Result<(), Refusal> {
        let bytes = b"CONNECT\n\n";
        let mut headers: Vec<Header> = Vec::new();
        let limits = Limits { head_bytes_max: bytes.len(), headers_count_max: 0 };
        let command_len = codec::decode_head(bytes, &limits, &mut headers).map_err(|_| Refusal::processing())?;
        let head = Head::new(bytes, command_len, &headers, false);
        self.log_in(&head, turn).map_err(|refusal| Refusal { is_fatal: true, ..refusal })?;
        self.start();
        Ok(())
    }

    fn log_in(&mut self, head: &Head<'_>, turn: &mut Turn<'_>) -> Result<(), Refusal> {
        let bad = |detail: String| Refusal::new("Bad CONNECT", detail);
        let version = negotiate(head.get("accept-version").as_deref().unwrap_or(b"1.0"))
            .ok_or_else(|| Refusal::new("Version mismatch", format!("Supported versions are {VERSIONS}\n")))?;
        let value = |name: &str| {
            let value = head.get(name)?;
            let blanks = match version {
                Version::V1_0 => value.iter().take_while(|octet| **octet == b' ').count(),
                _ => 0,
            };
            Some(value[blanks..].to_vec())
        };
        let text = |octets: Vec<u8>| String::from_utf8_lossy(&octets).into_owned();
        let (login, passcode) = (value("login").map(text), value("passcode"));
        let heartbeat_ms = match value("heart-beat") {
            None => (0, 0),
            Some(wanted) => heartbeats(&wanted).ok_or_else(Refusal::processing)?,
        };
        let options = self.options();
        let mechanism = if login.is_some() { "stomp_headers" } else { "config" };
        let Some(name) = login.or_else(|| options.default_user.clone()) else {
            return Err(bad("Missing login or passcode header(s)".to_owned()));
        };
        let passcode = passcode.unwrap_or_else(|| options.default_pass.clone().into_bytes());
        let host = value("host").map(text);
        let vhost_name = match host {
            Some(host) if !options.host_fallback || self.broker.vhost(&host).is_some() => host,
            _ => options.default_vhost.clone(),
        };
        let user = match self.broker.access.authenticate(&name, &passcode) {
            Ok(user) => user,
            Err(reason) => return self.refuse_login(&name, &reason, turn),
        };
        let denied = || bad(format!("Virtual host '{vhost_name}' access denied"));
        let vhost = self.broker.vhost(&vhost_name).ok_or_else(denied)?;
        let mut checker = Checker::new(&self.broker.access, &user.name, &vhost_name, None);
        if !checker.has_access(&self.broker.access) {
            return Err(denied());
        }
        if self.broker.access.is_loopback_only(&user.name) && !self.peer.ip().to_canonical().is_loopback() {
            tracing::warn!(peer = %self.peer, user = name, "login refused: the user may connect from loopback only");
            return Err(bad("non-loopback access denied".to_owned()));
        }
        if let Err(reason) = check_connection_limits(&self.broker, &vhost, &user) {
            tracing::warn!(peer = %self.peer, user = name, reason, "login refused");
            return Err(denied());
        }
        self.version = version;
        self.heartbeat_ms = heartbeat_ms;
        self.session_id = random_name("session-");
        self.login = Some(Box::new(Login { user: user.clone(), checker }));
        self.register(&user, vhost, mechanism, turn);
        Ok(())
    }

    /// Guessing passwords takes time: the answer is late, and nothing is read before it.
    fn refuse_login(&mut self, name: &str, reason: &LoginRefused, turn: &Turn<'_>) -> Result<(), Refusal> {
        tracing::warn!(peer = %self.peer, %reason, "login refused");
        let refusal = Refusal::new("Bad CONNECT", format!("Access refused for user '{name}'\n"));
        let delay_ms = self.surroundings.login_failure_delay_ms;
        if delay_ms == 0 {
            return Err(refusal);
        }
        self.reply_late(refusal.encode(self.options().trailing_lf), turn.now.after_ms(delay_ms));
        Err(Refusal { is_said: true, is_fatal: false, ..refusal })
    }

    fn register(&mut self, user: &Arc<User>, vhost: Arc<Vhost>, mechanism: &str, turn: &Turn<'_>) {
        let (send_ms, receive_ms) = self.heartbeat_ms;
        let info = ConnectionInfo {
            id: self.id,
            name: format!("{} -> {}", self.peer, self.local).into(),
            peer: self.peer,
            local: self.local,
            user: user.name.as_str().into(),
            vhost: vhost.name.clone(),
            protocol: format!("{{'{}',\"{}\"}}", self.protocol_name, self.version.name()),
            auth_mechanism: mechanism.to_owned(),
            frame_max: 0,
            channel_max: CHANNEL,
            heartbeat_secs: (send_ms.max(receive_ms) / 1000).min(u16::MAX.into()) as u16,
            client_properties: Table::from_iter([("product", Value::text("STOMP client"))]),
            connected_at: turn.now,
        };
        vhost.connection_opened();
        self.vhost = Some(vhost);
        self.shared.output().wire.is_open = true;
        self.broker.connections.add(Connection { info: Arc::new(info), handle: self.shared.clone() });
    }

    pub(super) fn vhost(&self) -> Result<Arc<Vhost>, Refusal> {
        self.vhost.clone().ok_or_else(Refusal::processing)
    }

    /// Refuses unless the user may.
    pub(super) fn require(&mut self, name: &str, access: Access, kind: &str) -> Result<(), Refusal> {
        let Some(login) = &mut self.login else { return Err(Refusal::processing()) };
        if login.checker.check(&self.broker.access, name, access) {
            return Ok(());
        }
        let vhost = self.vhost.as_ref().map_or("", |vhost| &vhost.name);
        let user = &login.user.name;
        let text = format!("access to {kind} '{name}' in vhost '{vhost}' refused for user '{user}'");
        Err(reply::access_refused(text))
    }

    /// Refuses unless the user may use that routing key of a topic exchange.
    pub(super) fn require_topic(&mut self, exchange: &Exchange, key: &[u8], access: Access) -> Result<(), Refusal> {
        let Some(login) = &mut self.login else { return Err(Refusal::processing()) };
        let key = String::from_utf8_lossy(key);
        if login.checker.check_topic(&self.broker.access, &exchange.name, &key, access) {
            return Ok(());
        }
        let vhost = self.vhost.as_ref().map_or("", |vhost| &vhost.name);
        Err(reply::access_refused(format!(
            "access to topic '{key}' in exchange '{}' in vhost '{vhost}' refused for user '{}'",
            exchange.name, login.user.name
        )))
    }
}

/// The highest version that both know.
fn negotiate(accepted: &[u8]) -> Option<Version> {
    let is_accepted =
        |version: &&Version| accepted.split(|&octet| octet == b',').any(|name| name == version.name().as_bytes());
    Version::ALL.iter().rev().find(is_accepted).copied()
}

/// What we send and what we expect, in whole seconds as milliseconds, from what the client can send and
/// wants to hear.
fn heartbeats(wanted: &[u8]) -> Option<(u64, u64)> {
    let mut parts = wanted.split(|&octet| octet == b',');
    let (sends, hears) = (codec::integer(parts.next()?)?, codec::integer(parts.next()?)?);
    let secs = |ms: i64| match ms {
        ..=0 => 0,
        1..1000 => 1000,
        ms => (ms / 1000 * 1000) as u64,
    };
    parts.next().is_none().then(|| (secs(hears), secs(sends)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_common_version_is_spoken() {
        for (accepted, expected) in [
            ("1.0", Some(Version::V1_0)),
            ("1.2,9.9", Some(Version::V1_2)),
            ("1.1,1.0", Some(Version::V1_1)),
            ("1.3", None),
            ("", None),
            ("1.2 ", None),
        ] {
            assert_eq!(negotiate(accepted.as_bytes()), expected, "{accepted}");
        }
    }

    #[test]
    fn heart_beats_are_whole_seconds() {
        for (wanted, expected) in [
            ("100,250", Some((1000, 1000))),
            ("0,0", Some((0, 0))),
            ("-5,2999", Some((2000, 0))),
            ("60000,1", Some((1000, 60_000))),
            ("99999999999999,0", Some((0, 99_999_999_999_000))),
            ("1", None),
            ("1,2,3", None),
            ("a,b", None),
        ] {
            assert_eq!(heartbeats(wanted.as_bytes()), expected, "{wanted}");
        }
    }
}
