//! Parses and plans a fixed corpus, in batches of ten as the worker does: for callgrind.

use std::process::ExitCode;

use entitlement_core::keys::Keys;
use entitlement_core::message::{self, Attributes, Change};
use entitlement_core::plan::{self, Step};
use testkit::mix::{Shape, messages};

const OF_EACH_SHAPE: usize = 250;
const SHAPES: [Shape; 4] = [
    Shape::Payload,
    Shape::Webhook,
    Shape::Subscription,
    Shape::Notification,
];

fn main() -> ExitCode {
    let Some(times) = std::env::args()
        .nth(1)
        .and_then(|times| times.parse::<usize>().ok())
    else {
        eprintln!("usage: corpus TIMES\nParses and plans the corpus TIMES times.");
        return ExitCode::from(2);
    };
    let corpus: Vec<String> = SHAPES
        .into_iter()
        .flat_map(|shape| messages(1, shape, OF_EACH_SHAPE))
        .collect();
    let keys = Keys::new("production");
    let attributes = Attributes {
        kind: None,
        sent: Some(1_763_078_400_000),
    };
    let mut items = 0;
    for _ in 0..times {
        for batch in corpus.chunks(10) {
            let mut steps: Vec<Step> = Vec::new();
            for body in batch {
                match planned(&keys, body, &attributes) {
                    Ok(planned) => steps.extend(planned),
                    Err(reason) => {
                        eprintln!("the corpus holds an invalid message: {reason}");
                        return ExitCode::FAILURE;
                    }
                }
            }
            let steps: Vec<&Step> = steps.iter().collect();
            let superseded = plan::coalesce(&steps, false);
            items += steps.iter().map(|step| step.items.len()).sum::<usize>() - superseded.len();
        }
    }
    println!("{} {items}", times * corpus.len());
    ExitCode::SUCCESS
}

fn planned(
    keys: &Keys,
    body: &str,
    attributes: &Attributes,
) -> Result<Vec<Step>, message::Invalid> {
    let reading = message::read(body, attributes).map_err(|unreadable| unreadable.reason)?;
    let steps = |change: &Change<'_>| plan::steps(keys, &change.state, plan::Rules::default());
    Ok(reading.changes.iter().flat_map(steps).collect())
}
