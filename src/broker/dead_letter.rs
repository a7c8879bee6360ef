//! What happens to a message that a queue gives up: its death is written into its headers and it is
//! published to the queue's dead-letter exchange, in one step with its leaving the queue.
//!
//! Header layout (as RabbitMQ writes it): `x-death` is an array of tables, newest first, one for
//! each (queue, reason); `x-first-death-exchange`, `-queue` and `-reason` are set once, with the
//! first `x-death`. All headers are sorted by name, and so are the entries of the newest death
//! unless it is the first.
//!
//! A message that came back to a queue without a client's refusal on the way is in a cycle and is
//! dropped.

use std::sync::Arc;

use super::{
    message::{Message, View},
    queue::{
        Queue,
        machine::{Dead, Pushed, Reason},
    },
    record::{Position, Record},
    route::Queues,
    time::Time,
    turn::Turn,
    value::{Headers, HeadersBuilder, Table, Value},
};

/// Sends a message that left `queue` on its way, or drops it.
pub(super) fn republish(queue: &Arc<Queue>, dead: Dead, turn: &mut Turn<'_>) {
    let Dead { entry, reason } = &dead;
    let is_recorded = entry.seq != 0 && queue.is_recorded(&entry.message, turn);
    let from = is_recorded.then_some((queue.id, entry.seq));
    let original = &entry.message;
    let target = Some(queue.dead_letter()).filter(|target| target.takes(original, *reason)).unwrap_or_default();
    let has_target = target.exchange.is_some();
    let (mut seen, mut is_kept) = (None, false);
    let moved = target.exchange.and_then(|name| {
        let vhost = queue.vhost.upgrade()?;
        let exchange = vhost.exchange(&name)?;
        let presented = turn.broker.presented(queue.id, original);
        let mut message = died(&presented, &queue.name, *reason, &name, target.key.as_deref(), turn.now);
        let copies = if target.key.is_some() { Vec::new() } else { original.copy_keys() };
        let route = vhost.route(&exchange, &message, &copies, None, turn);
        is_kept = route.is_kept;
        let mut queues = route.queues;
        seen = route.seen;
        if let Some(envelopes) = route.envelopes {
            message = message.with_envelopes(envelopes);
        }
        drop_cycles(&mut queues, message.headers());
        Some((message, queues))
    });
    let from = from.map(|(_, seq)| (queue, seq));
    if !moved.is_some_and(|(message, queues)| move_to(queues, message, from, false, turn)) {
        let is_waiting = has_target && !is_kept && queue.keep_dead(dead, turn).is_ok();
        if !is_waiting && let Some((queue, seq)) = from {
            let mut machine = queue.lock();
            let from = Some((queue.id, seq));
            turn.record(Record::Move { from, to: Vec::new(), message: None, at: turn.now });
            machine.leave(seq);
        }
    }
    if let Some(seen) = seen {
        turn.record(*seen);
    }
}

/// Puts a message into all `queues` under all their locks and that of the queue that it leaves, so
/// that one record tells all of it, and a checkpoint sees it in one place. Returns whether one of
/// them took it; if none did, nothing is recorded.
fn move_to(
    mut queues: Queues,
    message: Message,
    from: Option<(&Arc<Queue>, u64)>,
    is_known: bool,
    turn: &mut Turn<'_>,
) -> bool {
    let is_target = |queues: &Queues, queue: &Arc<Queue>| queues.iter().any(|target| target.id == queue.id);
    let source = from.filter(|(queue, _)| !is_target(&queues, queue)).map(|(queue, _)| queue);
    queues.extend(source.cloned());
    queues.sort_by_key(|queue| queue.id);
    let mut locked: Vec<_> = queues.iter().map(|queue| (queue, queue.lock(), queue.effects(turn))).collect();
    let mut to = Vec::new();
    let mut is_taken = false;
    let mut admitted = Vec::new();
    for (index, (queue, machine, effects)) in locked.iter_mut().enumerate() {
        if queue.is_deleted() || source.is_some_and(|source| source.id == queue.id) {
            continue;
        }
        if !queue.takes(&message, turn) {
            is_taken = true;
            continue;
        }
        let deadline = machine.deadline_of(&message, turn.now);
        if message.traits.has_group {
            machine.select_groups(|| turn.broker.fields());
        }
        let admitted_one = if is_known {
            machine.admit_known(message.clone(), turn.now, effects)
        } else {
            machine.admit(message.clone(), turn.now, effects)
        };
        match admitted_one {
            Ok((seq, message)) => {
                is_taken = true;
                let is_recorded = queue.is_recorded(&message, turn);
                if is_recorded {
                    to.push((queue.id, seq, deadline));
                }
                admitted.push((index, seq, message, is_recorded));
            }
            Err(Pushed::Refused) => {}
            Err(Pushed::Duplicate(_) | Pushed::Accepted(_)) => is_taken = true,
        }
    }
    // A message of a queue that is not recorded may still enter one that is.
    let mut place = Position::NONE;
    if is_taken && (from.is_some() || !to.is_empty()) {
        let message = (!to.is_empty()).then_some(message);
        let left = from.map(|(queue, seq)| (queue.id, seq));
        place = turn.record_now(&Record::Move { from: left, to, message, at: turn.now });
        if let Some((id, seq)) = left
            && let Some((_, machine, _)) = locked.iter_mut().find(|(queue, ..)| queue.id == id)
        {
            machine.leave(seq);
        }
    }
    for (index, seq, message, is_recorded) in admitted {
        let (_, machine, effects) = &mut locked[index];
        machine.enter(seq, message, if is_recorded { place } else { Position::NONE }, turn.now, effects);
    }
    for (queue, machine, effects) in locked {
        if source.is_some_and(|source| source.id == queue.id) {
            continue;
        }
        queue.after_push(machine, effects, turn);
    }
    is_taken
}

