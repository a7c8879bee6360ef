//! Connections and channels: listing, closing.

use std::net::SocketAddr;

use serde_json::{Value as Json, json};

use super::{
    columns,
    control::{Call, Reply, chosen, nothing, rows_of},
    failure::Failure,
    pids, wire,
    wire::Listing,
};
use crate::broker::connections::{ChannelStatus, Connection};

pub(super) fn list(call: &Call<'_>, listing: &Listing) -> Result<Reply, Failure> {
    let columns = chosen(listing, columns::CONNECTIONS)?;
    let node = call.node_name().to_owned();
    Ok(rows_of(columns, call.broker.connections.list(), move |connection, columns| {
        columns.iter().map(|column| cell(connection, column, &node)).collect()
    }))
}

fn cell(connection: &Connection, column: &str, node: &str) -> Json {
    let Connection { info, handle } = connection;
    // An IPv4 peer of a socket for both versions is shown as what it is.
    let host = |address: SocketAddr| json!(address.ip().to_canonical().to_string());
    match column {
        "pid" => json!(pids::of_connection(node, info.id)),
        "name" => json!(&*info.name),
        "port" => json!(info.local.port()),
        "host" => host(info.local),
        "peer_port" => json!(info.peer.port()),
        "peer_host" => host(info.peer),
        "ssl" => json!(false),
        "state" if handle.traffic().is_blocked => json!("blocked"),
        "state" => json!("running"),
        "channels" => json!(handle.channels().len()),
        "protocol" => version(&info.protocol),
        "auth_mechanism" => json!(info.auth_mechanism),
        "user" => json!(&*info.user),
        "vhost" => json!(&*info.vhost),
        "timeout" => json!(info.heartbeat_secs),
        "frame_max" => json!(info.frame_max),
        "channel_max" => json!(info.channel_max),
        "client_properties" => wire::table(&info.client_properties),
        "recv_oct" => json!(handle.traffic().received_bytes),
        "send_oct" => json!(handle.traffic().sent_bytes),
        "send_pend" => json!(handle.traffic().waiting_bytes),
        "connected_at" => json!(info.connected_at.0),
        "recv_cnt" => json!(handle.traffic().reads_count),
        "send_cnt" => json!(handle.traffic().writes_count),
        _ => nothing(),
    }
}

/// A version is told as `{0,9,1}`; other protocols have a name.
fn version(protocol: &str) -> Json {
    let inner = protocol.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
    let numbers: Option<Vec<u64>> = inner.and_then(|inner| inner.split(',').map(|part| part.parse().ok()).collect());
    numbers.map_or_else(|| json!(protocol), |numbers| json!(numbers))
}

pub(super) fn list_channels(call: &Call<'_>, listing: &Listing) -> Result<Reply, Failure> {
    let columns = chosen(listing, columns::CHANNELS)?;
    let node = call.node_name().to_owned();
    let names = columns.iter().map(|name| (*name).to_owned()).collect();
    let rows = call.broker.connections.list().into_iter().flat_map(move |connection| {
        let row = |channel: ChannelStatus| {
            columns.iter().map(|column| channel_cell(&connection, &channel, column, &node)).collect()
        };
        connection.handle.channels().into_iter().map(row).collect::<Vec<Vec<Json>>>()
    });
    Ok(Reply::Rows { columns: names, rows: Box::new(rows) })
}

fn channel_cell(connection: &Connection, channel: &ChannelStatus, column: &str, node: &str) -> Json {
    let info = &connection.info;
    match column {
        "pid" => json!(pids::of_channel(node, info.id, channel.number)),
        "connection" => json!(pids::of_connection(node, info.id)),
        "name" => json!(format!("{} ({})", info.name, channel.number)),
        "number" => json!(channel.number),
        "user" => json!(&*info.user),
        "vhost" => json!(&*info.vhost),
        "transactional" => json!(channel.is_transactional),
        "confirm" => json!(channel.is_confirming),
        "consumer_count" => json!(channel.consumers),
        "messages_unacknowledged" => json!(channel.unsettled),
        "messages_uncommitted" => json!(channel.uncommitted),
        "acks_uncommitted" => json!(channel.uncommitted_settles),
        "messages_unconfirmed" => json!(channel.unconfirmed),
        "prefetch_count" => json!(channel.prefetch),
        "global_prefetch_count" => json!(channel.shared_prefetch),
        _ => nothing(),
    }
}

