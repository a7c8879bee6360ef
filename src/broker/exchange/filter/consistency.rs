//! Whether the conditions of a branch are satisfied by values that belong together.
//!
//! Of an array, all conditions must be satisfied by the same element: `{"items": {"kind": ["a"], "size": [1]}}` does
//! not match `{"items": [{"kind": "a", "size": 2}, {"kind": "b", "size": 1}]}`. Elements are chosen array by array,
//! so the question is answered from the innermost array outwards by the sets of conditions that can be satisfied
//! together; with five conditions such a set of sets fits into 32 bits.

use smallvec::SmallVec;

use super::body::{Fields, Place};
use super::compile::NAMES_MAX;
use super::index::{ConditionId, Index, NameId};

/// Sets of conditions that can be satisfied together: bit `n` is the set whose members are the bits of `n`.
type Sets = u32;

const _: () = assert!(1 << NAMES_MAX <= Sets::BITS);

const NOTHING: Sets = 1;

/// A value that satisfies a condition.
struct Hit<'f> {
    bit: u32,
    places: &'f [Place],
}

/// Whether one choice of array elements satisfies all conditions, each of which some value or absence satisfies.
pub(super) fn agree(
    index: &Index,
    conditions: &[ConditionId],
    fields: &Fields<'_>,
    is_absent: &dyn Fn(NameId) -> bool,
) -> bool {
    if conditions.len() < 2 {
        return true;
    }
    let all = (1_u32 << conditions.len()) - 1;
    let mut free = 0_u32;
    let mut by_name: SmallVec<[(NameId, u32); NAMES_MAX]> = SmallVec::new();
    for (bit, condition) in conditions.iter().enumerate() {
        let name = index.name_of(*condition);
        if index.wants_absence(*condition) && is_absent(name) {
            free |= 1 << bit;
        } else {
            by_name.push((name, bit as u32));
        }
    }
    let mut hits: SmallVec<[Hit<'_>; 16]> = SmallVec::new();
    for occurrence in &fields.occurrences {
        let Some((_, bit)) = by_name.iter().find(|(name, _)| *name == occurrence.name) else { continue };
        if free & 1 << bit != 0 || !index.is_satisfied(conditions[*bit as usize], &occurrence.value) {
            continue;
        }
        match fields.places(occurrence) {
            [] => free |= 1 << bit,
            places => hits.push(Hit { bit: *bit, places }),
        }
        if free == all {
            return true;
        }
    }
    // A single condition left is satisfied by its hit, wherever that is.
    if (all & !free).count_ones() < 2 {
        return true;
    }
    let reachable = together(&hits, 0);
    (0..=all).any(|set| reachable & 1 << set != 0 && set | free == all)
}

fn together(hits: &[Hit<'_>], depth: usize) -> Sets {
    let mut sets = NOTHING;
    let mut rest = hits;
    while let Some(first) = rest.first() {
        let Some(place) = first.places.get(depth) else {
            sets = join(sets, NOTHING | 1 << (1_u32 << first.bit));
            rest = &rest[1..];
            continue;
        };
        // Values of an array follow each other, and so do those of an element.
        let (mut array, others) =
            split(rest, |hit| hit.places.get(depth).is_some_and(|other| other.array == place.array));
        rest = others;
        let mut of_array = NOTHING;
        while let Some(element) = array.first().and_then(|hit| hit.places.get(depth)) {
            let (in_element, others) = split(array, |hit| hit.places.get(depth) == Some(element));
            of_array |= together(in_element, depth + 1);
            array = others;
        }
        sets = join(sets, of_array);
    }
    sets
}

fn split<'h, 'f>(hits: &'h [Hit<'f>], is_in: impl Fn(&Hit<'f>) -> bool) -> (&'h [Hit<'f>], &'h [Hit<'f>]) {
    let end = hits.iter().position(|hit| !is_in(hit)).unwrap_or(hits.len());
    hits.split_at(end)
}

/// Every set of the one with every set of the other.
fn join(one: Sets, other: Sets) -> Sets {
    let members = |sets: Sets| (0..Sets::BITS).filter(move |set| sets & 1 << set != 0);
    members(one).flat_map(|a| members(other).map(move |b| a | b)).fold(0, |sets, set| sets | 1 << set)
}
