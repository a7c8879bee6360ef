//! CONNECT: who may come in, by what name, and how silence is taken.

use super::{error, header, plain, world};
use crate::peer::World;

fn connect(world: &mut World, headers: &str) -> (usize, Vec<String>) {
    let peer = world.connect_stomp();
    let said = world.ask(peer, &format!("CONNECT\n{headers}\n"));
    (peer, said)
}

#[test]
fn a_client_of_this_machine_needs_no_login_and_may_have_a_wrong_one() {
    let mut world = world();
    for login in ["", "login:guest\npasscode:wrong\n", "login:nobody\n", "login:\npasscode:\n"] {
        let (peer, said) = connect(&mut world, login);
        assert_eq!(
            said.iter().map(|frame| plain(frame)).collect::<Vec<_>>(),
            ["CONNECTED\nserver:ActiveMQ/5.17.2\nheart-beat:0,0\nsession:ID\nversion:1.0\n\n"],
            "{login}"
        );
        assert!(world.is_served(peer));
    }
}

#[test]
fn a_login_is_needed_where_the_setting_says_so() {
    let mut world = world();
    world.stomp.options.login_optional = false;
    for (login, name) in [("", "null"), ("login:guest\npasscode:wrong\n", "guest"), ("login:x\n", "x")] {
        let (peer, said) = connect(&mut world, login);
        assert_eq!(error(&said), format!("User name [{name}] or password is invalid."));
        assert!(world.is_over(peer));
    }
    let (_, said) = connect(&mut world, "login:guest\npasscode:guest\n");
    assert!(said[0].starts_with("CONNECTED\n"));
}

#[test]
fn a_client_of_another_machine_always_needs_a_login() {
    for (peer, local) in
        [("10.0.0.7:1", "10.0.0.1:61613"), ("127.0.0.1:1", "10.0.0.1:61613"), ("10.0.0.7:1", "127.0.0.1:1")]
    {
        let mut world = world();
        world.stomp_addresses = Some((peer.parse().unwrap(), local.parse().unwrap()));
        let (peer, said) = connect(&mut world, "");
        assert_eq!(error(&said), "User name [null] or password is invalid.");
        assert!(world.is_over(peer));
        let (_, said) = connect(&mut world, "login:guest\npasscode:wrong\n");
        assert_eq!(error(&said), "User name [guest] or password is invalid.");
    }
}

#[test]
fn a_refused_login_is_answered_late() {
    let mut world = world();
    world.stomp.options.login_optional = false;
    world.stomp.login_failure_delay_ms = 1000;
    let (peer, said) = connect(&mut world, "login:guest\npasscode:wrong\n");
    assert!(said.is_empty() && !world.is_over(peer));
    world.pass(1000);
    assert_eq!(error(&world.heard(peer)), "User name [guest] or password is invalid.");
    assert!(world.is_over(peer));
}

#[test]
fn a_host_counts_only_where_a_vhost_bears_that_name() {
    let mut world = world();
    for host in ["anything", "127.0.0.1", "/"] {
        let (_, said) = connect(&mut world, &format!("host:{host}\n"));
        assert!(said[0].starts_with("CONNECTED\n"));
    }
    assert_eq!(world.broker.vhost("/").unwrap().connections_count(), 3);
}

#[test]
fn the_name_of_a_client_is_taken_until_its_connection_is_gone() {
    let mut world = world();
    let (first, said) = connect(&mut world, "client-id:c1\n");
    assert_eq!(header(&said[0], "session"), Some("c1"));
    let (second, said) = connect(&mut world, "client-id:c1\n");
    assert_eq!(said, [""; 0], "it may be about to be free");
    world.pass(300);
    let said = world.heard(second);
    let node = world.broker.options.node_name.clone();
    let expected = format!("Broker: {node} - Client: c1 already connected from tcp://127.0.0.1:40000");
    assert_eq!(error(&said), expected);
    assert!(world.is_over(second) && world.is_served(first));
    // Its socket is gone without a word.
    world.hang_up(first);
    let (third, said) = connect(&mut world, "client-id:c1\n");
    assert!(said[0].starts_with("CONNECTED\n"));
    world.ask(third, "DISCONNECT\n\n");
    let (_, said) = connect(&mut world, "client-id:c1\n");
    assert!(said[0].starts_with("CONNECTED\n"));
    let (_, said) = connect(&mut world, &format!("client-id:{}\n", "x".repeat(151)));
    assert_eq!(error(&said), "A client-id has at most 150 bytes");
}

#[test]
fn a_client_that_comes_again_waits_until_the_end_of_its_connection_was_seen() {
    let mut world = world();
    let (first, _) = connect(&mut world, "client-id:c1\n");
    let (second, said) = connect(&mut world, "client-id:c1\naccept-version:1.2\n");
    assert!(said.is_empty() && !world.is_over(second));
    world.pass(100);
    assert_eq!(world.heard(second), [""; 0]);
    world.hang_up(first);
    world.pass(20);
    let said = world.heard(second);
    assert!(said.len() == 1 && header(&said[0], "session") == Some("c1"), "{said:?}");
    assert!(world.is_served(second));
}

#[test]
fn silence_is_borne_for_the_grace_of_a_heart_beat() {
    let mut world = world();
    let (peer, said) = connect(&mut world, "heart-beat:500,500\n");
    assert_eq!(header(&said[0], "heart-beat"), Some("500,500"));
    world.pass(999);
    assert!(!world.is_over(peer));
    assert!(world.heard(peer).iter().any(|frame| frame == "heart-beat"));
    world.pass(1);
    assert!(world.is_over(peer));
}

#[test]
fn a_client_that_beats_stays() {
    let mut world = world();
    let (peer, _) = connect(&mut world, "heart-beat:500,0\n");
    for _ in 0..10 {
        world.pass(900);
        world.send(peer, b"\n");
    }
    assert!(!world.is_over(peer) && world.heard(peer).is_empty());
}

#[test]
fn errors_before_login_leave_the_connection_open_unless_nobody_knows_the_command() {
    let mut world = world();
    let peer = world.connect_stomp();
    let said = world.ask(peer, "SEND\ndestination:/queue/a\nreceipt:1\n\nx");
    assert_eq!(said, ["ERROR\ncontent-type:text/plain\nmessage:Not connected.\nreceipt-id:1\n\nNot connected.\n"]);
    assert!(!world.is_over(peer));
    let said = world.ask(peer, "GET / HTTP/1.1\n\n");
    assert_eq!(error(&said), "Unknown STOMP action: GET / HTTP/1.1");
    assert!(world.is_over(peer));
}
