//! Reads the pages that queues ask for: their place in the index, then the messages from the log, on
//! threads of its own.

use std::{
    collections::{HashMap, VecDeque},
    io,
    sync::{Arc, OnceLock, Weak},
    thread,
};

use parking_lot::{Condvar, Mutex};

use super::{
    ahead::{Ahead, Answer, Edition, Finished},
    entries, holds, messages,
    spill::{Files, Spill},
};
use crate::{
    broker::{
        Broker,
        exchange::holds::HoldsRequest,
        message::Message,
        queue::{
            Queue,
            cold::{ColdEntry, Header, Page, PageRequest, Wanted},
            dedup::Seen,
            leases::Note,
            stream::Summary,
        },
        record::{Position, QueueId},
        time::Time,
        turn::Turn,
        verb::ColdPages,
    },
    server::clock,
    store::{
        self, Block, Log, Reading,
        index::{self, Index, Rank, Snapshot},
    },
};

/// Threads that read: two read while another hands over.
const THREADS: usize = 3;

/// See the module's text.
pub(super) struct Pages {
    index: Arc<Index>,
    /// Where the messages are that are in no log.
    spill: Option<Arc<Spill>>,
    /// At most one request of each kind for each queue, and of a stream as many as it has readers.
    requests: Mutex<Requests>,
    asked: Condvar,
    /// Why the index could not be read while records were replayed.
    failure: OnceLock<String>,
}

/// What a thread is to read.
enum Job {
    Page {
        request: PageRequest,
        /// Nobody has asked for it yet.
        is_ahead: bool,
    },
    /// What an exchange holds back.
    Holds(HoldsRequest),
}

#[derive(Default)]
struct Requests {
    waiting: VecDeque<Job>,
    ahead: Ahead,
    is_over: bool,
}

impl Pages {
    /// Pages of that index. Nothing is read before [`Self::start`].
    pub(super) fn new(index: Arc<Index>, spill: Option<Arc<Spill>>) -> Arc<Self> {
        Arc::new(Self { index, spill, requests: Mutex::default(), asked: Condvar::new(), failure: OnceLock::new() })
    }

    /// Begins to read, from `log` and for `broker`.
    pub(super) fn start(
        self: &Arc<Self>,
        log: &Arc<Log>,
        broker: &Arc<Broker>,
    ) -> io::Result<Vec<thread::JoinHandle<()>>> {
        let start_one = |number| {
            let (pages, log, broker) = (self.clone(), log.clone(), Arc::downgrade(broker));
            let thread = thread::Builder::new().name(format!("cold-read-{number}"));
            thread.spawn(move || pages.run(&log, &broker))
        };
        (0..THREADS).map(start_one).collect()
    }

