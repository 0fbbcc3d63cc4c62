//! Who may do what: callers, operations, and how surely a person stands behind a decision. Pure.
//!
//! A caller is made from facts that the caller cannot choose, which is what runs above it. Its environment can only take
//! authority away, because nothing that a model writes into a variable or an argument is authority.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Who asks. Later ones may do all that earlier ones may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Caller {
    /// Runs below a supervisor, a gate, a hook or a merge of any project.
    Worker,
    /// Runs in the shell of a coding CLI that vnx did not start: an orchestrating agent (T0).
    Agent,
    /// Anybody else.
    Person,
}

/// What makes a process a worker, wherever it stands in the environment of one of its ancestors or in its own.
pub const WORKER_VARIABLES: [&str; 3] = ["VNX_DISPATCH_ID", "VNX_GATE_RUN", "VNX_MERGE"];

/// One process of a lineage: the caller itself or an ancestor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ancestor {
    /// Its pid and short name, for messages.
    pub label: String,
    /// It is the caller itself, whose program says nothing about it.
    pub is_self: bool,
    /// It runs vnx.
    pub is_vnx: bool,
    /// Its arguments, without the program's name.
    pub arguments: Vec<String>,
    /// The names of the variables that it was started with. Empty where another user's process hides them.
    pub variables: Vec<String>,
}

/// The fact that took authority away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// A vnx above it, by its label.
    Below(String),
    /// A variable of a process, by the process's label.
    Variable(String, String),
    /// What runs above it cannot be seen.
    Unseen,
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Below(label) => write!(f, "it runs below process {label}"),
            Self::Variable(name, label) => write!(f, "{name} is set in process {label}"),
            Self::Unseen => f.write_str("/proc does not show what runs above it"),
        }
    }
}

/// Who somebody of this lineage is, and the fact that says so. Whoever's lineage is not whole may have anything above it, and
/// is a worker. `marks` are the variables that coding CLIs set for what they start.
pub fn caller(lineage: &[Ancestor], is_whole: bool, marks: &[&str]) -> (Caller, Option<Fact>) {
    let variable = |known: &[&str]| {
        lineage.iter().find_map(|one| {
            let name = one.variables.iter().find(|name| known.contains(&name.as_str()))?;
            Some(Fact::Variable(name.clone(), one.label.clone()))
        })
    };
    let below = lineage.iter().find(|one| one.is_vnx && !one.is_self && !is_demo(&one.arguments));
    let worker = below.map(|one| Fact::Below(one.label.clone())).or_else(|| variable(&WORKER_VARIABLES));
    let worker = worker.or_else(|| (!is_whole).then_some(Fact::Unseen));
    if worker.is_some() {
        return (Caller::Worker, worker);
    }
    match variable(marks) {
        None => (Caller::Person, None),
        agent => (Caller::Agent, agent),
    }
}

/// Whether a vnx with these arguments is the demo, the only one that runs commands in the name of whoever started it. Before
/// the command stand only the options that every command takes.
fn is_demo(arguments: &[String]) -> bool {
    let mut rest = arguments.iter().map(String::as_str);
    loop {
        match rest.next() {
            Some("--project") => drop(rest.next()),
            Some("-q" | "--quiet" | "-v" | "--verbose") => {}
            Some(word) if word.starts_with("--project=") => {}
            other => return other == Some("demo"),
        }
    }
}

/// What a caller's decision is: each is a person's alone, and each has a minimum of presence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deciding {
    /// A commit may land.
    Approve,
    /// A gate, a constraint or an item does not count.
    Override,
    /// A proposed dispatch begins.
    Promote,
    /// A rescue is deleted for good.
    Drop,
    /// What a repository brings may run here.
    Trust,
    /// What was changed or lost counts as it is now: receipts, or files that git reads for all worktrees.
    Accept,
}

/// What a command does, as far as it matters who asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Looks, or waits for something.
    Read,
    /// Puts a proposal on record.
    Propose,
    /// Works on what is there, in a way that can be taken back: cancels, sends, asks gates, makes worktrees.
    Operate,
    /// Starts a dispatch.
    Dispatch,
    /// Puts something into a queue.
    Queue,
    /// Lands what gates allow.
    Merge,
    /// Ends what others asked for or made: takes back what has landed, withdraws proposals, deletes for good.
    Manage,
    /// Decides.
    Decide(Deciding),
}

