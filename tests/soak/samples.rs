//! Samples the memory, the file descriptors and the threads of each process, and the memory of Redis.

use std::fmt::Write as _;
use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use testkit::{Redis, TestQueue};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// About as many samples as a picture has columns.
const SAMPLES: u32 = 360;
const MIN_DISTANCE: Duration = Duration::from_secs(1);

/// A quantity over time.
#[derive(Debug, Clone)]
pub struct Series {
    /// The process.
    pub of: &'static str,
    pub what: Quantity,
    pub values: Vec<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantity {
    RssMib,
    FileDescriptors,
    Threads,
    UsedMemoryMib,
    /// Messages in the queue: shown, and not judged.
    Queued,
}

impl Quantity {
    pub fn name(self) -> &'static str {
        match self {
            Quantity::RssMib => "RSS, MiB",
            Quantity::FileDescriptors => "file descriptors",
            Quantity::Threads => "threads",
            Quantity::UsedMemoryMib => "used_memory, MiB",
            Quantity::Queued => "messages in the queue",
        }
    }

    pub fn is_count(self) -> bool {
        matches!(self, Quantity::FileDescriptors | Quantity::Threads)
    }

    /// A growth that is noise, whatever the size.
    pub fn noise(self) -> f64 {
        match self {
            Quantity::RssMib | Quantity::UsedMemoryMib | Quantity::Threads => 1.0,
            Quantity::FileDescriptors => 3.0,
            Quantity::Queued => f64::INFINITY,
        }
    }
}

#[derive(Debug, Clone, Default)]
pub struct Samples {
    pub seconds: Vec<f64>,
    pub series: Vec<Series>,
}

impl Samples {
    fn new(processes: &[(&'static str, u32)]) -> Samples {
        let mut columns: Vec<(&'static str, Quantity)> = Vec::new();
        for (name, _) in processes {
            let each = [
                Quantity::RssMib,
                Quantity::FileDescriptors,
                Quantity::Threads,
            ];
            columns.extend(each.map(|what| (*name, what)));
        }
        columns.push(("redis", Quantity::UsedMemoryMib));
        columns.push(("queue", Quantity::Queued));
        let series = columns.into_iter().map(|(of, what)| Series {
            of,
            what,
            values: Vec::new(),
        });
        Samples {
            seconds: Vec::new(),
            series: series.collect(),
        }
    }

    fn push(&mut self, seconds: f64, row: &[f64]) {
        self.seconds.push(seconds);
        for (series, value) in self.series.iter_mut().zip(row) {
            series.values.push(*value);
        }
    }

    pub fn csv(&self) -> String {
        let mut csv = String::from("seconds");
        for series in &self.series {
            write!(csv, ",\"{} {}\"", series.of, series.what.name()).unwrap();
        }
        for (row, seconds) in self.seconds.iter().enumerate() {
            write!(csv, "\n{seconds:.1}").unwrap();
            for series in &self.series {
                write!(csv, ",{:.2}", series.values[row]).unwrap();
            }
        }
        csv + "\n"
    }
}

pub struct Sampler {
    task: JoinHandle<Samples>,
}

impl Sampler {
    /// Redis is one of the processes.
    pub fn start(
        redis: Arc<Redis>,
        queue: TestQueue,
        processes: &[(&'static str, u32)],
        length: Duration,
        over: &CancellationToken,
    ) -> Sampler {
        let mut processes = processes.to_vec();
        processes.push(("redis", redis.info("process_id").parse().unwrap()));
        let distance = (length / SAMPLES).max(MIN_DISTANCE);
        let over = over.clone();
        let task = tokio::spawn(async move {
            let mut samples = Samples::new(&processes);
            let mut ticks = tokio::time::interval(distance);
            let began = Instant::now();
            loop {
                tokio::select! {
                    _ = over.cancelled() => return samples,
                    _ = ticks.tick() => {}
                }
                let mut row: Vec<f64> = processes.iter().flat_map(|(_, pid)| usage(*pid)).collect();
                row.push(redis.info("used_memory").parse::<f64>().unwrap() / f64::from(1 << 20));
                row.push(queue.depth().await as f64);
                samples.push(began.elapsed().as_secs_f64(), &row);
            }
        });
        Sampler { task }
    }

    pub async fn end(self) -> Samples {
        self.task.await.unwrap()
    }
}

/// RSS in MiB, open file descriptors, threads.
fn usage(pid: u32) -> [f64; 3] {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let number = |name: &str| -> f64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|line| line.split_whitespace().next());
        number.unwrap().parse().unwrap()
    };
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    [
        number("VmRSS:") / 1024.0,
        descriptors as f64,
        number("Threads:"),
    ]
}
