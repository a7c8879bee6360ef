//! Starting and stopping: what the operator sees.

use std::net::TcpListener;

use crate::{
    broker::{Broker, start_refused},
    client::{Client, Login, Received},
};

/// What a client is told at shutdown, as RabbitMQ words it.
const SHUTDOWN: &str = "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'";

#[test]
fn sigterm_closes_connections_with_320_and_ends_with_success() {
    let mut broker = Broker::start();
    let mut clients = [broker.client(), broker.channel()];
    broker.terminate();
    for client in &mut clients {
        assert_eq!(client.connection_closed(), (320, SHUTDOWN.to_owned()));
        client.send_close_ok();
        assert_eq!(client.receive(), Received::End);
    }
    assert_eq!(broker.wait().code(), Some(0));
}

#[test]
fn sigterm_does_not_wait_forever_for_a_client_that_does_not_answer() {
    let mut broker = Broker::with(&["server.shutdown_drain_ms=3000"]);
    let mut silent = broker.client();
    let mut stranger = Client::connect(broker.port);
    broker.terminate();
    assert_eq!(silent.connection_closed().0, 320);
    assert_eq!(broker.wait().code(), Some(0));
    assert_eq!(stranger.receive(), Received::End);
}

#[test]
fn ports_in_use_are_named_and_the_exit_status_is_a_failure() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let refused = start_refused(&[&format!("amqp.listeners={address}")], &[]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(refused.stderr.contains(&format!("{address} is in use by another process")), "{}", refused.stderr);
}

#[test]
fn environment_of_rabbitmq_images_names_the_first_user_and_vhost() {
    let variables =
        [("RABBITMQ_DEFAULT_USER", "app"), ("RABBITMQ_DEFAULT_PASS", "s3cret"), ("RABBITMQ_DEFAULT_VHOST", "orders")];
    let broker = Broker::with_environment(&[], &variables);
    let app = Login { user: "app", password: "s3cret", vhost: "orders", ..Login::default() };
    broker.client_with(&app).close();
    let refused = Client::connect(broker.port).try_login(&Login::default());
    assert!(refused.is_some(), "guest is not a user beside the first user");
}

#[test]
fn misspelt_setting_is_refused_with_the_nearest_name() {
    let refused = start_refused(&["amqp.heartbeat_sec=30"], &[]);
    assert_eq!(refused.status.code(), Some(2), "{}", refused.stderr);
    assert!(refused.stderr.contains("amqp.heartbeat_sec"), "{}", refused.stderr);
    assert!(refused.stderr.contains("amqp.heartbeat_secs"), "{}", refused.stderr);
}

#[test]
fn a_broker_that_is_started_again_loads_its_definitions_again() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("definitions.json");
    let queue = r#"{"name": "defined", "vhost": "/", "durable": true, "auto_delete": false, "arguments": {}}"#;
    std::fs::write(&file, format!(r#"{{"queues": [{queue}]}}"#)).unwrap();
    let broker = Broker::with(&[&format!("server.definitions_file={}", file.display())]);
    let queues = || broker.ctl(&["-s", "list_queues", "name"]);
    assert_eq!(queues(), "defined\n");
    broker.ctl(&["delete_queue", "defined"]);
    assert_eq!(queues(), "");
    broker.ctl(&["stop_app"]);
    broker.ctl(&["start_app"]);
    assert_eq!(queues(), "defined\n");
    // What runs is left alone.
    broker.ctl(&["delete_queue", "defined"]);
    broker.ctl(&["start_app"]);
    assert_eq!(queues(), "");
}
