//! What a verb of the command line is: its arguments, what it says first, what it asks and how the
//! answer is shown. The verbs themselves are in [`verbs`](super::verbs).

use serde_json::Value as Json;

use super::format::Formatter;
use super::parse::{Parsed, Switch};
use super::{Program, node};
use crate::admin::columns::Column;
use crate::admin::failure::{EXIT_DATA, EXIT_USAGE};
use crate::admin::wire;

/// A verb of the command line.
pub(super) struct Verb {
    /// As typed.
    pub(super) name: &'static str,
    /// What follows the program and the options for all verbs in its usage line.
    pub(super) usage: &'static str,
    /// The heading that it stands under in the help.
    pub(super) section: Section,
    /// One sentence for the help.
    pub(super) about: &'static str,
    /// Options of its own.
    pub(super) switches: &'static [Switch],
    /// How many arguments it takes.
    pub(super) arity: Arity,
    /// What to do, from the arguments, whose number is right.
    pub(super) plan: fn(&Invocation) -> Result<Plan, Invalid>,
}

/// How many arguments a verb takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arity {
    pub(super) min: usize,
    pub(super) max: usize,
}

/// The headings of the help, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Section {
    Help,
    Nodes,
    Users,
    AccessControl,
    Observability,
    Parameters,
    Policies,
    VirtualHosts,
    Configuration,
    Definitions,
    FeatureFlags,
    Operations,
    Queues,
    /// Only of `rabbitmq-diagnostics`.
    HealthChecks,
}

impl Section {
    pub(super) const ALL: [Self; 14] = [
        Self::Help,
        Self::Nodes,
        Self::Users,
        Self::AccessControl,
        Self::Observability,
        Self::HealthChecks,
        Self::Parameters,
        Self::Policies,
        Self::VirtualHosts,
        Self::Configuration,
        Self::Definitions,
        Self::FeatureFlags,
        Self::Operations,
        Self::Queues,
    ];

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Help => "Help",
            Self::Nodes => "Nodes",
            Self::Users => "Users",
            Self::AccessControl => "Access Control",
            Self::Observability => "Monitoring, observability and health checks",
            Self::Parameters => "Parameters",
            Self::Policies => "Policies",
            Self::VirtualHosts => "Virtual hosts",
            Self::Configuration => "Configuration and Environment",
            Self::Definitions => "Definitions",
            Self::FeatureFlags => "Feature flags",
            Self::Operations => "Operations",
            Self::Queues => "Queues",
            Self::HealthChecks => "Health checks",
        }
    }

    /// Whether the verbs of this heading belong to a program.
    pub(super) fn is_of(self, program: Program) -> bool {
        match program {
            Program::Ctl => self != Self::HealthChecks,
            Program::Diagnostics => matches!(self, Self::Help | Self::Observability | Self::HealthChecks),
        }
    }
}

/// A command line whose verb and options are known.
pub(super) struct Invocation {
    pub(super) program: Program,
    /// What follows the verb.
    pub(super) words: Vec<String>,
    pub(super) options: Parsed,
    pub(super) formatter: Formatter,
}

impl Invocation {
    /// The argument at `index`, which the verb's arity promises; empty beyond it.
    pub(super) fn word(&self, index: usize) -> &str {
        self.words.get(index).map_or("", String::as_str)
    }

    pub(super) fn owned(&self, index: usize) -> String {
        self.word(index).to_owned()
    }

    pub(super) fn flag(&self, name: &str) -> bool {
        self.options.flag(name).unwrap_or(false)
    }

    pub(super) fn vhost(&self) -> &str {
        self.options.text("vhost").unwrap_or("/")
    }

    /// The node's name, for texts: the socket is not found by it.
    pub(super) fn node(&self) -> String {
        node::name(self.options.text("node"))
    }

    /// The timeout in milliseconds, if one was given.
    pub(super) fn timeout_ms(&self) -> Option<u64> {
        let seconds = self.options.number("timeout")?;
        Some(u64::try_from(seconds).ok()?.saturating_mul(1000))
    }

