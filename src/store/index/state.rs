//! What the manifest says: the runs, heads and drops of a checkpoint, and how records change them.
//!
//! ```text
//! state    1 + commit (0: no checkpoint yet), covered, note, attachment, previous covered,
//!          runs, heads with commits, drops with commits
//! commit   covered, note, attachment (0: as before), added runs, removed run numbers,
//!          heads, dropped owners
//! merge    added runs, removed run numbers, moved runs: number, level, group
//!
//! run         number, level, group, first commit, last commit, file bytes, crc of its footer (u32)
//! attachment  0; or 1, number, bytes, crc (u32)
//! head        tree (u8), owner, order, seq [, commit]
//! ```
//! Lists begin with their count; texts with their length. Numbers are varints unless said otherwise.

use std::sync::Arc;

use super::{
    Attachment, Checkpoint,
    coding::{Reader, put_bytes, put_varint},
    heads::{Head, Heads},
    key::Rank,
    run::RunMeta,
};

/// The runs, heads and drops after some record of the manifest.
#[derive(Clone, Default)]
pub(super) struct State {
    /// The number of the last commit.
    pub(super) commit: u64,
    pub(super) checkpoint: Option<Arc<Checkpoint>>,
    pub(super) runs: Vec<RunMeta>,
    pub(super) heads: Heads,
}

/// What one commit changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct CommitEdit {
    pub(super) covered: u64,
    pub(super) note: Vec<u8>,
    /// `None` leaves the attachment as it was.
    pub(super) attachment: Option<Attachment>,
    pub(super) added: Vec<RunMeta>,
    pub(super) removed: Vec<u64>,
    pub(super) heads: Vec<(u8, u64, Rank)>,
    pub(super) drops: Vec<u64>,
}

/// What one merge changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct MergeEdit {
    pub(super) added: Vec<RunMeta>,
    pub(super) removed: Vec<u64>,
    /// Number, new level and new group of runs that stay as they are.
    pub(super) moved: Vec<(u64, u8, u64)>,
}

const RUN_BYTES_MIN: usize = 6 + 4;
const HEAD_BYTES_MIN: usize = 4;

impl State {
    pub(super) fn apply_commit(&mut self, commit: u64, edit: &CommitEdit) {
        let before = self.checkpoint.take();
        self.checkpoint = Some(Arc::new(checkpoint_after(before.as_deref(), commit, edit)));
        self.commit = commit;
        for (tree, owner, rank) in &edit.heads {
            self.heads.advance(*tree, *owner, Head { commit, rank: *rank });
        }
        for owner in &edit.drops {
            self.heads.drop_owner(*owner, commit);
        }
        self.runs.retain(|run| !edit.removed.contains(&run.number));
        self.runs.extend(&edit.added);
    }

    pub(super) fn apply_merge(&mut self, edit: &MergeEdit) {
        self.runs.retain(|run| !edit.removed.contains(&run.number));
        for (number, level, group) in &edit.moved {
            for run in self.runs.iter_mut().filter(|run| run.number == *number) {
                (run.level, run.group) = (*level, *group);
            }
        }
        self.runs.extend(&edit.added);
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match &self.checkpoint {
            None => put_varint(&mut out, 0),
            Some(checkpoint) => {
                put_varint(&mut out, 1);
                put_varint(&mut out, checkpoint.covered);
                put_bytes(&mut out, &checkpoint.note);
                put_attachment(&mut out, checkpoint.attachment.as_ref());
                put_varint(&mut out, u64::from(checkpoint.previous_covered.is_some()));
                put_varint(&mut out, checkpoint.previous_covered.unwrap_or_default());
            }
        }
        put_runs(&mut out, &self.runs);
        let mut heads: Vec<_> = self.heads.heads().collect();
        heads.sort_unstable_by_key(|(tree, owner, head)| (*tree, *owner, head.commit));
        put_varint(&mut out, heads.len() as u64);
        for (tree, owner, head) in heads {
            put_head(&mut out, tree, owner, head.rank);
            put_varint(&mut out, head.commit);
        }
        let mut drops: Vec<_> = self.heads.drops().collect();
        drops.sort_unstable();
        put_varint(&mut out, drops.len() as u64);
        for (owner, commit) in drops {
            put_varint(&mut out, owner);
            put_varint(&mut out, commit);
        }
        out
    }

    pub(super) fn decode(commit: u64, bytes: &[u8]) -> Option<State> {
        let mut reader = Reader::new(bytes);
        let mut state = State { commit, ..State::default() };
        if reader.varint()? != 0 {
            let covered = reader.varint()?;
            let note = reader.bytes()?.to_vec();
            let attachment = read_attachment(&mut reader)?;
            let has_previous = reader.varint()? != 0;
            let previous_covered = Some(reader.varint()?).filter(|_| has_previous);
            let checkpoint = Checkpoint { number: commit, covered, note, attachment, previous_covered };
            state.checkpoint = Some(Arc::new(checkpoint));
        }
        state.runs = read_runs(&mut reader)?;
        for _ in 0..reader.count(HEAD_BYTES_MIN + 1)? {
            let (tree, owner, rank) = read_head(&mut reader)?;
            state.heads.advance(tree, owner, Head { commit: reader.varint()?, rank });
        }
        for _ in 0..reader.count(2)? {
            state.heads.drop_owner(reader.varint()?, reader.varint()?);
        }
        (reader.left() == 0).then_some(state)
    }
}