    /// Why the index could not be read while records were replayed, if so: what was replayed is not all.
    pub(super) fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }

    fn at_start<T>(&self, read: Result<T, index::Error>) -> Option<T> {
        // The first failure is the one to tell.
        read.map_err(|error| _ = self.failure.set(error.to_string())).ok()
    }

    /// Has the threads end.
    pub(super) fn stop(&self) {
        self.requests.lock().is_over = true;
        self.asked.notify_all();
    }

    /// Reads what the log and its index have.
    fn read_kept(&self, request: &PageRequest, log: &Log, reading: Reading, block: &mut Block) -> Page {
        let number = || self.index.snapshot().checkpoint().map(|checkpoint| checkpoint.number);
        let mut seen = number();
        let mut page = read(request, &self.index, log, reading, block);
        // A message that was moved meanwhile is no longer where it was.
        while page.result.is_err() && number() != seen {
            seen = number();
            page = read(request, &self.index, log, reading, block);
        }
        page
    }

    fn run(&self, log: &Log, broker: &Weak<Broker>) {
        let mut block = Block::default();
        loop {
            let mut requests = self.requests.lock();
            let job = loop {
                if requests.is_over {
                    return;
                }
                match requests.waiting.pop_front() {
                    Some(job) => break job,
                    None => self.asked.wait(&mut requests),
                }
            };
            drop(requests);
            let Some(broker) = broker.upgrade() else { return };
            let (request, is_ahead) = match job {
                Job::Page { request, is_ahead } => (request, is_ahead),
                Job::Holds(request) => {
                    holds::answer(&request, &self.index, log, &broker, &mut block);
                    continue;
                }
            };
            let Some(queue) = request.queue.upgrade() else {
                if is_ahead {
                    self.requests.lock().ahead.give_up(&request);
                }
                continue;
            };
            let Some((request, page)) = self.page(request, is_ahead, &queue, log, &mut block) else { continue };
            if !queue.is_stream() {
                self.begin_ahead(&request, &page);
            }
            let mut turn = Turn::new(&broker, clock::now());
            queue.page_in(page, &mut turn);
            turn.end();
            broker.waiting.proceed();
        }
    }

    /// A page that was asked for, if there is one now.
    fn page(
        &self,
        request: PageRequest,
        is_ahead: bool,
        queue: &Queue,
        log: &Log,
        block: &mut Block,
    ) -> Option<(PageRequest, Page)> {
        if queue.is_stream() {
            // Its readers each go their own way, and others want the same.
            let page = self.read(&request, log, Reading::Shared, block);
            return Some((request, page));
        }
        let request = if is_ahead {
            let page = self.read(&request, log, Reading::Once, block);
            let mut requests = self.requests.lock();
            match requests.ahead.finish(&request, page) {
                Finished::Wanted(request, Some(page)) => return Some((request, page)),
                Finished::Wanted(request, None) => request,
                Finished::Kept(next) => {
                    self.read_ahead(&mut requests, next);
                    return None;
                }
            }
        } else {
            let edition = self.edition();
            match self.requests.lock().ahead.answer(request, edition) {
                Answer::Page(request, page) => return Some((request, page)),
                Answer::Later => return None,
                Answer::Read(request) => request,
            }
        };
        let page = self.read(&request, log, Reading::Once, block);
        Some((request, page))
    }

    fn read(&self, request: &PageRequest, log: &Log, reading: Reading, block: &mut Block) -> Page {
        let files = self.spill.as_ref().filter(|_| request.is_in_spill).and_then(|spill| spill.files());
        match files {
            Some(files) if request.is_in_log => {
                let half = request.halved();
                self.read_kept(&half, log, reading, block).merge(read_spilled(&half, files, block))
            }
            Some(files) => read_spilled(request, files, block),
            None => self.read_kept(request, log, reading, block),
        }
    }

    fn begin_ahead(&self, request: &PageRequest, page: &Page) {
        let edition = self.edition();
        let mut requests = self.requests.lock();
        let next = requests.ahead.begin(request, page, edition);
        self.read_ahead(&mut requests, next);
    }

    fn read_ahead(&self, requests: &mut Requests, next: Option<PageRequest>) {
        if let Some(request) = next {
            requests.waiting.push_back(Job::Page { request, is_ahead: true });
            self.asked.notify_one();
        }
    }

    fn seen_by(&self, owner: u64) -> Vec<Seen> {
        let mut scan = self.index.scan(entries::SEEN, owner, Rank::MIN);
        let mut reader = entries::SeenReader::default();
        while let Some((rank, value)) = self.at_start(scan.next_entry()).flatten() {
            reader.add(rank, value);
        }
        reader.finish()
    }

    fn edition(&self) -> Edition {
        let number = |index: &Index| index.snapshot().checkpoint().map(|checkpoint| checkpoint.number);
        (
            number(&self.index),
            self.spill.as_ref().and_then(|spill| spill.files()).and_then(|files| number(&files.index)),
        )
    }
}

impl ColdPages for Pages {
    fn fetch(&self, request: PageRequest) {
        self.requests.lock().waiting.push_back(Job::Page { request, is_ahead: false });
        self.asked.notify_one();
    }

    fn fetch_held(&self, request: HoldsRequest) {
        self.requests.lock().waiting.push_back(Job::Holds(request));
        self.asked.notify_one();
    }

    fn find(&self, queue: QueueId, level: u8, seq: u64) -> Option<ColdEntry> {
        let value = self.at_start(self.index.get(entries::message_key(queue, level, seq)))??;
        entries::message(level, seq, value.as_bytes())
    }

    fn header(&self, queue: QueueId) -> Option<Header> {
        let owner = entries::header_owner(queue);
        let value = self.at_start(self.index.get(index::Key::new(entries::HEADERS, owner, 0, 0)))??;
        let mut header = entries::header(value.as_bytes())?;
        for level in self.at_start(self.index.page(entries::LEVELS, owner, Rank::MIN, 256))? {
            header.levels.extend(entries::level(level.rank.order as u8, level.value.as_bytes()));
        }
        Some(header)
    }

    fn notes(&self, queue: QueueId) -> Vec<Note> {
        let mut scan = self.index.scan(entries::NOTES, entries::header_owner(queue), Rank::MIN);
        let (mut notes, mut groups) = (Vec::new(), HashMap::<u64, Vec<u8>>::new());
        while let Some((rank, value)) = self.at_start(scan.next_entry()).flatten() {
            match rank.order {
                0 => notes.extend(entries::note(rank.seq, value)),
                _ => groups.entry(rank.seq).or_default().extend_from_slice(value),
            }
        }
        for note in &mut notes {
            note.group = groups.remove(&note.seq).map(Into::into);
        }
        notes
    }

