//! Prints an explanation as text or JSON.

use entitlement_sync::keys;
use entitlement_sync::message::{Invalid, Kind, iso};
use entitlement_sync::plan::{Action, Fate, ItemFate, Step};
use entitlement_sync::store::TOMBSTONE_TTL_SECS;
use serde::Serialize;

use crate::commands::messages::{InputMessage, Outcome, Predicted, Understood};
use crate::commands::output::{self, bad, dim, doubtful, good};

#[derive(Serialize)]
pub struct Explanation {
    /// Whether Redis was read, or why not.
    pub redis: String,
    pub messages: Vec<Explained>,
}

/// One message.
#[derive(Serialize, Default)]
pub struct Explained {
    message: usize,
    line: usize,
    /// Its name, if it has one besides its number and line.
    #[serde(skip)]
    called: Option<String>,
    pub valid: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    /// The kind, as written in the message.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    named_by: Option<String>,
    wrapping: Vec<&'static str>,
    /// Where the changes were found, in a message of unknown shape.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    found_at: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    asks: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<Time>,
    /// The unknown kind of an event in which no change was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    unrecognised: Option<String>,
    /// The predicted outcome of the message, from the state in Redis.
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'static str>,
    keys: Vec<Write>,
}

#[derive(Serialize)]
struct Time {
    at: u64,
    iso: Option<String>,
    from: &'static str,
}

/// The change to one key and its timestamp.
#[derive(Serialize)]
struct Write {
    #[serde(skip)]
    step: usize,
    action: &'static str,
    key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    time: Time,
    /// `null`: without expiry.
    ttl_secs: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    redis: Option<InRedis>,
}

#[derive(Serialize)]
struct InRedis {
    fate: &'static str,
    why: String,
    before: Option<String>,
    before_at: Option<String>,
    after: Option<String>,
    after_at: Option<String>,
}

impl Explained {
    pub fn begin(given: InputMessage<'_>) -> Self {
        Self {
            message: given.number,
            line: given.line,
            ..Self::default()
        }
    }

    /// Names the message otherwise than by its number and line.
    pub fn call(&mut self, name: String) {
        self.called = Some(name);
    }

    /// Returns whether it has an event of an unknown kind in which no change was found.
    pub fn is_unrecognised(&self) -> bool {
        self.unrecognised.is_some()
    }

    pub fn refuse(&mut self, kind: Option<Kind>, reason: &Invalid) {
        self.kind = kind.map(Kind::as_str);
        self.reason = Some(reason.to_string());
    }

    pub fn understand(&mut self, understood: &Understood, ttl_secs: Option<u32>) {
        self.valid = true;
        self.kind = Some(understood.kind.as_str());
        self.name = Some(understood.name.clone());
        self.named_by = Some(understood.named_by());
        self.wrapping = understood.wrapping();
        self.found_at.clone_from(&understood.paths);
        self.asks = Some(understood.asks.clone());
        self.unrecognised.clone_from(&understood.unrecognised);
        let time = |at, from| Time {
            at,
            iso: iso(at),
            from,
        };
        self.time = understood
            .time
            .map(|(at, source)| time(at, source.as_str()));
        for (number, step) in understood.steps.iter().enumerate() {
            let purge = step.action == Action::Purge;
            for item in &step.items {
                self.keys.push(Write {
                    step: number,
                    action: if purge { "delete" } else { "set" },
                    key: item.key.clone(),
                    timestamp_key: Some(keys::timestamp(&item.key)),
                    value: (!purge).then(|| item.value.clone()),
                    time: time(item.at, understood.source_of(number, item)),
                    ttl_secs: ttl_secs.filter(|_| !purge),
                    redis: None,
                });
            }
            if purge && step.at > 0 {
                let from = understood.source_of_step(number);
                self.keys.push(Write {
                    step: number,
                    action: "mark",
                    key: step.tombstone.clone(),
                    timestamp_key: None,
                    value: Some(step.at.to_string()),
                    time: time(step.at, from),
                    ttl_secs: Some(TOMBSTONE_TTL_SECS),
                    redis: None,
                });
            }
        }
    }

    /// Adds the stored values of a step and its predicted outcome.
    pub fn predict(&mut self, number: usize, step: &Step, predicted: Predicted) {
        let writes = self.keys.iter_mut().filter(|write| write.step == number);
        let mut stored = predicted.stored.into_iter();
        for (place, write) in writes.enumerate() {
            let is_mark = write.timestamp_key.is_none();
            let (before, before_at) = match is_mark {
                true => (predicted.tombstone.clone(), None),
                false => stored.next().unwrap_or_default(),
            };
            let (fate, why) = match &predicted.fate {
                Fate::Locked => ("locked", format!("an SDK holds {}", step.lock)),
                Fate::NotCached => ("not cached", "Redis holds nothing of it".into()),
                Fate::Done {
                    items,
                    leaves_tombstone,
                } => match items.get(place).filter(|_| !is_mark) {
                    Some(ItemFate::Written) => ("written", reason(write, &before_at)),
                    Some(ItemFate::Deleted) => ("deleted", reason(write, &before_at)),
                    Some(ItemFate::Kept) => (
                        "kept",
                        "usage is stored, and the message has no usage".into(),
                    ),
                    Some(ItemFate::Expired) => (
                        "expired",
                        "sent longer ago than the lifetime of keys, and nothing is stored".into(),
                    ),
                    Some(ItemFate::Stale) => ("stale", reason(write, &before_at)),
                    Some(ItemFate::Purged) => {
                        let at = read(predicted.tombstone.as_deref());
                        ("tombstone", format!("a later purge, at {at}"))
                    }
                    None if *leaves_tombstone => ("written", "a purge stores its time".into()),
                    None => ("stale", "a later purge is stored".into()),
                },
            };
            let changed = matches!(fate, "written" | "deleted");
            let (after, after_at) = match changed {
                true if is_mark => (write.value.clone(), None),
                true if write.value.is_some() => {
                    (write.value.clone(), Some(write.time.at.to_string()))
                }
                true => (None, None),
                false => (before.clone(), before_at.clone()),
            };
            write.redis = Some(InRedis {
                fate,
                why,
                before,
                before_at,
                after,
                after_at,
            });
        }
    }