/// The checkpoint that `edit` makes of the one before.
pub(super) fn checkpoint_after(before: Option<&Checkpoint>, commit: u64, edit: &CommitEdit) -> Checkpoint {
    Checkpoint {
        number: commit,
        covered: edit.covered,
        note: edit.note.clone(),
        attachment: edit.attachment.or_else(|| before.and_then(|before| before.attachment)),
        previous_covered: before.map(|before| before.covered),
    }
}

impl CommitEdit {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_varint(&mut out, self.covered);
        put_bytes(&mut out, &self.note);
        put_attachment(&mut out, self.attachment.as_ref());
        put_runs(&mut out, &self.added);
        put_numbers(&mut out, &self.removed);
        put_varint(&mut out, self.heads.len() as u64);
        for (tree, owner, rank) in &self.heads {
            put_head(&mut out, *tree, *owner, *rank);
        }
        put_numbers(&mut out, &self.drops);
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<CommitEdit> {
        let mut reader = Reader::new(bytes);
        let edit = CommitEdit {
            covered: reader.varint()?,
            note: reader.bytes()?.to_vec(),
            attachment: read_attachment(&mut reader)?,
            added: read_runs(&mut reader)?,
            removed: read_numbers(&mut reader)?,
            heads: (0..reader.count(HEAD_BYTES_MIN)?).map(|_| read_head(&mut reader)).collect::<Option<_>>()?,
            drops: read_numbers(&mut reader)?,
        };
        (reader.left() == 0).then_some(edit)
    }
}

impl MergeEdit {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_runs(&mut out, &self.added);
        put_numbers(&mut out, &self.removed);
        put_varint(&mut out, self.moved.len() as u64);
        for (number, level, group) in &self.moved {
            put_varint(&mut out, *number);
            put_varint(&mut out, u64::from(*level));
            put_varint(&mut out, *group);
        }
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<MergeEdit> {
        let mut reader = Reader::new(bytes);
        let edit = MergeEdit {
            added: read_runs(&mut reader)?,
            removed: read_numbers(&mut reader)?,
            moved: (0..reader.count(3)?)
                .map(|_| Some((reader.varint()?, u8::try_from(reader.varint()?).ok()?, reader.varint()?)))
                .collect::<Option<_>>()?,
        };
        (reader.left() == 0).then_some(edit)
    }
}

fn put_runs(out: &mut Vec<u8>, runs: &[RunMeta]) {
    put_varint(out, runs.len() as u64);
    for run in runs {
        put_varint(out, run.number);
        put_varint(out, u64::from(run.level));
        put_varint(out, run.group);
        put_varint(out, run.first_commit);
        put_varint(out, run.last_commit);
        put_varint(out, run.file_bytes);
        out.extend(run.footer_crc.to_le_bytes());
    }
}

fn read_runs(reader: &mut Reader<'_>) -> Option<Vec<RunMeta>> {
    (0..reader.count(RUN_BYTES_MIN)?)
        .map(|_| {
            Some(RunMeta {
                number: reader.varint()?,
                level: u8::try_from(reader.varint()?).ok()?,
                group: reader.varint()?,
                first_commit: reader.varint()?,
                last_commit: reader.varint()?,
                file_bytes: reader.varint()?,
                footer_crc: reader.u32()?,
            })
        })
        .collect()
}

fn put_numbers(out: &mut Vec<u8>, numbers: &[u64]) {
    put_varint(out, numbers.len() as u64);
    numbers.iter().for_each(|number| put_varint(out, *number));
}

fn read_numbers(reader: &mut Reader<'_>) -> Option<Vec<u64>> {
    (0..reader.count(1)?).map(|_| reader.varint()).collect()
}

fn put_attachment(out: &mut Vec<u8>, attachment: Option<&Attachment>) {
    put_varint(out, u64::from(attachment.is_some()));
    if let Some(attachment) = attachment {
        put_varint(out, attachment.number);
        put_varint(out, attachment.bytes);
        out.extend(attachment.crc.to_le_bytes());
    }
}

fn read_attachment(reader: &mut Reader<'_>) -> Option<Option<Attachment>> {
    Some(match reader.varint()? {
        0 => None,
        _ => Some(Attachment { number: reader.varint()?, bytes: reader.varint()?, crc: reader.u32()? }),
    })
}

fn put_head(out: &mut Vec<u8>, tree: u8, owner: u64, rank: Rank) {
    out.push(tree);
    put_varint(out, owner);
    put_varint(out, rank.order);
    put_varint(out, rank.seq);
}

fn read_head(reader: &mut Reader<'_>) -> Option<(u8, u64, Rank)> {
    Some((reader.u8()?, reader.varint()?, Rank { order: reader.varint()?, seq: reader.varint()? }))
}
