//! Permissions of callers, remembered: a call asks one small map instead of a regular expression.

use std::sync::Arc;

use dashmap::DashMap;
use parking_lot::Mutex;

use crate::broker::access::{Access, Checker, Users};

/// A [`Checker`] for each user and vhost that was asked for.
#[derive(Default)]
pub struct Checkers {
    known: DashMap<Place, Arc<Mutex<Checker>>, foldhash::fast::RandomState>,
}

/// A user and a vhost.
type Place = (Arc<str>, Arc<str>);

/// Pairs of users and vhosts that are remembered. Full: forget all.
const CHECKERS_COUNT_MAX: usize = 4096;

impl Checkers {
    /// Whether a user's permissions on a vhost grant access to the queue or exchange of that name.
    pub fn check(&self, users: &Users, user: &Arc<str>, vhost: &str, name: &str, access: Access) -> bool {
        let key = (user.clone(), Arc::from(vhost));
        let known = self.known.get(&key).map(|entry| entry.value().clone());
        let checker = known.unwrap_or_else(|| {
            if self.known.len() >= CHECKERS_COUNT_MAX {
                self.known.clear();
            }
            let checker = Arc::new(Mutex::new(Checker::new(users, user, vhost, None)));
            self.known.insert(key, checker.clone());
            checker
        });
        let mut checker = checker.lock();
        checker.check(users, name, access)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::access::Permissions;

    #[test]
    fn permissions_of_a_user_hold_and_change_at_once() {
        let (users, checkers, user) = (Users::default(), Checkers::default(), Arc::from("u"));
        users.add("u", "secret").unwrap();
        assert!(!checkers.check(&users, &user, "/", "q", Access::Write));
        users.set_permissions("u", "/", Permissions::all()).unwrap();
        assert!(checkers.check(&users, &user, "/", "q", Access::Write));
        assert!(!checkers.check(&users, &user, "other", "q", Access::Write));
    }
}