/// Moves a message that was given up to a queue, which may have seen it before. Returns whether it has taken it.
pub(super) fn redrive(to: Arc<Queue>, message: Message, from: Option<(&Arc<Queue>, u64)>, turn: &mut Turn<'_>) -> bool {
    move_to(std::iter::once(to).collect(), message, from, true, turn)
}

/// The queue that gave a message up last.
pub(super) fn origin(headers: Headers<'_>) -> Option<String> {
    let newest = headers.get("x-death")?.as_array()?.next()?.as_headers()?;
    Some(newest.get("queue")?.as_text()?.to_owned())
}

/// The message with its death in its headers, addressed to the dead-letter exchange.
fn died(message: &Message, queue: &str, reason: Reason, exchange: &str, key: Option<&[u8]>, now: Time) -> Message {
    let headers = message.headers();
    let mut deaths = Vec::new();
    let mut newest = death(message, queue, reason, now);
    if let Some(items) = headers.get("x-death").and_then(|value| value.as_array()) {
        for table in items.filter_map(|item| item.as_headers()) {
            let is_same = table.get("queue").and_then(|value| value.as_text()) == Some(queue)
                && table.get("reason").and_then(|value| value.as_text()) == Some(reason.as_str());
            if is_same {
                let count = table.get("count").and_then(|value| value.as_integer()).unwrap_or(1);
                newest = table.to_table();
                newest.set("count", Value::I64(count.saturating_add(1)));
            } else {
                deaths.push(Value::Table(table.to_table()));
            }
        }
        newest.sort();
    }
    let is_first = headers.get("x-death").is_none();
    deaths.insert(0, Value::Table(newest));
    let mut own = vec![("x-death", Value::Array(deaths))];
    if is_first {
        own.push(("x-first-death-exchange", Value::Text(message.exchange().to_vec())));
        own.push(("x-first-death-queue", Value::text(queue)));
        own.push(("x-first-death-reason", Value::text(reason.as_str())));
    }
    let is_dropped = |name: &[u8]| own.iter().any(|(own, _)| own.as_bytes() == name) || key.is_some() && name == b"CC";
    let mut kept: Vec<_> = headers.iter().filter(|(name, _)| !is_dropped(name)).collect();
    kept.sort_by_key(|(name, _)| *name);
    let mut kept = kept.into_iter().peekable();
    let mut builder = HeadersBuilder::new();
    for (name, value) in &own {
        while let Some((name, value)) = kept.next_if(|(other, _)| *other < name.as_bytes()) {
            builder.push_ref(name, value);
        }
        builder.push(name, value);
    }
    kept.for_each(|(name, value)| builder.push_ref(name, value));
    let view = View { headers: Some(builder.finish()), without_ttl: true, ..View::default() };
    message.rerouted(exchange, key.unwrap_or(message.key()), view)
}

fn death(message: &Message, queue: &str, reason: Reason, now: Time) -> Table {
    let keys = std::iter::once(message.key().to_vec()).chain(message.copy_keys()).map(Value::Text).collect();
    let mut table = Table::new();
    table.push("count", Value::I64(1));
    table.push("reason", Value::text(reason.as_str()));
    table.push("queue", Value::text(queue));
    table.push("time", Value::Timestamp(now.secs()));
    table.push("exchange", Value::Text(message.exchange().to_vec()));
    table.push("routing-keys", Value::Array(keys));
    if let Some(ms) = message.traits.ttl.ms() {
        table.push("original-expiration", Value::text(ms.to_string()));
    }
    table
}

