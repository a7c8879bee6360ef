//! The checker on histories made by hand: each wrong must turn it red, each permitted must not.

use super::*;
use crate::history::Queue;

const PLAIN: QueueId = QueueId(0);
const OTHER: QueueId = QueueId(1);
const WORK: QueueId = QueueId(2);
const WAIT: QueueId = QueueId(3);
const RANKED: QueueId = QueueId(4);
const GROUPED: QueueId = QueueId(5);

/// Two plain queues, a loop in which what is rejected waits for its next attempt, one with priorities and one
/// with groups.
fn topology() -> Topology {
    let dead_letters = [None, None, Some((Reason::Rejected, WAIT)), Some((Reason::Expired, WORK))];
    let ranked = Queue { priority_max: Some(3), ..Queue::default() };
    Topology {
        queues: dead_letters
            .into_iter()
            .map(|dead_letter| Queue { dead_letter, ..Queue::default() })
            .chain([ranked, Queue { is_grouped: true, ..Queue::default() }])
            .collect(),
    }
}

fn message(seq: u64) -> MessageId {
    MessageId { cycle: 0, publisher: 0, seq }
}

fn place(queue: QueueId, seq: u64) -> Place {
    Place { queue, message: message(seq), deaths: 0 }
}

fn died(queue: QueueId, seq: u64, deaths: u64) -> Place {
    Place { deaths, ..place(queue, seq) }
}

/// A history as it is written down.
#[derive(Clone, Default)]
struct History {
    events: Vec<Event>,
    streams: u64,
}

impl History {
    fn event(mut self, event: Event) -> Self {
        self.events.push(event);
        self
    }

    fn publish(self, queue: QueueId, seq: u64) -> Self {
        self.event(Event::Publish { message: message(seq), queues: vec![queue], traits: Traits::default(), tx: None })
    }

    fn publish_with(self, queue: QueueId, seq: u64, traits: Traits) -> Self {
        self.event(Event::Publish { message: message(seq), queues: vec![queue], traits, tx: None })
    }

    fn confirm(self, seq: u64) -> Self {
        self.event(Event::Confirmed { message: message(seq) })
    }

    /// Publishes these and has them confirmed.
    fn confirmed(self, queue: QueueId, seqs: impl IntoIterator<Item = u64>) -> Self {
        seqs.into_iter().fold(self, |history, seq| history.publish(queue, seq).confirm(seq))
    }

    fn open(mut self, queue: QueueId, is_sole: bool) -> Self {
        self.streams += 1;
        let stream = StreamId(self.streams);
        self.event(Event::Opened { stream, queue, is_sole })
    }

    /// To the stream that was opened last.
    fn deliver(self, place: Place, redelivered: bool) -> Self {
        self.deliver_at(0, place, redelivered)
    }

    fn deliver_at(self, at_ms: u64, place: Place, redelivered: bool) -> Self {
        let stream = StreamId(self.streams);
        self.event(Event::Delivered { stream, place, redelivered, at_ms })
    }

    /// To somebody who has these for a while.
    fn receive(self, at_ms: u64, until_ms: u64, places: &[(Place, bool)]) -> Self {
        let queue = places[0].0.queue;
        places.iter().fold(self.open(queue, false), |history, &(place, redelivered)| {
            history.deliver_at(at_ms, place, redelivered).event(Event::Leased { place, until_ms })
        })
    }

    fn settle(self, place: Place, outcome: Outcome) -> Self {
        self.event(Event::Settled { place, outcome, tx: None })
    }

    fn accept(self, place: Place) -> Self {
        self.settle(place, Outcome::Accepted)
    }

    fn durable(self, place: Place) -> Self {
        self.event(Event::Durable { place })
    }

    fn crash(self) -> Self {
        self.event(Event::Crashed)
    }

    /// All that is left of a queue goes to one consumer, which accepts it.
    fn drain(self, queue: QueueId, left: impl IntoIterator<Item = (Place, bool)>) -> Self {
        left.into_iter().fold(self.open(queue, true), |history, (place, redelivered)| {
            history.deliver(place, redelivered).accept(place).durable(place)
        })
    }

