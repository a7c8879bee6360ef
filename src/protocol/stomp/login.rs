//! Who a client is, and what it may do from then on.

use std::sync::Arc;

use super::{
    dialect::{Dialect, activemq},
    output::CHANNEL,
    reply::{self, Refusal},
    session::Session,
};
use crate::{
    broker::{
        access::{Access, Checker, LoginRefused, User},
        connections::{Connection, ConnectionInfo},
        exchange::Exchange,
        turn::Turn,
        value::{Table, Value},
        vhost::Vhost,
    },
    protocol::amqp::handshake::check_connection_limits,
};

/// Why somebody who is known may not come in.
pub(super) enum Denied {
    /// Not to this vhost, or not one more.
    Vhost,
    /// Not from another machine.
    Loopback,
}

impl Session {
    /// Checks a login and finds the vhost of it.
    pub(super) fn admit(&mut self, user: &Arc<User>, vhost_name: &str) -> Result<(Arc<Vhost>, Checker), Denied> {
        let vhost = self.broker.vhost(vhost_name).ok_or(Denied::Vhost)?;
        let mut checker = Checker::new(&self.broker.access, &user.name, vhost_name, None);
        if !checker.has_access(&self.broker.access) {
            return Err(Denied::Vhost);
        }
        let name = &user.name;
        if self.broker.access.is_loopback_only(name) && !self.peer.ip().to_canonical().is_loopback() {
            tracing::warn!(peer = %self.peer, user = name, "login refused: the user may connect from loopback only");
            return Err(Denied::Loopback);
        }
        if let Err(reason) = check_connection_limits(&self.broker, &vhost, user) {
            tracing::warn!(peer = %self.peer, user = name, reason, "login refused");
            return Err(Denied::Vhost);
        }
        Ok((vhost, checker))
    }

    /// Guessing passwords takes time: the answer is late, and nothing is read before it.
    pub(super) fn refuse_login(
        &mut self,
        refusal: Refusal,
        reason: &LoginRefused,
        turn: &Turn<'_>,
    ) -> Result<(), Refusal> {
        tracing::warn!(peer = %self.peer, %reason, "login refused");
        let delay_ms = self.surroundings.login_failure_delay_ms;
        if delay_ms == 0 {
            return Err(refusal);
        }
        self.reply_late(self.encode_refusal(&refusal), turn.now.after_ms(delay_ms));
        Err(Refusal { is_said: true, ..refusal })
    }

    pub(super) fn register(&mut self, user: &Arc<User>, vhost: Arc<Vhost>, mechanism: &str, turn: &Turn<'_>) {
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
        if self.surroundings.dialect == Dialect::Activemq {
            return Err(activemq::not_authorized(user, access, &format!("{kind}://{name}")));
        }
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
        if self.surroundings.dialect == Dialect::Activemq {
            return Err(activemq::not_authorized(&login.user.name, access, &format!("topic://{key}")));
        }
        let vhost = self.vhost.as_ref().map_or("", |vhost| &vhost.name);
        Err(reply::access_refused(format!(
            "access to topic '{key}' in exchange '{}' in vhost '{vhost}' refused for user '{}'",
            exchange.name, login.user.name
        )))
    }
}