    /// Whether only the answer is to be shown.
    pub(super) fn is_quiet(&self) -> bool {
        self.flag("quiet") || self.flag("silent")
    }
}

/// What one invocation does.
pub(super) struct Plan {
    /// Said first, unless quiet or empty.
    pub(super) banner: String,
    pub(super) ask: Ask,
    pub(super) show: Show,
    /// What is checked before anything is said.
    pub(super) needs: Needs,
}

/// The state that a verb needs the broker to be in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needs {
    /// Started, as most do.
    Started,
    /// There, but stopped.
    Stopped,
    /// Any, even none: the verb speaks before it finds out.
    Nothing,
}

/// What is asked of the broker.
pub(super) enum Ask {
    /// One request.
    Request(wire::Verb),
    /// One request, with a password that stands in standard input.
    WithPassword(Box<dyn FnOnce(String) -> wire::Verb>),
    /// `import_definitions`, whose definitions stand in a file or in standard input.
    WithDefinitions(Option<String>),
    /// Nothing: the answer is known without a broker.
    Nothing,
    /// Nothing more than whether the broker is there, and in which state.
    Pong,
    /// That it stops; the end of its process is waited for.
    Shutdown,
    /// The broker's listeners, each of which is then connected to.
    Listeners,
    /// The broker is asked again and again until it has started.
    Started {
        /// The process to wait for.
        process: Option<Process>,
    },
}

/// A process that is waited for.
pub(super) enum Process {
    /// By its id.
    Id(String),
    /// By the file that its id is written to.
    File(String),
}

/// What an answer means: something to show, or what standard error says and the exit code.
pub(super) type Verdict<T> = Result<T, (String, u8)>;

/// How the answer is shown.
pub(super) enum Show {
    /// Not at all.
    Nothing,
    /// Row by row.
    Listing {
        columns: Vec<Column>,
        /// Whether RabbitMQ sends the rows one by one; if it gathers them first, a listing without
        /// rows looks different.
        streams: bool,
        /// Whether the names of the columns are shown.
        headers: bool,
    },
    /// A sentence made of the answer; a listing without rows if it is null.
    OneOrNone(fn(&Json) -> String),
    /// A sentence made of the answer.
    Sentence(fn(&Json, &Invocation) -> Verdict<String>),
    /// A sentence for people, an object for programs.
    Object(fn(&Json, &Invocation) -> Verdict<(String, Json)>),
    /// Into a file.
    Definitions(String),
}

/// A command line that is refused before anything is done.
#[derive(Debug, PartialEq)]
pub(super) struct Invalid {
    pub(super) reason: String,
    pub(super) exit: u8,
}

impl Invalid {
    pub(super) fn usage(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), exit: EXIT_USAGE }
    }

    pub(super) fn argument(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), exit: EXIT_DATA }
    }
}

impl Plan {
    /// Says `banner`, asks and shows the answer, of a broker that is started.
    pub(super) fn new(banner: impl Into<String>, ask: Ask, show: Show) -> Self {
        Self { banner: banner.into(), ask, show, needs: Needs::Started }
    }

    /// The same plan for a broker in another state.
    pub(super) fn needs(self, needs: Needs) -> Self {
        Self { needs, ..self }
    }

    /// Asks `request` after saying `banner` and shows nothing.
    pub(super) fn silent(banner: String, request: wire::Verb) -> Result<Self, Invalid> {
        Ok(Self::new(banner, Ask::Request(request), Show::Nothing))
    }

    /// Asks for a listing that RabbitMQ gathers, with all its columns.
    pub(super) fn gathered(banner: String, request: wire::Verb, columns: &[Column]) -> Result<Self, Invalid> {
        let show = Show::Listing { columns: columns.to_vec(), streams: false, headers: true };
        Ok(Self::new(banner, Ask::Request(request), show))
    }
}
