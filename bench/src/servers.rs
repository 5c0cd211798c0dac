//! The queue server and Redis.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::process::{Process, free_port};
use testkit::mix;

/// fauxqs, with what it counts.
pub struct QueueServer {
    pub process: Process,
    pub address: SocketAddr,
}

/// Of one queue, since it was made.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    pub deleted: u64,
    pub left: u64,
    pub calls: BTreeMap<String, u64>,
}

impl QueueServer {
    /// `peers`: the folder of our own scripts. `installed`: the folder that holds `node_modules`.
    pub fn start(node: &Path, peers: &Path, installed: &Path) -> Result<Self> {
        let process = Process::start(
            Command::new(node)
                // It says that its SQLite is experimental; nothing is stored in it here.
                .args([
                    "--max-old-space-size=8192",
                    "--disable-warning=ExperimentalWarning",
                ])
                .arg(peers.join("queue.mjs")),
            &[("BENCH_MODULES", installed.display().to_string())],
        )?;
        let (_, line) = process.line()?;
        let port = serde_json::from_str::<Value>(&line)?["port"]
            .as_u64()
            .context("the queue server has no port")?;
        Ok(Self {
            process,
            address: SocketAddr::from(([127, 0, 0, 1], u16::try_from(port)?)),
        })
    }

    /// Puts messages into a queue, which is made if it is new.
    pub fn fill(&mut self, queue: &str, corpus: &Path, count: usize) -> Result<()> {
        self.ask(json!({"op": "fill", "queue": queue, "file": corpus, "count": count}))?;
        Ok(())
    }

    pub fn drop(&mut self, queue: &str) -> Result<()> {
        self.ask(json!({"op": "drop", "queue": queue}))?;
        Ok(())
    }

    pub fn counts(&mut self, queue: &str) -> Result<Counts> {
        let answer = self.ask(json!({"op": "counts", "queue": queue}))?;
        let number = |value: &Value| value.as_u64().unwrap_or_default();
        let calls = answer["calls"].as_object().into_iter().flatten();
        Ok(Counts {
            deleted: number(&answer["deleted"]),
            left: number(&answer["left"]),
            calls: calls
                .map(|(name, value)| (name.clone(), number(value)))
                .collect(),
        })
    }

    fn ask(&mut self, request: Value) -> Result<Value> {
        writeln!(self.process.stdin()?, "{request}")?;
        let (_, line) = self.process.line()?;
        Ok(serde_json::from_str(&line)?)
    }
}

/// The variables of a consumer of this queue; `at` is where SQS is, or the way to it.
pub fn consuming(at: SocketAddr, queue: &str) -> Vec<(&'static str, String)> {
    vec![
        ("AWS_REGION", "us-east-1".to_owned()),
        ("AWS_ACCESS_KEY_ID", "bench".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "bench".to_owned()),
        ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
        ("AWS_ENDPOINT_URL_SQS", format!("http://{at}")),
        ("QUEUE_URL", format!("http://{at}/000000000000/{queue}")),
    ]
}

/// redis-server, without persistence.
pub struct Redis {
    pub process: Process,
    pub port: u16,
}

/// Calls of scripts.
#[derive(Debug, Clone, Copy)]
pub struct Calls {
    pub count: u64,
    /// Those that took more than 2 ms.
    pub late: u64,
    pub longest: Duration,
    /// Of the longest.
    pub words: u64,
}

