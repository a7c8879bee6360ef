//! `tern env`: the variables by which AWS's tools find this broker instead of AWS.

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process::ExitCode,
};

use super::{complain, print, serve};
use crate::config::{self, Settings};

/// Arguments of `tern env`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    settings: serve::SettingsArgs,
}

/// Prints lines to evaluate in a shell: `eval "$(tern env)"`.
pub fn run(args: &Args) -> ExitCode {
    let reading = config::read(&args.settings.sources());
    let settings = reading.settings();
    let Some(address) = address(settings) else {
        complain(
            "tern env: SQS and SNS are off, or their port is known to nobody: set aws.port, or server.ports_file to \
             the file that the broker writes",
        );
        return ExitCode::FAILURE;
    };
    print(&variables(settings, address));
    ExitCode::SUCCESS
}

/// Where a client on this machine reaches SQS and SNS: what a broker that runs has written, or what is set.
fn address(settings: &Settings) -> Option<SocketAddr> {
    let written = settings.server.ports_file.as_ref().and_then(|path| std::fs::read(path).ok());
    let written = written.and_then(|text| serde_json::from_slice::<serde_json::Value>(&text).ok());
    let port = written.and_then(|ports| u16::try_from(ports.get("aws")?.as_u64()?).ok());
    let listener = settings.server.aws().first()?.addr;
    let ip = match listener.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let port = port.unwrap_or_else(|| listener.port());
    (port != 0).then(|| SocketAddr::new(ip, port))
}

fn variables(settings: &Settings, address: SocketAddr) -> String {
    let url = format!("http://{address}");
    let aws = &settings.aws;
    // Where any key will do, clients want to have one all the same.
    let (id, secret) = aws.access_keys.first().map_or(("test", "test"), |key| (&key.id, &key.secret));
    let mut lines = String::new();
    for (name, value) in [
        ("AWS_ENDPOINT_URL", url.as_str()),
        ("AWS_ENDPOINT_URL_SQS", &url),
        ("AWS_ENDPOINT_URL_SNS", &url),
        ("AWS_REGION", &aws.region),
        ("AWS_DEFAULT_REGION", &aws.region),
        ("AWS_ACCESS_KEY_ID", id),
        ("AWS_SECRET_ACCESS_KEY", secret),
    ] {
        // Writing to a String cannot fail.
        let _ = writeln!(lines, "export {name}={}", quoted(value));
    }
    lines
}

/// A word of a shell.
fn quoted(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:@%+=".contains(&byte);
    if !text.is_empty() && text.bytes().all(is_plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::options::AccessKey;

    #[test]
    fn variables_lead_to_the_listener_with_a_key() {
        let mut settings = Settings::default();
        let address = address(&settings).unwrap();
        let text = variables(&settings, address);
        assert!(text.contains("export AWS_ENDPOINT_URL=http://127.0.0.1:9324\n"), "{text}");
        assert!(text.contains("export AWS_ACCESS_KEY_ID=test\n"), "{text}");
        settings.aws.access_keys = vec![AccessKey { id: "AKID".into(), secret: "a b'c".into(), user: "u".into() }];
        let text = variables(&settings, address);
        assert!(text.contains("export AWS_SECRET_ACCESS_KEY='a b'\\''c'\n"), "{text}");
        settings.server.aws_listeners = Some(vec![]);
        assert_eq!(super::address(&settings), None);
    }
}
