//! A page of what two indexes have of a queue: a page of each, put together.

use super::{ColdEntry, Page, PageRequest, Wanted};
use crate::broker::time::Time;

impl PageRequest {
    /// The request of which each of two indexes is to answer one, so that both together are what was asked
    /// for.
    pub fn halved(&self) -> Self {
        let mut half = self.clone();
        match &mut half.wanted {
            Wanted::Front { messages_max, bytes_max, .. } => {
                *messages_max = (*messages_max / 2).max(1);
                *bytes_max = (*bytes_max / 2).max(1);
            }
            Wanted::Expired { messages_max, .. } => *messages_max = (*messages_max / 2).max(1),
        }
        half
    }
}

impl Page {
    /// Two pages of the same request, of different messages, as one: in order, and no further than both of
    /// them got.
    pub fn merge(self, other: Self) -> Self {
        let Self { generation, wanted, .. } = self;
        let (mut next, mut next_deadline) = (None, Time::NEVER);
        let result = match (self.result, other.result) {
            (Err(error), _) | (_, Err(error)) => Err(error),
            (Ok(mut all), Ok(more)) => {
                match wanted {
                    Wanted::Front { .. } => {
                        next = [self.next, other.next].into_iter().flatten().min();
                        all.extend(more);
                        all.sort_by_key(|(entry, _)| entry.seq);
                        all.truncate(all.partition_point(|(entry, _)| next.is_none_or(|next| entry.seq < next)));
                    }
                    Wanted::Expired { until, .. } => {
                        let last = |deadline, found: &Vec<_>| {
                            let last = found.last().filter(|_| deadline <= until);
                            last.map(|(entry, _): &(ColdEntry, _)| (entry.deadline, entry.seq))
                        };
                        let lasts = [last(self.next_deadline, &all), last(other.next_deadline, &more)];
                        let last = lasts.into_iter().flatten().min();
                        all.extend(more);
                        all.sort_by_key(|(entry, _)| (entry.deadline, entry.seq));
                        let is_in = |at| last.is_none_or(|last| at <= last);
                        let cut = all.partition_point(|(entry, _)| is_in((entry.deadline, entry.seq)));
                        let first_out = all.get(cut).map_or(Time::NEVER, |(entry, _)| entry.deadline);
                        next_deadline = self.next_deadline.min(other.next_deadline).min(first_out);
                        all.truncate(cut);
                    }
                }
                Ok(all)
            }
        };
        Self { generation, wanted, result, next, next_deadline }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::{message::Message, record::Position};

    /// A page of messages whose deadlines are their seqs.
    fn page(wanted: Wanted, seqs: &[u64], next: Option<u64>, next_deadline: u64) -> Page {
        let entry = |&seq: &u64| {
            let message = Message::build("", b"q", b"", (0, 0), b"body");
            let (place, deadline) = (Position(seq), Time(seq));
            let [has_own_ttl, redelivered] = [true, false];
            let (level, delivery_count, body_bytes) = (0, 0, 4);
            (ColdEntry { level, seq, place, deadline, has_own_ttl, delivery_count, redelivered, body_bytes }, message)
        };
        let result = Ok(seqs.iter().map(entry).collect());
        Page { generation: 7, wanted, result, next, next_deadline: Time(next_deadline) }
    }

    fn seqs(page: &Page) -> Vec<u64> {
        page.result.as_ref().unwrap().iter().map(|(entry, _)| entry.seq).collect()
    }

    #[test]
    fn pages_of_the_front_are_put_together_in_order_and_no_further_than_both_got() {
        let wanted = Wanted::Front { level: 0, from: 1, to: 20, messages_max: 4, bytes_max: 99 };
        let merged = |(one, one_next), (other, other_next)| {
            let page = page(wanted, one, one_next, u64::MAX).merge(page(wanted, other, other_next, u64::MAX));
            assert_eq!((page.generation, page.wanted), (7, wanted));
            (seqs(&page), page.next)
        };
        assert_eq!(merged((&[1, 4, 5], Some(7)), (&[2, 3], None)), (vec![1, 2, 3, 4, 5], Some(7)));
        assert_eq!(merged((&[1, 4, 5], Some(7)), (&[2, 8, 9], Some(10))), (vec![1, 2, 4, 5], Some(7)));
        assert_eq!(merged((&[1, 5], None), (&[2], None)), (vec![1, 2, 5], None));
        assert_eq!(merged((&[], None), (&[2], Some(3))), (vec![2], Some(3)));
    }

    #[test]
    fn pages_of_expired_messages_are_put_together_by_deadline_and_no_further_than_both_got() {
        let wanted = Wanted::Expired { after: (Time(0), 0), until: Time(10), messages_max: 3 };
        let merged = |(one, one_next), (other, other_next)| {
            let page = page(wanted, one, None, one_next).merge(page(wanted, other, None, other_next));
            (seqs(&page), page.next_deadline.0)
        };
        // The first was full, and the next deadline of the second has not come.
        assert_eq!(merged((&[1, 3, 5], 6), (&[2, 4, 7], 20)), (vec![1, 2, 3, 4, 5], 6));
        assert_eq!(merged((&[1, 3, 5], 9), (&[2, 7, 8], 20)), (vec![1, 2, 3, 5], 7));
        assert_eq!(merged((&[1, 3, 5], 6), (&[2, 7, 8], 9)), (vec![1, 2, 3, 5], 6));
        assert_eq!(merged((&[1, 3], 11), (&[2, 7], 20)), (vec![1, 2, 3, 7], 11));
        assert_eq!(merged((&[], 11), (&[2], u64::MAX)), (vec![2], 11));
    }

    #[test]
    fn what_is_wrong_with_one_page_is_wrong_with_both() {
        let wanted = Wanted::Front { level: 0, from: 1, to: 20, messages_max: 4, bytes_max: 99 };
        let bad = Page { result: Err("unreadable".into()), ..page(wanted, &[], None, 0) };
        assert!(page(wanted, &[1], None, 0).merge(bad).result.is_err());
    }
}
