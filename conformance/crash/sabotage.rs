//! A whole cycle's record falsified: the checker must notice, or a green campaign means nothing.

use std::collections::{HashMap, HashSet};

use crate::{
    campaign,
    checker::{self, Violation},
    history::{Event, MessageId, Outcome, Place, QueueId, StreamId},
    load::Style,
    node::Node,
    power::Disk,
    queues,
    rng::Rng,
};

/// A record that was falsified, and what the checker has to say of it.
struct Falsified {
    history: Vec<Event>,
    is_noticed: fn(&Violation) -> bool,
    /// Nothing else may be said.
    is_alone: bool,
}

/// The record, falsified in every way; `None` if something did not happen in it that is needed for one.
fn falsified(history: &[Event]) -> Option<Vec<Falsified>> {
    let mut all = Vec::new();
    let mut alone = |history, is_noticed| all.push(Falsified { history, is_noticed, is_alone: true });
    for queues in [queues::FAN.as_slice(), &[queues::SQS_WORK], &[queues::SQS_GROUPS], &queues::SNS] {
        alone(drop_delivery(history, queues)?, |it| matches!(it, Violation::Lost(..)));
        alone(resurrect(history, queues)?, |it| matches!(it, Violation::Resurrected(_)));
    }
    alone(reorder(history)?, |it| matches!(it, Violation::Reordered(..)));
    alone(lie(history)?, |it| matches!(it, Violation::Dishonest(_) | Violation::Hasty(_)));
    let mut among = |history, is_noticed| all.push(Falsified { history, is_noticed, is_alone: false });
    among(steal(history)?, |it| matches!(it, Violation::Leased(_)));
    among(hasten(history)?, |it| matches!(it, Violation::Early(_)));
    // Of two that were in turn in different hands the first had been settled before the second came.
    among(swap_group(history)?, |it| {
        matches!(it, Violation::Shared(..) | Violation::Reordered(..) | Violation::Resurrected(_))
    });
    Some(all)
}

fn accepted(history: &[Event]) -> impl Iterator<Item = (usize, Place)> + '_ {
    history.iter().enumerate().rev().filter_map(|(n, event)| match event {
        Event::Settled { place, outcome: Outcome::Accepted, tx: None } if place.deaths == 0 => Some((n, *place)),
        _ => None,
    })
}

fn is_confirmed(history: &[Event], message: MessageId) -> bool {
    history.contains(&Event::Confirmed { message })
}

/// The driver did not note that a message came.
fn drop_delivery(history: &[Event], queues: &[QueueId]) -> Option<Vec<Event>> {
    let (_, dropped) =
        accepted(history).find(|(_, place)| queues.contains(&place.queue) && is_confirmed(history, place.message))?;
    let is_kept = |event: &&Event| match event {
        Event::Delivered { place, .. }
        | Event::Leased { place, .. }
        | Event::Settled { place, .. }
        | Event::Durable { place } => *place != dropped,
        _ => true,
    };
    Some(history.iter().filter(is_kept).cloned().collect())
}

/// A message comes once more after all.
fn resurrect(history: &[Event], queues: &[QueueId]) -> Option<Vec<Event>> {
    let durable: HashSet<_> = history
        .iter()
        .filter_map(|event| match event {
            Event::Durable { place } => Some(*place),
            _ => None,
        })
        .collect();
    let is_meant = |place: &Place| queues.contains(&place.queue) && durable.contains(place);
    let (_, place) = accepted(history).find(|(_, place)| is_meant(place))?;
    let stream = history.iter().find_map(|event| match event {
        Event::Delivered { stream, place: delivered, .. } if *delivered == place => Some(*stream),
        _ => None,
    });
    let again = Event::Delivered { stream: stream?, place, redelivered: true, at_ms: u64::MAX };
    Some([history, &[Event::Crashed, again]].concat())
}