    fn publish_in(self, tx: u64, queue: QueueId, seq: u64) -> Self {
        self.event(Event::Publish {
            message: message(seq),
            queues: vec![queue],
            traits: Traits::default(),
            tx: Some(TxId(tx)),
        })
    }

    fn accept_in(self, tx: u64, place: Place) -> Self {
        self.event(Event::Settled { place, outcome: Outcome::Accepted, tx: Some(TxId(tx)) })
    }

    fn commit(self, tx: u64) -> Self {
        self.event(Event::Commit { tx: TxId(tx) })
    }

    fn committed(self, tx: u64) -> Self {
        self.commit(tx).event(Event::Committed { tx: TxId(tx) })
    }

    fn wipe(self, queue: QueueId, wiping: Wiping) -> Self {
        self.event(Event::Wipe { wipe: WipeId(1), queue, wiping })
    }

    fn wiped(self) -> Self {
        self.event(Event::Wiped { wipe: WipeId(1) })
    }

    fn violations(&self) -> Vec<Violation> {
        check(&topology(), &self.events).violations
    }

    #[track_caller]
    fn is_green(&self) {
        assert_eq!(self.violations(), []);
    }

    #[track_caller]
    fn is_red(&self, violation: Violation) {
        assert_eq!(self.violations(), [violation]);
    }
}

fn history() -> History {
    History::default()
}

fn first(queue: QueueId, seqs: std::ops::RangeInclusive<u64>) -> impl Iterator<Item = (Place, bool)> {
    seqs.map(move |seq| (place(queue, seq), false))
}

#[test]
fn what_was_confirmed_and_drained_is_green() {
    history().confirmed(PLAIN, 1..=3).crash().drain(PLAIN, first(PLAIN, 1..=3)).is_green();
}

#[test]
fn confirmed_message_that_never_comes_is_lost() {
    let history = history().confirmed(PLAIN, 1..=3).crash().drain(PLAIN, first(PLAIN, 2..=3));
    history.is_red(Violation::Lost(message(1), PLAIN));
}

#[test]
fn delivered_message_that_was_not_settled_and_never_comes_again_is_lost() {
    let history = history().confirmed(PLAIN, 1..=2).open(PLAIN, false).deliver(place(PLAIN, 1), false).crash();
    history.clone().drain(PLAIN, first(PLAIN, 2..=2)).is_red(Violation::Lost(message(1), PLAIN));
    history.drain(PLAIN, [(place(PLAIN, 1), true), (place(PLAIN, 2), false)]).is_green();
}

#[test]
fn unconfirmed_message_may_come_or_not() {
    history().publish(PLAIN, 1).crash().drain(PLAIN, []).is_green();
    history().publish(PLAIN, 1).crash().drain(PLAIN, first(PLAIN, 1..=1)).is_green();
    history().publish(PLAIN, 1).event(Event::Nacked { message: message(1) }).crash().drain(PLAIN, []).is_green();
}

#[test]
fn unconfirmed_message_comes_once() {
    let history = history().publish(PLAIN, 1).crash().open(PLAIN, true).deliver(place(PLAIN, 1), false);
    history.deliver(place(PLAIN, 1), true).is_red(Violation::Duplicated(place(PLAIN, 1)));
}

#[test]
fn fan_out_owes_each_queue_its_copy() {
    let publish =
        Event::Publish { message: message(1), queues: vec![PLAIN, OTHER], traits: Traits::default(), tx: None };
    let history = history().event(publish).confirm(1).crash().drain(PLAIN, first(PLAIN, 1..=1));
    history.is_red(Violation::Lost(message(1), OTHER));
    history.drain(OTHER, first(OTHER, 1..=1)).is_green();
}

