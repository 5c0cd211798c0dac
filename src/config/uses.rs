//! The services that a process or a command connects to.

/// A service that a command connects to. Only the required variables of these services must be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Uses {
    Queue,
    Redis,
    Edge,
    /// Answers questions, on `READ_PORT` or its default.
    Reads,
}

impl Uses {
    /// Of the worker.
    pub const ALL: [Self; 3] = [Self::Queue, Self::Redis, Self::Edge];
    /// Of a process that only answers.
    pub const SERVE: [Self; 3] = [Self::Redis, Self::Edge, Self::Reads];

    pub fn requires(self, name: &str) -> bool {
        match self {
            Self::Queue => ["AWS_REGION", "QUEUE_URL"].contains(&name),
            Self::Redis => name == "REDIS_HOST",
            Self::Edge => name == "SERVER_API_KEY",
            Self::Reads => false,
        }
    }
}
