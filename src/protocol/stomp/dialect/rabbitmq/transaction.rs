//! BEGIN, COMMIT and ABORT in RabbitMQ's words. Beginning again forgets what there was.

use super::super::super::{
    codec::Head,
    reply::{self, Refusal},
    session::Session,
};
use crate::broker::turn::Turn;

impl Session {
    pub(super) fn begin(&mut self, head: &Head<'_>) -> Result<(), Refusal> {
        self.begin_transaction(&name_of(head, "BEGIN")?)
    }

    pub(super) fn abort(&mut self, head: &Head<'_>, turn: &mut Turn<'_>) -> Result<(), Refusal> {
        let name = name_of(head, "ABORT")?;
        if self.abort_transaction(&name, turn) { Ok(()) } else { Err(unknown(&name)) }
    }

    pub(super) fn commit(&mut self, head: &Head<'_>, turn: &mut Turn<'_>) -> Result<(), Refusal> {
        let name = name_of(head, "COMMIT")?;
        if self.commit_transaction(&name, turn)? { Ok(()) } else { Err(unknown(&name)) }
    }
}

fn name_of(head: &Head<'_>, command: &str) -> Result<Vec<u8>, Refusal> {
    head.get("transaction").map(|name| name.into_owned()).ok_or_else(|| {
        Refusal::new("Missing transaction", format!("\"{command}\" must include a 'transaction' header\n"))
    })
}

pub(super) fn unknown(name: &[u8]) -> Refusal {
    Refusal::new("Bad transaction", format!("Invalid transaction identifier: {}\n", reply::quoted(name)))
}
