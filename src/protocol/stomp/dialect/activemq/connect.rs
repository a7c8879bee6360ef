//! CONNECT: version, login, the client's name and heart-beats.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use parking_lot::Mutex;

use super::{
    super::super::{
        codec::{self, Head},
        login::Denied,
        reply::Refusal,
        session::{Flow, Login, Version},
    },
    Speaker,
    advisory::Advisories,
    refusal,
};
use crate::broker::turn::Turn;

/// The name of a client in a vhost.
pub(super) type ClientKey = (Arc<str>, Box<[u8]>);

/// Names that clients of all connections go by, each in its vhost. One is free again as soon as its connection
/// is gone. There are no more of them than connections.
#[derive(Debug, Default)]
pub struct Clients {
    taken: Mutex<HashMap<ClientKey, SocketAddr, foldhash::fast::RandomState>>,
    /// Who listens for what clients do.
    pub(super) advisories: Advisories,
}

/// Milliseconds for which a client may wait for its name, and after which it is looked for again.
const NAME_PATIENCE_MS: u64 = 300;
const NAME_POLL_MS: u64 = 20;
/// Bytes of a client's name. It is a part of the names of queues.
const CLIENT_ID_BYTES_MAX: usize = 150;

impl Clients {
    /// Takes a name; or says who has it.
    fn take(&self, key: &ClientKey, peer: SocketAddr) -> Result<(), SocketAddr> {
        let mut taken = self.taken.lock();
        match taken.get(key) {
            Some(other) => Err(*other),
            None => {
                taken.insert(key.clone(), peer);
                Ok(())
            }
        }
    }

    fn is_taken(&self, key: &ClientKey) -> bool {
        self.taken.lock().contains_key(key)
    }

    fn give_back(&self, key: &ClientKey) {
        self.taken.lock().remove(key);
    }
}

impl Speaker<'_> {
    pub(super) fn connect(&mut self, head: &Head<'_>, turn: &mut Turn<'_>) -> Result<Flow, Refusal> {
        if self.awaits_name(head, turn) {
            return Ok(Flow::Waits);
        }
        self.log_in(head, turn)?;
        self.start();
        let (send_ms, receive_ms) = self.heartbeat_ms;
        let session = self.client_id();
        let heartbeat = format!("{send_ms},{receive_ms}");
        let mut headers: Vec<(&[u8], &[u8])> = Vec::new();
        if !self.options().hide_server_info {
            headers.push((b"server", SERVER.as_bytes()));
        }
        headers.push((b"heart-beat", heartbeat.as_bytes()));
        headers.push((b"session", &session));
        let request = head.get("request-id").or_else(|| head.get("receipt"));
        if let Some(request) = &request {
            headers.extend([(&b"response-id"[..], &**request), (&b"receipt-id"[..], &**request)]);
        }
        headers.push((b"version", self.version.name().as_bytes()));
        let mut out = b"CONNECTED\n".to_vec();
        for (name, value) in headers {
            // As with ActiveMQ, for which the version that was agreed on counts from the next frame on.
            codec::put_header_escaped(name, value, codec::Escapes::Nothing, &mut out);
        }
        out.push(b'\n');
        codec::put_end(self.options().trailing_lf, &mut out);
        self.reply(out, None);
        self.advise_connected(turn);
        Ok(Flow::Done)
    }

    /// The name that the client goes by: its own, or that of the connection.
    pub(super) fn client_id(&self) -> Vec<u8> {
        match &self.activemq.client {
            Some((_, name)) => name.to_vec(),
            None => self.session_id.clone().into_bytes(),
        }
    }

    /// Whether to come again: somebody has the name of this client, who may well be this client before its
    /// connection broke, and the end of that was not seen yet.
    fn awaits_name(&mut self, head: &Head<'_>, turn: &Turn<'_>) -> bool {
        let Some(name) = head.get("client-id") else { return false };
        let host = head.get("host").map(|host| String::from_utf8_lossy(&host).into_owned());
        let host = host.filter(|host| self.broker.vhost(host).is_some());
        let vhost = host.unwrap_or_else(|| self.options().default_vhost.clone());
        let since = *self.activemq.connects_since.get_or_insert(turn.now);
        let is_patient = turn.now < since.after_ms(NAME_PATIENCE_MS);
        if !is_patient || !self.surroundings.clients.is_taken(&(vhost.into(), (&*name).into())) {
            return false;
        }
        self.reply_late(Vec::new(), turn.now.after_ms(NAME_POLL_MS));
        true
    }

    fn log_in(&mut self, head: &Head<'_>, turn: &mut Turn<'_>) -> Result<(), Refusal> {
        let version = negotiate(head.get("accept-version").as_deref().unwrap_or(b"1.0"))?;
        let heartbeat_ms = match head.get("heart-beat") {
            None => (0, 0),
            Some(wanted) => heartbeats(&wanted)?,
        };
        let value = |name: &str| head.get(name).map(|value| value.into_owned());
        let text = |octets: Vec<u8>| String::from_utf8_lossy(&octets).into_owned();
        let login = value("login").map(text);
        let passcode = value("passcode").unwrap_or_default();
        let found = login.as_ref().map(|name| self.broker.access.authenticate(name, &passcode));
        let options = self.options();
        // Only where nobody from outside can be: the listener as well as the peer is this machine's own.
        let is_local = |ip: std::net::IpAddr| ip.to_canonical().is_loopback();
        let is_optional = options.login_optional && is_local(self.peer.ip()) && is_local(self.local.ip());
        let (user, mechanism) = match (found, &options.default_user) {
            (Some(Ok(user)), _) => (user, "stomp_headers"),
            (_, Some(default)) if is_optional => {
                let user = self.broker.access.authenticate(default, options.default_pass.as_bytes());
                match user {
                    Ok(user) => (user, "config"),
                    Err(reason) => return self.refuse_user(&login.unwrap_or_default(), &reason, turn),
                }
            }
            (Some(Err(reason)), _) => return self.refuse_user(&login.unwrap_or_default(), &reason, turn),
            (None, _) => {
                return Err(fatal("User name [null] or password is invalid.".to_owned()));
            }
        };
        let host = value("host").map(text).filter(|host| self.broker.vhost(host).is_some());
        let vhost_name = host.unwrap_or_else(|| self.options().default_vhost.clone());
        let (vhost, checker) = self.admit(&user, &vhost_name).map_err(|denied| {
            fatal(match denied {
                Denied::Vhost => format!("User {} is not allowed to use virtual host '{vhost_name}'", user.name),
                Denied::Loopback => format!("User {} is allowed to connect from loopback only", user.name),
            })
        })?;
        if let Some(name) = head.get("client-id") {
            if name.len() > CLIENT_ID_BYTES_MAX {
                return Err(fatal(format!("A client-id has at most {CLIENT_ID_BYTES_MAX} bytes")));
            }
            let key: ClientKey = (vhost.name.clone(), (&*name).into());
            if let Err(other) = self.surroundings.clients.take(&key, self.peer) {
                let (node, name) = (&self.broker.options.node_name, String::from_utf8_lossy(&name));
                let text = format!("Broker: {node} - Client: {name} already connected from tcp://{other}");
                return Err(fatal(text));
            }
            self.activemq.client = Some(key);
        }
        self.version = version;
        self.heartbeat_ms = heartbeat_ms;
        self.session_id = format!("ID:tern-{}-{}-1:{}", self.local.port(), turn.now.0, self.id.0);
        self.login = Some(Box::new(Login { user: user.clone(), checker }));
        let escapes = self.dialect().escapes(version);
        self.shared.output().wire.name_session(&self.session_id, escapes);
        self.register(&user, vhost, mechanism, turn);
        Ok(())
    }

    fn refuse_user(
        &mut self,
        name: &str,
        reason: &crate::broker::access::LoginRefused,
        turn: &Turn<'_>,
    ) -> Result<(), Refusal> {
        self.refuse_login(fatal(format!("User name [{name}] or password is invalid.")), reason, turn)
    }

    pub(super) fn forget_client(&mut self) {
        if let Some(key) = self.activemq.client.take() {
            self.surroundings.clients.give_back(&key);
        }
    }
}

