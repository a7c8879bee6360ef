//! What the task of a connection asks of its session, whatever protocol it speaks.

use crate::broker::{block::Block, time::Time};

/// What came of some input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that were used; the rest is the beginning of a frame.
    pub consumed: usize,
    /// Bytes that this frame needs in all, if that is known: room to make for the next read.
    pub wanted: usize,
}

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Logging in, or saying good-bye.
    Other,
    /// Logged in.
    Running,
    /// The socket is to be closed once the output is written.
    Over,
}

/// A connection as a state machine: it owns no socket and reads no clock.
pub trait Session: Send {
    /// Acts on received bytes, which are all of `input`.
    fn handle_input(&mut self, input: &Block, now: Time) -> Progress;
    /// Acts on what happened elsewhere.
    fn handle_events(&mut self, now: Time);
    /// Does what is due.
    fn handle_timeout(&mut self, now: Time);
    /// When [`Self::handle_timeout`] is to be called next.
    fn poll_timeout(&self) -> Time;
    /// How far it has come.
    fn phase(&self) -> Phase;
    /// Whether more input is welcome.
    fn wants_input(&self) -> bool;
    /// Whether it left input unread that it could have read. When that is over, what was not used is
    /// to be handed in again without waiting for more.
    fn has_unread(&self) -> bool;
    /// Whoever does not read because the log has no room is told when to look again.
    fn wait_for_room(&self);
    /// Some octets have come that are not worth handing in yet: the peer is not silent.
    fn note_trickle(&mut self, now: Time);
    /// The peer is gone, or the connection is over: everything that it held goes back.
    fn close(&mut self, now: Time);
    /// Whether the client is to close the socket of a connection that ended in good order.
    fn is_closed_by_peer(&self) -> bool;
    /// The user who logged in.
    fn user_name(&self) -> Option<&str>;
    /// The vhost that was opened.
    fn vhost_name(&self) -> Option<&str>;
    /// Why it ended, if it was not by the client's wish.
    fn ended_by(&self) -> Option<&str>;
}