/// What agents may do beside looking and proposing, by the target's committed configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Agents {
    /// Start dispatches.
    pub dispatch: bool,
    /// Put jobs and branches into queues.
    pub queue: bool,
    /// Land branches that every gate lets through.
    pub merge: bool,
}

impl Default for Agents {
    fn default() -> Self {
        Self { dispatch: true, queue: true, merge: false }
    }
}

/// Why somebody may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// A worker looks and proposes.
    Worker,
    /// It is a person's.
    NeedsPerson,
    /// The target's configuration says no to agents; the key below `agents`.
    Configured(&'static str),
}

/// Whether a caller may do this: the only table.
pub fn may(caller: Caller, operation: Operation, agents: &Agents) -> Result<(), Refusal> {
    use Operation::{Decide, Dispatch, Manage, Merge, Operate, Propose, Queue, Read};
    let allowed = |key, yes| if yes { Ok(()) } else { Err(Refusal::Configured(key)) };
    match (caller, operation) {
        (_, Read | Propose) | (Caller::Agent, Operate) | (Caller::Person, _) => Ok(()),
        (Caller::Worker, Operate | Dispatch | Queue | Merge | Manage | Decide(_)) => Err(Refusal::Worker),
        (Caller::Agent, Dispatch) => allowed("dispatch", agents.dispatch),
        (Caller::Agent, Queue) => allowed("queue", agents.queue),
        (Caller::Agent, Merge) => allowed("merge", agents.merge),
        (Caller::Agent, Manage | Decide(_)) => Err(Refusal::NeedsPerson),
    }
}

/// How surely a person stood behind a decision. It is written into the receipt of each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Presence {
    /// Nobody was asked.
    None,
    /// Somebody typed a short code back on a terminal that is not a worker's.
    #[default]
    Tty,
    /// A key that the target trusts signed what was decided.
    Key,
    /// A security key signed it that somebody had to touch.
    Touch,
}

impl Presence {
    /// The word used in files.
    pub fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Tty => "tty",
            Self::Key => "key",
            Self::Touch => "touch",
        }
    }

    /// How a decision of this level is told: `approved by A (terminal)`.
    pub fn told(self) -> &'static str {
        match self {
            Self::None => "nobody was asked",
            Self::Tty => "terminal",
            Self::Key => "signed",
            Self::Touch => "signed, with a touch",
        }
    }
}

/// The least presence that decisions need, by the target's committed configuration.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct PresencePolicy {
    /// For `vnx approve`.
    pub approve: Presence,
    /// For `vnx gate override` and `vnx items close`.
    pub r#override: Presence,
    /// For `vnx promote`.
    pub promote: Presence,
    /// For `vnx worktree rescue drop`.
    pub drop: Presence,
}

impl PresencePolicy {
    /// The same for everything.
    pub fn all(presence: Presence) -> Self {
        Self { approve: presence, r#override: presence, promote: presence, drop: presence }
    }

    /// The least presence for a decision. Trust and acceptance are not for the repository to say that asks for them.
    pub fn minimum(&self, deciding: Deciding) -> Presence {
        match deciding {
            Deciding::Approve => self.approve,
            Deciding::Override => self.r#override,
            Deciding::Promote => self.promote,
            Deciding::Drop => self.drop,
            Deciding::Trust | Deciding::Accept => Presence::Tty,
        }
    }
}

/// By decision: `{approve: key}`. What is left out is as it is without the file.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
struct ByDecision {
    /// For `vnx approve`.
    approve: Presence,
    /// For `vnx gate override` and `vnx items close`.
    r#override: Presence,
    /// For `vnx promote`.
    promote: Presence,
    /// For `vnx worktree rescue drop`.
    drop: Presence,
}

impl Default for ByDecision {
    fn default() -> Self {
        let PresencePolicy { approve, r#override, promote, drop } = PresencePolicy::default();
        Self { approve, r#override, promote, drop }
    }
}

impl<'de> Deserialize<'de> for PresencePolicy {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> serde::de::Visitor<'de> for Either {
            type Value = PresencePolicy;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("none, tty, key or touch, or one of them for each of approve, override, promote and drop")
            }
            fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<PresencePolicy, E> {
                let all = [Presence::None, Presence::Tty, Presence::Key, Presence::Touch];
                let found = all.into_iter().find(|presence| presence.word() == word);
                found.map(PresencePolicy::all).ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(word), &self))
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<PresencePolicy, A::Error> {
                let given = ByDecision::deserialize(serde::de::value::MapAccessDeserializer::new(map))?;
                let ByDecision { approve, r#override, promote, drop } = given;
                Ok(PresencePolicy { approve, r#override, promote, drop })
            }
        }
        from.deserialize_any(Either)
    }
}

#[cfg(test)]
impl schemars::JsonSchema for PresencePolicy {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "PresencePolicy".into()
    }
    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let one = generator.subschema_for::<Presence>();
        let each = generator.subschema_for::<ByDecision>();
        schemars::json_schema!({ "anyOf": [one, each] })
    }
}