/// Two messages of one publisher come to the last consumer of a queue the other way round.
fn reorder(history: &[Event]) -> Option<Vec<Event>> {
    let delivered = |event: &Event| match event {
        Event::Delivered { stream, place, redelivered: false, .. } if place.queue == queues::FAN[9] => {
            Some((*stream, *place))
        }
        _ => None,
    };
    let deliveries: Vec<_> = history.iter().enumerate().filter_map(|(n, event)| Some((n, delivered(event)?))).collect();
    let [.., (first, (stream, _)), (second, (other, _))] = deliveries[..] else { return None };
    assert_eq!(stream, other, "the drain has one consumer a queue");
    let mut history = history.to_vec();
    history.swap(first, second);
    Some(history)
}

/// A message that came before does not say so.
fn lie(history: &[Event]) -> Option<Vec<Event>> {
    let mut seen = HashSet::new();
    let mut history = history.to_vec();
    let again = history.iter_mut().find_map(|event| match event {
        Event::Delivered { place, redelivered, .. } if !seen.insert(*place) => Some(redelivered),
        _ => None,
    });
    *again? = false;
    Some(history)
}

/// What a receiver was promised somebody else is given at once.
fn steal(history: &[Event]) -> Option<Vec<Event>> {
    let mut leases = history.iter().enumerate().filter_map(|(n, event)| match event {
        Event::Leased { place, until_ms } => Some((n, *place, *until_ms)),
        _ => None,
    });
    let (at, place, until_ms) = leases.next_back()?;
    let stolen = Event::Delivered { stream: StreamId(u64::MAX), place, redelivered: true, at_ms: until_ms - 100 };
    let opened = Event::Opened { stream: StreamId(u64::MAX), queue: place.queue, is_sole: false };
    let (before, after) = history.split_at(at + 1);
    Some([before, &[opened, stolen], after].concat())
}

/// A message comes before its time.
fn hasten(history: &[Event]) -> Option<Vec<Event>> {
    let withheld: HashMap<_, _> = history
        .iter()
        .filter_map(|event| match event {
            Event::Publish { message, traits, .. } if traits.due_ms > 0 => Some((*message, traits.due_ms)),
            _ => None,
        })
        .collect();
    let mut history = history.to_vec();
    let come = history.iter_mut().find_map(|event| match event {
        Event::Delivered { place, at_ms, .. } => Some((at_ms, *withheld.get(&place.message)?)),
        _ => None,
    });
    let (at_ms, due_ms) = come?;
    *at_ms = due_ms - 1;
    Some(history)
}

/// Two messages of a group that two receivers had come to them the other way round.
fn swap_group(history: &[Event]) -> Option<Vec<Event>> {
    let mut first = HashMap::new();
    for (n, event) in history.iter().enumerate() {
        if let Event::Delivered { stream, place, .. } = event
            && place.queue == queues::SQS_GROUPS
        {
            first.entry(place.message).or_insert((n, *stream));
        }
    }
    let pairs = first.iter().filter_map(|(message, before)| {
        let next = MessageId { seq: message.seq + 1, ..*message };
        Some((*before, *first.get(&next)?))
    });
    let (before, after) = pairs.filter(|(before, after)| before.1 != after.1).min()?;
    let mut history = history.to_vec();
    history.swap(before.0, after.0);
    Some(history)
}

/// Cycles until each thing has happened in one that can be falsified: most do at once.
const CYCLES_MAX: u32 = 20;

#[test]
fn falsified_record_is_noticed() {
    let mut rng = Rng::new(7);
    let settings = campaign::SETTINGS.iter().copied().map(String::from).collect();
    let mut node = Node::new(Disk::folder(), settings, &mut rng);
    let run = |cycle| campaign::run_cycle(&mut node, cycle, Style::Dense, &mut rng).unwrap().history;
    let found = (0..CYCLES_MAX).map(run).find_map(|history| Some((falsified(&history)?, history)));
    let (all, history) = found.expect("something to falsify in one of the cycles");
    let judge = |history: &[Event]| checker::check(&queues::topology(), history).violations;
    let known = judge(&history);
    for Falsified { history, is_noticed, is_alone } in all {
        let new: Vec<Violation> = judge(&history).into_iter().filter(|violation| !known.contains(violation)).collect();
        assert!(new.iter().any(is_noticed) && (!is_alone || new.len() == 1), "{new:?}");
    }
}
