//! Pages that are read before their queues ask for them, so that the disk is at work while consumers
//! are: behind a page that was read, the next ones of its gap are those to come.
//!
//! What is read ahead is looked up in the index before it is asked for. It serves a request only while
//! the index is what it was then: that is the same as a later look.

use crate::broker::{
    queue::cold::{Page, PageRequest, Wanted},
    record::QueueId,
};

/// Pages read ahead at one time, of all queues: what bounds their memory.
const PAGES_MAX: usize = 4;
/// Pages ahead of one gap: while one is taken to pieces, the disk reads another.
const DEPTH_MAX: usize = 2;

/// Where a page begins and where its gap ends: queue, level, first seq, seq behind the last.
type Place = (QueueId, u8, u64, u64);

/// What an index was at a time. It changes with each checkpoint.
pub(super) type Edition = (Option<u64>, Option<u64>);

/// See the module's text.
#[derive(Default)]
pub(super) struct Ahead {
    /// The oldest first, each in its place once.
    pages: Vec<Begun>,
}

struct Begun {
    place: Place,
    edition: Edition,
    /// It has been read.
    page: Option<Page>,
    /// It was asked for while it was being read.
    request: Option<PageRequest>,
}

/// What is to be done about a request.
pub(super) enum Answer {
    /// This is the page.
    Page(PageRequest, Page),
    /// Whoever reads the page serves the request.
    Later,
    /// Nothing was read ahead that is of use.
    Read(PageRequest),
}

/// What becomes of a page that was read ahead.
pub(super) enum Finished {
    /// It is kept; this one is to be read ahead next.
    Kept(Option<PageRequest>),
    /// This request has waited for it. Without a page it could not be read, and is to be read now that
    /// somebody wants it.
    Wanted(PageRequest, Option<Page>),
}

fn place(request: &PageRequest) -> Option<Place> {
    match request.wanted {
        Wanted::Front { level, from, to, .. } => Some((request.id, level, from, to)),
        Wanted::Expired { .. } => None,
    }
}

impl Ahead {
    /// Somebody asks, while the index is of this edition.
    pub(super) fn answer(&mut self, request: PageRequest, edition: Edition) -> Answer {
        let Some(place) = place(&request) else { return Answer::Read(request) };
        let found = self.pages.iter().position(|begun| begun.place == place && begun.edition == edition);
        let Some(found) = found else {
            // The queue has gone another way, or the index has.
            self.pages.retain(|begun| (begun.place.0, begun.place.1) != (place.0, place.1) || begun.request.is_some());
            return Answer::Read(request);
        };
        if self.pages[found].page.is_none() {
            self.pages[found].request = Some(request);
            return Answer::Later;
        }
        match self.pages.remove(found).page {
            Some(page) if page.result.is_ok() => {
                let page = Page { generation: request.generation, ..page };
                Answer::Page(request, page)
            }
            _ => Answer::Read(request),
        }
    }

    /// What to read ahead, by whoever gets this, now that `page` of `request` has been read.
    pub(super) fn begin(&mut self, request: &PageRequest, page: &Page, edition: Edition) -> Option<PageRequest> {
        if page.result.is_err() {
            return None;
        }
        self.begin_from(request, page.next?, edition)
    }

    /// The same behind what was read ahead at that place.
    fn begin_from(&mut self, request: &PageRequest, mut from: u64, edition: Edition) -> Option<PageRequest> {
        let Wanted::Front { level, to, messages_max, bytes_max, .. } = request.wanted else { return None };
        let next = loop {
            if from >= to {
                return None;
            }
            let wanted = Wanted::Front { level, from, to, messages_max, bytes_max };
            let next = PageRequest { wanted, ..request.clone() };
            let place = place(&next)?;
            match self.pages.iter().find(|begun| begun.place == place) {
                None => break next,
                Some(begun) if begun.edition != edition => return None,
                // Whoever reads it comes back.
                Some(begun) => from = begun.page.as_ref().filter(|page| page.result.is_ok())?.next?,
            }
        };
        let is_near = |begun: &&Begun| (begun.place.0, begun.place.1) == (request.id, level);
        let depth = self.pages.iter().filter(is_near).count();
        if depth >= DEPTH_MAX {
            return None;
        }
        if self.pages.len() >= PAGES_MAX {
            // Somebody's first page is worth more than another's second.
            let idle = self.pages.iter().position(|begun| begun.page.is_some()).filter(|_| depth == 0)?;
            self.pages.remove(idle);
        }
        self.pages.push(Begun { place: place(&next)?, edition, page: None, request: None });
        Some(next)
    }

    /// What was to be read is of no use any more.
    pub(super) fn give_up(&mut self, ahead: &PageRequest) {
        let place = place(ahead);
        self.pages.retain(|begun| Some(begun.place) != place || begun.page.is_some());
    }

