//! A Redis (or Valkey) server for one test, read back through raw commands.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use redis::{
    ConnectionInfo, FromRedisValue, IntoConnectionInfo, RedisConnectionInfo, RedisResult, Value,
};
use tempfile::TempDir;

use super::process::Process;
use super::{Signal, free_port, until};

pub struct Redis {
    // Before the folder, so that the server is gone when its files are removed.
    server: Mutex<Process>,
    folder: TempDir,
    port: u16,
    arguments: Vec<String>,
}

impl Redis {
    /// A server that keeps nothing on disk: `restart` finds it empty.
    pub async fn start() -> Redis {
        Redis::start_with(&[]).await
    }

    /// A server that has every write on disk before it answers: `restart` finds all of them.
    pub async fn durable() -> Redis {
        Redis::start_with(&["--appendonly", "yes", "--appendfsync", "always"]).await
    }

    /// A server with further command-line options. With `--requirepass`, the methods here log in by it.
    pub async fn start_with(options: &[&str]) -> Redis {
        let folder = TempDir::new().unwrap();
        let arguments: Vec<String> = options.iter().map(ToString::to_string).collect();
        let port = free_port();
        let server = Mutex::new(launch(folder.path(), port, &arguments));
        let redis = Redis {
            server,
            folder,
            port,
            arguments,
        };
        redis.wait_ready().await;
        redis
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// A new connection, whose calls fail after 5 s without an answer.
    pub fn conn(&self) -> redis::Connection {
        self.try_conn()
            .unwrap_or_else(|error| panic!("no connection to Redis: {error}"))
    }

    pub fn try_conn(&self) -> RedisResult<redis::Connection> {
        let timeout = Duration::from_secs(5);
        let client = redis::Client::open(self.connection_info())?;
        let conn = client.get_connection_with_timeout(timeout)?;
        conn.set_read_timeout(Some(timeout))?;
        conn.set_write_timeout(Some(timeout))?;
        Ok(conn)
    }

    /// One command on a connection of its own. Any error fails the test.
    pub fn cmd(&self, words: &[&str]) -> Value {
        self.try_cmd(words)
            .unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    pub fn try_cmd(&self, words: &[&str]) -> RedisResult<Value> {
        let mut command = redis::Cmd::new();
        for word in words {
            command.arg(*word);
        }
        command.query(&mut self.try_conn()?)
    }

    pub fn get(&self, key: &str) -> Option<String> {
        self.query(&["GET", key])
    }

    pub fn set(&self, key: &str, value: &str) {
        self.cmd(&["SET", key, value]);
    }

    /// Seconds to live; -1 for a key that never expires, -2 for no such key.
    pub fn ttl(&self, key: &str) -> i64 {
        self.query(&["TTL", key])
    }

    /// Every string key that starts with `prefix`, and its value.
    pub fn dump(&self, prefix: &str) -> BTreeMap<String, String> {
        let mut conn = self.conn();
        let mut found = BTreeMap::new();
        let mut cursor = 0_u64;
        loop {
            let (next, keys): (u64, Vec<String>) = redis::cmd("SCAN")
                .arg(cursor)
                .arg(&["COUNT", "1000", "TYPE", "string"])
                .query(&mut conn)
                .unwrap();
            for key in keys.into_iter().filter(|key| key.starts_with(prefix)) {
                let value: Option<String> = redis::cmd("GET").arg(&key).query(&mut conn).unwrap();
                found.extend(value.map(|value| (key, value)));
            }
            if next == 0 {
                return found;
            }
            cursor = next;
        }
    }

    /// A field of `INFO`, such as `total_commands_processed`.
    pub fn info(&self, field: &str) -> String {
        let info: String = self.query(&["INFO", "everything"]);
        info.lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))
            .unwrap_or_else(|| panic!("INFO has no field {field}"))
            .to_owned()
    }

    /// `master` or `slave`; `None` while it does not answer, as when its role changes.
    pub fn role(&self) -> Option<String> {
        let Ok(Value::Array(role)) = self.try_cmd(&["ROLE"]) else {
            return None;
        };
        redis::from_redis_value(role.into_iter().next()?).ok()
    }

    /// It keeps its connections and accepts new ones, but answers nothing.
    pub fn freeze(&self) {
        self.server().signal(Signal::SIGSTOP);
    }

    pub fn thaw(&self) {
        self.server().signal(Signal::SIGCONT);
    }

    pub fn kill(&self) {
        self.server().kill();
    }

    /// Kills it if it runs, and starts it again on the same port, with the data it had on disk.
    pub async fn restart(&self) {
        self.kill();
        *self.server() = launch(self.folder.path(), self.port, &self.arguments);
        self.wait_ready().await;
    }

    async fn wait_ready(&self) {
        until("Redis answers", Duration::from_secs(10), async || {
            if let Some(code) = self.server().exit_code() {
                panic!("Redis ended with code {code}:\n{}", self.server().logs());
            }
            self.try_cmd(&["PING"]).is_ok()
        })
        .await;
    }

    fn query<T: FromRedisValue>(&self, words: &[&str]) -> T {
        redis::from_redis_value(self.cmd(words))
            .unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    fn connection_info(&self) -> ConnectionInfo {
        // Nothing but the password is sent on connecting, so tests may count commands.
        let mut settings = RedisConnectionInfo::default().set_skip_set_lib_name();
        if let Some(option) = self
            .arguments
            .iter()
            .position(|argument| argument == "--requirepass")
        {
            settings = settings.set_password(&self.arguments[option + 1]);
        }
        ("127.0.0.1", self.port)
            .into_connection_info()
            .unwrap()
            .set_redis_settings(settings)
    }

    fn server(&self) -> MutexGuard<'_, Process> {
        self.server
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

fn launch(folder: &Path, port: u16, arguments: &[String]) -> Process {
    let port = port.to_string();
    let mut command = Command::new(program());
    command
        .args([
            "--port",
            &port,
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--daemonize",
            "no",
        ])
        .args(arguments)
        .current_dir(folder);
    Process::spawn(&mut command, &folder.join("redis.log"))
}

/// `REDIS_SERVER` where it is set, such as a path of valkey-server; else whichever is there.
pub fn program() -> String {
    let wanted = std::env::var("REDIS_SERVER").ok();
    wanted
        .or_else(|| {
            let known = ["redis-server", "valkey-server"].into_iter();
            known.map(str::to_owned).find(|program| on_path(program))
        })
        .expect("neither redis-server nor valkey-server is there: run script/setup first")
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}
