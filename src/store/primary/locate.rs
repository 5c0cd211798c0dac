//! Looks up the primary at sentinels or at the nodes of a cluster.

use fred::prelude::*;
use fred::types::{CustomCommand, Value};
use fred::util::redis_keyslot;

use crate::config::{Address, RedisConfig, Topology};
use crate::store::{StoreError, connect};

/// Asks the nodes one after the other, first the one that answered last.
pub struct Locator {
    redis: RedisConfig,
    /// The configured nodes, and then the discovered ones.
    nodes: Vec<Address>,
    configured: usize,
    /// The connection to the first node, if it answered.
    asked: Option<(Address, Client)>,
}

/// The answer of a node.
enum Answer {
    Primary(Address),
    /// The node does not know the primary.
    Unknown,
}

impl Locator {
    pub fn new(redis: &RedisConfig) -> Self {
        let nodes = match &redis.topology {
            Topology::Sentinel { nodes, .. } | Topology::Cluster { nodes, .. } => nodes.clone(),
            Topology::Standalone(_) | Topology::Unix(_) => Vec::new(),
        };
        Self {
            redis: redis.clone(),
            configured: nodes.len(),
            nodes,
            asked: None,
        }
    }

    /// Starts with another node, because the last answer was wrong: its node may be cut off.
    pub fn ask_another(&mut self) {
        self.leave();
        self.nodes[..self.configured].rotate_left(1);
    }

    /// Returns the address of the primary, or why the lookup failed.
    pub async fn primary(&mut self) -> Result<Address, StoreError> {
        let mut nodes = self.nodes.clone();
        if let Some((asked, _)) = &self.asked {
            nodes.sort_by_key(|node| node != asked);
        }
        let mut unknown = false;
        let mut silent = Vec::new();
        for node in &nodes {
            match self.ask(node).await {
                Ok(Answer::Primary(address)) => return Ok(address),
                Ok(Answer::Unknown) => unknown = true,
                Err(error) => silent.push((node, error)),
            }
            self.leave();
        }
        Err(self.failure(unknown, &silent))
    }

    async fn ask(&mut self, node: &Address) -> Result<Answer, StoreError> {
        let client = match self.asked.take() {
            Some((asked, client)) if asked == *node => client,
            _ => connect::connect_to_ask(&self.redis, node)
                .await
                .map_err(|error| match error.downcast::<StoreError>() {
                    Ok(error) => error,
                    Err(error) => StoreError::setup(&error),
                })?,
        };
        self.asked = Some((node.clone(), client.clone()));
        match &self.redis.topology {
            Topology::Sentinel { master, .. } => ask_sentinel(&client, master).await,
            Topology::Cluster { prefix, .. } => {
                let slots = call(&client, "CLUSTER", &["SLOTS"]).await?;
                let slots = slots.into_array();
                let (owner, others) = owner(slots, redis_keyslot(prefix.as_bytes()), node);
                self.nodes.truncate(self.configured);
                let new = others.into_iter().filter(|it| !self.nodes.contains(it));
                let new: Vec<Address> = new.collect();
                self.nodes.extend(new);
                Ok(owner.map_or(Answer::Unknown, Answer::Primary))
            }
            Topology::Standalone(_) | Topology::Unix(_) => Ok(Answer::Unknown),
        }
    }

    fn leave(&mut self) {
        if let Some((_, client)) = self.asked.take() {
            tokio::spawn(async move { client.quit().await });
        }
    }

    fn failure(&self, unknown: bool, silent: &[(&Address, StoreError)]) -> StoreError {
        let reasons: Vec<String> = silent
            .iter()
            .map(|(node, error)| format!("{node} {error}"))
            .collect();
        let reasons = reasons.join("; ");
        let refused = silent.iter().any(|(_, error)| error.needs_a_person());
        match &self.redis.topology {
            Topology::Sentinel { master, .. } if unknown => StoreError::lost(
                format!(
                    "no sentinel knows a primary named \"{master}\": check REDIS_SENTINEL_MASTER"
                ),
                true,
            ),
            Topology::Sentinel { .. } => {
                StoreError::lost(format!("no sentinel answers: {reasons}"), refused)
            }
            _ if unknown => StoreError::lost(
                "no node of the cluster serves the slot of the keys".to_owned(),
                false,
            ),
            _ => StoreError::lost(
                format!("no node of the cluster answers: {reasons}"),
                refused,
            ),
        }
    }
}