/// The letters of a code that is typed back: none that looks like another one.
const LETTERS: &[u8; 24] = b"ACDEFGHJKMNPQRTUVWXY3479";

/// A code to type back, from random bytes.
pub fn code(random: [u8; 4]) -> String {
    random.iter().map(|byte| char::from(LETTERS[usize::from(*byte) % LETTERS.len()])).collect()
}

/// Whether what was typed is the code; capitals and blanks around it do not matter.
pub fn is_code(code: &str, typed: &str) -> bool {
    !code.is_empty() && typed.trim().eq_ignore_ascii_case(code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CALLERS: [Caller; 3] = [Caller::Worker, Caller::Agent, Caller::Person];
    const ALL: [Operation; 13] = [
        Operation::Read,
        Operation::Propose,
        Operation::Operate,
        Operation::Dispatch,
        Operation::Queue,
        Operation::Merge,
        Operation::Manage,
        Operation::Decide(Deciding::Approve),
        Operation::Decide(Deciding::Override),
        Operation::Decide(Deciding::Promote),
        Operation::Decide(Deciding::Drop),
        Operation::Decide(Deciding::Trust),
        Operation::Decide(Deciding::Accept),
    ];

    fn process(label: &str, arguments: &[&str], variables: &[&str]) -> Ancestor {
        let owned = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect();
        Ancestor {
            label: label.to_owned(),
            is_self: label == "me",
            is_vnx: label == "me" || label.contains("vnx"),
            arguments: owned(arguments),
            variables: owned(variables),
        }
    }

    #[test]
    fn who_may_what() {
        let table = |agents: &Agents| {
            let row = |caller| ALL.map(|operation| may(caller, operation, agents).is_ok());
            CALLERS.map(row)
        };
        let (y, n) = (true, false);
        let defaults = table(&Agents::default());
        assert_eq!(defaults[0], [y, y, n, n, n, n, n, n, n, n, n, n, n], "a worker looks and proposes");
        assert_eq!(defaults[1], [y, y, y, y, y, n, n, n, n, n, n, n, n], "an agent does not merge unless it is let");
        assert_eq!(defaults[2], [true; 13]);
        let all = table(&Agents { dispatch: true, queue: true, merge: true });
        assert_eq!(all[1], [y, y, y, y, y, y, n, n, n, n, n, n, n], "an agent decides nothing, whatever is configured");
        let none = table(&Agents { dispatch: false, queue: false, merge: false });
        assert_eq!(none[1], [y, y, y, n, n, n, n, n, n, n, n, n, n]);
        assert_eq!((none[0], none[2]), (defaults[0], defaults[2]), "it is about agents alone");
    }

    #[test]
    fn a_caller_is_made_from_what_runs_above_it() {
        let marks = ["CLAUDECODE"];
        let who = |lineage: &[Ancestor]| caller(lineage, true, &marks).0;
        let me = process("me", &["approve"], &["HOME"]);
        let shell = process("7 bash", &[], &["HOME", "TERM"]);
        assert_eq!(who(&[me.clone(), shell.clone()]), Caller::Person);
        assert_eq!(who(&[me.clone(), shell.clone(), process("3 vnx", &["supervise"], &[])]), Caller::Worker);
        assert_eq!(who(&[me.clone(), process("3 vnx", &["merge", "demo"], &[])]), Caller::Worker);
        assert_eq!(who(&[me.clone(), process("3 vnx", &["--project", "demo", "merge"], &[])]), Caller::Worker);
        assert_eq!(who(&[me.clone(), process("3 vnx", &["-q", "--project", "x", "demo"], &[])]), Caller::Person);
        assert_eq!(who(&[me.clone(), process("3 vnx", &[], &[])]), Caller::Worker, "one that says nothing");
        let agent = process("5 bash", &[], &["CLAUDECODE"]);
        assert_eq!(caller(&[me.clone(), shell.clone()], false, &marks), (Caller::Worker, Some(Fact::Unseen)));
        let (caller, fact) = caller(&[me.clone(), shell.clone(), agent.clone()], true, &marks);
        assert_eq!(
            (caller, fact.unwrap().to_string().as_str()),
            (Caller::Agent, "CLAUDECODE is set in process 5 bash")
        );
        for name in WORKER_VARIABLES {
            let below = process("9 sh", &[], &[name]);
            assert_eq!(who(&[me.clone(), agent.clone(), below]), Caller::Worker, "{name}");
        }
    }

    #[test]
    fn presence_is_configured_by_a_word_or_by_decision() {
        let read = |json: &str| serde_json::from_str::<PresencePolicy>(json);
        assert_eq!(read("\"key\"").unwrap(), PresencePolicy::all(Presence::Key));
        let some = read(r#"{"approve": "touch", "promote": "none"}"#).unwrap();
        let minima =
            [Deciding::Approve, Deciding::Override, Deciding::Promote, Deciding::Drop].map(|d| some.minimum(d));
        assert_eq!(minima, [Presence::Touch, Presence::Tty, Presence::None, Presence::Tty]);
        assert_eq!(PresencePolicy::all(Presence::None).minimum(Deciding::Trust), Presence::Tty);
        for bad in ["\"maybe\"", r#"{"aprove": "key"}"#, r#"{"trust": "none"}"#, "true"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_code_has_no_letter_that_looks_like_another() {
        assert!(!LETTERS.iter().any(|letter| b"O0I1LSZ2B86".contains(letter)));
        assert_eq!(code([0, 1, 24, 255]).len(), 4);
        assert!(is_code("AC3K", " ac3k\n") && !is_code("AC3K", "AC3") && !is_code("AC3K", "") && !is_code("", ""));
    }

    fn lineage() -> impl Strategy<Value = Vec<Ancestor>> {
        let variables = prop::collection::vec(
            prop::sample::select(vec!["HOME", "CLAUDECODE", "GEMINI_CLI", "VNX_MERGE", "VNX_DISPATCH_ID"]),
            0..3,
        );
        let arguments = prop::collection::vec(prop::sample::select(vec!["demo", "merge", "-q", "supervise"]), 0..3);
        let one = (prop::sample::select(vec!["1 init", "2 bash", "3 vnx"]), arguments, variables);
        prop::collection::vec(one.prop_map(|(label, args, vars)| process(label, &args, &vars)), 0..5)
    }

    proptest! {
        /// Whatever is added to a lineage, or stands in an environment, allows nothing more.
        #[test]
        fn lowering_the_caller_allows_nothing_more(
            (above, more) in (lineage(), lineage()),
            (dispatch, queue, merge, is_whole) in (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()),
        ) {
            let marks = ["CLAUDECODE", "GEMINI_CLI"];
            let agents = Agents { dispatch, queue, merge };
            let both: Vec<Ancestor> = above.iter().chain(&more).cloned().collect();
            let (high, low) = (caller(&above, true, &marks).0, caller(&both, is_whole, &marks).0);
            prop_assert!(low <= high);
            for operation in ALL {
                prop_assert!(may(low, operation, &agents).is_err() || may(high, operation, &agents).is_ok());
            }
        }
    }
}
