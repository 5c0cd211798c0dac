//! What `snapshot` prints about a file.

use std::path::Path;

use entitlement_sync::clock::now_ms;
use entitlement_sync::snapshot::{Checked, Derivation, Examined, FORMAT_VERSION, Header, Part};
use serde::Serialize;
use serde_json::Value;

use super::super::{output, when};

/// A file, as far as it can be read.
#[derive(Serialize)]
pub struct Report {
    file: String,
    state: State,
    /// What is wrong with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(flatten)]
    content: Option<Content>,
    /// What the file holds of the customer that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub customer: Option<Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Whole,
    LastFrameCut,
    Damaged,
    NotChecked,
    OtherKey,
}

#[derive(Serialize)]
struct Content {
    kind: &'static str,
    number: u64,
    format_version: u16,
    created_at: String,
    age_secs: i64,
    program_version: String,
    prefix: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    covers_journals_to: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    follows_journal: Option<u64>,
    key: &'static str,
    key_id: String,
    size_bytes: u64,
    records: Option<u64>,
    /// Chunks of a snapshot, frames of a journal.
    parts: Option<u64>,
    record_bytes: Option<u64>,
    newest_at: Option<String>,
}

impl Report {
    pub fn of(file: &Path, examined: &Result<Examined, String>) -> Self {
        let (state, reason) = match examined.as_ref().map(|it| &it.checked) {
            Ok(Checked::Whole) => (State::Whole, None),
            Ok(Checked::Cut) => (State::LastFrameCut, None),
            Ok(Checked::Without) => (State::NotChecked, None),
            Ok(Checked::OtherKey) => (State::OtherKey, None),
            Ok(Checked::Damaged(what)) | Err(what) => (State::Damaged, Some(what.clone())),
        };
        Self {
            file: file.display().to_string(),
            state,
            reason,
            content: examined.as_ref().ok().map(Content::of),
            customer: None,
        }
    }

    /// Returns whether nothing is known to be wrong.
    pub fn is_sound(&self) -> bool {
        !matches!(self.state, State::Damaged | State::OtherKey)
    }

    pub fn print(&self) -> anyhow::Result<()> {
        let row = |name: &str, value: &str| output::line(format!("{name:8}  {value}"));
        row("file", &self.file)?;
        if let Some(content) = &self.content {
            for (name, value) in content.rows() {
                row(name, &value)?;
            }
        }
        let reason = self.reason.as_deref().unwrap_or_default();
        let state = match self.state {
            State::Whole => output::good().apply_to("yes".to_owned()),
            State::LastFrameCut => output::good().apply_to(
                "yes, up to a last frame that is not finished and was not acknowledged".to_owned(),
            ),
            State::Damaged => output::bad().apply_to(format!("NO: {reason}")),
            State::NotChecked => {
                output::doubtful().apply_to("not checked: set SNAPSHOT_KEY".to_owned())
            }
            State::OtherKey => output::bad().apply_to(
                "not checked: it was written with another key; set SNAPSHOT_KEY to that key"
                    .to_owned(),
            ),
        };
        row("whole", &state.to_string())
    }
}

impl Content {
    fn of(examined: &Examined) -> Self {
        let Header {
            part,
            number,
            created_ms,
            derivation,
            key_id,
            prefix,
            program,
            ..
        } = &examined.header;
        let holds = examined.holds.as_ref();
        let (kind, covers, follows) = match part {
            Part::Snapshot { covers } => ("snapshot", Some(*covers), None),
            Part::Journal { previous, .. } => ("journal", None, Some(*previous)),
        };
        Self {
            kind,
            number: *number,
            format_version: FORMAT_VERSION,
            created_at: point(*created_ms),
            age_secs: (millis(now_ms()) - millis(*created_ms)) / 1_000,
            program_version: program.clone(),
            prefix: prefix.clone(),
            covers_journals_to: covers,
            follows_journal: follows,
            key: match derivation {
                Derivation::None => "key",
                Derivation::Pbkdf2 { .. } => "passphrase",
            },
            key_id: key_id.iter().map(|byte| format!("{byte:02x}")).collect(),
            size_bytes: examined.size,
            records: holds.and_then(|it| it.records),
            parts: holds.map(|it| it.parts),
            record_bytes: holds.and_then(|it| it.bytes),
            newest_at: holds.and_then(|it| it.newest_ms).map(point),
        }
    }

    fn rows(&self) -> Vec<(&'static str, String)> {
        let kind = format!(
            "{} {}, format version {}",
            self.kind, self.number, self.format_version
        );
        let created = format!(
            "{}, {} ago, by version {}",
            self.created_at,
            when::ago(self.age_secs * 1_000),
            self.program_version
        );
        let journal = match (self.covers_journals_to, self.follows_journal) {
            (Some(0), _) => "holds no journal".to_owned(),
            (Some(covers), _) => format!("holds the journals up to {covers}"),
            (None, Some(previous)) if previous > 0 => format!("follows journal {previous}"),
            _ => "follows none".to_owned(),
        };
        let key = format!("{}, with id {}", self.key, self.key_id);
        let (parts, records) = (self.parts, self.records);
        let holds = match (parts, records, self.record_bytes) {
            (Some(parts), Some(records), Some(bytes)) => {
                format!("{records}, {bytes} bytes before compression; chunks: {parts}")
            }
            (Some(parts), Some(records), None) => format!("{records}; frames: {parts}"),
            (Some(parts), None, _) => format!("unknown without the key; frames: {parts}"),
            (None, ..) => "unknown".to_owned(),
        };
        let mut rows = vec![
            ("kind", kind),
            ("begun", created),
            ("prefix", printable(&self.prefix)),
            ("journal", journal),
            ("key", key),
            ("size", format!("{} bytes", self.size_bytes)),
            ("records", holds),
        ];
        if let Some(newest) = &self.newest_at {
            rows.push(("newest", newest.clone()));
        }
        rows
    }
}

/// Leaves out what would move the cursor of a terminal.
fn printable(text: &str) -> String {
    text.chars().filter(|it| !it.is_control()).collect()
}

pub fn millis(at: u64) -> i64 {
    i64::try_from(at).unwrap_or(i64::MAX)
}

pub fn point(at: u64) -> String {
    when::point(millis(at))
}
