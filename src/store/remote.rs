//! Redis as the store.

use fred::prelude::*;
use fred::types::Value;

use super::layout::{self, Layouts};
use super::primary::Primary;
use super::replicas::Replicas;
use super::write::Writer;
use super::{DeadLetter, StoreError};
use crate::keys::Keys;

/// Compares and writes. Clones share one connection, on which concurrent calls are pipelined.
#[derive(Clone)]
pub(super) struct Remote {
    pub primary: Primary,
    pub keys: Keys,
    pub writer: Writer,
    pub replicas: Replicas,
}

impl Remote {
    /// Adds a message that cannot be applied, in full, to a stream of at most `most` messages.
    pub async fn keep(&self, letter: DeadLetter<'_>, most: u64) -> Result<(), StoreError> {
        let mut fields: Vec<(&str, Value)> = vec![
            ("message_id", letter.message_id.into()),
            ("reason", letter.reason.into()),
            ("kind", letter.kind.into()),
            (
                "receive_count",
                Value::Integer(i64::from(letter.receive_count)),
            ),
            (
                "sent_at",
                letter
                    .sent_at
                    .map_or(String::new(), |at| at.to_string())
                    .into(),
            ),
            ("body", letter.body.into()),
        ];
        if let Some(attribute) = letter.type_attribute {
            fields.push(("type", attribute.into()));
        }
        let cap = ("MAXLEN", "=", i64::try_from(most).unwrap_or(i64::MAX));
        let kept = async {
            let client = self.primary.client()?;
            let writing = self.replicas.watch(&client);
            let key = self.keys.dead_letters();
            let _: String = client.xadd(key, false, cap, "*", fields).await?;
            self.replicas.confirm(writing).await
        };
        kept.await
    }

    /// Returns the layouts of a sample of customers in Redis.
    pub async fn layouts(&self) -> Result<Layouts, StoreError> {
        layout::look(&self.primary.client()?, &self.keys).await
    }

    /// The server's version, once connected.
    pub fn version(&self) -> Option<String> {
        let client = self.primary.client().ok()?;
        client.server_version().map(|version| version.to_string())
    }

    /// Closes the connection.
    pub async fn close(&self) {
        let Ok(client) = self.primary.client() else {
            return;
        };
        if let Err(error) = client.quit().await {
            tracing::debug!(%error, "cannot close the connection to Redis");
        }
    }
}
