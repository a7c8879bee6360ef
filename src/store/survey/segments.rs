//! The log, seen from outside: every segment, every batch, and where the log ends.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::cold::read;
use super::{ColdSurvey, Damage};
use crate::store::disk::{Access, Disk, Listed};
use crate::store::error::OpenError;
use crate::store::format::{
    self, BATCH_ALIGN, BATCH_HEADER_BYTES, BatchHeader, FORMAT_VERSION, HeaderFault, Position, Purpose,
    RECORD_HEADER_BYTES, Records, SEGMENT_HEADER_BYTES, SegmentHeader, StoreId, tag_of,
};
use crate::store::scan::{Found, Scanner};
use crate::store::segments::{FileKind, IDENTITY_FILE, LOCK_FILE, file_kind};

/// What a log consists of.
#[derive(Debug)]
pub struct LogSurvey {
    /// The folder.
    pub dir: PathBuf,
    /// Identity of the store; `None` in a folder without segments.
    pub id: Option<StoreId>,
    /// No cold file has had a higher number, as far as the identity is whole.
    pub(in crate::store) cold_reserved: Option<u32>,
    /// Segments, in order.
    pub segments: Vec<SegmentSurvey>,
    /// Cold files, in order.
    pub cold: Vec<ColdSurvey>,
    /// Files that are ready to be segments.
    pub spares: Vec<Listed>,
    /// Files in the making, which the next start removes.
    pub unfinished: Vec<Listed>,
    /// Names of other files.
    pub others: Vec<String>,
    /// Whole records of the segments, by kind.
    pub kinds: BTreeMap<u8, Tally>,
    /// Whole records of the cold files, by kind.
    pub cold_kinds: BTreeMap<u8, Tally>,
    /// Numbers of segments that are not there between others, and whether they are missed: those that
    /// the checkpoint covers may have been released.
    pub gaps: Vec<Gap>,
    /// Place after the last batch.
    pub end: Position,
    /// How the log ends.
    pub ending: LogEnd,
    /// What is damaged.
    pub damage: Vec<Damage>,
}

/// Segments that are not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Number of the first.
    pub first_number: u64,
    /// Number of the last.
    pub last_number: u64,
    /// Where the positions that they held begin, at the earliest.
    pub first: Position,
    /// Where the segment after them begins.
    pub end: Position,
    /// They were not released.
    pub is_loss: bool,
}

/// Records, and their bytes with headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many.
    pub records: u64,
    /// How long.
    pub bytes: u64,
}

/// How a log ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogEnd {
    /// Behind a whole batch.
    Clean,
    /// In a batch that was being written when the process or the machine stopped, or is being written
    /// now. It was never flushed, and the next start cuts it off. Not damage.
    Torn {
        /// The segment's file.
        file: PathBuf,
        /// What is wrong there.
        what: &'static str,
        /// How far what looks like batches goes on behind the end, in bytes.
        bytes: u64,
    },
}

/// A segment.
#[derive(Clone, Debug)]
pub struct SegmentSurvey {
    /// Its number.
    pub number: u64,
    /// The file.
    pub file: PathBuf,
    /// Its size.
    pub file_bytes: u64,
    /// Version of its format.
    pub format: u32,
    /// Position of its first batch.
    pub first: Position,
    /// Position after its last.
    pub end: Position,
    /// Epochs of its first and last batch, or of its header.
    pub epochs: (u64, u64),
    /// Times of its first and last batch in milliseconds since 1970, or of its header.
    pub times_ms: (u64, u64),
    /// Whole batches.
    pub batches: u64,
    /// Whole records.
    pub records: u64,
    /// It lies behind the torn end: the next start cuts it off.
    pub is_cut_off: bool,
    /// As it is, or as it must have been.
    pub(in crate::store) header: SegmentHeader,
    /// Damaged ranges of positions between whole batches.
    pub(in crate::store) lost: Vec<(Position, Position)>,
}

