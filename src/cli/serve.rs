//! `tern serve`: settings and logging, then the broker, then one screen that says how to reach it.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{self, PathBuf};
use std::process::ExitCode;

use tracing_subscriber::EnvFilter;

use super::{EXIT_USAGE, complain, print};
use crate::config::{Flag, Settings, Sources};
use crate::server::listen::Bound;
use crate::server::options::{LogFormat, Options};
use crate::server::{self, limits};

/// Arguments of `tern serve`.
#[derive(Debug, Default, clap::Args)]
pub struct Args {
    /// Where settings come from.
    #[command(flatten)]
    pub settings: SettingsArgs,
}

/// Flags that set something. Their values are read by `config`, which knows what is allowed.
#[derive(Debug, Default, clap::Args)]
pub struct SettingsArgs {
    /// Settings file (TOML) [default: ./tern.toml if there].
    #[arg(long, value_name = "FILE", env = "TERN_CONFIG")]
    config: Option<PathBuf>,
    /// Port of AMQP; 0 takes a free one.
    #[arg(long, value_name = "PORT")]
    amqp_port: Option<String>,
    /// Port of STOMP; 0 takes a free one.
    #[arg(long, value_name = "PORT")]
    stomp_port: Option<String>,
    /// Address to listen on instead of loopback; may be repeated.
    #[arg(long, value_name = "IP")]
    bind: Vec<String>,
    /// Data directory.
    #[arg(long, value_name = "DIR")]
    data: Option<String>,
    /// File that gets the ports really bound.
    #[arg(long, value_name = "FILE")]
    ports_file: Option<String>,
    /// What is logged: a level or directives.
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// How log lines look: text or json.
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// Any setting; may be repeated. `tern config check` lists all.
    #[arg(long, value_name = "SECTION.KEY=VALUE", value_parser = assignment)]
    set: Vec<(String, String)>,
}

impl SettingsArgs {
    /// What the flags set, `--set` first, so that a flag of its own wins over it.
    pub fn flags(&self) -> Vec<Flag> {
        let mut flags = Vec::new();
        for (key, value) in &self.set {
            flags.push(Flag { name: format!("--set {key}"), key: key.clone(), value: value.clone() });
        }
        let bind = (!self.bind.is_empty()).then(|| self.bind.join(","));
        for (name, key, value) in [
            ("--amqp-port", "amqp.port", &self.amqp_port),
            ("--stomp-port", "stomp.port", &self.stomp_port),
            ("--bind", "server.bind", &bind),
            ("--data", "server.data_dir", &self.data),
            ("--ports-file", "server.ports_file", &self.ports_file),
            ("--log-level", "log.level", &self.log_level),
            ("--log-format", "log.format", &self.log_format),
        ] {
            flags.extend(value.iter().map(|value| Flag { name: name.into(), key: key.into(), value: value.clone() }));
        }
        flags
    }

    /// All sources of settings of this process.
    pub fn sources(&self) -> Sources {
        Sources::of_process(self.config.clone(), self.flags())
    }
}

fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().into(), value.trim().into())),
        _ => Err("expected SECTION.KEY=VALUE".into()),
    }
}

