//! CONNECT: version, login, vhost and heart-beats.

use super::{
    super::super::{
        codec::{self, Head},
        login::Denied,
        reply::Refusal,
        session::{Flow, Login, Session, Version},
    },
    VERSIONS,
};
use crate::broker::{topology::random_name, turn::Turn};

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
        let head = Head::new(b"CONNECT\n\n", 7, &[], codec::Trim::Nothing);
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
            Err(reason) => {
                let refusal = bad(format!("Access refused for user '{name}'\n"));
                return self.refuse_login(refusal, &reason, turn);
            }
        };
        let denied = |denied| match denied {
            Denied::Vhost => bad(format!("Virtual host '{vhost_name}' access denied")),
            Denied::Loopback => bad("non-loopback access denied".to_owned()),
        };
        let (vhost, checker) = self.admit(&user, &vhost_name).map_err(denied)?;
        self.version = version;
        self.heartbeat_ms = heartbeat_ms;
        self.session_id = random_name("session-");
        self.login = Some(Box::new(Login { user: user.clone(), checker }));
        self.register(&user, vhost, mechanism, turn);
        Ok(())
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
