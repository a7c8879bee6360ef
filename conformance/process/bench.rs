//! `tern bench` beside a broker that is restarted, and with messages that stay.

use std::process::{Command, Stdio};

use crate::broker::Broker;

/// Runs a scenario, which must find every message once, whole and in its place.
fn bench(broker: &Broker, arguments: &[&str]) -> String {
    bench_at(&format!("amqp://guest:guest@127.0.0.1:{}/%2f", broker.port), arguments)
}

fn bench_at(url: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tern"));
    command.arg("bench").args(arguments).args(["--url", url, "--runs", "1"]);
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_backlog_is_drained_by_another_process_than_filled_it_after_a_crash() {
    let mut broker = Broker::start();
    let half = |only: &str, broker: &Broker| {
        let (ttl, priorities) = ("0,3600000,7200000", "x-max-priority=2");
        let shape = ["backlog", "-n", "3000", "--seed", "5", "-p", "2", "-q", "2", "-c", "2", "--durable"];
        let mixed = ["--ttl-ms", ttl, "--priorities", "3", "--queue-argument", priorities, "--only", only];
        bench(broker, &[&shape[..], &mixed].concat())
    };
    assert!(half("fill", &broker).contains("filled_per_sec"));
    let counts = |broker: &Broker| broker.ctl(&["-q", "list_queues", "name", "messages", "--no-table-headers"]);
    assert_eq!(counts(&broker), "tb.5.0\t1500\ntb.5.1\t1500\n");
    broker.crash();
    assert_eq!(counts(&broker), "tb.5.0\t1500\ntb.5.1\t1500\n");
    assert!(half("drain", &broker).contains("drained_per_sec"));
    assert_eq!(counts(&broker), "");
}

#[test]
fn slow_queues_give_their_oldest_message_for_each_that_comes() {
    let broker = Broker::start();
    let arguments = ["slow", "-q", "10", "--depth", "2", "--rate", "200", "--seconds", "1", "--durable"];
    assert!(bench(&broker, &arguments).contains("published_per_sec"));
    assert_eq!(broker.ctl(&["-q", "list_queues", "name", "--no-table-headers"]), "");
}

#[test]
fn stomp_is_measured_with_and_without_receipts_and_leaves_nothing_behind() {
    let broker = Broker::start();
    let url = format!("stomp://guest:guest@127.0.0.1:{}", broker.stomp_port());
    let short = ["--seconds", "0.5", "--warmup", "0.1"];
    let shapes: [&[&str]; 4] = [
        &["--protocol", "stomp", "-s", "1024"],
        &["throughput", "-s", "300000", "--durable", "--confirms", "20", "--receipt-every", "7", "--ack-every", "3"],
        &["throughput", "-s", "5", "-p", "3", "-q", "2", "-c", "2", "--confirms", "1000", "--ack-every", "100"],
        &["latency", "-s", "64", "--rate", "500", "--durable", "--confirms", "10"],
    ];
    for shape in shapes {
        let said = bench_at(&url, &[shape, &short].concat());
        assert!(said.contains("delivered_per_sec"), "{said}");
        assert_eq!(said.contains("confirm_p50_us"), shape[0] == "latency", "{said}");
    }
    assert_eq!(broker.ctl(&["-q", "list_queues", "name", "--no-table-headers"]), "");
}
