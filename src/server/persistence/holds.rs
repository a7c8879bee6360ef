//! Reads the pages that exchanges ask for of the messages that they hold back.

use super::{entries, messages};
use crate::{
    broker::{
        Broker,
        exchange::holds::{HoldEntry, HoldsPage, HoldsRequest},
        message::Message,
        record::HoldKey,
        turn::Turn,
    },
    server::clock,
    store::{
        self, Block, Log, Reading,
        index::{self, Index},
    },
};

/// Reads a page and gives it to who asked.
pub(super) fn answer(request: &HoldsRequest, index: &Index, log: &Log, broker: &Broker, block: &mut Block) {
    let Some(exchange) = request.exchange.upgrade() else { return };
    let page = read_kept(request, index, log, block);
    let mut turn = Turn::new(broker, clock::now());
    exchange.page_in(page, &mut turn);
    turn.end();
    broker.waiting.proceed();
}

fn read_kept(request: &HoldsRequest, index: &Index, log: &Log, block: &mut Block) -> HoldsPage<Message> {
    let number = || index.checkpoint().map(|checkpoint| checkpoint.number);
    let mut seen = number();
    let mut page = read(request, index, log, block);
    // A message that was moved meanwhile is no longer where it was.
    while page.result.is_err() && number() != seen {
        seen = number();
        page = read(request, index, log, block);
    }
    page
}

fn read(request: &HoldsRequest, index: &Index, log: &Log, block: &mut Block) -> HoldsPage<Message> {
    let (result, next) = match find(request, index) {
        Ok((found, next)) => (with_messages(log, found, block), next),
        Err(error) => (Err(error.to_string()), None),
    };
    HoldsPage { wanted: request.wanted, result, next }
}

fn find(request: &HoldsRequest, index: &Index) -> Result<(Vec<HoldEntry>, Option<HoldKey>), index::Error> {
    let wanted = request.wanted;
    let from = entries::hold_rank(wanted.from);
    let mut scan = index.snapshot().scan(entries::HOLDS, entries::holds_owner(request.identity), from);
    let (mut found, mut bytes) = (Vec::new(), 0_u64);
    while let Some((rank, value)) = scan.next_entry()? {
        if found.len() >= wanted.messages_max || !found.is_empty() && bytes >= wanted.bytes_max {
            return Ok((found, Some(entries::key_of_hold(rank))));
        }
        if let Some(entry) = entries::hold(rank, value) {
            bytes += entry.body_bytes;
            found.push(entry);
        }
    }
    Ok((found, None))
}

fn with_messages(log: &Log, found: Vec<HoldEntry>, block: &mut Block) -> Result<Vec<(HoldEntry, Message)>, String> {
    let places: Vec<_> = found.iter().map(|entry| store::Position(entry.place.0)).collect();
    let read = messages::read_messages(log, &places, Reading::Once, block)?;
    Ok(found.into_iter().zip(read).collect())
}
