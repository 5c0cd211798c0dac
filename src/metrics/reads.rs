//! Defines the metrics of the read API.

mod labels;

pub use labels::{ReadResult, ReadRoute, UpstreamOutcome};

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::reader::Miss;
use labels::{OutcomeLabel, Question, ReasonLabel, RouteLabel};

/// Seconds: answers from memory take microseconds, those of the Edge API up to 10 s.
const ANSWERS: [f64; 12] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.1, 0.5, 2.5, 10.0,
];
const UPSTREAM: [f64; 8] = [0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0];
const AGES: [f64; 8] = [0.0, 1.0, 10.0, 60.0, 300.0, 1_800.0, 3_600.0, 86_400.0];

/// Of the read API; cheap to clone, all clones count together.
#[derive(Debug, Clone)]
pub struct ReadMetrics {
    questions: Family<Question, Counter>,
    answers: Family<RouteLabel, Histogram, fn() -> Histogram>,
    /// The members of both families by route and result, so that a question looks up no labels.
    by_route: Arc<[(Histogram, [Counter; ReadResult::ALL.len()])]>,
    pub ages: Histogram,
    misses: Family<ReasonLabel, Counter>,
    upstream: Family<OutcomeLabel, Counter>,
    upstream_calls: Histogram,
    pub joined: Counter,
    pub copies: Gauge,
    pub copy_bytes: Gauge,
    pub copy_bytes_limit: Gauge,
    pub evictions: Counter,
    pub invalidations: Counter,
    pub tracking_up: Gauge,
    pub tracking_losses: Counter,
    pub breaker_open: Gauge,
    pub refilled: Counter,
}

impl Default for ReadMetrics {
    fn default() -> Self {
        let questions = Family::<Question, Counter>::default();
        let new_answers: fn() -> Histogram = || Histogram::new(ANSWERS);
        let answers = Family::new_with_constructor(new_answers);
        let of_route = |route: ReadRoute| {
            let counter =
                |result| Counter::clone(&questions.get_or_create(&question(route, result)));
            let label = RouteLabel {
                route: route.as_str(),
            };
            let histogram = Histogram::clone(&answers.get_or_create(&label));
            (histogram, ReadResult::ALL.map(counter))
        };
        Self {
            by_route: ReadRoute::ALL.into_iter().map(of_route).collect(),
            questions,
            answers,
            ages: Histogram::new(AGES),
            misses: Family::default(),
            upstream: Family::default(),
            upstream_calls: Histogram::new(UPSTREAM),
            joined: Counter::default(),
            copies: Gauge::default(),
            copy_bytes: Gauge::default(),
            copy_bytes_limit: Gauge::default(),
            evictions: Counter::default(),
            invalidations: Counter::default(),
            tracking_up: Gauge::default(),
            tracking_losses: Counter::default(),
            breaker_open: Gauge::default(),
            refilled: Counter::default(),
        }
    }
}

impl ReadMetrics {
    /// Registered only where questions are answered: elsewhere they would all stay 0.
    pub fn register(&self, registry: &mut Registry) {
        let all = registry.sub_registry_with_prefix("entitlement_sync_read");
        all.register(
            "questions",
            "Questions asked of the read API, by what was asked and how it was answered",
            self.questions.clone(),
        );
        all.register_with_unit(
            "answer_duration",
            "Time to answer a question",
            Unit::Seconds,
            self.answers.clone(),
        );
        all.register_with_unit(
            "age",
            "How long ago an answer that was not confirmed was last known to be true",
            Unit::Seconds,
            self.ages.clone(),
        );
        all.register(
            "misses",
            "Customers that Redis could not answer for, by why",
            self.misses.clone(),
        );
        all.register(
            "upstream_requests",
            "Requests to the Edge API for a customer, by how they ended",
            self.upstream.clone(),
        );
        all.register_with_unit(
            "upstream_duration",
            "Time of requests to the Edge API for a customer",
            Unit::Seconds,
            self.upstream_calls.clone(),
        );
        all.register(
            "joined",
            "Questions that waited for the load of another",
            self.joined.clone(),
        );
        all.register(
            "copies",
            "Customers and resources kept in memory",
            self.copies.clone(),
        );
        all.register_with_unit(
            "copies",
            "Memory that they take",
            Unit::Bytes,
            self.copy_bytes.clone(),
        );
        all.register_with_unit(
            "copies_limit",
            "Memory that they may take",
            Unit::Bytes,
            self.copy_bytes_limit.clone(),
        );
        all.register(
            "evictions",
            "Customers and resources that made room for others",
            self.evictions.clone(),
        );
        all.register(
            "invalidations",
            "Changes that Redis notified",
            self.invalidations.clone(),
        );
        all.register(
            "tracking_up",
            "1 while Redis notifies changes",
            self.tracking_up.clone(),
        );
        all.register(
            "tracking_losses",
            "Times that the connection was lost on which Redis notifies changes",
            self.tracking_losses.clone(),
        );
        all.register(
            "breaker_open",
            "1 while the Edge API is not asked because it failed of late",
            self.breaker_open.clone(),
        );
        all.register(
            "refilled",
            "Customers loaded again after Redis lost its data",
            self.refilled.clone(),
        );
        // Created at the start, so that rates and alerts see the first event too.
        for miss in Miss::ALL {
            drop(self.misses.get_or_create(&ReasonLabel {
                reason: miss.as_str(),
            }));
        }
        for outcome in UpstreamOutcome::ALL {
            drop(self.upstream.get_or_create(&OutcomeLabel {
                outcome: outcome.as_str(),
            }));
        }
    }

    /// A question was answered, or not.
    pub fn answered(&self, route: ReadRoute, result: ReadResult, took: Duration) {
        let (answers, questions) = &self.by_route[route as usize];
        questions[result as usize].inc();
        answers.observe(took.as_secs_f64());
    }

    pub fn missed(&self, miss: Miss) {
        self.misses
            .get_or_create(&ReasonLabel {
                reason: miss.as_str(),
            })
            .inc();
    }

    pub fn upstream(&self, outcome: UpstreamOutcome) {
        self.upstream
            .get_or_create(&OutcomeLabel {
                outcome: outcome.as_str(),
            })
            .inc();
    }

    pub fn upstream_took(&self, took: Duration) {
        self.upstream_calls.observe(took.as_secs_f64());
    }

    /// How many questions were answered so, whatever was asked.
    pub fn count(&self, result: ReadResult) -> u64 {
        let of = |(_, questions): &(_, [Counter; _])| questions[result as usize].get();
        self.by_route.iter().map(of).sum()
    }

    /// How many requests to the Edge API ended so.
    pub fn upstream_count(&self, outcome: UpstreamOutcome) -> u64 {
        self.upstream
            .get_or_create(&OutcomeLabel {
                outcome: outcome.as_str(),
            })
            .get()
    }
}

fn question(route: ReadRoute, result: ReadResult) -> Question {
    Question {
        route: route.as_str(),
        result: result.as_str(),
    }
}
