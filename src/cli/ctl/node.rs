//! The name of a node, which appears in many texts.
//!
//! It does not decide where the socket is: `--node` of a script that was written for another
//! machine's name is accepted.

/// The full name for what was given with `--node`, or by the environment, or by default.
pub(super) fn name(given: Option<&str>) -> String {
    let name = match given {
        Some(name) => name.to_owned(),
        None => std::env::var("RABBITMQ_NODENAME").unwrap_or_else(|_| "rabbit".to_owned()),
    };
    if name.contains('@') { name } else { format!("{name}@{}", host()) }
}

fn host() -> String {
    let uname = rustix::system::uname();
    let host = uname.nodename().to_string_lossy();
    host.split('.').next().filter(|host| !host.is_empty()).unwrap_or("localhost").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_without_a_host_gets_this_host() {
        assert_eq!(name(Some("a@b")), "a@b");
        assert_eq!(name(Some("a")), format!("a@{}", host()));
    }
}