    pub fn judge(&mut self, outcome: &Outcome) {
        self.outcome = Some(outcome.word);
    }

    fn print(&self) -> anyhow::Result<()> {
        let field = |name: &str, text: &str| {
            output::line(format!("  {} {text}", dim().apply_to(format!("{name:<9}"))))
        };
        let by_line = || format!("message {} (line {})", self.message, self.line);
        let place = self.called.clone().unwrap_or_else(by_line);
        if let Some(reason) = &self.reason {
            let kind = self
                .kind
                .map_or_else(String::new, |kind| format!(" {kind}"));
            let word = bad().apply_to("invalid");
            output::line(format!("{place}:{kind} {word}"))?;
            return field("reason", reason);
        }
        output::line(format!(
            "{place}: {}, kind {}, named by {}",
            self.name.as_deref().unwrap_or_default(),
            self.kind.unwrap_or_default(),
            self.named_by.as_deref().unwrap_or_default(),
        ))?;
        if !self.wrapping.is_empty() {
            field("wrapping", &self.wrapping.join(" > "))?;
        }
        if !self.found_at.is_empty() {
            field(
                "found",
                &format!("by structure, at {}", self.found_at.join(", ")),
            )?;
        }
        field("asks to", self.asks.as_deref().unwrap_or_default())?;
        if let Some(time) = &self.time {
            field("time", &time.words())?;
        }
        for write in &self.keys {
            write.print(field)?;
        }
        match self.outcome {
            Some(word @ "applied") => field("outcome", &good().apply_to(word).to_string()),
            Some(word) => field("outcome", &doubtful().apply_to(word).to_string()),
            None => Ok(()),
        }
    }
}

impl Explanation {
    pub fn print(&self) -> anyhow::Result<()> {
        output::line(format!("Redis: {}", self.redis))?;
        self.messages.iter().try_for_each(Explained::print)
    }
}

impl Time {
    fn words(&self) -> String {
        if self.at == 0 {
            return "unknown, so it replaces any stored value".into();
        }
        format!("{}, from {}", written(self.at), self.from)
    }
}

impl Write {
    fn print(&self, field: impl Fn(&str, &str) -> anyhow::Result<()>) -> anyhow::Result<()> {
        field(self.action, &self.key)?;
        let lives = match self.ttl_secs {
            Some(secs) => format!("lives {secs} s"),
            None => "never expires".into(),
        };
        if let Some(value) = &self.value {
            field("", &format!("value   {}", short(Some(value))))?;
            field("", &format!("time    {}; {lives}", self.time.words()))?;
        }
        let Some(redis) = &self.redis else {
            return Ok(());
        };
        let style = match redis.fate {
            "written" | "deleted" => good(),
            _ => doubtful(),
        };
        let fate = style.apply_to(redis.fate);
        field("", &format!("redis   {fate}: {}", redis.why))?;
        field("", &format!("before  {}", short(redis.before.as_deref())))?;
        field("", &format!("after   {}", short(redis.after.as_deref())))
    }
}

/// Returns why an item is written, deleted or stale.
fn reason(write: &Write, before_at: &Option<String>) -> String {
    let Some(stored) = before_at else {
        return "no time is stored".into();
    };
    let Ok(at) = stored.parse::<u64>() else {
        return format!("the stored time is not a number: \"{stored}\"");
    };
    let order = match at.cmp(&write.time.at) {
        _ if write.time.at == 0 => "ignored, because the message has no time",
        std::cmp::Ordering::Less => "older",
        std::cmp::Ordering::Equal => "the same",
        std::cmp::Ordering::Greater => "newer",
    };
    format!("the stored time {} is {order}", written(at))
}

/// Formats a stored time.
fn read(stored: Option<&str>) -> String {
    let stored = stored.unwrap_or_default();
    stored.parse().map_or_else(|_| stored.into(), written)
}

fn written(at: u64) -> String {
    match iso(at) {
        Some(iso) => format!("{iso} ({at})"),
        None => at.to_string(),
    }
}

/// Shortens a value to one line; `--json` prints all of it.
fn short(value: Option<&str>) -> String {
    const MAX_VALUE_CHARS: usize = 200;
    match value {
        None => "nothing".into(),
        Some(value) if value.chars().count() > MAX_VALUE_CHARS => {
            let start: String = value.chars().take(MAX_VALUE_CHARS).collect();
            format!("{start}… ({} bytes; --json shows all)", value.len())
        }
        Some(value) => value.to_owned(),
    }
}