#[test]
fn message_that_nobody_published_is_unexpected() {
    let history = history().crash().open(PLAIN, true).deliver(place(PLAIN, 7), true);
    history.is_red(Violation::NeverPublished(place(PLAIN, 7)));
}

#[test]
fn message_in_a_foreign_queue_is_unexpected() {
    let history = history().publish(PLAIN, 1).crash().open(OTHER, true).deliver(place(OTHER, 1), false);
    history.is_red(Violation::Misplaced(place(OTHER, 1)));
}

#[test]
fn settled_message_may_come_back_unless_that_was_durable() {
    let history = history().confirmed(PLAIN, 1..=1).open(PLAIN, false).deliver(place(PLAIN, 1), false);
    let settled = history.accept(place(PLAIN, 1));
    settled.clone().crash().drain(PLAIN, []).is_green();
    settled.clone().crash().drain(PLAIN, [(place(PLAIN, 1), true)]).is_green();
    let durable = settled.durable(place(PLAIN, 1)).crash();
    durable.drain(PLAIN, [(place(PLAIN, 1), true)]).is_red(Violation::Resurrected(place(PLAIN, 1)));
}

#[test]
fn drained_message_that_comes_after_another_crash_is_unexpected() {
    let history = history().confirmed(PLAIN, 1..=1).crash().drain(PLAIN, first(PLAIN, 1..=1)).crash();
    let history = history.open(PLAIN, true).deliver(place(PLAIN, 1), true);
    history.is_red(Violation::Resurrected(place(PLAIN, 1)));
}

#[test]
fn second_copy_within_a_run_is_a_duplicate_unless_it_was_requeued() {
    let history = history().confirmed(PLAIN, 1..=1).open(PLAIN, false).deliver(place(PLAIN, 1), false);
    let twice = history.clone().deliver(place(PLAIN, 1), true).accept(place(PLAIN, 1));
    twice.is_red(Violation::Duplicated(place(PLAIN, 1)));
    let requeued = history.clone().settle(place(PLAIN, 1), Outcome::Requeued);
    requeued.deliver(place(PLAIN, 1), true).accept(place(PLAIN, 1)).is_green();
    let accepted = history.settle(place(PLAIN, 1), Outcome::Requeued).accept(place(PLAIN, 1));
    accepted.deliver(place(PLAIN, 1), true).is_red(Violation::Duplicated(place(PLAIN, 1)));
}

#[test]
fn requeued_message_that_is_gone_is_lost() {
    let history = history().confirmed(PLAIN, 1..=1).open(PLAIN, false).deliver(place(PLAIN, 1), false);
    let history = history.settle(place(PLAIN, 1), Outcome::Requeued).crash().drain(PLAIN, []);
    history.is_red(Violation::Lost(message(1), PLAIN));
}

#[test]
fn later_message_before_an_earlier_one_is_reordered() {
    let history = history().confirmed(PLAIN, 1..=3).crash();
    let swapped = [(place(PLAIN, 1), false), (place(PLAIN, 3), false), (place(PLAIN, 2), false)];
    history.drain(PLAIN, swapped).is_red(Violation::Reordered(place(PLAIN, 2), 3));
}

#[test]
fn message_that_comes_again_has_its_old_place() {
    let history = history().confirmed(PLAIN, 1..=2).open(PLAIN, false).deliver(place(PLAIN, 1), false).crash();
    let at_the_tail = [(place(PLAIN, 2), false), (place(PLAIN, 1), true)];
    history.drain(PLAIN, at_the_tail).is_red(Violation::Reordered(place(PLAIN, 1), 2));
}

#[test]
fn requeued_message_may_overtake_nobody_and_be_overtaken() {
    let history = history().confirmed(PLAIN, 1..=2).open(PLAIN, false).deliver(place(PLAIN, 1), false);
    let history = history.deliver(place(PLAIN, 2), false).settle(place(PLAIN, 1), Outcome::Requeued);
    let history = history.deliver(place(PLAIN, 1), true).accept(place(PLAIN, 1)).accept(place(PLAIN, 2));
    history.is_green();
}