impl LogSurvey {
    /// Reads the log in `dir`. `covered` is what the latest checkpoint covers; `None` if nobody knows,
    /// and then no segment is missed. Of a log that `is_live` the end is being written, and files may
    /// vanish.
    pub(in crate::store) fn take(
        disk: &dyn Disk,
        dir: &Path,
        covered: Option<Position>,
        is_live: bool,
    ) -> Result<Self, OpenError> {
        let survey = Self {
            dir: dir.into(),
            id: None,
            cold_reserved: None,
            segments: Vec::new(),
            cold: Vec::new(),
            spares: Vec::new(),
            unfinished: Vec::new(),
            others: Vec::new(),
            kinds: BTreeMap::new(),
            cold_kinds: BTreeMap::new(),
            gaps: Vec::new(),
            end: Position(0),
            ending: LogEnd::Clean,
            damage: Vec::new(),
        };
        let mut walk = Walk { disk, covered, is_live, survey, files: Vec::new() };
        let cold = walk.list()?;
        walk.identify()?;
        walk.find_headers()?;
        walk.segments()?;
        walk.cold(&cold)?;
        Ok(walk.survey)
    }

    /// Nothing of the log is damaged from `covered` on.
    pub(in crate::store) fn is_whole_from(&self, covered: u64) -> bool {
        let is_lost = |segment: &SegmentSurvey| segment.lost.iter().any(|(_, to)| to.0 > covered);
        let is_reached = self.end.0 >= covered && self.segments.first().is_some_and(|first| first.first.0 <= covered);
        is_reached && !self.segments.iter().any(is_lost) && !self.gaps.iter().any(|gap| gap.end.0 > covered)
    }

    /// Bytes of all segments and cold files.
    pub fn file_bytes(&self) -> u64 {
        let segments = self.segments.iter().map(|segment| segment.file_bytes);
        segments.chain(self.cold.iter().map(|cold| cold.file_bytes)).sum()
    }
}

/// A file with the name of a segment.
struct SegmentFile {
    number: u64,
    path: PathBuf,
    file_bytes: u64,
    header: Result<SegmentHeader, &'static str>,
    /// The highest watermark among its whole batches, once somebody asked.
    watermark: Option<Position>,
}

struct Walk<'a> {
    disk: &'a dyn Disk,
    covered: Option<Position>,
    is_live: bool,
    survey: LogSurvey,
    files: Vec<SegmentFile>,
}

/// Where the segment before ended.
#[derive(Clone, Copy)]
struct Before {
    number: u64,
    end: Position,
    batch: u64,
    chain: u32,
    /// Its last batch was whole and led up to the end.
    is_sure: bool,
}

