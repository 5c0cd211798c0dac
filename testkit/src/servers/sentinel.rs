//! Three sentinels that watch a primary and its replicas.

use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::process::Process;
use super::{Redis, free_port, until};

pub struct Sentinels {
    // Before the folders, so that the servers are gone when their files are removed.
    servers: Vec<(Process, u16)>,
    _folders: Vec<TempDir>,
}

pub const MASTER: &str = "mymaster";
const LIMIT: Duration = Duration::from_secs(30);

impl Sentinels {
    /// With further lines for their configuration.
    pub async fn start(primary: &Redis, replicas: usize, more: &str) -> Sentinels {
        let mut sentinels = Sentinels {
            servers: Vec::new(),
            _folders: Vec::new(),
        };
        for _ in 0..3 {
            let folder = TempDir::new().unwrap();
            let port = free_port();
            let file = folder.path().join("sentinel.conf");
            let text = format!(
                "port {port}\nbind 127.0.0.1\nsentinel monitor {MASTER} 127.0.0.1 {} 2\n\
                sentinel down-after-milliseconds {MASTER} 500\nsentinel failover-timeout {MASTER} 3000\n{more}",
                primary.port()
            );
            std::fs::write(&file, text).unwrap();
            let mut command = Command::new(super::redis::program());
            command
                .arg(&file)
                .arg("--sentinel")
                .current_dir(folder.path());
            let log = folder.path().join("sentinel.log");
            sentinels
                .servers
                .push((Process::spawn(&mut command, &log), port));
            sentinels._folders.push(folder);
        }
        let know_all = |count: &str, field: &str| format!("{field}={count}");
        until(
            "the sentinels know each other and all servers",
            LIMIT,
            async || {
                sentinels.servers.iter().all(|(_, port)| {
                    ask(*port, &["INFO", "sentinel"]).is_some_and(|info| {
                        info.contains(&know_all("3", "sentinels"))
                            && info.contains(&know_all(&replicas.to_string(), "slaves"))
                    })
                })
            },
        )
        .await;
        sentinels
    }

    /// As `REDIS_SENTINEL_HOSTS` has them.
    pub fn hosts(&self) -> String {
        let hosts: Vec<String> = self
            .servers
            .iter()
            .map(|(_, port)| format!("127.0.0.1:{port}"))
            .collect();
        hosts.join(",")
    }

    /// The port of the primary, by all that answer; `None` while they do not agree.
    pub fn primary(&self) -> Option<u16> {
        let mut said = self.servers.iter().filter_map(|(_, port)| {
            let conn = &mut connection(*port)?;
            let address: Vec<String> = redis::cmd("SENTINEL")
                .arg(&["GET-MASTER-ADDR-BY-NAME", MASTER])
                .query(conn)
                .ok()?;
            address.get(1)?.parse().ok()
        });
        let first = said.next()?;
        said.all(|port| port == first).then_some(first)
    }

    /// Has all of them take another server for the primary, which neither server hears of.
    pub fn monitor(&self, port: u16) {
        for (_, sentinel) in &self.servers {
            let conn = &mut connection(*sentinel).unwrap();
            for words in [
                vec!["REMOVE".to_owned(), MASTER.to_owned()],
                ["MONITOR", MASTER, "127.0.0.1", &port.to_string(), "2"]
                    .map(str::to_owned)
                    .to_vec(),
            ] {
                redis::cmd("SENTINEL").arg(words).query::<()>(conn).unwrap();
            }
        }
    }

    pub fn kill(&self, place: usize) {
        self.servers[place].0.kill();
    }
}

fn connection(port: u16) -> Option<redis::Connection> {
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}")).ok()?;
    client
        .get_connection_with_timeout(Duration::from_secs(1))
        .ok()
}

fn ask(port: u16, words: &[&str]) -> Option<String> {
    redis::cmd(words[0])
        .arg(&words[1..])
        .query(&mut connection(port)?)
        .ok()
}
