//! What a broker has to keep across a restart, as text to compare.

use std::fmt::Write as _;

use super::*;

/// Everything of a broker that is to survive a restart, as text, and as it is to be then: of what
/// has restarted already nothing is assumed.
pub(super) fn durable_state(broker: &Broker, has_restarted: bool, now: Time) -> String {
    let mut out = String::new();
    for definition in broker.definitions() {
        writeln!(out, "{definition:?}").unwrap();
    }
    for user in broker.access.list() {
        writeln!(out, "password {} {}", user.name, user.password.to_text()).unwrap();
    }
    for vhost in broker.vhosts() {
        writeln!(out, "vhost {}", vhost.name).unwrap();
        let mut exchanges: Vec<_> =
            vhost.exchanges().into_iter().filter(|exchange| exchange.declaration.is_durable).collect();
        exchanges.sort_by(|a, b| a.name.cmp(&b.name));
        for exchange in exchanges {
            exchange_state(&exchange, now, &mut out);
        }
        let mut queues: Vec<_> = vhost.queues().into_iter().filter(|queue| queue.survives_restart()).collect();
        queues.sort_by_key(|queue| queue.id);
        for queue in queues {
            let declaration = &queue.declaration;
            let (id, auto_delete, arguments) = (queue.id.0, declaration.is_auto_delete, &declaration.arguments);
            writeln!(out, "  queue {id} {} auto_delete={auto_delete} {arguments:?}", queue.name).unwrap();
            writeln!(out, "    policies={:?} {:?}", queue.policies.lock(), queue.dead_letter()).unwrap();
            writeln!(out, "    {:?}", queue.properties()).unwrap();
            messages(&queue, has_restarted, now, &mut out);
        }
    }
    out
}

fn exchange_state(exchange: &Exchange, now: Time, out: &mut String) {
    writeln!(out, "  exchange {:?} {:?} {:?}", exchange.name, exchange.declaration, exchange.notes()).unwrap();
    let mut bindings: Vec<_> = exchange
        .bindings()
        .into_iter()
        .filter(|binding| binding.target.is_durable())
        .map(|binding| format!("    to {} by {:?} {:?}", binding.target.name(), binding.key, binding.arguments))
        .collect();
    bindings.sort();
    bindings.iter().for_each(|binding| writeln!(out, "{binding}").unwrap());
    if let Some(delayed) = &exchange.delayed {
        let delayed = delayed.lock();
        for (key, message) in delayed.iter().filter(|(_, message)| message.traits.persistent) {
            writeln!(out, "    held {key:?} {}", shown(message)).unwrap();
        }
    }
    for message in exchange
        .recent
        .iter()
        .flat_map(|recent| recent.lock().replay().map(|(_, message)| message.clone()).collect::<Vec<_>>())
    {
        writeln!(out, "    kept {}", shown(&message)).unwrap();
    }
    let seen = exchange.dedup.iter().flat_map(|window| window.lock().iter().collect::<Vec<_>>());
    for seen in seen.filter(|seen| now < seen.deadline) {
        writeln!(out, "    {seen:?}").unwrap();
    }
}

/// Every part of a message that anybody can see.
fn shown(message: &Message) -> String {
    format!(
        "{} {}/{} properties={:?} headers={:?} {:?} view={:?}",
        String::from_utf8_lossy(&message.body_to_vec()),
        String::from_utf8_lossy(message.exchange()),
        String::from_utf8_lossy(message.key()),
        String::from_utf8_lossy(message.properties()),
        message.headers().to_table(),
        message.traits,
        message.view(),
    )
}

/// Ready and unsettled messages in the order in which they would be delivered.
fn messages(queue: &Queue, has_restarted: bool, now: Time, out: &mut String) {
    let mut machine = queue.lock();
    writeln!(out, "    {:?} handed={}", machine.limits, machine.handed_up_to()).unwrap();
    // What is over may have been forgotten.
    for seen in machine.dedup().into_iter().flat_map(|window| window.iter()).filter(|seen| now < seen.deadline) {
        writeln!(out, "    {seen:?}").unwrap();
    }
    if let Some(stream) = &machine.stream {
        for offset in stream.first_offset()..stream.next_offset() {
            let (message, at) = stream.get(offset).unwrap();
            writeln!(out, "    {offset} {} at={}", shown(message), at.0).unwrap();
        }
        return;
    }
    machine.shown_aside().iter().for_each(|aside| writeln!(out, "    aside {aside}").unwrap());
    let priority_max = machine.ready.priority_max();
    let handed = machine.handed_up_to();
    let mut entries: Vec<Entry> = machine.ready.iter().cloned().collect();
    assert!(entries.is_sorted_by_key(|e| (std::cmp::Reverse(e.message.traits.priority.min(priority_max)), e.seq)));
    let unsettled: Vec<Entry> = machine.unsettled.iter_mut().map(|entry| entry.clone()).collect();
    for entry in unsettled.iter().filter(|entry| entry.message.traits.persistent) {
        assert!(entry.seq <= handed, "the log knows of every delivery");
    }
    entries.extend(unsettled);
    // One that nobody takes who died waits, and after a restart it lives.
    entries.extend(machine.retries.iter().cloned());
    entries.retain(|entry| entry.message.traits.persistent);
    entries.sort_by_key(|e| (std::cmp::Reverse(e.message.traits.priority.min(priority_max)), e.seq));
    for entry in entries {
        let redelivered = entry.redelivered || (!has_restarted && entry.seq <= handed);
        let (seq, message, deadline, count) = (entry.seq, &entry.message, entry.deadline.0, entry.delivery_count);
        writeln!(out, "    {seq} {} deadline={deadline} count={count} redelivered={redelivered}", shown(message))
            .unwrap();
    }
}
