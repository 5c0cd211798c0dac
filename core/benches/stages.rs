//! What a message costs before it meets the network: `cargo bench -p entitlement-core`.
//!
//! Applying is measured where Redis is, by `script/bench`; here are the steps up to it.

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use entitlement_core::keys::Keys;
use entitlement_core::message::{Attributes, read};
use entitlement_core::plan::{self, Step};
use testkit::mix::{Shape, messages};

const MESSAGES: usize = 1_000;
const SHAPES: [Shape; 4] = [
    Shape::Payload,
    Shape::Webhook,
    Shape::Subscription,
    Shape::Notification,
];

fn main() {
    divan::main();
}

fn corpus(shape: Shape) -> Vec<String> {
    messages(1, shape, MESSAGES).collect()
}

fn attributes() -> Attributes {
    Attributes {
        kind: None,
        sent: Some(1_763_078_400_000),
    }
}

fn planned(keys: &Keys, corpus: &[String], attributes: &Attributes) -> Vec<Step> {
    let mut steps = Vec::new();
    for body in corpus {
        let reading = read(body, attributes).expect("the corpus is valid");
        for change in &reading.changes {
            steps.extend(plan::steps(keys, &change.state, plan::Rules::default()));
        }
    }
    steps
}

/// From body to changes.
#[divan::bench(args = SHAPES)]
fn parse(bencher: Bencher<'_, '_>, shape: Shape) {
    let (corpus, attributes) = (corpus(shape), attributes());
    bencher.counter(ItemsCount::new(MESSAGES)).bench(|| {
        for body in &corpus {
            drop(black_box(read(body, &attributes)));
        }
    });
}

/// Keys and values from what is parsed.
#[divan::bench]
fn plan_steps(bencher: Bencher<'_, '_>) {
    let (corpus, attributes) = (corpus(Shape::Payload), attributes());
    let readings: Vec<_> = corpus
        .iter()
        .map(|body| read(body, &attributes).expect("the corpus is valid"))
        .collect();
    let changes = || readings.iter().flat_map(|reading| &reading.changes);
    let keys = Keys::new("production");
    bencher.counter(ItemsCount::new(MESSAGES)).bench(|| {
        for change in changes() {
            drop(black_box(plan::steps(
                &keys,
                &change.state,
                plan::Rules::default(),
            )));
        }
    });
}

/// Finding what a neighbour supersedes, in batches.
#[divan::bench(args = [2, 10])]
fn coalesce(bencher: Bencher<'_, '_>, batch: usize) {
    let keys = Keys::new("production");
    let steps = planned(&keys, &corpus(Shape::Payload), &attributes());
    bencher.counter(ItemsCount::new(MESSAGES)).bench(|| {
        for batch in steps.chunks(batch) {
            black_box(plan::coalesce(&batch.iter().collect::<Vec<_>>(), false));
        }
    });
}