/// Runs the broker until it is told to stop.
pub fn run(args: Args) -> ExitCode {
    let settings = match Settings::load(&args.settings.sources()) {
        Ok(settings) => settings,
        Err(problems) => {
            complain(&format!("{problems}\n`tern config check` shows every setting and what it may be"));
            return ExitCode::from(EXIT_USAGE);
        }
    };
    log_to_stderr(&settings.server);
    limits::keep_buffers_mapped();
    match limits::raise_open_files() {
        Ok(files) => tracing::debug!(before = files.before, now = files.now, "open-files limit"),
        Err(error) => tracing::warn!(%error, "the open-files limit could not be raised"),
    }
    match server::run(&settings, announce) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("tern: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Sends log lines to standard error: standard output holds only the start-up screen.
fn log_to_stderr(options: &Options) {
    // Settings hold only filters that parse.
    let filter = EnvFilter::builder().parse_lossy(&options.log_level);
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    // A second subscriber in one process (a test) is refused, and the first goes on.
    let _ = match options.log_format {
        LogFormat::Text => builder.with_ansi(io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}

/// Called by the server once everything listens.
fn announce(settings: &Settings, bound: &[Bound]) {
    let addresses: Vec<(&str, SocketAddr)> = bound.iter().map(|bound| (bound.protocol.section(), bound.addr)).collect();
    print(&startup_screen(settings, &addresses));
}

/// What a person who started a broker wants to know: where it is, and how to talk to it.
pub fn startup_screen(settings: &Settings, listeners: &[(&str, SocketAddr)]) -> String {
    let data_dir = &settings.server.data_dir;
    let data_dir = path::absolute(data_dir).unwrap_or_else(|_| data_dir.clone());
    let mut lines = vec![("data", data_dir.display().to_string())];
    for (protocol, addr) in listeners {
        lines.push((*protocol, url(settings, protocol, *addr)));
    }
    if listeners.is_empty() {
        lines.push(("warning", "nothing listens: every protocol's listeners are empty".to_owned()));
    }
    lines.extend(settings.warnings().into_iter().map(|warning| ("warning", warning)));

    let version = env!("CARGO_PKG_VERSION");
    let mut screen = format!("Tern {version}, node {}\n\n", settings.broker.node_name);
    for (label, text) in lines {
        // Writing to a String cannot fail.
        let _ = writeln!(screen, "  {label:<8} {text}");
    }
    screen.push_str("\nServer startup complete\n");
    screen
}

/// A URL to paste into a client on this machine.
fn url(settings: &Settings, protocol: &str, addr: SocketAddr) -> String {
    let broker = &settings.broker;
    // An unspecified address is one to listen on, not one to connect to.
    let ip = match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    // Standard output ends up in log archives: only a password that everybody knows is printed.
    let pass = if broker.default_pass == "guest" { "guest" } else { "PASSWORD" };
    let target = SocketAddr::new(ip, addr.port());
    if protocol == "aws" {
        let url = format!("http://{target}");
        return if addr.ip().is_unspecified() { format!("{url}   (on every address)") } else { url };
    }
    let url =
        format!("{protocol}://{}:{pass}@{target}/{}", escape(&broker.default_user), escape(&broker.default_vhost));
    if addr.ip().is_unspecified() { format!("{url}   (on every address)") } else { url }
}

/// Percent-encodes what may not stand in a URL's user or path.
fn escape(text: &str) -> String {
    text.bytes().fold(String::new(), |mut url, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            url.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(url, "%{byte:02X}");
        }
        url
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn screen(settings: &Settings, addresses: &[&str]) -> String {
        let listeners: Vec<_> = addresses.iter().map(|addr| ("amqp", addr.parse().unwrap())).collect();
        startup_screen(settings, &listeners)
    }

    #[test]
    fn screen_has_a_url_to_paste_for_each_listener_and_ends_with_the_awaited_line() {
        let screen = screen(&Settings::default(), &["127.0.0.1:5672", "[::1]:5672"]);
        assert!(screen.contains("amqp     amqp://guest:guest@127.0.0.1:5672/%2F\n"), "{screen}");
        assert!(screen.contains("amqp     amqp://guest:guest@[::1]:5672/%2F\n"), "{screen}");
        assert!(screen.ends_with("\nServer startup complete\n"), "{screen}");
        assert!(screen.lines().count() < 24, "{screen}");
    }

    #[test]
    fn url_of_an_open_listener_leads_to_this_machine() {
        let screen = screen(&Settings::default(), &["0.0.0.0:1", "[::]:1"]);
        assert!(screen.contains("@127.0.0.1:1/%2F   (on every address)\n"), "{screen}");
        assert!(screen.contains("@[::1]:1/%2F   (on every address)\n"), "{screen}");
    }

    #[test]
    fn secret_password_is_not_on_the_screen() {
        let mut settings = Settings::default();
        settings.broker.default_user = "a b".into();
        settings.broker.default_pass = "s3cret".into();
        let screen = screen(&settings, &["127.0.0.1:5672"]);
        assert!(screen.contains("amqp://a%20b:PASSWORD@127.0.0.1:5672/%2F"), "{screen}");
        assert!(!screen.contains("s3cret"), "{screen}");
    }

    #[test]
    fn flag_wins_over_set_and_repeated_bind_is_a_list() {
        let args = SettingsArgs {
            amqp_port: Some("2".into()),
            bind: vec!["10.0.0.1".into(), "10.0.0.2".into()],
            set: vec![("amqp.port".into(), "1".into())],
            ..SettingsArgs::default()
        };
        let sources = Sources { flags: args.flags(), ..Sources::default() };
        let settings = Settings::load(&sources).unwrap();
        assert_eq!(settings.server.amqp_port, 2);
        assert_eq!(settings.server.bind.len(), 2);
    }

    #[test]
    fn set_needs_a_key_and_a_value() {
        assert_eq!(assignment("a.b=c=d"), Ok(("a.b".into(), "c=d".into())));
        assert!(assignment("a.b").is_err() && assignment("=c").is_err());
    }
}