#[test]
fn delivered_message_that_comes_again_must_say_so() {
    let history = history().confirmed(PLAIN, 1..=1).open(PLAIN, false).deliver(place(PLAIN, 1), false);
    let known = history.clone().confirmed(OTHER, 2..=2).crash().drain(OTHER, first(OTHER, 2..=2));
    known.drain(PLAIN, first(PLAIN, 1..=1)).is_red(Violation::Dishonest(place(PLAIN, 1)));
    let perhaps = history.crash().drain(PLAIN, first(PLAIN, 1..=1)).violations();
    assert_eq!(perhaps.contains(&Violation::Hasty(place(PLAIN, 1))), HASTE_IS_WRONG);
}

#[test]
fn promise_to_a_second_try_is_no_witness_of_what_came_before_the_crash() {
    let history = history().confirmed(PLAIN, 1..=1).open(PLAIN, false).deliver(place(PLAIN, 1), false);
    let history = history.publish(OTHER, 2).crash().confirm(2).drain(OTHER, first(OTHER, 2..=2));
    history.drain(PLAIN, first(PLAIN, 1..=1)).is_green();
}

#[test]
fn requeued_message_must_say_so() {
    let history = history().confirmed(PLAIN, 1..=1).open(PLAIN, false).deliver(place(PLAIN, 1), false);
    let history = history.settle(place(PLAIN, 1), Outcome::Requeued).deliver(place(PLAIN, 1), false);
    history.accept(place(PLAIN, 1)).is_red(Violation::Dishonest(place(PLAIN, 1)));
}

#[test]
fn so_many_may_claim_falsely_to_have_been_delivered() {
    let most = AHEAD_MAX as u64;
    let claim = |count| {
        let left = (1..=count).map(|seq| (place(PLAIN, seq), true));
        history().confirmed(PLAIN, 1..=count).crash().drain(PLAIN, left)
    };
    claim(most).is_green();
    claim(most + 1).is_red(Violation::Ahead(PLAIN, AHEAD_MAX + 1));
}

#[test]
fn rejected_message_goes_through_the_loop_and_comes_again_as_new() {
    let history = history().confirmed(WORK, 1..=1).open(WORK, false).deliver(place(WORK, 1), false);
    let rejected = history.settle(place(WORK, 1), Outcome::Rejected);
    let again = rejected.clone().deliver(died(WORK, 1, 2), false).accept(died(WORK, 1, 2));
    again.durable(died(WORK, 1, 2)).crash().drain(WORK, []).is_green();
    // Before the log had the reject, after it, and after it had expired.
    let crashed = rejected.crash();
    crashed.clone().drain(WORK, [(place(WORK, 1), true)]).is_green();
    crashed.clone().drain(WAIT, [(died(WAIT, 1, 1), false)]).is_green();
    crashed.clone().drain(WORK, [(died(WORK, 1, 2), false)]).is_green();
    crashed.drain(WORK, []).is_red(Violation::Lost(message(1), WORK));
}

#[test]
fn durable_reject_is_not_undone() {
    let history = history().confirmed(WORK, 1..=1).open(WORK, false).deliver(place(WORK, 1), false);
    let history = history.settle(place(WORK, 1), Outcome::Rejected).durable(place(WORK, 1)).crash();
    history.clone().drain(WAIT, [(died(WAIT, 1, 1), false)]).is_green();
    history.drain(WORK, [(place(WORK, 1), true)]).is_red(Violation::Resurrected(place(WORK, 1)));
}

#[test]
fn message_in_two_queues_of_a_loop_is_a_duplicate() {
    let history = history().confirmed(WORK, 1..=1).open(WORK, false).deliver(place(WORK, 1), false);
    let history = history.settle(place(WORK, 1), Outcome::Rejected).crash().open(WORK, true);
    let history = history.deliver(place(WORK, 1), true).accept(place(WORK, 1));
    history.open(WAIT, true).deliver(died(WAIT, 1, 1), false).is_red(Violation::Duplicated(died(WAIT, 1, 1)));
}

