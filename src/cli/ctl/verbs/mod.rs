//! All verbs, by subject.

mod access_keys;
mod broker;
mod health;
mod listings;
mod permissions;
mod policies;
mod users;
mod vhosts;

pub(super) use health::{described, listeners, ping_timeout_ms};

use super::Program;
use super::verb::{Arity, Verb};

/// The verbs of a program.
pub(super) fn of(program: Program) -> impl Iterator<Item = &'static Verb> {
    all().filter(move |verb| verb.section.is_of(program))
}

/// The verb of that name. A verb that only the other program lists is not found, but `ping`,
/// `status` and the listings belong to both.
pub(super) fn find(program: Program, name: &str) -> Option<&'static Verb> {
    of(program).find(|verb| verb.name == name)
}

fn all() -> impl Iterator<Item = &'static Verb> {
    [
        users::VERBS,
        access_keys::VERBS,
        permissions::VERBS,
        vhosts::VERBS,
        policies::VERBS,
        listings::VERBS,
        broker::VERBS,
        health::VERBS,
    ]
    .into_iter()
    .flatten()
}

const fn exactly(count: usize) -> Arity {
    Arity { min: count, max: count }
}

const fn between(min: usize, max: usize) -> Arity {
    Arity { min, max }
}

const fn at_least(min: usize) -> Arity {
    Arity { min, max: usize::MAX }
}
