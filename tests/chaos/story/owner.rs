//! Whom the messages are of.

use super::{CANARIES, PREFIX};

const CUSTOMERS: usize = 2_000;
/// Of this many customers in a row, one has each of the traits that follow.
const TRAIT_CYCLE: usize = 50;
const COLON: usize = 7;
const ODD_LETTERS: usize = 8;
const LONG_ID: usize = 9;
const CLOCK_AHEAD: usize = 11;
/// Nearly the longest id that is accepted, 1,024 bytes.
const LONG: usize = 1_000;
/// How the ids of customers begin whose source's clock is ahead at times.
const FAST: &str = "fast-";
#[derive(Debug, Clone)]
pub struct Owner {
    pub customer: String,
    pub resource: Option<String>,
}

impl Owner {
    pub fn key(&self) -> String {
        match &self.resource {
            Some(resource) => format!("{PREFIX}:c_{}:r_{resource}", self.customer),
            None => format!("{PREFIX}:c_{}", self.customer),
        }
    }

    /// The clock of its source is ahead at times.
    pub fn has_fast_clock(&self) -> bool {
        self.customer.starts_with(FAST)
    }

    pub fn lock(&self) -> String {
        match &self.resource {
            Some(resource) => format!("{PREFIX}-{}:{resource}", self.customer),
            None => format!("{PREFIX}-{}", self.customer),
        }
    }
}

/// All owners, the canaries last, and how many are none.
pub fn all() -> (Vec<Owner>, usize) {
    let mut owners = Vec::new();
    for number in 0..CUSTOMERS {
        // Ids are used as they come.
        let customer = match number % TRAIT_CYCLE {
            COLON => format!("cust:{number}"),
            ODD_LETTERS => format!("c\u{fc}st {{{number}}}#x"),
            LONG_ID => format!("long-{number}-{}", "x".repeat(LONG - 10)),
            CLOCK_AHEAD => format!("{FAST}{number}"),
            _ => format!("customer-{number}"),
        };
        let resources = match number % 9 {
            0 => 2,
            3 | 6 => 1,
            _ => 0,
        };
        owners.push(Owner {
            customer: customer.clone(),
            resource: None,
        });
        for resource in 1..=resources {
            owners.push(Owner {
                customer: customer.clone(),
                resource: Some(format!("site-{resource}")),
            });
        }
    }
    let common = owners.len();
    for canary in 0..CANARIES {
        owners.push(Owner {
            customer: format!("canary-{canary}"),
            resource: None,
        });
    }
    (owners, common)
}