#[test]
fn dead_lettering_needs_its_reject() {
    let history = history().confirmed(WORK, 1..=1).crash().drain(WAIT, [(died(WAIT, 1, 1), false)]);
    history.is_red(Violation::DeadLetteredUnasked(died(WAIT, 1, 1)));
}

#[test]
fn death_without_a_queue_for_it_is_unexpected() {
    let history = history().confirmed(WORK, 1..=1).crash().open(WORK, true).deliver(died(WORK, 1, 1), false);
    let history = history.accept(died(WORK, 1, 1));
    history.is_red(Violation::Misplaced(died(WORK, 1, 1)));
}

#[test]
fn committed_transaction_is_promised_and_its_settles_are_durable() {
    let history = history().confirmed(PLAIN, 1..=1).open(PLAIN, false).deliver(place(PLAIN, 1), false);
    let history = history.publish_in(1, OTHER, 2).accept_in(1, place(PLAIN, 1)).committed(1).crash();
    let green = history.clone().drain(OTHER, first(OTHER, 2..=2));
    green.is_green();
    green.drain(PLAIN, [(place(PLAIN, 1), true)]).is_red(Violation::Resurrected(place(PLAIN, 1)));
    history.drain(OTHER, []).is_red(Violation::Lost(message(2), OTHER));
}

/// One message accepted, two published to another queue, and no answer to the commit.
fn unanswered() -> History {
    let history = history().confirmed(PLAIN, 1..=1).open(PLAIN, false).deliver(place(PLAIN, 1), false);
    history.publish_in(1, OTHER, 2).accept_in(1, place(PLAIN, 1)).publish_in(1, OTHER, 3).commit(1).crash()
}

#[test]
fn unanswered_transaction_is_whole_or_gone() {
    unanswered().drain(PLAIN, []).drain(OTHER, first(OTHER, 2..=3)).is_green();
    unanswered().drain(PLAIN, [(place(PLAIN, 1), true)]).drain(OTHER, []).is_green();
}

#[test]
fn half_transaction_is_red() {
    let is_half = |history: History| {
        let violations = history.violations();
        assert!(matches!(violations[..], [Violation::HalfTransaction(TxId(1), _, _)]), "{violations:?}");
    };
    is_half(unanswered().drain(PLAIN, []).drain(OTHER, first(OTHER, 2..=2)));
    is_half(unanswered().drain(PLAIN, []).drain(OTHER, []));
    is_half(unanswered().drain(PLAIN, [(place(PLAIN, 1), true)]).drain(OTHER, first(OTHER, 2..=3)));
}

#[test]
fn what_was_not_committed_must_not_come() {
    let history = history().publish_in(1, OTHER, 2).event(Event::RolledBack { tx: TxId(1) }).crash();
    history.clone().drain(OTHER, []).is_green();
    history.drain(OTHER, first(OTHER, 2..=2)).is_red(Violation::Uncommitted(place(OTHER, 2)));
}

#[test]
fn settle_of_a_transaction_that_was_not_committed_has_no_effect() {
    let history = history().confirmed(PLAIN, 1..=1).open(PLAIN, false).deliver(place(PLAIN, 1), false);
    let history = history.accept_in(1, place(PLAIN, 1)).crash();
    history.clone().drain(PLAIN, [(place(PLAIN, 1), true)]).is_green();
    history.drain(PLAIN, []).is_red(Violation::Lost(message(1), PLAIN));
}

#[test]
fn purged_message_must_not_come_and_a_later_one_must() {
    let history = history().confirmed(PLAIN, 1..=1).wipe(PLAIN, Wiping::Purge).wiped().confirmed(PLAIN, 2..=2);
    let history = history.crash();
    history.clone().drain(PLAIN, first(PLAIN, 2..=2)).is_green();
    history.clone().drain(PLAIN, first(PLAIN, 1..=2)).is_red(Violation::Unwiped(place(PLAIN, 1)));
    history.drain(PLAIN, []).is_red(Violation::Lost(message(2), PLAIN));
}