impl Walk<'_> {
    fn tell(&mut self, file: &Path, segment: Option<u64>, position: Option<Position>, at: (u64, u64), what: &str) {
        let (file, what) = (file.to_owned(), what.to_owned());
        self.survey.damage.push(Damage { file, segment, position, at: at.0, bytes: at.1, what });
    }

    /// Sorts the names; returns the cold files.
    fn list(&mut self) -> Result<Vec<(u32, PathBuf)>, OpenError> {
        let dir = self.survey.dir.clone();
        let mut listed = match self.disk.list(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            listed => listed.map_err(OpenError::io(&dir))?,
        };
        listed.sort_by(|one, other| one.name.cmp(&other.name));
        let mut cold = Vec::new();
        for file in listed {
            let path = dir.join(&file.name);
            match file_kind(&file.name) {
                FileKind::Segment(number) => {
                    let header = match self.header(&path)? {
                        Some(header) => header,
                        None => continue,
                    };
                    let header = header.and_then(|header| match (header.number == number, header.purpose) {
                        (true, Purpose::Log) => Ok(header),
                        _ => Err("the segment's header is of another segment"),
                    });
                    let file_bytes = file.bytes;
                    self.files.push(SegmentFile { number, path, file_bytes, header, watermark: None });
                }
                FileKind::Cold(number) => cold.push((number, path)),
                FileKind::Spare(_) => self.survey.spares.push(file),
                FileKind::New => self.survey.unfinished.push(file),
                FileKind::Other if [LOCK_FILE, IDENTITY_FILE].contains(&file.name.as_str()) => {}
                FileKind::Other => self.survey.others.push(file.name),
            }
        }
        Ok(cold)
    }

    /// A segment's header, or what is wrong with it; `None` if the file vanished.
    fn header(&self, path: &Path) -> Result<Option<Result<SegmentHeader, &'static str>>, OpenError> {
        let found = match self.disk.open(path, Access::Read) {
            Err(error) if self.is_live && error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.and_then(|file| read(&*file)).map_err(OpenError::io(path))?,
        };
        match found {
            Ok(header) => Ok(Some(Ok(header))),
            Err(HeaderFault::Damaged(what)) => Ok(Some(Err(what))),
            Err(HeaderFault::Newer(found)) => {
                Err(OpenError::NewerFormat { file: path.into(), found, known: FORMAT_VERSION })
            }
        }
    }

    fn identify(&mut self) -> Result<(), OpenError> {
        let path = self.survey.dir.join(IDENTITY_FILE);
        let identity = match self.disk.open(&path, Access::Read) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            _ => self.header(&path)?,
        };
        let of_segments = self.files.iter().find_map(|file| file.header.as_ref().ok().map(|header| header.store));
        // It is written after the first segment.
        let is_due = self.files.len() > 1 || self.files.iter().any(|file| file.number > 1);
        match &identity {
            Some(Ok(header)) => {
                self.survey.id = Some(header.store);
                self.survey.cold_reserved = Some(header.cold_reserved);
            }
            Some(Err(what)) => {
                self.tell(&path, None, None, (0, SEGMENT_HEADER_BYTES as u64), what);
                self.survey.id = of_segments;
            }
            None => {
                if is_due {
                    self.tell(&path, None, None, (0, 0), "the file is missing");
                }
                self.survey.id = of_segments;
            }
        }
        if let Some(Ok(_)) = identity
            && self.files.is_empty()
            && !self.is_live
        {
            self.tell(&path, None, Some(Position(0)), (0, 0), "there are no segments beside it: they are missing");
        }
        let id = self.survey.id;
        for file in &mut self.files {
            if file.header.as_ref().is_ok_and(|header| Some(header.store) != id) {
                file.header = Err("the segment is of another store");
            }
        }
        Ok(())
    }

    /// What headers that are damaged must have been, as far as the first batch of the file tells.
    fn find_headers(&mut self) -> Result<(), OpenError> {
        for at in 0..self.files.len() {
            let file = &self.files[at];
            let Err(what) = file.header else { continue };
            let (path, number, file_bytes) = (file.path.clone(), file.number, file.file_bytes);
            self.tell(&path, Some(number), None, (0, SEGMENT_HEADER_BYTES as u64), what);
            let Some(store) = self.survey.id else { continue };
            let opened = self.disk.open(&path, Access::Read).map_err(OpenError::io(&path))?;
            let mut bytes = vec![0; 2 * SEGMENT_HEADER_BYTES];
            let filled = opened.read_full_at(&mut bytes, 0).map_err(OpenError::io(&path))?;
            let begins = (SEGMENT_HEADER_BYTES..filled.saturating_sub(BATCH_HEADER_BYTES)).step_by(BATCH_ALIGN);
            let header = begins.filter_map(|place| {
                let first = BatchHeader::claimed(&bytes[place..filled], tag_of(&store))?;
                let is_here = first.first.0 % SEGMENT_HEADER_BYTES as u64 == (place - SEGMENT_HEADER_BYTES) as u64;
                is_here.then(|| SegmentHeader {
                    purpose: Purpose::Log,
                    store,
                    number,
                    first: first.first,
                    watermark: first.watermark.min(first.first),
                    chain: first.chain,
                    batch: first.number,
                    epoch: first.epoch,
                    time_ms: first.time_ms,
                    file_bytes,
                    cold_reserved: 0,
                })
            });
            if let Some(header) = header.into_iter().next() {
                self.files[at].header = Ok(header);
            }
        }
        Ok(())
    }

    fn segments(&mut self) -> Result<(), OpenError> {
        let mut before: Option<Before> = None;
        for at in 0..self.files.len() {
            let number = self.files[at].number;
            let follows = before.filter(|before| before.number + 1 == number);
            let header = match (&self.files[at].header, follows, self.survey.id) {
                (Ok(header), ..) => header.clone(),
                // It begins where the one before ended.
                (Err(_), Some(before), Some(store)) if before.is_sure => SegmentHeader {
                    purpose: Purpose::Log,
                    store,
                    number,
                    first: before.end,
                    watermark: Position(0),
                    chain: before.chain,
                    batch: before.batch,
                    epoch: self.survey.segments.last().map_or(0, |last| last.epochs.1),
                    time_ms: self.survey.segments.last().map_or(0, |last| last.times_ms.1),
                    file_bytes: self.files[at].file_bytes,
                    cold_reserved: 0,
                },
                // Nothing says which positions it holds.
                _ => continue,
            };
            self.check_gap(before, &header);
            if let (Some(before), true) = (follows.filter(|before| before.is_sure), self.files[at].header.is_ok())
                && before.end != header.first
            {
                let path = self.files[at].path.clone();
                let what = "the segment does not follow the one before it";
                self.tell(&path, Some(number), Some(header.first), (0, 0), what);
            }
            let Some((after, is_end)) = self.segment(at, header)? else { continue };
            self.survey.end = after.end;
            before = Some(after);
            if is_end {
                for file in &self.files[at + 1..] {
                    let Ok(header) = &file.header else { continue };
                    self.survey.segments.push(SegmentSurvey { is_cut_off: true, ..begin(file, header.clone()) });
                }
                break;
            }
        }
        if let Some(covered) = self.covered.filter(|covered| self.survey.end < *covered && !self.is_live)
            && !self.files.is_empty()
        {
            let (dir, end) = (self.survey.dir.clone(), self.survey.end);
            let what = "the log ends here, before what the checkpoint covers";
            self.tell(&dir, before.map(|before| before.number), Some(end), (0, covered.0 - end.0), what);
        }
        Ok(())
    }

    /// What is not there before a segment.
    fn check_gap(&mut self, before: Option<Before>, header: &SegmentHeader) {
        let (first_number, first) = before.map_or((1, Position(0)), |before| (before.number + 1, before.end));
        if first_number >= header.number {
            return;
        }
        let is_loss = self.covered.is_some_and(|covered| covered < header.first) && !self.is_live;
        let gap = Gap { first_number, last_number: header.number - 1, first, end: header.first, is_loss };
        self.survey.gaps.push(gap);
        if is_loss {
            let begin = first.max(self.covered.unwrap_or_default());
            let dir = self.survey.dir.clone();
            let what = format!("segments {first_number} to {} are missing", gap.last_number);
            self.tell(&dir, Some(first_number), Some(begin), (0, header.first.0 - begin.0), &what);
        }
    }

    /// Reads a segment through. Says where it ends, and whether the log does; `None` if it vanished.
    fn segment(&mut self, at: usize, header: SegmentHeader) -> Result<Option<(Before, bool)>, OpenError> {
        let path = self.files[at].path.clone();
        let io = || OpenError::io(&path);
        let file = match self.disk.open(&path, Access::Read) {
            Err(error) if self.is_live && error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(io())?,
        };
        let file_bytes = file.bytes().map_err(io())?;
        let number = header.number;
        let mut survey = begin(&self.files[at], header.clone());
        let next = self.files.get(at + 1).filter(|next| next.number == number + 1);
        let is_before_gap = next.is_none() && at + 1 < self.files.len();
        let limit = next.and_then(|next| next.header.as_ref().ok().map(|header| header.first));
        let mut scanner = Scanner::with_header(file, &path, file_bytes, header.clone());
        let (mut kinds, mut damage) = (BTreeMap::new(), Vec::new());
        let mut is_sure = true;
        let mut retries = if self.is_live { 3 } else { 0 };
        let mut is_end = false;
        let mut tell = |position: Position, bytes: u64, what: &str| {
            let (file, at) = (path.clone(), header.place(position));
            let what = what.to_owned();
            damage.push(Damage { file, segment: Some(number), position: Some(position), at, bytes, what });
        };
        if file_bytes < header.file_bytes {
            let what = "the file was cut short";
            tell(Position(header.first.0.saturating_add(file_bytes)), header.file_bytes - file_bytes, what);
        }
        loop {
            if limit.is_some_and(|limit| limit <= scanner.next) {
                break;
            }
            let what = match scanner.step().map_err(io())? {
                Found::Batch(header, batch) => {
                    is_sure = true;
                    if let Err((position, what)) = tally(&header, batch, &mut survey, &mut kinds) {
                        tell(position, 0, what);
                    }
                    continue;
                }
                Found::Bad(what) => what,
            };
            let bad = scanner.next;
            let (mut evidence, remains) = scanner.look_behind(bad).map_err(io())?;
            if !is_before_gap {
                evidence = evidence.max(self.covered.unwrap_or_default()).max(self.evidence_behind(at, bad)?);
            }
            if bad >= evidence {
                // Nothing says that it had been synced. Before a gap, it is where the segment ended.
                if !is_before_gap {
                    let is_followed = at + 1 < self.files.len();
                    is_end = limit.is_some() || !is_followed;
                    let bytes = remains.saturating_sub(header.place(bad));
                    if is_end && (bytes > 0 || is_followed) {
                        self.survey.ending = LogEnd::Torn { file: path.clone(), what, bytes };
                    }
                }
                break;
            }
            if retries > 0 {
                retries -= 1;
                scanner.forget();
                // A segment that was released meanwhile has other contents by now.
                match self.header(&path)? {
                    Some(Ok(now)) if now == header => continue,
                    _ => return Ok(None),
                }
            }
            is_sure = false;
            let to = end_of_damage(&mut scanner, bad, limit, evidence).map_err(io())?;
            tell(bad, to.0 - bad.0, what);
            survey.lost.push((bad, to));
            if limit == Some(to) || scanner.claim_at(to).map_err(io())?.is_none() {
                scanner.next = to;
                break;
            }
            scanner.resume(to).map_err(io())?;
        }
        survey.end = scanner.next;
        self.survey.segments.push(survey);
        self.survey.damage.append(&mut damage);
        add(&mut self.survey.kinds, &kinds);
        let after = Before { number, end: scanner.next, batch: scanner.number, chain: scanner.chain, is_sure };
        Ok(Some((after, is_end)))
    }

    /// The highest watermark in the segments behind the one at `at`, as far as it is needed to know
    /// whether it is above `bad`.
    fn evidence_behind(&mut self, at: usize, bad: Position) -> Result<Position, OpenError> {
        let headers = self.files[at + 1..].iter().filter_map(|file| file.header.as_ref().ok());
        let mut watermark = headers.map(|header| header.watermark).max().unwrap_or_default();
        for file in &mut self.files[at + 1..] {
            if watermark > bad {
                break;
            }
            let Ok(header) = &file.header else { continue };
            let found = match file.watermark {
                Some(found) => found,
                None => {
                    let opened = self.disk.open(&file.path, Access::Read).map_err(OpenError::io(&file.path))?;
                    let bytes = opened.bytes().map_err(OpenError::io(&file.path))?;
                    let mut scanner = Scanner::with_header(opened, &file.path, bytes, header.clone());
                    scanner.look_behind(header.first).map_err(OpenError::io(&file.path))?.0
                }
            };
            file.watermark = Some(found);
            watermark = watermark.max(found);
        }
        Ok(watermark)
    }

    fn cold(&mut self, files: &[(u32, PathBuf)]) -> Result<(), OpenError> {
        for (number, path) in files {
            let (mut kinds, mut damage) = (BTreeMap::new(), Vec::new());
            let taken = ColdSurvey::take(self.disk, path, *number, &mut damage, |_, record| count(&mut kinds, record));
            let is_gone = || {
                let listed = self.disk.open(path, Access::Read);
                self.is_live && listed.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
            };
            match taken {
                Ok(_) | Err(OpenError::Io { .. }) if is_gone() => {}
                Ok(cold) => {
                    self.survey.cold.push(cold);
                    self.survey.damage.append(&mut damage);
                    add(&mut self.survey.cold_kinds, &kinds);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The latest time in the segment headers of a log, in milliseconds since 1970: the broker's clock is not
/// before it. `None` if there is no log, or none that can be read.
pub fn last_time_ms(disk: &dyn Disk, dir: &Path) -> Option<u64> {
    let segments =
        disk.list(dir).ok()?.into_iter().filter(|file| matches!(file_kind(&file.name), FileKind::Segment(_)));
    let header = |file: Listed| read(&*disk.open(&dir.join(file.name), Access::Read).ok()?).ok()?.ok();
    segments.filter_map(header).map(|header| header.time_ms).max()
}

fn begin(file: &SegmentFile, header: SegmentHeader) -> SegmentSurvey {
    SegmentSurvey {
        number: file.number,
        file: file.path.clone(),
        file_bytes: file.file_bytes,
        format: FORMAT_VERSION,
        first: header.first,
        end: header.first,
        epochs: (header.epoch, header.epoch),
        times_ms: (header.time_ms, header.time_ms),
        batches: 0,
        records: 0,
        is_cut_off: false,
        header,
        lost: Vec::new(),
    }
}

/// Where the damage that begins at `bad` ends: at the next place where a batch claims to stand.
fn end_of_damage(
    scanner: &mut Scanner,
    bad: Position,
    limit: Option<Position>,
    evidence: Position,
) -> io::Result<Position> {
    // Mostly the header is right and a byte of a record is not.
    if let Some(length) = scanner.claim_at(bad)? {
        let end = bad.plus(length);
        if limit == Some(end) || end == evidence || scanner.claim_at(end)?.is_some() {
            return Ok(end);
        }
    }
    let next = scanner.next_claim(bad.plus(BATCH_HEADER_BYTES), limit)?;
    let last = limit.unwrap_or(Position(evidence.0.max(bad.0 + 1).next_multiple_of(BATCH_ALIGN as u64)));
    Ok(next.unwrap_or_else(|| last.max(bad.plus(BATCH_HEADER_BYTES))))
}

fn tally(
    header: &BatchHeader,
    batch: &[u8],
    survey: &mut SegmentSurvey,
    kinds: &mut BTreeMap<u8, Tally>,
) -> Result<(), (Position, &'static str)> {
    if survey.batches == 0 {
        (survey.epochs.0, survey.times_ms.0) = (header.epoch, header.time_ms);
    }
    (survey.epochs.1, survey.times_ms.1) = (header.epoch, header.time_ms);
    survey.batches += 1;
    for record in Records::new(batch, header) {
        let record = record.map_err(|what| (header.first, what))?;
        let at = (record.position.0 - header.first.0) as usize;
        let bytes = &batch[at..at + RECORD_HEADER_BYTES + record.body.len()];
        format::check_whole(bytes, record.position).map_err(|what| (record.position, what))?;
        count(kinds, bytes);
        survey.records += 1;
    }
    Ok(())
}

fn count(kinds: &mut BTreeMap<u8, Tally>, record: &[u8]) {
    let tally: &mut Tally = kinds.entry(record[8]).or_default();
    tally.records += 1;
    tally.bytes += record.len() as u64;
}

fn add(all: &mut BTreeMap<u8, Tally>, more: &BTreeMap<u8, Tally>) {
    for (kind, tally) in more {
        let sum = all.entry(*kind).or_default();
        sum.records += tally.records;
        sum.bytes += tally.bytes;
    }
}