pub(super) fn close(call: &Call<'_>, pid: &str, reason: &str) -> Result<Reply, Failure> {
    let named = pids::connection(pid).map_err(|pids::Malformed| Failure::invalid_pid(pid))?;
    if let Some(connection) = named.and_then(|id| call.broker.connections.get(id)) {
        connection.handle.close(reason);
    }
    Ok(Reply::DONE)
}

pub(super) fn close_all(call: &Call<'_>, reason: &str, global: bool, limit: u64, delay_ms: u64) -> Reply {
    let limit = match usize::try_from(limit) {
        Ok(0) | Err(_) => usize::MAX,
        Ok(limit) => limit,
    };
    let all = call.broker.connections.list().into_iter();
    let connections = all.filter(|of| global || &*of.info.vhost == call.vhost_name).take(limit).collect();
    Reply::Close { connections, reason: reason.to_owned(), delay_ms }
}

pub(super) fn close_all_of_user(call: &Call<'_>, user: &str, reason: &str) -> Reply {
    for connection in call.broker.connections.list() {
        if &*connection.info.user == user {
            connection.handle.close(reason);
        }
    }
    Reply::DONE
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use crate::admin::{
        control::Reply,
        tests::{Desk, columns},
        wire::Verb,
    };

    #[test]
    fn connections_and_channels_of_all_vhosts_are_listed() {
        let desk = Desk::new();
        desk.connect("guest", "/");
        desk.connect("bob", "v");
        let wanted = columns(&["user", "vhost", "peer_host", "port", "state", "channels", "protocol", "timeout"]);
        assert_eq!(
            desk.rows(Verb::ListConnections(wanted)),
            [
                json!(["guest", "/", "127.0.0.1", 5672, "running", 1, [0, 9, 1], 60]),
                json!(["bob", "v", "127.0.0.1", 5672, "running", 1, [0, 9, 1], 60])
            ]
        );
        let channels = desk.rows(Verb::ListChannels(columns(&["name", "number", "prefetch_count", "connection"])));
        let pids = desk.rows(Verb::ListConnections(columns(&["pid"])));
        assert_eq!(channels[0], json!(["127.0.0.1:50001 -> 127.0.0.1:5672 (1)", 1, 7, pids[0][0]]));
        assert_eq!(channels.len(), 2);
    }

    #[test]
    fn connection_is_closed_by_its_pid() {
        let desk = Desk::new();
        let (first, second) = (desk.connect("guest", "/"), desk.connect("guest", "/"));
        let pids = desk.rows(Verb::ListConnections(columns(&["pid"])));
        let close = |pid: &str| Verb::CloseConnection { pid: pid.into(), reason: "why".into() };
        desk.done(close(pids[1][0].as_str().unwrap()));
        assert_eq!((first.reason(), second.reason()), (None, Some("why".to_owned())));
        desk.done(close("<tern@localhost.1.4000001.0>"));
        let refusal = desk.refusal(close("nonsense"));
        assert_eq!(refusal, ("Error:\n{:invalid_pid_syntax, \"nonsense\"}".into(), 69));
    }

    #[test]
    fn connections_of_one_vhost_up_to_a_limit_are_closed() {
        let desk = Desk::new();
        for vhost in ["/", "v", "/"] {
            desk.connect("guest", vhost);
        }
        let count = |global, limit| {
            let verb = Verb::CloseAllConnections { reason: "why".into(), global, limit, delay_ms: 5 };
            match desk.ask(verb).unwrap() {
                Reply::Close { connections, delay_ms: 5, .. } => connections.len(),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!((count(true, 0), count(false, 0), count(false, 1)), (3, 2, 1));
    }

    #[test]
    fn all_connections_of_a_user_are_closed() {
        let desk = Desk::new();
        let (guest, bob) = (desk.connect("guest", "/"), desk.connect("bob", "v"));
        assert_eq!(desk.done(Verb::CloseAllUserConnections { user: "bob".into(), reason: "gone".into() }), Json::Null);
        assert_eq!((guest.reason(), bob.reason().as_deref()), (None, Some("gone")));
    }
}