#[test]
fn purge_leaves_what_is_unsettled_and_a_deletion_does_not() {
    let delivered = history().confirmed(PLAIN, 1..=1).open(PLAIN, false).deliver(place(PLAIN, 1), false);
    let back = [(place(PLAIN, 1), true)];
    delivered.clone().wipe(PLAIN, Wiping::Purge).wiped().crash().drain(PLAIN, back).is_green();
    let deleted = delivered.wipe(PLAIN, Wiping::Delete).wiped().event(Event::Declared { queue: PLAIN });
    deleted.crash().drain(PLAIN, back).is_red(Violation::Unwiped(place(PLAIN, 1)));
}

#[test]
fn wipe_without_an_answer_may_have_been_done() {
    for wiping in [Wiping::Purge, Wiping::Delete] {
        let history = history().confirmed(PLAIN, 1..=1).wipe(PLAIN, wiping).confirmed(PLAIN, 2..=2).crash();
        let history = history.event(Event::Declared { queue: PLAIN }).confirmed(PLAIN, 3..=3);
        history.clone().drain(PLAIN, first(PLAIN, 1..=3)).is_green();
        history.clone().drain(PLAIN, first(PLAIN, 3..=3)).is_green();
        history.drain(PLAIN, first(PLAIN, 1..=2)).is_red(Violation::Lost(message(3), PLAIN));
    }
}

#[test]
fn what_is_published_to_a_queue_that_is_away_may_vanish() {
    let history = history().wipe(PLAIN, Wiping::Delete).wiped().confirmed(PLAIN, 1..=1);
    history.event(Event::Declared { queue: PLAIN }).crash().drain(PLAIN, []).is_green();
}

#[test]
fn damaged_content_is_red() {
    let history = history().open(PLAIN, true).event(Event::Damaged { stream: StreamId(1) });
    history.is_red(Violation::Damaged(StreamId(1)));
}

#[test]
fn crashes_say_what_was_promised_and_unsettled() {
    let history = history().confirmed(PLAIN, 1..=3).open(PLAIN, false).deliver(place(PLAIN, 1), false);
    let history = history.deliver(place(PLAIN, 2), false).accept(place(PLAIN, 1)).crash();
    let verdict = check(&topology(), &history.events);
    assert_eq!((verdict.crashes[0].promised, verdict.crashes[0].unsettled), (3, 1));
}

const TRANSIENT: Traits = Traits { is_transient: true, priority: 0, due_ms: 0 };

fn ranked(priority: u8) -> Traits {
    Traits { priority, ..Traits::default() }
}

#[test]
fn transient_message_may_vanish_in_a_crash_and_is_no_promise() {
    let history = history().publish_with(PLAIN, 1, TRANSIENT).confirm(1).crash();
    history.is_green();
    let counts = check(&topology(), &history.events).counts;
    assert_eq!((counts.promised, counts.transient, counts.transient_vanished), (0, 1, 1));
}

#[test]
fn transient_message_is_lost_if_there_was_no_crash() {
    let history = history().publish_with(PLAIN, 1, TRANSIENT).confirm(1);
    history.is_red(Violation::Lost(message(1), PLAIN));
}

#[test]
fn transient_message_that_comes_after_a_crash_is_unexpected() {
    let history = history().publish_with(PLAIN, 1, TRANSIENT).confirm(1).crash().drain(PLAIN, first(PLAIN, 1..=1));
    history.is_red(Violation::Undead(place(PLAIN, 1)));
}

#[test]
fn transient_message_keeps_its_place_among_persistent_ones() {
    let history = history().confirmed(PLAIN, [1]).publish_with(PLAIN, 2, TRANSIENT).confirm(2).confirmed(PLAIN, [3]);
    let history = history.open(PLAIN, false).deliver(place(PLAIN, 1), false).deliver(place(PLAIN, 3), false);
    let history = history.deliver(place(PLAIN, 2), false).accept(place(PLAIN, 1)).accept(place(PLAIN, 2));
    history.accept(place(PLAIN, 3)).is_red(Violation::Reordered(place(PLAIN, 2), 3));
}

