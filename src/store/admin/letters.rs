//! Reads the stream of dead letters that [`Store::keep`](crate::store::Store::keep) writes.

use std::collections::HashMap;

use fred::prelude::*;

use super::AdminClient;
use crate::store::StoreError;

/// A dead letter as the stream holds it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeptLetter {
    /// The id of the entry in the stream.
    pub id: String,
    pub message_id: String,
    pub reason: String,
    pub kind: String,
    pub receive_count: u32,
    /// When it was sent, in epoch milliseconds.
    pub sent_at: Option<u64>,
    pub body: String,
    /// The message attribute that named its kind, if there was one.
    pub type_attribute: Option<String>,
}

/// Entries per reply; few, since bodies may be large.
const LETTERS_PER_PAGE: u64 = 50;

impl AdminClient {
    /// Returns the number of letters in a stream.
    pub async fn count_letters(&self, stream: &str) -> Result<u64, StoreError> {
        Ok(self.client.xlen(stream).await?)
    }

    /// Returns the oldest letters after the entry `after`; none when there are no more.
    pub async fn letters(
        &self,
        stream: &str,
        after: Option<&str>,
    ) -> Result<Vec<KeptLetter>, StoreError> {
        // Computes the next id: exclusive ranges need Redis 6.2.
        let next = after
            .and_then(parts)
            .map(|(ms, n)| format!("{ms}-{}", n + 1));
        let start = next.unwrap_or_else(|| "-".to_owned());
        self.range(stream, start, "+".into(), LETTERS_PER_PAGE)
            .await
    }

    /// Returns the letter of one entry; `None` for an invalid id.
    pub async fn letter(&self, stream: &str, id: &str) -> Result<Option<KeptLetter>, StoreError> {
        if parts(id).is_none() {
            return Ok(None);
        }
        let found = self.range(stream, id.to_owned(), id.to_owned(), 1).await?;
        Ok(found.into_iter().next())
    }

    /// Deletes entries; returns how many existed.
    pub async fn forget_letters(&self, stream: &str, ids: &[String]) -> Result<u64, StoreError> {
        if ids.is_empty() {
            return Ok(0);
        }
        Ok(self.client.xdel(stream, ids.to_vec()).await?)
    }

    async fn range(
        &self,
        stream: &str,
        start: String,
        end: String,
        most: u64,
    ) -> Result<Vec<KeptLetter>, StoreError> {
        let entries: Vec<(String, HashMap<String, String>)> = self
            .client
            .xrange_values(stream, start, end, Some(most))
            .await?;
        Ok(entries.into_iter().map(letter).collect())
    }
}

/// Parses the milliseconds and the number of an id, for example `1795426055851-0`.
fn parts(id: &str) -> Option<(u64, u64)> {
    let (ms, number) = id.split_once('-')?;
    Some((ms.parse().ok()?, number.parse().ok()?))
}

fn letter((id, mut fields): (String, HashMap<String, String>)) -> KeptLetter {
    let type_attribute = fields.remove("type");
    let mut field = |name| fields.remove(name).unwrap_or_default();
    KeptLetter {
        id,
        message_id: field("message_id"),
        reason: field("reason"),
        kind: field("kind"),
        receive_count: field("receive_count").parse().unwrap_or(0),
        sent_at: field("sent_at").parse().ok(),
        body: field("body"),
        type_attribute,
    }
}
