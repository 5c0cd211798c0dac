//! Reads lists of customers, and keeps the resume file of finished customers.

use std::collections::HashSet;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use anyhow::Context;
use entitlement_sync::keys::Owner;
use serde::{Deserialize, Serialize};

use crate::commands::{Failure, NO_INPUT, ids, session};

/// A customer, or one of its resources.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Customer {
    #[serde(alias = "customerId")]
    pub customer_id: String,
    #[serde(default, alias = "resourceId", skip_serializing_if = "Option::is_none")]
    pub resource_id: Option<String>,
}

impl Customer {
    pub fn of(owner: Owner<'_>) -> Self {
        Self {
            customer_id: owner.customer.to_owned(),
            resource_id: owner.resource.map(str::to_owned),
        }
    }

    pub fn owner(&self) -> Owner<'_> {
        Owner {
            customer: &self.customer_id,
            resource: self.resource_id.as_deref(),
        }
    }

    /// Parses an id, a customer and a resource id separated by a tab, or JSON.
    fn parse(line: &str) -> Result<Self, String> {
        let mut customer = if line.starts_with('{') {
            serde_json::from_str(line).map_err(|error| {
                format!("not valid JSON: {error}; write for example {{\"customerId\":\"a\",\"resourceId\":\"b\"}}")
            })?
        } else {
            let (id, resource) = match line.split_once('\t') {
                Some((id, resource)) => (id, Some(resource.trim().to_owned())),
                None => (line, None),
            };
            Self {
                customer_id: id.trim().to_owned(),
                resource_id: resource,
            }
        };
        if customer.resource_id.as_deref() == Some("") {
            customer.resource_id = None;
        }
        ids::check(customer.owner())?;
        Ok(customer)
    }
}

impl fmt::Display for Customer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.resource_id {
            Some(resource) => write!(f, "{} (resource {resource})", self.customer_id),
            None => f.write_str(&self.customer_id),
        }
    }
}

/// Reads the customers of a file or of standard input, each once, in their order.
pub fn read(path: &str) -> anyhow::Result<Vec<Customer>> {
    let text = session::input(path)?;
    let (mut seen, mut customers, mut bad) = (HashSet::new(), Vec::new(), Vec::new());
    for (number, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        match Customer::parse(line.trim_end()) {
            Ok(customer) => {
                if seen.insert(customer.clone()) {
                    customers.push(customer);
                }
            }
            Err(error) => bad.push(format!("line {}: {error}", number + 1)),
        }
    }
    if !bad.is_empty() {
        let (count, first) = (bad.len(), bad.into_iter().take(10).collect::<Vec<_>>());
        let text = format!("{path} has {count} bad lines: {}", first.join("; "));
        return Err(Failure::with(NO_INPUT, text));
    }
    if customers.is_empty() {
        return Err(Failure::with(
            NO_INPUT,
            format!("{path} contains no customers: write one per line"),
        ));
    }
    Ok(customers)
}

/// The resume file: the customers in it are skipped in the next run.
#[derive(Debug)]
pub struct Finished {
    file: File,
    before: HashSet<Customer>,
}

impl Finished {
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let name = path.display();
        let open = || -> anyhow::Result<Self> {
            let text = match std::fs::read_to_string(path) {
                Ok(text) => text,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
                Err(error) => return Err(error.into()),
            };
            let mut file = OpenOptions::new().create(true).append(true).open(path)?;
            // A killed process may have left half a line, which is not a customer.
            let mut whole = text.as_str();
            if !text.is_empty() && !text.ends_with('\n') {
                file.write_all(b"\n")?;
                whole = &text[..text.rfind('\n').map_or(0, |at| at + 1)];
            }
            let before = whole.lines().filter_map(|line| Customer::parse(line).ok());
            Ok(Self {
                before: before.collect(),
                file,
            })
        };
        open()
            .with_context(|| format!("cannot use {name} as the resume file"))
            .map_err(|error| Failure::with(NO_INPUT, error))
    }

    pub fn holds(&self, customer: &Customer) -> bool {
        self.before.contains(customer)
    }

    /// Adds a finished customer at once, so that a killed run does not repeat it.
    pub fn add(&mut self, customer: &Customer) -> anyhow::Result<()> {
        let mut line = serde_json::to_string(customer)?;
        line.push('\n');
        let written = self.file.write_all(line.as_bytes());
        written.context("cannot write the resume file")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_in_three_forms() {
        let read = |line: &str| {
            let customer = Customer::parse(line)?;
            Ok::<_, String>((customer.customer_id, customer.resource_id))
        };
        assert_eq!(read("acme"), Ok(("acme".into(), None)));
        assert_eq!(read("a b,c"), Ok(("a b,c".into(), None)));
        assert_eq!(read("acme\tsite"), Ok(("acme".into(), Some("site".into()))));
        assert_eq!(read("acme\t"), Ok(("acme".into(), None)));
        for json in [
            r#"{"customerId":"a\tb","resourceId":"c"}"#,
            r#"{"customer_id":"a\tb","resource_id":"c"}"#,
        ] {
            assert_eq!(read(json), Ok(("a\tb".into(), Some("c".into()))));
        }
        for bad in [
            "\tsite",
            "{",
            r#"{"id":"a"}"#,
            "a:f_x",
            r#"{"customerId":""}"#,
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_finished_survives_a_kill_in_the_middle_of_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("done");
        let customer = |id: &str| Customer::parse(id).unwrap();
        let mut finished = Finished::open(&path).unwrap();
        finished.add(&customer("acme")).unwrap();
        finished.add(&customer("acme\tsite")).unwrap();
        std::fs::OpenOptions::new()
            .append(true)
            .open(&path)
            .unwrap()
            .write_all(b"{\"customerId\":\"glo")
            .unwrap();
        let mut finished = Finished::open(&path).unwrap();
        assert!(finished.holds(&customer("acme")) && finished.holds(&customer("acme\tsite")));
        assert!(!finished.holds(&customer("glo")));
        finished.add(&customer("globex")).unwrap();
        assert!(Finished::open(&path).unwrap().holds(&customer("globex")));
    }
}
