//! What must be answered.
//!
//! What is published is told before. When the queue is empty, all that was told is acknowledged: it is the **base** from
//! then on. From the base on no answer, after whatever fault, may be older: an acknowledged change is in the journal. That
//! holds of answers that are marked stale too. What was told since the base may be applied or not, until the queue is empty
//! again; then answers are exact. Within the life of one process answers never go back, and fresh ones never do: what was
//! applied and not acknowledged before a kill is in the queue again, which must be read first.
//!
//! A purged customer has no answer, since the Edge API is away. Only the process that has itself answered the old state
//! before the purge may go on with it, marked stale; one that was started since does not have it.

use std::collections::{BTreeMap, BTreeSet};

use super::story::{CUSTOMERS, Fact, Message, Number, name};

#[derive(Debug, Default, Clone)]
struct Customer {
    sets: BTreeSet<Number>,
    usages: BTreeSet<Number>,
    purges: BTreeSet<Number>,
    base: Newest,
    /// The newest that the process has answered in this life, and in any.
    seen: (u64, Newest),
    seen_ever: Newest,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Newest {
    set: Number,
    usage: Number,
    purge: Number,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Known {
        limit: Option<Number>,
        usage: Option<Number>,
        stale: bool,
    },
    /// 503: it says that it does not know.
    CannotTell,
    /// Anything else that was received.
    Odd(String),
}

#[derive(Debug, Clone, serde::Serialize)]
pub struct Wrong {
    pub what: &'static str,
    pub customer: String,
    pub expected: String,
    pub found: String,
}

/// `Ok(true)`: the old state of a purged customer, marked stale.
type Verdict = Result<bool, (&'static str, String)>;

pub struct Model {
    customers: Vec<Customer>,
}

impl Newest {
    fn is_held(self) -> bool {
        self.set > self.purge
    }
}

impl Customer {
    fn newest(&self) -> Newest {
        let last = |numbers: &BTreeSet<Number>| numbers.last().copied().unwrap_or_default();
        Newest {
            set: last(&self.sets),
            usage: last(&self.usages).max(last(&self.sets)),
            purge: last(&self.purges),
        }
    }

    /// While messages may be under way.
    fn judge(&mut self, answer: &Answer, life: u64) -> Verdict {
        let base = self.base;
        match *answer {
            Answer::Known {
                limit,
                usage,
                stale,
            } => {
                if limit.is_none() && usage.is_none() {
                    return Err(("wrong", "a limit or a usage".to_owned()));
                }
                let is_told = limit.is_none_or(|it| self.sets.contains(&it))
                    && usage.is_none_or(|it| self.usages.contains(&it) || self.sets.contains(&it));
                if !is_told || limit.zip(usage).is_some_and(|(limit, usage)| usage < limit) {
                    return Err(("wrong", "what was told, of one time".to_owned()));
                }
                if !base.is_held() && limit.min(usage).or(limit).or(usage) <= Some(base.purge) {
                    let expected = format!("nothing older than the purge {}", base.purge);
                    return Err(("wrong", expected));
                }
                if limit.is_some_and(|it| it < base.set) || usage.is_some_and(|it| it < base.usage)
                {
                    return Err(("lost", format!("at least {base:?}")));
                }
                self.see(limit, usage, stale, life)
            }
            Answer::CannotTell if base.is_held() && self.newest().purge < base.set => {
                Err(("lost", format!("at least {base:?}")))
            }
            Answer::CannotTell => Ok(false),
            Answer::Odd(_) => Err(("wrong", "an answer, or 503".to_owned())),
        }
    }

    fn see(
        &mut self,
        limit: Option<Number>,
        usage: Option<Number>,
        stale: bool,
        life: u64,
    ) -> Verdict {
        if self.seen.0 != life {
            self.seen = (life, Newest::default());
        }
        for (seen, what) in [
            (&mut self.seen.1, "in this life"),
            (&mut self.seen_ever, "ever"),
        ] {
            let is_older =
                limit.is_some_and(|it| it < seen.set) || usage.is_some_and(|it| it < seen.usage);
            if is_older && !(stale && what == "ever") {
                let expected = format!("not older than answered {what}: {seen:?}");
                return Err(("wrong", expected));
            }
            seen.set = seen.set.max(limit.unwrap_or_default());
            seen.usage = seen.usage.max(usage.unwrap_or_default());
        }
        Ok(false)
    }

    /// With an empty queue.
    fn judge_exactly(&self, answer: &Answer, is_proven: bool) -> Verdict {
        let newest = self.newest();
        let expected = match newest.is_held() {
            true => format!("limit {} and usage {}", newest.set, newest.usage),
            false => "503, since it is purged".to_owned(),
        };
        match *answer {
            Answer::Known {
                limit,
                usage,
                stale,
            } if newest.is_held() => {
                let lost = limit.is_some_and(|it| it < newest.set)
                    || usage.is_some_and(|it| it < newest.usage);
                let is_right = limit.is_none_or(|it| it == newest.set)
                    && usage.is_none_or(|it| it == newest.usage)
                    && limit.or(usage).is_some();
                match (lost, is_right && !(stale && is_proven)) {
                    (true, _) => Err(("lost", expected)),
                    (_, false) => Err(("wrong", format!("{expected}, fresh: {is_proven}"))),
                    _ => Ok(false),
                }
            }
            Answer::Known { stale: true, .. } if is_proven => Ok(true),
            Answer::Known { .. } | Answer::Odd(_) => Err(("wrong", expected)),
            Answer::CannotTell if newest.is_held() => Err(("lost", expected)),
            Answer::CannotTell => Ok(false),
        }
    }
}

/// How exact an answer must be.
#[derive(Debug, Clone, Copy)]
pub enum Moment {
    /// Messages may be under way, and the process is in its nth life.
    Busy { life: u64 },
    /// The queue is empty.
    Calm { is_proven: bool },
}

impl Model {
    pub fn new() -> Model {
        Model {
            customers: vec![Customer::default(); CUSTOMERS],
        }
    }

    /// Before it is published.
    pub fn tell(&mut self, message: &Message) {
        let customer = &mut self.customers[message.customer];
        match message.fact {
            Fact::Set => customer.sets.insert(message.number),
            Fact::Usage => customer.usages.insert(message.number),
            Fact::Purge => customer.purges.insert(message.number),
        };
    }

    pub fn judge(&mut self, customer: usize, answer: &Answer, when: Moment) -> Result<bool, Wrong> {
        let of = &mut self.customers[customer];
        let verdict = match when {
            Moment::Busy { life } => of.judge(answer, life),
            Moment::Calm { is_proven } => of.judge_exactly(answer, is_proven),
        };
        verdict.map_err(|(what, expected)| Wrong {
            what,
            customer: name(customer),
            expected,
            found: format!("{answer:?}, {when:?}"),
        })
    }

    /// The queue is empty: all that was told is acknowledged. Returns who has a limit.
    pub fn settle(&mut self) -> Vec<usize> {
        for customer in &mut self.customers {
            customer.base = customer.newest();
        }
        let held = self.customers.iter().enumerate();
        let held = held.filter(|(_, customer)| customer.base.is_held());
        held.map(|(number, _)| number).collect()
    }

    /// How many changes of each kind were told.
    pub fn told(&self) -> BTreeMap<&'static str, usize> {
        let sum = |of: fn(&Customer) -> usize| self.customers.iter().map(of).sum();
        BTreeMap::from([
            ("limits", sum(|it| it.sets.len())),
            ("usages", sum(|it| it.usages.len())),
            ("purges", sum(|it| it.purges.len())),
        ])
    }
}
