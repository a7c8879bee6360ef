//! Values of settings as their fields have them, and as a person writes them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use tracing_subscriber::EnvFilter;

use super::value::{Off, Parsed, Unit};
use crate::aws::options::{AccessKey, Declared};
use crate::broker::options::{DefaultQueueType, HashAlgorithm, MemoryShare};
use crate::protocol::stomp::options::Dialect;
use crate::server::options::{Cidr, StompListener, is_mail_address, is_mail_relay};

pub(super) fn read_with<T>(parsed: Parsed, read: fn(Parsed) -> T) -> T {
    read(parsed)
}

pub(super) fn show_with<T>(field: &T, show: fn(&T) -> String) -> String {
    show(field)
}

pub(super) fn node_name(parsed: Parsed) -> Result<String, String> {
    let name = parsed.text();
    let is_plain =
        |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    let (node, host) = name.split_once('@').unwrap_or((&name, "host"));
    if is_plain(node) && is_plain(host) {
        Ok(name)
    } else {
        Err("a name, or name@host, of letters, digits, and any of - _ .".into())
    }
}

pub(super) fn pattern(parsed: Parsed) -> Result<String, String> {
    let pattern = parsed.text();
    match fancy_regex::Regex::new(&pattern) {
        Ok(_) => Ok(pattern),
        Err(error) => Err(format!("a regular expression ({error})")),
    }
}

pub(super) fn queue_type(parsed: Parsed) -> DefaultQueueType {
    match parsed.text().as_str() {
        "quorum" => DefaultQueueType::Quorum,
        "stream" => DefaultQueueType::Stream,
        _ => DefaultQueueType::Classic,
    }
}

/// What RabbitMQ's names of these begin with.
pub(super) const RABBITMQ_HASHING: &str = "rabbit_password_hashing_";

pub(super) fn hashing(parsed: Parsed) -> HashAlgorithm {
    match parsed.text().as_str() {
        "sha256" => HashAlgorithm::Sha256,
        "sha512" => HashAlgorithm::Sha512,
        _ => HashAlgorithm::Argon2id,
    }
}

pub(super) fn heartbeat(parsed: Parsed) -> u16 {
    parsed.optional().map_or(0, |secs| Parsed::Number(secs).number())
}

pub(super) fn is_on(parsed: Parsed) -> bool {
    matches!(parsed.text().as_str(), "on" | "true")
}

pub(super) fn on_or_off(is_on: &bool) -> String {
    if *is_on { "on".into() } else { "off".into() }
}

pub(super) fn mode(parsed: Parsed) -> Result<u32, String> {
    let mode: u32 = parsed.number();
    if mode & 0o600 == 0o600 { Ok(mode) } else { Err("permission bits that let the owner read and write".into()) }
}

pub(super) fn mechanisms(parsed: Parsed) -> Result<Vec<String>, String> {
    let names: Vec<String> = parsed.list().iter().map(|name| name.to_uppercase()).collect();
    let known = ["PLAIN", "AMQPLAIN", "ANONYMOUS"];
    if names.is_empty() || names.iter().any(|name| !known.contains(&name.as_str())) {
        return Err(format!("at least one of {}", known.join(", ")));
    }
    Ok(names)
}

pub(super) fn listeners(parsed: Parsed) -> Result<Option<Vec<SocketAddr>>, String> {
    let mut addresses = Vec::new();
    for text in parsed.list() {
        match (text.parse::<SocketAddr>(), text.strip_prefix("localhost:").map(str::parse::<u16>)) {
            (Ok(address), _) => addresses.push(address),
            (_, Some(Ok(port))) => addresses.extend(LOOPBACK.map(|ip| SocketAddr::new(ip, port))),
            _ => return Err(format!("addresses such as 127.0.0.1:5672 or [::1]:5672, and {text:?} is none")),
        }
    }
    Ok(Some(addresses))
}

pub(super) fn account(parsed: Parsed) -> Result<String, String> {
    let text = parsed.text();
    let is_account = text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_account { Ok(text) } else { Err("twelve digits".into()) }
}

pub(super) fn accounts(parsed: Parsed) -> Result<Vec<(String, String)>, String> {
    let mut all = Vec::new();
    for text in parsed.list() {
        let (number, vhost) = text.split_once('=').ok_or("accounts such as 111111111111=vhost")?;
        all.push((account(Parsed::Text(number.to_owned()))?, vhost.to_owned()));
    }
    Ok(all)
}

/// Nothing for `none`.
pub(super) fn cert_url(parsed: Parsed) -> Result<String, String> {
    let text = parsed.text();
    let is_url = |text: &str| text.starts_with("https://") || text.starts_with("http://");
    match text.as_str() {
        "none" => Ok(String::new()),
        text if is_url(text) => Ok(text.to_owned()),
        _ => Err("an address such as https://sns.example.com, or none".into()),
    }
}

/// Nothing for `none`.
pub(super) fn webhook_url(parsed: Parsed) -> Result<String, String> {
    cert_url(parsed).map_err(|_| "an address such as https://push.example.com/sns, or none".into())
}

/// Nothing for `none`.
pub(super) fn relay_url(parsed: Parsed) -> Result<String, String> {
    let text = parsed.text();
    let is_url = |text: &str| text.starts_with("smtp://") || text.starts_with("smtps://");
    match text.as_str() {
        "none" => Ok(String::new()),
        text if is_url(text) && is_mail_relay(text) => Ok(text.to_owned()),
        _ => Err("an address such as smtp://user:password@relay:587?tls=required, or none".into()),
    }
}

