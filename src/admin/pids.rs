//! The pids under which queues, connections and channels are listed.
//!
//! Nothing here is a process of its own, but scripts pass pids around: `close_connection` takes one
//! from `list_connections`. The lowest two bits of the number say what it names.

use super::wire;
use crate::broker::{connections::ConnectionId, record::QueueId};

const QUEUE: u64 = 0;
const CONNECTION: u64 = 1;
const CHANNEL: u64 = 2;

pub(super) fn of_queue(node: &str, id: QueueId) -> String {
    wire::pid(node, id.0 << 2 | QUEUE)
}

pub(super) fn of_connection(node: &str, id: ConnectionId) -> String {
    wire::pid(node, id.0 << 2 | CONNECTION)
}

pub(super) fn of_channel(node: &str, connection: ConnectionId, channel: u16) -> String {
    wire::pid(node, (connection.0 << 16 | u64::from(channel)) << 2 | CHANNEL)
}

/// A pid with its node that does not read as one.
pub(super) struct Malformed;

/// The connection that a pid names; `None` when it names something else.
pub(super) fn connection(pid: &str) -> Result<Option<ConnectionId>, Malformed> {
    let inner = pid.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')).ok_or(Malformed)?;
    // A node's name and three numbers; the name may have dots too.
    let numbers: Vec<_> = inner.rsplitn(4, '.').collect();
    if numbers.len() != 4 || numbers[..3].iter().any(|number| number.parse::<u64>().is_err()) {
        return Err(Malformed);
    }
    let number = wire::pid_number(pid).ok_or(Malformed)?;
    Ok((number & 3 == CONNECTION).then_some(ConnectionId(number >> 2)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_is_found_again_by_its_pid() {
        let found = |pid: &str| connection(pid).map_err(|Malformed| "malformed");
        let id = ConnectionId(1 << 40 | 7);
        assert_eq!(found(&of_connection("a@b.c", id)), Ok(Some(id)));
        assert_eq!(found(&of_queue("a@b.c", QueueId(7))), Ok(None));
        assert_eq!(found(&of_channel("a@b.c", id, 65535)), Ok(None));
        assert_eq!(found("<0.250.0>"), Err("malformed"));
        assert_eq!(found("nonsense"), Err("malformed"));
    }
}
