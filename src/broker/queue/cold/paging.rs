//! Which pages a queue wants, and what it does with those that come.

use super::{Cold, EXPIRED_MAX, Page, Wanted, browsing::BROWSING};
use crate::broker::{
    queue::{
        behaviour::Overflow,
        leases::THAWING,
        machine::{Dead, Effects, Machine, Reason},
        ready::{Front, Gap},
    },
    time::Time,
};

/// Messages of one page, whatever the window.
const PAGE_MESSAGES_MAX: usize = 4_096;

impl Machine {
    /// The pages that are to be asked for now; each is handed out once.
    pub(in crate::broker::queue) fn wanted_pages(&mut self, now: Time) -> [Option<Wanted>; 2] {
        if self.ready.gaps().is_empty() {
            return [None, None];
        }
        let level = self.wanted_level(now);
        let Some(cold) = self.cold.as_deref_mut().filter(|cold| !cold.is_damaged) else { return [None, None] };
        let front = level.filter(|_| !cold.is_front_asked).and_then(|level| self.ready.gap(level)).map(|gap| {
            (cold.is_front_asked, cold.has_receivers) = (true, false);
            Wanted::Front {
                level: gap.level,
                from: gap.from,
                to: gap.to,
                messages_max: (cold.window.messages / 2).clamp(1, PAGE_MESSAGES_MAX),
                bytes_max: (cold.window.bytes / 2).max(1),
            }
        });
        let is_expired = !cold.is_expired_asked && cold.own_deadline <= now;
        let expired = is_expired.then(|| {
            cold.is_expired_asked = true;
            Wanted::Expired { after: cold.expired, until: now, messages_max: EXPIRED_MAX }
        });
        [front, expired]
    }

    fn wanted_level(&mut self, now: Time) -> Option<u8> {
        let selected = self.selected_level();
        let cold = self.cold.as_deref()?;
        let has_get = cold.has_get;
        let front = match self.ready.front() {
            Front::Cold(level) => {
                let is_consumed = selected.is_none() && self.consumers.could_choose();
                let is_too_long = self.limits.overflow == Overflow::DropHead && self.is_too_long(0);
                (has_get || is_consumed || is_too_long).then_some(level)
            }
            Front::Entry(entry) if selected.is_none() && (!self.consumers.is_empty() || cold.has_receivers) => {
                let level = entry.message.traits.priority.min(self.ready.priority_max());
                self.ready.gap(level).filter(|gap| self.is_running_low(gap, cold)).map(|gap| gap.level)
            }
            _ => None,
        };
        let front = front.or(selected.flatten().filter(|level| self.ready.gap(*level).is_some()));
        let is_due = |gap: &&Gap| self.head_deadline(gap).is_some_and(|deadline| deadline <= now);
        front.or_else(|| self.ready.gaps().iter().find(is_due).map(|gap| gap.level))
    }

    /// Whether less than half of the window is left in front of a gap.
    fn is_running_low(&self, gap: &Gap, cold: &Cold) -> bool {
        let head_len = self.ready.head_len(gap) as u64;
        let head_bytes = head_len.saturating_mul(gap.bytes / gap.len.max(1));
        head_len < cold.window.messages as u64 / 2 && head_bytes < cold.window.bytes / 2
    }

    /// When the first message of a gap that has come to the front of its level may expire.
    fn head_deadline(&self, gap: &Gap) -> Option<Time> {
        let is_first = matches!(self.ready.head(gap.level as usize), Front::Cold(_));
        let is_unknown = gap.deadline == Gap::UNKNOWN && self.limits.message_ttl_ms.is_none();
        (is_first && !is_unknown).then_some(gap.deadline)
    }

    /// When a page has to be asked for, or [`Time::NEVER`].
    pub(in crate::broker::queue) fn cold_due(&self) -> Time {
        if self.ready.gaps().is_empty() {
            return Time::NEVER;
        }
        let Some(cold) = self.cold.as_deref().filter(|cold| !cold.is_damaged) else { return Time::NEVER };
        let own = if cold.is_expired_asked { Time::NEVER } else { cold.own_deadline };
        if cold.is_front_asked {
            return own;
        }
        self.ready.gaps().iter().filter_map(|gap| self.head_deadline(gap)).fold(own, Time::min)
    }

    /// Takes a page that was asked for. Returns what is wrong with the cold messages, once.
    pub(in crate::broker::queue) fn page_in(&mut self, page: Page, effects: &mut Effects) -> Option<String> {
        if let Some(stream) = &mut self.stream {
            return stream.page_in(page);
        }
        if page.generation & BROWSING != 0 {
            return self.leaf_in(page);
        }
        if page.generation & THAWING != 0 {
            return self.thaw(page);
        }
        let cold = self.cold.as_deref_mut()?;
        match page.wanted {
            Wanted::Front { .. } => (cold.is_front_asked, cold.has_get) = (false, false),
            Wanted::Expired { .. } => cold.is_expired_asked = false,
        }
        if page.generation != cold.generation || cold.is_damaged {
            return None;
        }
        let entries = match page.result {
            Ok(entries) => entries,
            Err(error) => {
                cold.is_damaged = true;
                return Some(error);
            }
        };
        match page.wanted {
            Wanted::Front { level, from, to, .. } => {
                let gap = self.ready.gap(level).filter(|gap| gap.from == from)?;
                let mut filled = Vec::with_capacity(entries.len());
                for (entry, message) in entries {
                    if entry.level == level && gap.has(entry.seq) && !cold.is_purged(&entry) {
                        filled.push(cold.overlay(entry).with(message));
                    }
                }
                let last = filled.last().map(|entry| entry.seq);
                let next = page.next.unwrap_or(to).max(last.unwrap_or(from) + 1).min(gap.to);
                // Messages expire in their order but for those that have their own time to live.
                let deadline = match filled.last() {
                    Some(last) if last.deadline != Time::NEVER => last.deadline,
                    _ => Gap::UNKNOWN,
                };
                let missing = self.ready.fill(level, filled, next, deadline);
                self.announce(1);
                let cold = self.cold.as_deref_mut()?;
                (missing > 0).then(|| {
                    cold.is_damaged = true;
                    format!("the index misses {missing} messages of priority {level}")
                })
            }
            Wanted::Expired { until, .. } => {
                let last = entries.last().map(|(entry, _)| (entry.deadline, entry.seq));
                let mut indexed = page.next_deadline;
                for (entry, message) in entries {
                    let is_due = entry.has_own_ttl && entry.deadline <= until && !cold.is_purged(&entry);
                    let is_persistent = message.traits.persistent;
                    if is_due && self.ready.take_cold(entry.level, entry.seq, entry.body_bytes, is_persistent) {
                        self.counters.expired += 1;
                        let entry = cold.overlay(entry).with(message);
                        cold.dies(&entry, self.ready.priority_max());
                        effects.dead.push(Dead { entry, reason: Reason::Expired });
                    } else {
                        // What is unsettled may be ready again after a restart.
                        indexed = indexed.min(entry.deadline);
                    }
                }
                let has_more = page.next_deadline <= until;
                cold.expired = match last {
                    Some(last) if has_more => last,
                    _ => (until, u64::MAX),
                };
                cold.own_deadline = match has_more && last.is_none() {
                    // What cannot be read cannot be waited for without end.
                    true => until.after_ms(1),
                    false => page.next_deadline,
                };
                // Puts of a look under way are not in what the page was read from.
                for side in cold.sides_mut().filter(|side| side.given.is_none()) {
                    side.deadline = side.deadline.max(indexed);
                }
                None
            }
        }
    }
}
