//! What messages look like to clients, and what of a SEND they are made of.

use super::{bodies, header, world};
use crate::{lines, peer::World};

/// What a client of that version hears of a SEND.
fn echo(version: &str, headers: &str, body: &str) -> String {
    let mut world = world();
    let peer = world.open_stomp(version);
    world.ask(peer, "SUBSCRIBE\nid:0\ndestination:/queue/q\n\n");
    let mut said = world.ask(peer, &format!("SEND\ndestination:/queue/q\n{headers}\n{body}"));
    assert_eq!(said.len(), 1, "{said:?}");
    said.remove(0)
}

#[test]
fn a_message_that_says_nothing_of_itself_has_the_defaults_of_jms() {
    let said = echo("1.2", "", "x");
    let id = header(&said, "message-id").unwrap();
    assert!(id.starts_with("ID\\ctern-61613-") && id.ends_with("\\c-1\\c1\\c1"), "{id}");
    let expected = format!(
        "MESSAGE\nsubscription:0\ndestination:/queue/q\nmessage-id:{id}\nexpires:0\npriority:4\ntimestamp:1750000000000\n\nx"
    );
    assert_eq!(said, expected);
}

#[test]
fn persistent_is_told_only_of_messages_that_are() {
    assert_eq!(header(&echo("1.2", "persistent:true\n", ""), "persistent"), Some("true"));
    for headers in ["", "persistent:false\n", "persistent:yes\n"] {
        assert_eq!(header(&echo("1.2", headers, ""), "persistent"), None, "{headers}");
    }
}

#[test]
fn a_content_length_comes_back_only_to_what_was_sent_with_one() {
    assert_eq!(header(&echo("1.2", "", "text"), "content-length"), None);
    assert_eq!(header(&echo("1.2", "content-length:5\n", "bytes"), "content-length"), Some("5"));
    assert_eq!(header(&echo("1.2", "amq-msg-type:bytes\n", "bytes"), "content-length"), Some("5"));
    assert_eq!(header(&echo("1.2", "content-length:0\n", ""), "content-length"), Some("0"));
    // A NUL would end it.
    assert_eq!(header(&echo("1.2", "content-length:3\n", "a\0b"), "content-length"), Some("3"));
}

#[test]
fn large_bodies_come_back_whole() {
    let body = "0123456789".repeat(50_000);
    let said = echo("1.2", &format!("content-length:{}\n", body.len()), &body);
    assert_eq!(bodies(&[said]), [body]);
}

#[test]
fn a_message_keeps_its_id_when_it_is_delivered_again() {
    let mut world = world();
    let mut ids = Vec::new();
    let sender = world.open_stomp("1.2");
    world.ask(sender, "SEND\ndestination:/queue/q\nmessage-id:mine\n\nx");
    for _ in 0..2 {
        let peer = world.open_stomp("1.2");
        let said = world.ask(peer, "SUBSCRIBE\nid:0\ndestination:/queue/q\nack:client\n\n");
        ids.push(header(&said[0], "message-id").unwrap().to_owned());
        world.hang_up(peer);
    }
    assert!(ids[0] == ids[1] && ids[0].starts_with("ID\\c"), "{ids:?}");
}

#[test]
fn values_are_trimmed_in_1_0_and_written_without_escapes() {
    let said = echo("1.0", "a:  x:y\\nz  \n", "");
    assert_eq!(header(&said, "a"), Some("x:y z"), "{said}");
    assert_eq!(header(&echo("1.1", "a:  x:y\\nz\\\\  \n", ""), "a"), Some("  x\\cy\\nz\\\\  "));
    assert_eq!(header(&echo("1.2", "a:\\r\\t\n", ""), "a"), Some("\\r\\\\t"));
}

#[test]
fn nobody_can_forge_headers_of_ours() {
    let forged =
        "redelivered:true\nsubscription:9\nJMSXUserID:root\nack:1\noriginal-destination:/queue/x\nbrowser:end\n";
    let said = echo("1.2", forged, "");
    for name in ["redelivered", "JMSXUserID", "ack", "original-destination", "browser"] {
        assert_eq!(header(&said, name), None, "{name}");
    }
    assert_eq!(header(&said, "subscription"), Some("0"));
}

#[test]
fn the_sender_is_told_where_a_setting_says_so() {
    let mut world = world();
    world.stomp.options.populate_user_id = true;
    let peer = world.open_stomp("1.2");
    world.ask(peer, "SUBSCRIBE\nid:0\ndestination:/queue/q\n\n");
    let said = world.ask(peer, "SEND\ndestination:/queue/q\n\n");
    assert_eq!(header(&said[0], "JMSXUserID"), Some("guest"));
}

#[test]
fn header_types_of_amqp_are_told_as_text() {
    let mut world = world();
    let peer = world.open_stomp("1.2");
    let amqp = world.open(1);
    world.ask(peer, "SUBSCRIBE\nid:0\ndestination:/queue/q\n\n");
    let headers = [
        ("flag", lines::Value::Bool(true)),
        ("text", lines::Value::Text("a:b")),
        ("n", lines::Value::Number(-7)),
        ("a:b", lines::Value::Text("never")),
    ];
    world.send(amqp, &lines::publish(1, "key=q", "", &lines::table(&headers), b""));
    let said = world.heard(peer);
    for (name, value) in [("flag", Some("true")), ("text", Some("a\\cb")), ("n", Some("-7")), ("a", None)] {
        assert_eq!(header(&said[0], name), value, "{name}");
    }
}

#[test]
fn floods_of_headers_end_with_an_error() {
    for (flood, message) in [
        ("x:1\n".repeat(1001).replace('x', "h"), "The maximum number of headers was exceeded"),
        (format!("long:{}\n", "x".repeat(11_000)), "The maximum header length was exceeded"),
    ] {
        let mut world: World = world();
        let peer = world.open_stomp("1.2");
        let said = world.ask(peer, &format!("SEND\ndestination:/queue/q\n{flood}\nx"));
        assert_eq!(super::error(&said), message);
        assert!(world.is_over(peer));
    }
}

#[test]
fn where_answers_go_is_told_as_it_was_written() {
    for to in ["plain", "some destination", "/foo/bar", "/queue/r", "/topic/r.s"] {
        assert_eq!(header(&echo("1.2", &format!("reply-to:{to}\n"), ""), "reply-to"), Some(to));
    }
    let said = echo("1.2", "reply-to:/queue/a,/queue/b\n", "");
    assert_eq!(header(&said, "reply-to"), Some("/queue/a,queue\\c//b"));
}
