//! Ten messages of a few owners, who meet in one batch.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Calm;
use crate::story::{Event, Metered, STEP, Spec, Story, ahead};

const SIZE: usize = 10;

/// The events of one owner, in the order of delivery, each with its time in steps.
#[derive(Clone, Copy)]
enum Sent {
    Set(u64),
    Usage(u64),
    Credit(u64),
    Purge(u64),
}

use Sent::{Credit, Purge, Set, Usage};

/// Each depends on what stands between its writes: a set before a usage decides whether it is written, a purge whether
/// anything is.
const PATTERNS: [&[Sent]; 8] = [
    &[Set(1), Credit(2), Usage(5), Set(3)],
    &[Set(1), Usage(2), Set(3)],
    &[Purge(1), Set(2), Usage(3), Set(4)],
    &[Set(2), Usage(3), Purge(4), Set(5)],
    &[Set(3), Purge(3), Usage(4), Set(3)],
    &[Usage(1), Set(2), Credit(3), Set(4), Usage(4)],
    &[Set(4), Usage(2), Set(1), Credit(5)],
    &[Set(1), Usage(4), Purge(2), Credit(5), Set(3)],
];

pub fn next(story: &mut Story, calm: &mut Calm) -> Vec<Arc<Spec>> {
    let mut of_owners: Vec<VecDeque<Arc<Spec>>> = Vec::new();
    let mut room = SIZE;
    let mut named = Vec::new();
    while room > 0 {
        let known = calm.owners.len();
        // One in four had an event before, and may be cached or purged.
        let owner = match calm.rng.u32(0..4) {
            0 if known > 0 => known - 1 - calm.rng.usize(0..known.min(12)),
            _ => calm.owner(),
        };
        if named.contains(&owner) {
            continue;
        }
        named.push(owner);
        let mut specs = of_owner(story, calm, owner);
        specs.truncate(room);
        room -= specs.len();
        of_owners.push(specs.into());
    }
    let mut burst = Vec::new();
    while burst.len() < SIZE {
        let chosen = calm.rng.usize(0..of_owners.len());
        burst.extend(of_owners[chosen].pop_front());
    }
    burst
}

fn of_owner(story: &mut Story, calm: &mut Calm, owner: usize) -> Vec<Arc<Spec>> {
    let rng = &mut calm.rng;
    let chosen: Vec<Sent> = match rng.u32(0..3) {
        0 => (0..rng.usize(2..7))
            .map(|_| {
                let after = rng.u64(0..8);
                match rng.u32(0..100) {
                    0..35 => Set(after),
                    35..65 => Usage(after),
                    65..80 => Credit(after),
                    _ => Purge(after),
                }
            })
            .collect(),
        _ => PATTERNS[rng.usize(0..PATTERNS.len())].to_vec(),
    };
    let since = story.tick();
    (0..8).for_each(|_| {
        story.tick();
    });
    let mut specs: Vec<Arc<Spec>> = Vec::new();
    for said in chosen {
        let what = match said {
            Set(after) => Event::Set(story.set(owner, since + after * STEP)),
            Usage(after) => Event::Usage {
                owner,
                of: Metered::Feature(calm.rng.u8(0..6)),
                at: since + after * STEP,
            },
            Credit(after) => Event::Usage {
                owner,
                of: Metered::Credit(calm.rng.u8(0..2)),
                at: since + after * STEP,
            },
            Purge(after) => Event::Purge {
                owners: vec![owner],
                at: since + after * STEP,
            },
        };
        let ahead = (calm.rng.u32(0..100) < 8).then(|| ahead(&mut calm.rng));
        specs.push(story.spec_ahead(what, ahead));
        if calm.rng.u32(0..100) < 15 {
            let again = specs[calm.rng.usize(0..specs.len())].clone();
            specs.push(again);
        }
    }
    specs
}
