//! A whole cycle's record falsified: the checker must notice, or a green campaign means nothing.

use std::collections::HashSet;

use crate::{
    campaign::{self, Cycle},
    checker::{self, Violation},
    history::{Event, MessageId, Outcome, Place},
    load::Style,
    node::Node,
    power::Disk,
    queues,
    rng::Rng,
};

/// What a falsified record is accused of beyond the true one.
fn accusations(history: &[Event], falsify: impl Fn(&[Event]) -> Vec<Event>) -> Vec<Violation> {
    let judge = |history: &[Event]| checker::check(&queues::topology(), history).violations;
    let known = judge(history);
    judge(&falsify(history)).into_iter().filter(|violation| !known.contains(violation)).collect()
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
fn drop_delivery(history: &[Event]) -> Vec<Event> {
    let (_, dropped) = accepted(history)
        .find(|(_, place)| queues::FAN.contains(&place.queue) && is_confirmed(history, place.message))
        .unwrap();
    let is_kept = |event: &&Event| match event {
        Event::Delivered { place, .. } | Event::Settled { place, .. } | Event::Durable { place } => *place != dropped,
        _ => true,
    };
    history.iter().filter(is_kept).cloned().collect()
}

/// A message comes once more after all.
fn resurrect(history: &[Event]) -> Vec<Event> {
    let durable: HashSet<_> = history
        .iter()
        .filter_map(|event| match event {
            Event::Durable { place } => Some(*place),
            _ => None,
        })
        .collect();
    let is_meant = |place: &Place| queues::FAN.contains(&place.queue) && durable.contains(place);
    let (_, place) = accepted(history).find(|(_, place)| is_meant(place)).unwrap();
    let stream = history.iter().find_map(|event| match event {
        Event::Delivered { stream, place: delivered, .. } if *delivered == place => Some(*stream),
        _ => None,
    });
    let again = Event::Delivered { stream: stream.unwrap(), place, redelivered: true };
    [history, &[Event::Crashed, again]].concat()
}

/// Two messages of one publisher come to the last consumer of a queue the other way round.
fn reorder(history: &[Event]) -> Vec<Event> {
    let delivered = |event: &Event| match event {
        Event::Delivered { stream, place, redelivered: false } if place.queue == queues::FAN[9] => {
            Some((*stream, *place))
        }
        _ => None,
    };
    let deliveries: Vec<_> = history.iter().enumerate().filter_map(|(n, event)| Some((n, delivered(event)?))).collect();
    let [(first, (stream, _)), (second, (other, _))] = deliveries[deliveries.len() - 2..] else { unreachable!() };
    assert_eq!(stream, other, "the drain has one consumer a queue");
    let mut history = history.to_vec();
    history.swap(first, second);
    history
}

/// A message that came before does not say so.
fn lie(history: &[Event]) -> Vec<Event> {
    let mut seen = HashSet::new();
    let mut history = history.to_vec();
    let again = history.iter_mut().find_map(|event| match event {
        Event::Delivered { place, redelivered, .. } if !seen.insert(*place) => Some(redelivered),
        _ => None,
    });
    *again.unwrap() = false;
    history
}

#[test]
fn falsified_record_is_noticed() {
    let mut rng = Rng::new(7);
    let settings = campaign::SETTINGS.iter().copied().map(String::from).collect();
    let mut node = Node::new(Disk::folder(), settings, &mut rng);
    let Cycle { history, .. } = campaign::run_cycle(&mut node, 0, Style::Dense, &mut rng).unwrap();
    assert!(matches!(accusations(&history, drop_delivery)[..], [Violation::Lost(..)]));
    assert!(matches!(accusations(&history, resurrect)[..], [Violation::Resurrected(_)]));
    assert!(matches!(accusations(&history, reorder)[..], [Violation::Reordered(..)]));
    assert!(matches!(accusations(&history, lie)[..], [Violation::Dishonest(_) | Violation::Hasty(_)]));
}
