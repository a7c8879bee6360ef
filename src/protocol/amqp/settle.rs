//! Acknowledgements: from delivery tags to settles at the queues, gathered and applied together.

use std::sync::Arc;

use super::{
    channel::Mode,
    codec::{
        hot,
        method::{AMQPClass, basic},
    },
    methods::not_for_stream,
    reply::{Code, Failure},
    session::Session,
};
use crate::broker::{
    consumer::{Held, Ledger, Settle, Taken},
    queue::Queue,
    turn::Turn,
};

/// A stream keeps its messages: they can be neither refused nor put back.
pub(in crate::protocol) fn refuse_streams(ledger: &Ledger, tag: u64, multiple: bool) -> Result<(), Failure> {
    let is_stream = |source: u32| ledger.source(source).is_some_and(|source| source.queue.is_stream());
    let found = match (multiple, tag) {
        (false, tag) => ledger.source_of(tag).filter(|source| is_stream(*source)),
        (true, tag) if ledger.sources().any(|(_, source)| source.queue.is_stream()) => {
            let end = if tag == 0 { u64::MAX } else { tag.saturating_add(1) };
            ledger.first_below(end, |source| if is_stream(source) { u64::MAX } else { 0 })
        }
        _ => None,
    };
    match found.and_then(|source| ledger.source(source)) {
        Some(source) => Err(not_for_stream(&source.queue, "basic.nack and basic.reject")),
        None => Ok(()),
    }
}

impl Session {
    pub(super) fn ack(&mut self, channel: u16, ack: hot::Ack) -> Result<(), Failure> {
        self.settle_tags(channel, ack.delivery_tag, ack.multiple, Settle::Accepted)
    }

    pub(super) fn reject(&mut self, channel: u16, tag: u64, multiple: bool, requeue: bool) -> Result<(), Failure> {
        let how = if requeue { Settle::Requeued } else { Settle::Rejected };
        self.settle_tags(channel, tag, multiple, how)
    }

    fn settle_tags(&mut self, number: u16, tag: u64, multiple: bool, how: Settle) -> Result<(), Failure> {
        let unknown = || Failure::channel(Code::PreconditionFailed, format!("unknown delivery tag {tag}"));
        let shared = self.shared.clone();
        let mut output = shared.output();
        let open = output.channel(number).ok_or_else(unknown)?;
        let Some(channel) = self.channels.get_mut(&number) else { return Err(unknown()) };
        if how != Settle::Accepted {
            // Before anything is taken: what is refused stays unsettled, and goes back with the channel.
            refuse_streams(&open.ledger, tag, multiple)?;
        }
        if channel.shared_credit.is_some() {
            self.settles.credit(number);
        }
        let mut taken = Vec::new();
        if !multiple {
            let one = open.ledger.take(tag).ok_or_else(unknown)?;
            if !matches!(channel.mode, Mode::Transaction(_)) {
                if let Some(source) = open.ledger.source(one.source) {
                    self.settles.add(&source.queue, how, one.held);
                }
                open.ledger.sweep();
                return Ok(());
            }
            taken.push(one);
        } else {
            if tag != 0 && !open.ledger.contains(tag) {
                return Err(unknown());
            }
            open.ledger.take_up_to(tag, &mut taken);
        }
        match &mut channel.mode {
            Mode::Transaction(transaction) => {
                // The sources stay open until commit, so that their queues are known then.
                open.ledger.keep_sources(&taken);
                open.status.uncommitted_settles += taken.len() as u64;
                transaction.settled.push((taken, how));
            }
            _ => {
                for one in &taken {
                    if let Some(source) = open.ledger.source(one.source) {
                        self.settles.add(&source.queue, how, one.held);
                    }
                }
                open.ledger.sweep();
            }
        }
        Ok(())
    }

    /// Applies settles of a transaction, or forgets them: then the deliveries are unsettled again.
    pub(super) fn finish_settles(&mut self, number: u16, settled: Vec<(Vec<Taken>, Settle)>, is_commit: bool) {
        let shared = self.shared.clone();
        let mut output = shared.output();
        let Some(open) = output.channel(number) else { return };
        open.status.uncommitted_settles = 0;
        for (taken, how) in settled {
            if !is_commit {
                open.ledger.put_back(&taken);
                continue;
            }
            for one in &taken {
                if let Some(source) = open.ledger.source(one.source) {
                    self.settles.add(&source.queue, how, one.held);
                }
            }
            open.ledger.release_sources(&taken);
        }
        open.ledger.sweep();
    }

    pub(super) fn recover(
        &mut self,
        number: u16,
        requeue: bool,
        wants_answer: bool,
        turn: &mut Turn<'_>,
    ) -> Result<(), Failure> {
        if !requeue {
            return Err(Failure::connection(Code::NotImplemented, "requeue=false"));
        }
        if wants_answer {
            let ok = basic::AMQPMethod::RecoverOk(basic::RecoverOk {});
            self.reply(number, AMQPClass::Basic(ok), turn);
        }
        for (queue, requeued, returned) in self.take_deliveries(number) {
            queue.leave(&[], &requeued, &returned, turn);
        }
        if self.channels.get(&number).is_some_and(|channel| channel.shared_credit.is_some()) {
            self.resume_sharers(number, turn);
        }
        Ok(())
    }

    /// Takes everything that a channel holds out of its ledger, by queue: what was transmitted, and
    /// what never was and goes back as if it had not left.
    pub(super) fn take_deliveries(&mut self, number: u16) -> Vec<(Arc<Queue>, Vec<Held>, Vec<Held>)> {
        let shared = self.shared.clone();
        let mut output = shared.output();
        let sent_bytes = output.sent_bytes();
        let Some(open) = output.channel(number) else { return Vec::new() };
        let mut taken = Vec::new();
        open.ledger.take_up_to(0, &mut taken);
        if let Some(Mode::Transaction(transaction)) = self.channels.get_mut(&number).map(|channel| &mut channel.mode) {
            let settled = std::mem::take(&mut transaction.settled);
            let settled: Vec<_> = settled.into_iter().flat_map(|(taken, _)| taken).collect();
            open.ledger.release_sources(&settled);
            open.status.uncommitted_settles = 0;
            taken.extend(settled);
            taken.sort_unstable_by_key(|one| one.tag);
        }
        open.ledger.leave(taken, sent_bytes)
    }
}