async fn call(client: &Client, command: &'static str, words: &[&str]) -> Result<Value, StoreError> {
    let words: Vec<Value> = words.iter().map(|word| (*word).into()).collect();
    let command = CustomCommand::new_static(command, None, false);
    Ok(client.custom(command, words).await?)
}

async fn ask_sentinel(client: &Client, master: &str) -> Result<Answer, StoreError> {
    let answer = call(client, "SENTINEL", &["GET-MASTER-ADDR-BY-NAME", master]).await?;
    if answer.is_null() {
        return Ok(Answer::Unknown);
    }
    let (host, port) = answer.convert::<(String, u16)>()?;
    Ok(Answer::Primary(Address { host, port }))
}

/// Reads the owner of a slot, and all primaries and replicas, from a reply to `CLUSTER SLOTS`.
fn owner(answer: Vec<Value>, slot: u16, asked: &Address) -> (Option<Address>, Vec<Address>) {
    let mut owner = None;
    let mut all = Vec::new();
    for range in answer {
        let mut parts = range.into_array().into_iter();
        let (Some(from), Some(to)) = (number(parts.next()), number(parts.next())) else {
            continue;
        };
        let mut nodes: Vec<Address> = parts.filter_map(|node| address(node, asked)).collect();
        if (from..=to).contains(&slot) {
            owner = nodes.first().cloned();
        }
        all.append(&mut nodes);
    }
    all.sort();
    all.dedup();
    (owner, all)
}

/// Reads `[host, port, id, [name, value …]]`. A missing host is the node that answered. A host
/// name, which a certificate would contain, is preferred to an address.
fn address(node: Value, asked: &Address) -> Option<Address> {
    let mut parts = node.into_array().into_iter();
    let host = parts.next().and_then(|host| host.into_string());
    let port = number(parts.next())?;
    let more = parts.nth(1).map(Value::into_array).unwrap_or_default();
    let more: Vec<String> = more.into_iter().filter_map(Value::into_string).collect();
    let named = more
        .chunks(2)
        .find(|pair| pair[0] == "hostname")
        .and_then(|pair| pair.get(1));
    let host = named
        .cloned()
        .or(host)
        .filter(|host| !host.is_empty() && host != "?")
        .unwrap_or_else(|| asked.host.clone());
    Some(Address { host, port })
}

fn number(value: Option<Value>) -> Option<u16> {
    value?.as_u64().and_then(|number| number.try_into().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        text.into()
    }

    fn node(host: Value, port: i64, more: Vec<Value>) -> Value {
        Value::Array(vec![host, port.into(), text("id"), Value::Array(more)])
    }

    fn at(host: &str, port: u16) -> Address {
        Address {
            host: host.into(),
            port,
        }
    }

    #[test]
    fn the_owner_of_a_slot_is_the_first_node_of_its_range() {
        let range = |from: i64, to: i64, nodes: Vec<Value>| {
            let mut range = vec![from.into(), to.into()];
            range.extend(nodes);
            Value::Array(range)
        };
        let named = vec![text("hostname"), text("c.example")];
        let answer = vec![
            range(
                0,
                99,
                vec![node(text("a"), 1, vec![]), node(text("b"), 2, vec![])],
            ),
            range(100, 199, vec![node(text("10.0.0.3"), 3, named)]),
            range(300, 400, vec![node(Value::Null, 4, vec![])]),
        ];
        let owner = |slot| super::owner(answer.clone(), slot, &at("asked", 9)).0;
        assert_eq!(owner(99), Some(at("a", 1)));
        assert_eq!(owner(100), Some(at("c.example", 3)));
        assert_eq!(owner(200), None);
        assert_eq!(owner(300), Some(at("asked", 4)));
        let (_, all) = super::owner(answer, 0, &at("asked", 9));
        assert_eq!(all.len(), 4);
    }
}