pub(super) fn mail_address(parsed: Parsed) -> Result<String, String> {
    let text = parsed.text();
    if is_mail_address(&text) { Ok(text) } else { Err("a mail address such as sns@example.com".into()) }
}

pub(super) fn declared(parsed: Parsed, words_count: usize) -> Result<Vec<Declared>, String> {
    let items = parsed.list().into_iter().map(|text| Declared::parse(&text, words_count));
    let allowed = "items of words, with Attribute=value behind them";
    items.collect::<Option<_>>().ok_or_else(|| allowed.into())
}

pub(super) fn show_declared(items: &[Declared]) -> String {
    list(&items.iter().map(Declared::show).collect::<Vec<_>>())
}

pub(super) fn access_keys(parsed: Parsed) -> Result<Vec<AccessKey>, String> {
    let keys = parsed.list().into_iter().map(|text| AccessKey::parse(&text));
    keys.collect::<Option<_>>().ok_or_else(|| "keys such as ID:SECRET:USER".into())
}

pub(super) fn stomp_listeners(parsed: Parsed) -> Result<Option<Vec<StompListener>>, String> {
    let mut all = Vec::new();
    for text in parsed.list() {
        let (address, dialect) = match text.split_once('/') {
            None => (text.as_str(), None),
            Some((address, name)) => {
                let dialect = Dialect::parse(name);
                (address, Some(dialect.ok_or_else(|| format!("rabbitmq or activemq behind a slash, not {name:?}"))?))
            }
        };
        let addresses = listeners(Parsed::List(vec![address.to_owned()]))?;
        all.extend(addresses.into_iter().flatten().map(|address| (address, dialect)));
    }
    Ok(Some(all))
}

pub(super) fn show_stomp_listeners(listed: &Option<Vec<StompListener>>) -> String {
    let Some(listed) = listed else { return show_listeners(&None, "stomp") };
    let show = |(address, dialect): &StompListener| match dialect {
        Some(dialect) => format!("{address}/{}", dialect.name()),
        None => address.to_string(),
    };
    if listed.is_empty() { "none".into() } else { listed.iter().map(show).collect::<Vec<_>>().join(",") }
}

pub(super) fn dialect(parsed: Parsed) -> Result<Dialect, String> {
    Dialect::parse(&parsed.text()).ok_or_else(|| "rabbitmq or activemq".to_owned())
}

const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
const EVERY: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];

pub(super) fn bind(parsed: Parsed) -> Result<Vec<IpAddr>, String> {
    let mut ips = Vec::new();
    for text in parsed.list() {
        match text.as_str() {
            "localhost" => ips.extend(LOOPBACK),
            "*" => ips.extend(EVERY),
            other => match other.trim_start_matches('[').trim_end_matches(']').parse() {
                Ok(ip) => ips.push(ip),
                Err(_) => return Err(format!("IP addresses, \"localhost\" or \"*\", and {other:?} is none")),
            },
        }
    }
    if ips.is_empty() { Err("at least one IP address".into()) } else { Ok(ips) }
}

pub(super) fn ranges(parsed: Parsed) -> Result<Vec<Cidr>, String> {
    parsed
        .list()
        .iter()
        .map(|text| text.parse().map_err(|()| format!("ranges such as 10.0.0.0/8, and {text:?} is none")))
        .collect()
}

pub(super) fn log_level(parsed: Parsed) -> Result<String, String> {
    let level = parsed.text();
    // RabbitMQ's names, for those who carry a configuration over.
    let level = match level.to_lowercase().as_str() {
        "warning" => "warn".into(),
        "notice" => "info".into(),
        "critical" => "error".into(),
        "none" | "false" => "off".into(),
        _ => level,
    };
    // A word that is no level would be taken for the name of a module, and silence everything.
    let has_level = |directive: &str| {
        let directive = directive.trim().to_lowercase();
        let level = directive.rsplit_once('=').map_or(directive.as_str(), |(_, level)| level);
        ["off", "error", "warn", "info", "debug", "trace"].contains(&level)
    };
    let allowed = "off, error, warn, info, debug, trace, or directives such as info,ternmq::protocol=debug";
    if level.split(',').all(has_level) && EnvFilter::builder().parse(&level).is_ok() {
        Ok(level)
    } else {
        Err(allowed.into())
    }
}

pub(super) fn list(items: &[String]) -> String {
    if items.is_empty() { "none".into() } else { items.join(",") }
}

pub(super) fn share(share: &MemoryShare) -> String {
    match share {
        MemoryShare::Relative(factor) => format!("{factor}"),
        MemoryShare::Bytes(bytes) => Unit::Bytes.show(*bytes),
    }
}

pub(super) fn optional(number: &Option<u64>, off: Off) -> String {
    number.map_or(off.word().into(), |number| number.to_string())
}

/// A number of bytes, where zero is "none" by its word.
pub(super) fn bytes_or(number: u64, off: Off) -> String {
    if number == 0 { off.word().into() } else { Unit::Bytes.show(number) }
}

pub(super) fn limit(count: &usize) -> String {
    if *count == usize::MAX { Off::Unlimited.word().into() } else { count.to_string() }
}

pub(super) fn or_off(text: &Option<String>) -> String {
    text.clone().unwrap_or_else(|| Off::Word.word().into())
}

pub(super) fn path_or_off(path: &Option<PathBuf>) -> String {
    path.as_ref().map_or_else(|| Off::Word.word().into(), |path| path.display().to_string())
}

pub(super) fn show_listeners(addresses: &Option<Vec<SocketAddr>>, protocol: &str) -> String {
    match addresses {
        None => format!("from server.bind and {protocol}.port"),
        Some(addresses) if addresses.is_empty() => "none".into(),
        Some(addresses) => addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(","),
    }
}