#[test]
fn confirm_of_a_transient_message_is_no_witness_of_a_delivery() {
    let history = history().confirmed(PLAIN, [1]).open(PLAIN, false).deliver(place(PLAIN, 1), false);
    let history = history.publish_with(OTHER, 2, TRANSIENT).confirm(2).crash();
    history.drain(PLAIN, first(PLAIN, 1..=1)).is_green();
}

#[test]
fn higher_priorities_come_first_after_a_crash_each_in_its_order() {
    let publish = |history: History, (seq, priority)| history.publish_with(RANKED, seq, ranked(priority)).confirm(seq);
    let history = [(1, 0), (2, 3), (3, 1), (4, 9)].into_iter().fold(history(), publish).crash();
    let drain = |seqs: [u64; 4]| history.clone().drain(RANKED, seqs.map(|seq| (place(RANKED, seq), false)));
    drain([2, 4, 3, 1]).is_green();
    drain([4, 2, 3, 1]).is_red(Violation::Reordered(place(RANKED, 2), 4));
    drain([2, 4, 1, 3]).is_red(Violation::Overtaken(place(RANKED, 3), 0));
}

#[test]
fn leased_message_comes_to_nobody_else_before_its_time_nor_after_a_crash() {
    let message = place(PLAIN, 1);
    let leased = history().confirmed(PLAIN, 1..=1).receive(1_000, 2_000, &[(message, false)]);
    for history in [leased.clone(), leased.crash()] {
        let again = |at_ms| history.clone().open(PLAIN, false).deliver_at(at_ms, message, true).accept(message);
        again(2_000).is_green();
        assert!(again(1_900).violations().contains(&Violation::Leased(message)));
    }
}

#[test]
fn lease_that_was_made_longer_counts_and_one_that_was_given_back_does_not() {
    let message = place(PLAIN, 1);
    let leased = history().confirmed(PLAIN, 1..=1).receive(1_000, 2_000, &[(message, false)]);
    let longer = leased.clone().event(Event::Leased { place: message, until_ms: 9_000 }).crash();
    let again = |history: History| history.open(PLAIN, false).deliver_at(3_000, message, true).accept(message);
    again(longer.clone()).is_red(Violation::Leased(message));
    again(longer.settle(message, Outcome::Requeued)).is_green();
    again(leased.settle(message, Outcome::Requeued)).is_green();
}

#[test]
fn deletion_without_an_answer_leaves_the_lease_in_force() {
    let message = place(PLAIN, 1);
    let deleted = history().confirmed(PLAIN, 1..=1).receive(1_000, 2_000, &[(message, false)]).accept(message).crash();
    let again = |at_ms| deleted.clone().open(PLAIN, false).deliver_at(at_ms, message, true).accept(message);
    deleted.is_green();
    again(2_500).is_green();
    again(1_500).is_red(Violation::Leased(message));
    let durable = deleted.clone().durable(message).open(PLAIN, false).deliver_at(2_500, message, true);
    durable.is_red(Violation::Resurrected(message));
}

#[test]
fn deletion_that_came_too_late_changes_nothing() {
    let message = place(PLAIN, 1);
    let late = history().confirmed(PLAIN, 1..=1).receive(1_000, 2_000, &[(message, false)]).accept(message);
    late.clone().receive(2_100, 3_100, &[(message, true)]).accept(message).is_green();
    let answered = late.durable(message).receive(2_100, 3_100, &[(message, true)]);
    assert!(answered.violations().contains(&Violation::Resurrected(message)));
}