/// Leaves out the queues that this message has died in before with nobody refusing it since.
fn drop_cycles(queues: &mut Queues, headers: Headers<'_>) {
    let Some(deaths) = headers.get("x-death").and_then(|value| value.as_array()) else { return };
    queues.retain(|queue| {
        for table in deaths.clone().filter_map(|item| item.as_headers()) {
            if table.get("reason").and_then(|value| value.as_text()) == Some("rejected") {
                return true;
            }
            if table.get("queue").and_then(|value| value.as_text()) == Some(&queue.name) {
                return false;
            }
        }
        true
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::{Broker, options::Options, topology::DeclareQueue};

    fn message(headers: &Table) -> Message {
        let mut encoded = Vec::new();
        headers.encode(&mut encoded);
        Message::build("x", b"k", &encoded, (0, encoded.len()), b"m")
    }

    fn names(table: &Table) -> Vec<&str> {
        table.iter().map(|(name, _)| name).collect()
    }

    fn newest(headers: &Table) -> &Table {
        match headers.get("x-death") {
            Some(Value::Array(deaths)) => match &deaths[0] {
                Value::Table(newest) => newest,
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    /// What waits in a queue `work` of 100 ms whose dead letters go to a queue `dead`, before that is
    /// declared, and what has come to `dead` after it was.
    fn die_before_there_is_a_target(strategy: &str) -> ((u64, u64), usize) {
        let broker = Broker::new(Options::default(), Time(0)).unwrap();
        let vhost = broker.vhost("/").unwrap();
        let mut turn = Turn::new(&broker, Time(0));
        let arguments = Table::from_iter([
            ("x-message-ttl", Value::I32(100)),
            ("x-dead-letter-exchange", Value::text("")),
            ("x-dead-letter-routing-key", Value::text("dead")),
            ("x-dead-letter-strategy", Value::text(strategy)),
            ("x-overflow", Value::text("reject-publish")),
        ]);
        let wanted = DeclareQueue { name: "work", arguments, ..DeclareQueue::default() };
        let work = vhost.declare_queue(&wanted, None, &mut turn).unwrap();
        let message = Message::build("", b"work", &[], (0, 0), b"m");
        work.publish(std::iter::once(message), &mut turn, &mut Vec::new());
        turn.end();
        broker.tick(Time(100));
        let status = work.status();
        let mut turn = Turn::new(&broker, Time(200));
        let wanted = DeclareQueue { name: "dead", ..DeclareQueue::default() };
        let dead = vhost.declare_queue(&wanted, None, &mut turn).unwrap();
        turn.end();
        broker.tick(Time(60_000));
        assert_eq!((work.status().ready, work.status().unsettled), (0, 0));
        ((status.ready, status.unsettled), dead.snapshot().len())
    }

    #[test]
    fn a_dead_message_without_a_target_waits_for_one_where_that_is_wanted() {
        assert_eq!(die_before_there_is_a_target("at-least-once"), ((0, 1), 1));
        assert_eq!(die_before_there_is_a_target("at-most-once"), ((0, 0), 0));
    }

    #[test]
    fn headers_are_sorted_and_the_entries_of_a_first_death_are_not() {
        let mut headers = Table::new();
        headers.push("z", Value::Bool(true));
        headers.push("a", Value::Bool(true));
        let died = died(&message(&headers), "q", Reason::Rejected, "dlx", None, Time(0)).headers().to_table();
        let first = ["x-first-death-exchange", "x-first-death-queue", "x-first-death-reason"];
        assert_eq!(names(&died), [&["a", "x-death"][..], &first, &["z"]].concat());
        assert_eq!(names(newest(&died)), ["count", "reason", "queue", "time", "exchange", "routing-keys"]);
    }

    #[test]
    fn a_repeated_death_counts_on_in_front_with_its_entries_sorted() {
        let once = died(&message(&Table::new()), "q", Reason::Rejected, "dlx", None, Time(0));
        let other = died(&once, "r", Reason::Expired, "dlx", None, Time(0));
        let twice = died(&other, "q", Reason::Rejected, "dlx", None, Time(0)).headers().to_table();
        assert_eq!(newest(&twice).get("count"), Some(&Value::I64(2)));
        assert_eq!(names(newest(&twice)), ["count", "exchange", "queue", "reason", "routing-keys", "time"]);
        assert_eq!(twice.get("x-first-death-queue"), Some(&Value::text("q")));
    }

    #[test]
    fn a_death_told_by_the_client_is_no_first_death() {
        let mut headers = Table::new();
        headers.push("x-death", Value::text("zzz"));
        let died = died(&message(&headers), "q", Reason::Rejected, "dlx", None, Time(0)).headers().to_table();
        assert_eq!(names(&died), ["x-death"]);
    }
}
