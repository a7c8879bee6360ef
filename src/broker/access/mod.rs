//! Who may do what: users, their passwords, tags and permissions.
//!
//! - `password`: stored hashes, RabbitMQ's and argon2id, and checking a password against one;
//! - `verified`: passwords that were right a moment ago;
//! - `user`: one user;
//! - `grants`: what a user may do on one vhost, compiled;
//! - `checker`: a session's view of its own grants, with its decisions remembered;
//! - `keys`: access keys of users, where requests are signed instead of logging in;
//! - `registry`: all users and permissions.
//!
//! On the message path only a [`Checker`] is asked; it takes no lock while nothing has changed.

mod checker;
mod grants;
pub mod keys;
mod password;
mod registry;
mod user;
mod verified;

pub use checker::Checker;
pub use grants::{Access, Grants, Permissions, TopicPermissions};
pub use password::{HashAlgorithm, PasswordHash, PasswordHashInvalid};
pub use registry::{AccessError, Aside, Options, PermissionEntry, TopicPermissionEntry, Users};
pub use user::{LoginRefused, TAGS_COUNT_MAX, TooManyTags, User, check_tags, parse_tags};