    /// What was to be read has been read.
    pub(super) fn finish(&mut self, ahead: &PageRequest, page: Page) -> Finished {
        let is_it = |begun: &Begun| Some(begun.place) == place(ahead) && begun.page.is_none();
        let Some(found) = self.pages.iter().position(is_it) else { return Finished::Kept(None) };
        let begun = &mut self.pages[found];
        let Some(request) = begun.request.take() else {
            let (next, edition) = (page.next.filter(|_| page.result.is_ok()), begun.edition);
            begun.page = Some(page);
            return Finished::Kept(next.and_then(|from| self.begin_from(ahead, from, edition)));
        };
        self.pages.remove(found);
        let page = page.result.is_ok().then_some(page).map(|page| Page { generation: request.generation, ..page });
        Finished::Wanted(request, page)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Weak;

    use super::*;
    use crate::broker::time::Time;

    const NOW: Edition = (Some(1), None);

    fn request(from: u64, generation: u64) -> PageRequest {
        let wanted = Wanted::Front { level: 0, from, to: 100, messages_max: 10, bytes_max: 10 };
        PageRequest { queue: Weak::new(), id: QueueId(7), generation, wanted, is_in_log: true, is_in_spill: false }
    }

    fn page(of: &PageRequest, next: Option<u64>) -> Page {
        let (generation, wanted) = (of.generation, of.wanted);
        Page { generation, wanted, result: Ok(Vec::new()), next, next_deadline: Time::NEVER }
    }

    fn is_kept(ahead: &mut Ahead, next: &PageRequest, page: Page) -> bool {
        matches!(ahead.finish(next, page), Finished::Kept(None))
    }

    fn begun(ahead: &mut Ahead) -> PageRequest {
        let first = request(1, 3);
        ahead.begin(&first, &page(&first, Some(11)), NOW).unwrap()
    }

    #[test]
    fn a_page_that_was_read_ahead_answers_the_request_for_it_once() {
        let mut ahead = Ahead::default();
        let next = begun(&mut ahead);
        assert!(is_kept(&mut ahead, &next, page(&next, None)));
        let Answer::Page(_, page) = ahead.answer(request(11, 4), NOW) else { panic!("it is there") };
        assert_eq!((page.generation, page.wanted), (4, request(11, 4).wanted));
        assert!(matches!(ahead.answer(request(11, 4), NOW), Answer::Read(_)));
    }

    #[test]
    fn a_request_for_what_is_being_read_waits_for_that() {
        let mut ahead = Ahead::default();
        let next = begun(&mut ahead);
        assert!(matches!(ahead.answer(request(11, 4), NOW), Answer::Later));
        let Finished::Wanted(request, page) = ahead.finish(&next, page(&next, None)) else { panic!("it is wanted") };
        assert_eq!((request.generation, page.unwrap().generation), (4, 4));
    }

    #[test]
    fn a_page_that_could_not_be_read_ahead_is_read_when_it_is_wanted() {
        let mut ahead = Ahead::default();
        for is_early in [true, false] {
            let next = begun(&mut ahead);
            let failed = Page { result: Err("no such thing".into()), ..page(&next, None) };
            if is_early {
                assert!(matches!(ahead.answer(request(11, 4), NOW), Answer::Later));
                assert!(matches!(ahead.finish(&next, failed), Finished::Wanted(_, None)));
            } else {
                assert!(is_kept(&mut ahead, &next, failed));
                assert!(matches!(ahead.answer(request(11, 4), NOW), Answer::Read(_)));
            }
        }
    }

    #[test]
    fn after_a_checkpoint_or_for_another_place_it_is_of_no_use() {
        for (asked, edition) in [(request(11, 4), (Some(2), None)), (request(12, 4), NOW)] {
            let mut ahead = Ahead::default();
            let next = begun(&mut ahead);
            assert!(matches!(ahead.answer(asked, edition), Answer::Read(_)));
            assert!(is_kept(&mut ahead, &next, page(&next, None)));
            assert!(ahead.pages.is_empty(), "nothing is kept of it");
        }
    }

    #[test]
    fn two_pages_of_a_gap_are_read_ahead_and_no_third() {
        let mut ahead = Ahead::default();
        let next = begun(&mut ahead);
        let Finished::Kept(Some(second)) = ahead.finish(&next, page(&next, Some(21))) else { panic!("one more") };
        assert_eq!(second.wanted, request(21, 0).wanted);
        assert!(is_kept(&mut ahead, &second, page(&second, Some(31))));
        // The first is taken: the third is begun, behind the second.
        let Answer::Page(taken, first) = ahead.answer(request(11, 4), NOW) else { panic!("it is there") };
        assert_eq!(ahead.begin(&taken, &first, NOW).unwrap().wanted, request(31, 0).wanted);
        assert_eq!(ahead.begin(&taken, &first, NOW).map(|next| next.wanted), None);
    }

    #[test]
    fn behind_the_last_page_nothing_is_read() {
        let mut ahead = Ahead::default();
        let first = request(1, 3);
        assert!(ahead.begin(&first, &page(&first, None), NOW).is_none());
        assert!(ahead.begin(&first, &page(&first, Some(100)), NOW).is_none());
    }

    #[test]
    fn no_more_than_some_pages_are_kept_and_those_being_read_stay() {
        let mut ahead = Ahead::default();
        let mut of_queue = |id, is_read: bool| {
            let first = PageRequest { id: QueueId(id), ..request(1, 0) };
            let next = ahead.begin(&first, &page(&first, Some(11)), NOW);
            if let Some(next) = next.as_ref().filter(|_| is_read) {
                ahead.finish(next, page(next, None));
            }
            (next.is_some(), ahead.pages.len())
        };
        for id in 0..3 * PAGES_MAX as u64 {
            let (is_begun, len) = of_queue(id, true);
            assert!(is_begun && len <= PAGES_MAX);
        }
        for id in 100..100 + PAGES_MAX as u64 {
            assert!(of_queue(id, false).0);
        }
        assert_eq!(of_queue(200, false), (false, PAGES_MAX));
        let first = PageRequest { id: QueueId(100), ..request(11, 0) };
        ahead.give_up(&first);
        assert_eq!(ahead.pages.len(), PAGES_MAX - 1);
    }
}