    fn seen_by_queue(&self, queue: QueueId) -> Vec<Seen> {
        self.seen_by(entries::header_owner(queue))
    }

    fn seen_by_exchange(&self, exchange: Position) -> Vec<Seen> {
        self.seen_by(entries::holds_owner(exchange))
    }

    fn segments(&self, queue: QueueId) -> Vec<Summary> {
        let mut scan = self.index.scan(entries::SEGMENTS, entries::header_owner(queue), Rank::MIN);
        let mut segments = Vec::new();
        while let Some((rank, value)) = self.at_start(scan.next_entry()).flatten() {
            segments.extend(entries::segment(rank.order, value));
        }
        segments
    }
}

/// Reads what was spilled.
fn read_spilled(request: &PageRequest, files: &Files, block: &mut Block) -> Page {
    let mut page = read(request, &files.index, &files.log, Reading::Once, block);
    for (entry, _) in page.result.iter_mut().flatten() {
        entry.place = entry.place.in_spill();
    }
    page
}

fn read(request: &PageRequest, index: &Index, log: &Log, reading: Reading, block: &mut Block) -> Page {
    let snapshot = index.snapshot();
    let found = match request.wanted {
        Wanted::Front { level, from, to, messages_max, bytes_max } => {
            let found = front(&snapshot, request.id, (level, from, to), messages_max, bytes_max);
            found.map(|(entries, next)| (entries, next, Time::NEVER))
        }
        Wanted::Expired { after, until, messages_max } => {
            let found = expired(&snapshot, request.id, after, until, messages_max);
            found.map(|(entries, next_deadline)| (entries, None, next_deadline))
        }
    };
    let (result, next, next_deadline) = match found {
        Ok((entries, next, next_deadline)) => (with_messages(log, entries, reading, block), next, next_deadline),
        Err(error) => (Err(error.to_string()), None, Time::NEVER),
    };
    Page { generation: request.generation, wanted: request.wanted, result, next, next_deadline }
}

type Found = Vec<ColdEntry>;

fn front(
    snapshot: &Arc<Snapshot>,
    queue: QueueId,
    (level, from, to): (u8, u64, u64),
    messages_max: usize,
    bytes_max: u64,
) -> Result<(Found, Option<u64>), index::Error> {
    let mut scan = snapshot.scan(entries::MESSAGES, entries::owner(queue, level), Rank::new(0, from));
    let (mut found, mut bytes) = (Vec::new(), 0_u64);
    while let Some((rank, value)) = scan.next_entry()? {
        if rank.seq >= to {
            return Ok((found, None));
        }
        if found.len() >= messages_max || !found.is_empty() && bytes >= bytes_max {
            return Ok((found, Some(rank.seq)));
        }
        if let Some(entry) = entries::message(level, rank.seq, value) {
            bytes += entry.body_bytes;
            found.push(entry);
        }
    }
    Ok((found, None))
}

fn expired(
    snapshot: &Arc<Snapshot>,
    queue: QueueId,
    after: (Time, u64),
    until: Time,
    messages_max: usize,
) -> Result<(Found, Time), index::Error> {
    let Some(from) = Rank::new(after.0.0, after.1).next() else { return Ok((Vec::new(), Time::NEVER)) };
    let mut scan = snapshot.scan(entries::DEADLINES, entries::owner(queue, 0), from);
    let mut found = Vec::new();
    while let Some((rank, value)) = scan.next_entry()? {
        if rank.order > until.0 || found.len() >= messages_max {
            return Ok((found, Time(rank.order)));
        }
        let Some(&level) = value.first() else { continue };
        // Of what went in its turn only the entry by seq is gone.
        let Some(value) = snapshot.get(entries::message_key(queue, level, rank.seq))? else { continue };
        let entry = entries::message(level, rank.seq, value.as_bytes());
        found.extend(entry.filter(|entry| entry.has_own_ttl && entry.deadline.0 == rank.order));
    }
    Ok((found, Time::NEVER))
}

fn with_messages(
    log: &Log,
    found: Found,
    reading: Reading,
    block: &mut Block,
) -> Result<Vec<(ColdEntry, Message)>, String> {
    let places: Vec<_> = found.iter().map(|entry| store::Position(entry.place.0)).collect();
    let read = messages::read_messages(log, &places, reading, block)?;
    Ok(found.into_iter().zip(read).collect())
}
