//! CONNECT: versions, credentials, vhosts, heart-beats; and what comes before and after it.

use crate::{
    frames::{error, receipt},
    peer::World,
};

fn connected(version: &str, heartbeat: &str) -> String {
    format!("CONNECTED\nserver:RabbitMQ/3.13.7\nsession:SESSION\nheart-beat:{heartbeat}\nversion:{version}\n\n")
}

fn connect(world: &mut World, headers: &str) -> (usize, Vec<String>) {
    let peer = world.connect_stomp();
    let said = world.ask(peer, &format!("CONNECT\n{headers}\n"));
    (peer, said)
}

#[test]
fn connected_tells_server_session_heart_beat_and_version() {
    let mut world = World::new();
    assert_eq!(connect(&mut world, "login:guest\npasscode:guest\n").1, [connected("1.0", "0,0")]);
    world.stomp.options.hide_server_info = true;
    let (_, said) = connect(&mut world, "accept-version:1.2\n");
    assert_eq!(said, ["CONNECTED\nsession:SESSION\nheart-beat:0,0\nversion:1.2\n\n"]);
}

#[test]
fn the_highest_common_version_is_spoken() {
    let mut world = World::new();
    for (accepted, spoken) in [("1.0", "1.0"), ("1.1", "1.1"), ("1.0,1.1,1.2", "1.2"), ("1.2,9.9", "1.2")] {
        let (_, said) = connect(&mut world, &format!("accept-version:{accepted}\nhost:/\n"));
        assert_eq!(said, [connected(spoken, "0,0")]);
    }
}

#[test]
fn a_version_that_nobody_speaks_is_refused_with_those_that_are() {
    let mut world = World::new();
    let (peer, said) = connect(&mut world, "accept-version:1.3\n");
    assert_eq!(said, [error("Version mismatch", "Supported versions are 1.0,1.1,1.2\n")]);
    assert_eq!(world.ask(peer, "CONNECT\naccept-version:1.1\n\n"), [connected("1.1", "0,0")]);
}

#[test]
fn stomp_is_another_name_of_connect() {
    let mut world = World::new();
    let peer = world.connect_stomp();
    assert_eq!(world.ask(peer, "STOMP\naccept-version:1.2\n\n"), [connected("1.2", "0,0")]);
}

#[test]
fn heart_beats_are_answered_in_whole_seconds() {
    let mut world = World::new();
    for (wanted, answered) in [("100,250", "1000,1000"), ("0,0", "0,0"), ("2999,0", "0,2000"), ("0,60000", "60000,0")] {
        let (_, said) = connect(&mut world, &format!("accept-version:1.2\nheart-beat:{wanted}\n"));
        assert_eq!(said, [connected("1.2", answered)], "{wanted}");
    }
    assert_eq!(connect(&mut world, "heart-beat:x\n").1, [error("Processing error", "Processing error")]);
}

#[test]
fn a_silent_client_is_given_up_after_twice_its_heart_beat() {
    let mut world = World::new();
    let (peer, _) = connect(&mut world, "accept-version:1.2\nheart-beat:500,0\n");
    world.pass(1999);
    assert!(!world.is_over(peer));
    world.send(peer, b"\n");
    world.pass(1999);
    assert!(!world.is_over(peer));
    world.pass(1);
    assert!(world.is_over(peer));
}

#[test]
fn patience_with_silent_clients_is_a_setting() {
    let mut world = World::new();
    world.stomp.options.heartbeat_grace_percent = 150;
    let (peer, _) = connect(&mut world, "accept-version:1.2\nheart-beat:1000,0\n");
    world.pass(1499);
    assert!(!world.is_over(peer));
    world.pass(1);
    assert!(world.is_over(peer));
}

#[test]
fn a_heart_beat_is_sent_when_nothing_else_is() {
    let mut world = World::new();
    let (peer, _) = connect(&mut world, "accept-version:1.1\nheart-beat:0,2000\n");
    world.pass(999);
    assert!(world.heard(peer).is_empty());
    world.pass(1);
    assert_eq!(world.heard(peer), ["heart-beat"]);
    world.pass(500);
    world.ask(peer, "BEGIN\ntransaction:t\nreceipt:1\n\n");
    world.pass(999);
    assert!(world.heard(peer).is_empty());
}

#[test]
fn a_wrong_password_is_refused_late_and_may_be_tried_again() {
    let mut world = World::new();
    world.stomp.login_failure_delay_ms = 1000;
    let (peer, said) = connect(&mut world, "login:guest\npasscode:wrong\n");
    assert!(said.is_empty());
    world.say(peer, "CONNECT\nlogin:guest\npasscode:guest\n\n");
    world.pass(999);
    assert!(world.heard(peer).is_empty());
    world.pass(1);
    let refused = error("Bad CONNECT", "Access refused for user 'guest'\n");
    assert_eq!(world.heard(peer), [refused, connected("1.0", "0,0")]);
}

