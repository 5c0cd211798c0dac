//! Finished bodies: an answer is written out once for a state, and not for each question.

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use bytes_utils::Str;
use quick_cache::Weighter;

use super::Answer;
use super::copy::{Evictions, Weighted, by_weight};

/// A body and its strong validator. Clones share both.
#[derive(Debug, Clone)]
pub struct Body {
    pub bytes: Bytes,
    /// In quotes, as the header has it.
    pub etag: Str,
    /// When it is no longer true by time alone.
    good_until: f64,
}

impl Body {
    /// A body that is not kept.
    pub fn once(text: String) -> Self {
        Self::new(text, 0.0)
    }

    fn new(text: String, good_until: f64) -> Self {
        let (length, etag) = (text.len(), etag(text.as_bytes()));
        // In one piece of memory: each answer needs both.
        let (body, etag) = Str::from(text + &etag).split_at_bytes(length);
        Self {
            bytes: body.into_inner(),
            etag,
            good_until,
        }
    }
}

/// The first 128 bits of SHA-256.
pub fn etag(content: &[u8]) -> Str {
    let digest = digest(&SHA256, content);
    // It has 32 bytes.
    let half = digest.as_ref().first_chunk().copied().unwrap_or_default();
    format!("\"{:032x}\"", u128::from_be_bytes(half)).into()
}

/// Which answer it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    Entitlements,
    State,
}

impl Form {
    const ALL: [Self; 2] = [Self::Entitlements, Self::State];
}

/// A state by its order, which no other has, and the form of its answer.
type Key = (u64, Form);

#[derive(Clone)]
struct ByBytes;

const OVERHEAD_BYTES: usize = 300;

impl Weighter<Key, Body> for ByBytes {
    fn weight(&self, _: &Key, body: &Body) -> u64 {
        (body.bytes.len() + OVERHEAD_BYTES) as u64
    }
}

pub struct Bodies {
    kept: Weighted<Key, Body, ByBytes>,
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
        form: Form,
        answer: &Answer,
        now: f64,
        make: impl FnOnce() -> Result<String, E>,
    ) -> Result<Body, E> {
        let key = (answer.slot.order, form);
        if let Some(body) = self.kept.get(&key)
            && now < body.good_until
        {
            return Ok(body);
        }
        let good_until = answer.slot.state.good_until(now);
        let body = Body::new(make()?, good_until);
        self.kept.insert(key, body.clone());
        Ok(body)
    }

    /// Drops the bodies of a state that another has replaced.
    pub fn forget(&self, order: u64) {
        for form in Form::ALL {
            self.kept.remove(&(order, form));
        }
    }

    pub fn bytes(&self) -> u64 {
        self.kept.weight()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::super::{Origin, Slot};
    use super::*;
    use crate::reader::State;
    use crate::store::Mark;

    #[test]
    fn a_body_is_kept_for_its_state_until_another_replaces_it() {
        let bodies = Bodies::new(64 << 20);
        let body = |order, text: &str| {
            let answer = Answer {
                slot: Arc::new(Slot::new(State::empty(None), Mark::default(), order)),
                origin: Origin::Redis,
                age: Duration::ZERO,
            };
            let made = || Ok::<_, ()>(text.to_owned());
            let body = bodies.get(Form::State, &answer, 1.0, made).unwrap();
            assert_eq!(body.etag, etag(&body.bytes));
            body.bytes
        };
        assert_eq!(body(1, "first"), "first");
        assert_eq!(bodies.bytes(), 5 + OVERHEAD_BYTES as u64);
        assert_eq!(body(1, "made again"), "first");
        assert_eq!(body(2, "second"), "second");
        bodies.forget(1);
        assert_eq!(bodies.bytes(), 6 + OVERHEAD_BYTES as u64);
        assert_eq!(body(1, "made again"), "made again");
    }
}