#[test]
fn message_that_lapsed_comes_once_for_each_time() {
    let message = place(PLAIN, 1);
    let lapsed = history().confirmed(PLAIN, 1..=1).receive(1_000, 2_000, &[(message, false)]);
    let twice = lapsed.open(PLAIN, false).deliver_at(2_000, message, true);
    twice.clone().accept(message).is_green();
    twice.deliver_at(2_100, message, true).accept(message).is_red(Violation::Duplicated(message));
}

#[test]
fn receiver_is_told_of_earlier_receivers_and_a_consumer_of_everybody() {
    let message = place(PLAIN, 1);
    let before = history().confirmed(PLAIN, 1..=1).confirmed(OTHER, 2..=2);
    let consumed = before.clone().open(PLAIN, false).deliver(message, false).confirmed(OTHER, 3..=3).crash();
    let drain = |history: History| history.drain(OTHER, first(OTHER, 2..=3));
    drain(consumed.clone().receive(1_000, 2_000, &[(message, false)]).accept(message)).is_green();
    drain(consumed.drain(PLAIN, [(message, false)])).is_red(Violation::Dishonest(message));
    let received = before.receive(1_000, 2_000, &[(message, false)]).confirmed(OTHER, 3..=3).crash();
    let again = received.receive(2_000, 3_000, &[(message, false)]).accept(message);
    drain(again).is_red(Violation::Dishonest(message));
}

#[test]
fn withheld_message_comes_to_nobody_before_its_time() {
    let withheld = Traits { due_ms: 2_000, ..Traits::default() };
    let history = history().publish_with(PLAIN, 1, withheld).confirm(1).crash().open(PLAIN, false);
    let come = |at_ms| history.clone().deliver_at(at_ms, place(PLAIN, 1), false).accept(place(PLAIN, 1));
    come(2_000).is_green();
    come(1_999).is_red(Violation::Early(place(PLAIN, 1)));
}

#[test]
fn group_is_in_one_hand_until_that_has_finished() {
    let [one, two] = [1, 2].map(|seq| place(GROUPED, seq));
    let held = history().confirmed(GROUPED, 1..=2).receive(1_000, 2_000, &[(one, false)]);
    let next = |history: History, at_ms| history.receive(at_ms, at_ms + 1_000, &[(two, false)]).accept(two);
    next(held.clone().accept(one).durable(one), 1_100).is_green();
    next(held.clone().accept(one).durable(one).crash(), 1_100).is_green();
    next(held.clone(), 1_100).accept(one).is_red(Violation::Shared(two, 1));
    next(held.clone().crash(), 1_100).accept(one).is_red(Violation::Shared(two, 1));
    // One call may have several of a group.
    let both = history().confirmed(GROUPED, 1..=2).receive(1_000, 2_000, &[(one, false), (two, false)]);
    both.clone().accept(one).accept(two).is_green();
    // What has come back of them is in front of the others.
    let again = both.accept(two).settle(one, Outcome::Requeued).receive(1_100, 2_100, &[(one, true)]);
    again.accept(one).is_green();
}

#[test]
fn group_keeps_its_order_in_all_hands_together() {
    let [one, two] = [1, 2].map(|seq| place(GROUPED, seq));
    let published = history().confirmed(GROUPED, 1..=2);
    let later = published.receive(1_000, 2_000, &[(two, false)]).accept(two).durable(two);
    let both = later.clone().receive(1_100, 2_100, &[(one, false)]).accept(one);
    both.is_red(Violation::Reordered(one, 2));
    later.crash().receive(1_100, 2_100, &[(one, false)]).accept(one).is_red(Violation::Reordered(one, 2));
}

#[test]
fn delivery_that_the_log_never_had_does_not_count_for_the_order_after_a_crash() {
    let [one, two] = [1, 2].map(|seq| place(GROUPED, seq));
    let consumed = history().confirmed(GROUPED, 1..=2).open(GROUPED, false).deliver(one, false).accept(one);
    let consumed = consumed.open(GROUPED, false).deliver(two, false).crash();
    consumed.drain(GROUPED, [(one, true), (two, true)]).is_green();
}