impl Redis {
    pub fn start() -> Result<Self> {
        let port = free_port()?;
        let process = Process::start(
            Command::new("redis-server")
                .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
                .args(["--save", "", "--appendonly", "no", "--loglevel", "warning"]),
            &[],
        )?;
        let deadline = Instant::now() + Duration::from_secs(5);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if Instant::now() > deadline {
                bail!("redis-server does not listen");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(Self { process, port })
    }

    /// The same for everybody: every customer is cached, as of long ago.
    pub fn reset(&self, customers: u32) -> Result<()> {
        const AT_ONCE: u32 = 50_000;
        self.run(&command(&["FLUSHALL"]), 1)?;
        for from in (0..customers).step_by(AT_ONCE as usize) {
            let some = from..customers.min(from + AT_ONCE);
            let count = 2 * some.len();
            let mut commands = String::new();
            for rank in some {
                let key = format!("production:c_{}", mix::customer(rank));
                commands += &command(&["SET", &key, "{}"]);
                commands += &command(&["SET", &format!("{key}#timestamp"), "1"]);
            }
            self.run(&commands, count)?;
        }
        Ok(())
    }

    /// Tells when a key whose name ends in `-<number>` is set; stop by dropping the stream.
    pub fn watch(&self) -> Result<BufReader<TcpStream>> {
        self.run(
            &command(&["CONFIG", "SET", "notify-keyspace-events", "E$"]),
            1,
        )?;
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.write_all(command(&["SUBSCRIBE", "__keyevent@0__:set"]).as_bytes())?;
        let mut reader = BufReader::new(stream);
        // *3, subscribe, the channel, the count: six lines.
        for _ in 0..6 {
            reader.read_line(&mut String::new())?;
        }
        Ok(reader)
    }

    pub fn unwatch(&self) -> Result<()> {
        self.run(
            &command(&["CONFIG", "SET", "notify-keyspace-events", ""]),
            1,
        )
    }

    /// Logs each call of a script that takes longer than 50 us.
    pub fn log_calls(&self) -> Result<()> {
        for (name, value) in [
            ("slowlog-log-slower-than", "50"),
            ("slowlog-max-len", "1000000"),
        ] {
            self.run(&command(&["CONFIG", "SET", name, value]), 1)?;
        }
        self.run(&command(&["SLOWLOG", "RESET"]), 1)
    }

    /// The calls of scripts that were logged since then.
    pub fn calls(&self) -> Result<Calls> {
        // Of a long call the log keeps 31 words, and says how many more there were.
        const CALLS: &str = "local count, late, most, words = 0, 0, 0, 0
            for _, entry in ipairs(redis.call('SLOWLOG', 'GET', '1000000')) do
                local took, call = entry[3], entry[4]
                if string.upper(call[1]) == 'EVALSHA' then
                    count = count + 1
                    if took > 2000 then late = late + 1 end
                    if took > most then
                        local more = string.match(call[#call], '^%.%.%. %((%d+) more arguments%)$')
                        most, words = took, #call + (more and more - 1 or 0)
                    end
                end
            end
            return string.format('%d %d %d %d', count, late, most, words)";
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.write_all(command(&["EVAL", CALLS, "0"]).as_bytes())?;
        let mut answer = BufReader::new(stream).lines().skip(1);
        let answer = answer.next().context("Redis does not answer")??;
        let numbers: Vec<u64> = answer.split(' ').map_while(|it| it.parse().ok()).collect();
        let [count, late, most, words] = numbers[..] else {
            bail!("Redis answers {answer:?}");
        };
        Ok(Calls {
            count,
            late,
            longest: Duration::from_micros(most),
            words,
        })
    }

    /// Runs commands whose answers have five bytes each: `+OK` and its line end.
    fn run(&self, commands: &str, count: usize) -> Result<()> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        let mut reading = stream.try_clone()?;
        let answers = std::thread::spawn(move || {
            let mut answers = vec![0; 5 * count];
            reading.read_exact(&mut answers).map(|()| answers)
        });
        stream.write_all(commands.as_bytes())?;
        let answers = answers
            .join()
            .map_err(|_| anyhow::anyhow!("reading Redis's answers failed"))??;
        if answers.chunks(5).any(|answer| answer != b"+OK\r\n") {
            bail!("Redis refused a command");
        }
        Ok(())
    }
}

/// As Redis reads it.
pub fn command(words: &[&str]) -> String {
    let words: String = words
        .iter()
        .map(|word| format!("${}\r\n{word}\r\n", word.len()))
        .collect();
    let count = words.matches("\r\n").count() / 2;
    format!("*{count}\r\n{words}")
}
