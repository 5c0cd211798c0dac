//! Finished bodies: an answer is written out once for a state, and not for each question.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use quick_cache::{Equivalent, Weighter};

use super::Answer;
use super::copy::{Evictions, OwnerKey, Weighted, by_weight};
use crate::keys::Owner;

/// A body and its strong validator.
#[derive(Debug)]
pub struct Body {
    pub bytes: Bytes,
    /// In quotes, as the header has it.
    pub etag: String,
    /// Of the state that it was made of.
    order: u64,
    /// When it is no longer true by time alone.
    good_until: f64,
}

impl Body {
    /// A body that is not kept.
    pub fn once(text: String) -> Self {
        Self::new(text, 0, 0.0)
    }

    fn new(text: String, order: u64, good_until: f64) -> Self {
        Self {
            etag: etag(text.as_bytes()),
            bytes: text.into(),
            order,
            good_until,
        }
    }
}

/// The first 128 bits of SHA-256.
pub fn etag(content: &[u8]) -> String {
    use std::fmt::Write;
    let mut etag = String::with_capacity(34);
    etag.push('"');
    for byte in &digest(&SHA256, content).as_ref()[..16] {
        // Writing to a string does not fail.
        let _ = write!(etag, "{byte:02x}");
    }
    etag.push('"');
    etag
}

/// Which answer it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    Entitlements,
    State,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    owner: OwnerKey,
    form: Form,
}

#[derive(Hash)]
struct Asked<'a> {
    owner: Owner<'a>,
    form: Form,
}

impl Equivalent<Key> for Asked<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        self.owner.equivalent(&key.owner) && self.form == key.form
    }
}

#[derive(Clone)]
struct ByBytes;

const OVERHEAD_BYTES: usize = 300;

impl Weighter<Key, Arc<Body>> for ByBytes {
    fn weight(&self, key: &Key, body: &Arc<Body>) -> u64 {
        (key.owner.weight() + body.bytes.len() + OVERHEAD_BYTES) as u64
    }
}

pub struct Bodies {
    kept: Weighted<Key, Arc<Body>, ByBytes>,
}

impl Bodies {
    pub fn new(max_bytes: u64) -> Self {
        Self {
            kept: by_weight(max_bytes, ByBytes, Evictions::default()),
        }
    }

    /// The body of an answer, made now if there is none of its state.
    pub fn get<E>(
        &self,
        owner: Owner<'_>,
        form: Form,
        answer: &Answer,
        now: f64,
        make: impl FnOnce() -> Result<String, E>,
    ) -> Result<Arc<Body>, E> {
        let asked = Asked { owner, form };
        if let Some(body) = self.kept.get(&asked)
            && body.order == answer.slot.order
            && now < body.good_until
        {
            return Ok(body);
        }
        let good_until = answer.slot.state.good_until(now);
        let body = Arc::new(Body::new(make()?, answer.slot.order, good_until));
        let key = Key {
            owner: OwnerKey::of(owner),
            form,
        };
        self.kept.insert(key, body.clone());
        Ok(body)
    }

    pub fn bytes(&self) -> u64 {
        self.kept.weight()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Origin, Slot};
    use super::*;
    use crate::reader::State;
    use crate::store::Mark;

    #[test]
    fn the_ids_of_an_owner_count_as_well_as_its_body() {
        let bodies = Bodies::new(64 << 20);
        let answer = Answer {
            slot: Arc::new(Slot::new(State::empty(None), Mark::default(), 1)),
            origin: Origin::Redis,
            age: Duration::ZERO,
        };
        let id = "x".repeat(1_024);
        let body = r#"{"data":{"entitlements":[]}}"#;
        let keep = |owner| {
            let before = bodies.bytes();
            let kept = bodies.get(owner, Form::State, &answer, 1.0, || {
                Ok::<_, ()>(body.into())
            });
            assert_eq!(kept.unwrap().bytes, body);
            usize::try_from(bodies.bytes() - before).unwrap()
        };
        let short = keep(Owner {
            customer: "a",
            resource: None,
        });
        let long = keep(Owner {
            customer: &id,
            resource: Some(&id),
        });
        assert_eq!(short, 1 + body.len() + OVERHEAD_BYTES);
        assert_eq!(long, short + 2_047);
    }
}