#[test]
fn without_login_a_client_is_the_default_user() {
    let mut world = World::new();
    assert_eq!(connect(&mut world, "").1, [connected("1.0", "0,0")]);
    assert_eq!(connect(&mut world, "login:\n").1, [error("Bad CONNECT", "Access refused for user ''\n")]);
    world.stomp.options.default_user = None;
    assert_eq!(connect(&mut world, "").1, [error("Bad CONNECT", "Missing login or passcode header(s)")]);
}

#[test]
fn an_unknown_host_is_the_default_vhost_unless_that_is_switched_off() {
    let mut world = World::new();
    assert_eq!(connect(&mut world, "host:127.0.0.1\n").1, [connected("1.0", "0,0")]);
    world.stomp.options.host_fallback = false;
    let (peer, said) = connect(&mut world, "host:nohost\n");
    assert_eq!(said, [error("Bad CONNECT", "Virtual host 'nohost' access denied")]);
    assert_eq!(world.ask(peer, "CONNECT\nhost:/\n\n"), [connected("1.0", "0,0")]);
}

#[test]
fn a_host_that_is_a_vhost_is_that_vhost() {
    let mut world = World::new();
    world.broker.add_vhost("other", Default::default());
    // Guest has no permissions there: it exists, so there is no other in its place.
    let denied = [error("Bad CONNECT", "Virtual host 'other' access denied")];
    assert_eq!(connect(&mut world, "host:other\n").1, denied);
}

#[test]
fn frames_before_connect_are_refused() {
    let mut world = World::new();
    let peer = world.connect_stomp();
    let refused = [error("Illegal command", "You must log in using CONNECT first")];
    assert_eq!(world.ask(peer, "SEND\ndestination:/queue/a\nreceipt:1\n\nbody"), refused);
    assert_eq!(world.ask(peer, "CONNECT\n\n"), [connected("1.0", "0,0")]);
}

#[test]
fn an_implicit_connect_is_a_setting() {
    let mut world = World::new();
    world.stomp.options.implicit_connect = true;
    let peer = world.connect_stomp();
    assert_eq!(world.ask(peer, "SEND\ndestination:/queue/a\nreceipt:1\n\nbody"), [receipt("1")]);
    world.stomp.options.default_pass = "wrong".to_owned();
    let peer = world.connect_stomp();
    let said = world.ask(peer, "SEND\ndestination:/queue/a\nreceipt:1\n\nbody");
    assert_eq!(said, [error("Bad CONNECT", "Access refused for user 'guest'\n")]);
    assert!(world.is_over(peer));
}

#[test]
fn a_second_connect_drops_the_connection_without_a_word() {
    let mut world = World::new();
    let peer = world.open_stomp("1.2");
    assert!(world.ask(peer, "CONNECT\n\n").is_empty());
    assert!(world.is_over(peer));
}

#[test]
fn whoever_does_not_log_in_is_dropped() {
    let mut world = World::new();
    let peer = world.connect_stomp();
    world.pass(9_999);
    assert!(!world.is_over(peer));
    world.pass(1);
    assert!(world.is_over(peer));
}

#[test]
fn disconnect_is_answered_and_closes() {
    let mut world = World::new();
    let peer = world.open_stomp("1.2");
    assert_eq!(world.ask(peer, "DISCONNECT\nreceipt:bye\n\n"), [receipt("bye")]);
    assert!(world.is_over(peer) && world.ended_by(peer).is_none());
    let peer = world.open_stomp("1.2");
    assert!(world.ask(peer, "DISCONNECT\n\n").is_empty());
    assert!(world.is_over(peer));
}

#[test]
fn connections_are_listed_with_their_version() {
    let mut world = World::new();
    let peer = world.open_stomp("1.1");
    let list = world.broker.connections.list();
    let info = &list[0].info;
    assert_eq!((info.protocol.as_str(), info.frame_max, info.channel_max), ("{'STOMP',\"1.1\"}", 0, 1));
    assert_eq!(info.client_properties.get("product").and_then(|value| value.as_text()), Some("STOMP client"));
    world.ask(peer, "SUBSCRIBE\nid:0\ndestination:/queue/a\nack:client\nprefetch-count:5\n\n");
    world.ask(peer, "SEND\ndestination:/queue/a\n\nbody");
    let channels = list[0].handle.channels();
    assert_eq!((channels.len(), channels[0].number, channels[0].consumers), (1, 1, 1));
    assert_eq!((channels[0].unsettled, channels[0].prefetch), (1, 5));
    world.hang_up(peer);
    assert!(world.broker.connections.is_empty());
}
