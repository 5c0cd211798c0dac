//! A Redis Cluster on loopback.

use std::time::Duration;

use redis::{FromRedisValue, RedisResult, Value};

use super::{Redis, free_port, until};

pub struct Cluster {
    pub nodes: Vec<Redis>,
}

const SLOTS: u16 = 16_384;
const LIMIT: Duration = Duration::from_secs(30);

impl Cluster {
    /// Three primaries, each with a third of the slots, and so many replicas of the one that owns `slot`.
    pub async fn start(replicas: usize, slot: u16) -> Cluster {
        let mut nodes = Vec::new();
        for _ in 0..3 + replicas {
            nodes.push(node().await);
        }
        let cluster = Cluster { nodes };
        for (place, node) in cluster.nodes[..3].iter().enumerate() {
            let third = |place: usize| u16::try_from(place).unwrap() * (SLOTS / 3);
            let to = if place == 2 { SLOTS } else { third(place + 1) };
            // ADDSLOTSRANGE is of Redis 7 and later.
            let slots: Vec<String> = (third(place)..to).map(|it| it.to_string()).collect();
            let mut command = vec!["CLUSTER", "ADDSLOTS"];
            command.extend(slots.iter().map(String::as_str));
            node.cmd(&command);
            node.cmd(&["CLUSTER", "SET-CONFIG-EPOCH", &(place + 1).to_string()]);
        }
        for node in &cluster.nodes[1..] {
            let bus = config(node, "cluster-port");
            let port = node.port().to_string();
            cluster.nodes[0].cmd(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]);
        }
        cluster
            .wait_whole(&cluster.nodes.iter().collect::<Vec<_>>())
            .await;
        let owner = id(cluster.owner(slot));
        for node in &cluster.nodes[3..] {
            until("the node knows whom to replicate", LIMIT, async || {
                node.try_cmd(&["CLUSTER", "REPLICATE", &owner]).is_ok()
            })
            .await;
        }
        for node in &cluster.nodes[3..] {
            until("the replica is linked", LIMIT, async || {
                node.role().as_deref() == Some("slave") && node.info("master_link_status") == "up"
            })
            .await;
        }
        cluster
    }

    pub async fn wait_whole(&self, nodes: &[&Redis]) {
        let count = self.nodes.len();
        until("the cluster is whole", LIMIT, async || {
            nodes.iter().all(|node| {
                let info: RedisResult<String> = node
                    .try_cmd(&["CLUSTER", "INFO"])
                    .map(|info| redis::from_redis_value(info).unwrap());
                info.is_ok_and(|info| {
                    info.contains("cluster_state:ok")
                        && info.contains(&format!("cluster_known_nodes:{count}"))
                })
            })
        })
        .await;
    }

    /// The node that serves a slot now, by its own account.
    pub fn owner(&self, slot: u16) -> &Redis {
        let owner = self.nodes.iter().find(|node| serves(node, slot));
        owner.expect("a node serves the slot")
    }

    pub fn has_owner(&self, slot: u16) -> bool {
        self.nodes.iter().any(|node| serves(node, slot))
    }

    /// A primary that does not serve the slot.
    pub fn other(&self, slot: u16) -> &Redis {
        let other = self
            .nodes
            .iter()
            .find(|node| !serves(node, slot) && node.role().as_deref() == Some("master"));
        other.expect("there are three primaries")
    }

    /// Whatever node has it.
    pub fn get(&self, key: &str) -> Option<String> {
        self.nodes.iter().find_map(|node| {
            let value = node.try_cmd(&["GET", key]).ok()?;
            Option::<String>::from_redis_value(value).ok()?
        })
    }

    /// Moves a slot, its keys one after the other, as `redis-cli --cluster reshard` does.
    pub async fn move_slot(&self, slot: u16, from: &Redis, to: &Redis) {
        let text = slot.to_string();
        let (source, target) = (id(from), id(to));
        to.cmd(&["CLUSTER", "SETSLOT", &text, "IMPORTING", &source]);
        from.cmd(&["CLUSTER", "SETSLOT", &text, "MIGRATING", &target]);
        loop {
            let keys = from.cmd(&["CLUSTER", "GETKEYSINSLOT", &text, "5"]);
            let keys: Vec<String> = redis::from_redis_value(keys).unwrap();
            if keys.is_empty() {
                break;
            }
            for key in keys {
                let port = to.port().to_string();
                from.cmd(&["MIGRATE", "127.0.0.1", &port, &key, "0", "5000"]);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        for node in [to, from] {
            node.cmd(&["CLUSTER", "SETSLOT", &text, "NODE", &target]);
        }
    }
}

async fn node() -> Redis {
    let bus = free_port().to_string();
    Redis::start_with(&[
        "--cluster-enabled",
        "yes",
        "--cluster-port",
        &bus,
        "--cluster-node-timeout",
        "1000",
        "--cluster-replica-validity-factor",
        "0",
        "--cluster-require-full-coverage",
        "no",
        "--repl-diskless-sync-delay",
        "0",
    ])
    .await
}

fn id(node: &Redis) -> String {
    redis::from_redis_value(node.cmd(&["CLUSTER", "MYID"])).unwrap()
}

fn config(node: &Redis, name: &str) -> String {
    let found: Vec<String> = redis::from_redis_value(node.cmd(&["CONFIG", "GET", name])).unwrap();
    found[1].clone()
}

fn serves(node: &Redis, slot: u16) -> bool {
    let Ok(Value::Array(ranges)) = node.try_cmd(&["CLUSTER", "SLOTS"]) else {
        return false;
    };
    if node.role().as_deref() != Some("master") {
        return false;
    }
    ranges.into_iter().any(|range| {
        let Value::Array(parts) = range else {
            return false;
        };
        let number = |place: usize| u16::from_redis_value(parts[place].clone()).unwrap();
        let Value::Array(owner) = &parts[2] else {
            return false;
        };
        let port = u16::from_redis_value(owner[1].clone()).unwrap();
        (number(0)..=number(1)).contains(&slot) && port == node.port()
    })
}