/// What clients of ActiveMQ look for.
const SERVER: &str = "ActiveMQ/5.17.2";

fn fatal(message: String) -> Refusal {
    Refusal { is_fatal: true, ..refusal(message) }
}

/// The highest version that both know.
fn negotiate(accepted: &[u8]) -> Result<Version, Refusal> {
    let is_accepted =
        |version: &&Version| accepted.split(|&octet| octet == b',').any(|name| name == version.name().as_bytes());
    Version::ALL.iter().rev().find(is_accepted).copied().ok_or_else(|| {
        let accepted = String::from_utf8_lossy(accepted);
        let accepted = accepted.trim();
        fatal(format!("Invalid Protocol version[{accepted}], supported versions are: [1.2, 1.1, 1.0]"))
    })
}

/// What we send and what we expect, from what the client can send and wants to hear.
fn heartbeats(wanted: &[u8]) -> Result<(u64, u64), Refusal> {
    let text = String::from_utf8_lossy(wanted);
    let text = text.trim();
    // A comma at the end ends the last number, as Java splits text.
    let numbers = text.trim_end_matches(',');
    let number = |part: &str| codec::integer(part.as_bytes()).map(|ms| u64::try_from(ms).unwrap_or(0));
    let parts = numbers.split_once(',').and_then(|(sends, hears)| Some((number(hears)?, number(sends)?)));
    parts.ok_or_else(|| fatal(format!("Invalid heart-beat header:{text}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_common_version_is_spoken() {
        let version = |accepted: &str| negotiate(accepted.as_bytes()).ok();
        assert_eq!(version("1.2,9.9"), Some(Version::V1_2));
        assert_eq!(version("1.0"), Some(Version::V1_0));
        assert_eq!(version("1.3"), None);
        let refusal = negotiate(b"1.3").unwrap_err();
        assert!(refusal.is_fatal);
        assert_eq!(refusal.message, "Invalid Protocol version[1.3], supported versions are: [1.2, 1.1, 1.0]");
    }

    #[test]
    fn heart_beats_are_mirrored_in_milliseconds() {
        assert_eq!(heartbeats(b"100,250").ok(), Some((250, 100)));
        assert_eq!(heartbeats(b" 0,0 ").ok(), Some((0, 0)));
        assert_eq!(heartbeats(b"-1,5").ok(), Some((5, 0)));
        assert_eq!(heartbeats(b"5000,0,").ok(), Some((0, 5000)));
        for wanted in ["1", "1,2,3", "a,b", "", ","] {
            assert!(heartbeats(wanted.as_bytes()).is_err(), "{wanted}");
        }
    }

    #[test]
    fn a_name_is_taken_once_in_a_vhost() {
        let clients = Clients::default();
        let peer = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let key: ClientKey = ("/".into(), b"c"[..].into());
        assert_eq!(clients.take(&key, peer(1)), Ok(()));
        assert_eq!(clients.take(&key, peer(2)), Err(peer(1)));
        assert_eq!(clients.take(&("other".into(), b"c"[..].into()), peer(3)), Ok(()));
        clients.give_back(&key);
        assert_eq!(clients.take(&key, peer(2)), Ok(()));
    }
}
