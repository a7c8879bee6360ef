//! ActiveMQ's dialect of STOMP, without sockets.

mod advisories;
mod checklist;
mod conversations;
mod crossing;
mod destinations;
mod durable;
mod later;
mod login;
mod messages;
mod permissions;
mod selective;
mod settles;

use crate::peer::World;

/// A world whose STOMP listener speaks this dialect.
pub(crate) fn world() -> World {
    let mut world = World::new();
    world.stomp.dialect = ternmq::protocol::stomp::options::Dialect::Activemq;
    world
}

/// Frames with what differs from run to run replaced: `ID` is whatever the broker calls something, `TIME` now.
pub(crate) fn plain(frame: &str) -> String {
    let mut out = String::new();
    let mut rest = frame;
    while let Some(at) = ["ID:tern-", "ID\\ctern-"].iter().filter_map(|begin| rest.find(begin)).min() {
        let (before, name) = rest.split_at(at);
        let len =
            name.find(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, ':' | '-' | '\\')).unwrap_or(name.len());
        out.push_str(before);
        out.push_str("ID");
        rest = &name[len..];
    }
    out.push_str(rest);
    let lines = out.split('\n').map(|line| match line.strip_prefix("timestamp:17") {
        Some(rest) if rest.len() == 11 => "timestamp:TIME",
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The body of each frame.
pub(crate) fn bodies(said: &[String]) -> Vec<&str> {
    said.iter().map(|frame| frame.split_once("\n\n").unwrap().1).collect()
}

/// A header of a frame.
pub(crate) fn header<'f>(frame: &'f str, name: &str) -> Option<&'f str> {
    let head = frame.split_once("\n\n").unwrap().0;
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
}

/// The header `message` of the only frame, which is an ERROR.
pub(crate) fn error(said: &[String]) -> &str {
    assert!(said.len() == 1 && said[0].starts_with("ERROR\n"), "{said:?}");
    header(&said[0], "message").unwrap()
}
