//! A local SQS for one test: ministack, which `script/setup` installs. Messages that it hands to a long poll whose
//! client has gone come back only after their visibility timeout, and it slows down beyond a few thousand messages.
//!
//! A start costs up to half a second of processor time. `script/test` therefore starts ten, and names their ports in
//! `TEST_SQS_PORTS`. A test takes and empties the one of its nextest slot. It starts a second one itself, and its first
//! where none is left for its slot.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::retry::RetryConfig;
use aws_sdk_sqs::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_sqs::types::{
    Message, MessageAttributeValue, MessageSystemAttributeName, QueueAttributeName,
    SendMessageBatchRequestEntry,
};
use tempfile::TempDir;

use super::process::Process;
use super::{free_port, http, tool, until};

pub struct Sqs {
    /// Unless it was there before the test.
    _own: Option<(Process, TempDir)>,
    endpoint: String,
    client: Client,
}

impl Sqs {
    pub async fn start() -> Sqs {
        let (port, own) = match shared_port() {
            Some(port) => {
                empty(port).await;
                (port, None)
            }
            None => {
                let (port, server, folder) = Sqs::spawn().await;
                (port, Some((server, folder)))
            }
        };
        let endpoint = format!("http://127.0.0.1:{port}");
        let client = client(&endpoint);
        Sqs {
            _own: own,
            endpoint,
            client,
        }
    }

    async fn spawn() -> (u16, Process, TempDir) {
        let folder = TempDir::new().unwrap();
        let port = free_port();
        let mut command = Command::new(tool("ministack/bin/ministack"));
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", folder.path())
            .env("TMPDIR", folder.path())
            .env("STATE_DIR", folder.path())
            .env("SERVICES", "sqs")
            .env("BIND_HOST", "127.0.0.1")
            .env("GATEWAY_PORT", port.to_string())
            .env("LOG_LEVEL", "WARNING")
            // It looks for Docker otherwise, and SQS needs none.
            .env("DOCKER_HOST", "unix:///nonexistent")
            .current_dir(folder.path());
        let server = Process::spawn(&mut command, &folder.path().join("sqs.log"));
        until(
            "the local SQS answers",
            Duration::from_secs(20),
            async || {
                if let Some(code) = server.exit_code() {
                    panic!("ministack ended with code {code}:\n{}", server.logs());
                }
                http::get(port, "/_ministack/health")
                    .await
                    .is_ok_and(|reply| reply.status == 200)
            },
        )
        .await;
        (port, server, folder)
    }

    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub fn client(&self) -> Client {
        self.client.clone()
    }

    pub async fn queue(&self, name: &str) -> TestQueue {
        self.queue_with(name, &[]).await
    }

    /// A queue with attributes, such as `("VisibilityTimeout", "2")`.
    pub async fn queue_with(&self, name: &str, attributes: &[(&str, &str)]) -> TestQueue {
        let mut request = self.client.create_queue().queue_name(name);
        for (name, value) in attributes {
            request = request.attributes(QueueAttributeName::from(*name), *value);
        }
        let url = request.send().await.unwrap().queue_url.unwrap();
        TestQueue {
            client: self.client.clone(),
            name: name.to_owned(),
            url,
        }
    }

    /// A FIFO queue that takes equal bodies for the same message; `.fifo` is appended to its name.
    pub async fn fifo_queue(&self, name: &str) -> TestQueue {
        let attributes = [("FifoQueue", "true"), ("ContentBasedDeduplication", "true")];
        self.queue_with(&format!("{name}.fifo"), &attributes).await
    }

    /// A queue, and the dead-letter queue that takes what was received `max_receives` times.
    pub async fn queue_with_dead_letters(
        &self,
        name: &str,
        max_receives: u32,
        attributes: &[(&str, &str)],
    ) -> (TestQueue, TestQueue) {
        let dead = self.queue(&format!("{name}-dead")).await;
        let arn = dead.attribute(QueueAttributeName::QueueArn).await;
        let policy =
            serde_json::json!({"deadLetterTargetArn": arn, "maxReceiveCount": max_receives})
                .to_string();
        let mut all = vec![("RedrivePolicy", policy.as_str())];
        all.extend(attributes);
        (self.queue_with(name, &all).await, dead)
    }
}

/// The server that `script/test` started for the slot of this test: once, since a second server of a test is another one.
fn shared_port() -> Option<u16> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let ports = std::env::var("TEST_SQS_PORTS").ok()?;
    let slot: usize = std::env::var("NEXTEST_TEST_GLOBAL_SLOT")
        .ok()?
        .parse()
        .ok()?;
    let port = ports.split_whitespace().nth(slot)?.parse().unwrap();
    (!TAKEN.swap(true, Ordering::Relaxed)).then_some(port)
}

/// Removes the queues of the test before. Its receives that still wait do not take messages of this test: ministack
/// keeps them at the removed queue.
async fn empty(port: u16) {
    until(
        "the local SQS of script/test is emptied",
        Duration::from_secs(20),
        async || {
            http::request(port, ("POST", "/_ministack/reset"), &[], "")
                .await
                .is_ok_and(|reply| reply.status == 200)
        },
    )
    .await;
}

/// A client with invented credentials that tries everything once; also for a proxy in front of the server.
pub fn client(endpoint: &str) -> Client {
    let config = aws_sdk_sqs::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .endpoint_url(endpoint)
        .retry_config(RetryConfig::disabled())
        .credentials_provider(Credentials::new("test", "test", None, None, "tests"))
        .build();
    Client::from_conf(config)
}

#[derive(Clone)]
pub struct TestQueue {
    client: Client,
    pub name: String,
    pub url: String,
}

impl TestQueue {
    /// Sends a message and gives its id.
    pub async fn send(&self, body: &str) -> String {
        self.send_with(body, &[]).await
    }

    /// Sends a message with string attributes.
    pub async fn send_with(&self, body: &str, attributes: &[(&str, &str)]) -> String {
        let mut request = self
            .client
            .send_message()
            .queue_url(&self.url)
            .message_body(body);
        for (name, value) in attributes {
            let value = MessageAttributeValue::builder()
                .data_type("String")
                .string_value(*value)
                .build()
                .unwrap();
            request = request.message_attributes(*name, value);
        }
        request.send().await.unwrap().message_id.unwrap()
    }

    pub async fn send_fifo(&self, body: &str, group: &str) -> String {
        let request = self
            .client
            .send_message()
            .queue_url(&self.url)
            .message_body(body)
            .message_group_id(group);
        request.send().await.unwrap().message_id.unwrap()
    }

    /// Sends many messages, ten at a time. All of them arrive, or the test fails.
    pub async fn send_all<I>(&self, bodies: I)
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        let bodies: Vec<String> = bodies.into_iter().map(Into::into).collect();
        for batch in bodies.chunks(10) {
            let entries = batch.iter().enumerate().map(|(position, body)| {
                SendMessageBatchRequestEntry::builder()
                    .id(position.to_string())
                    .message_body(body)
                    .build()
                    .unwrap()
            });
            let request = self
                .client
                .send_message_batch()
                .queue_url(&self.url)
                .set_entries(Some(entries.collect()));
            let answer = request.send().await.unwrap();
            assert!(answer.failed.is_empty(), "not sent: {:?}", answer.failed);
        }
    }

    /// Messages that a receive would get now.
    pub async fn visible(&self) -> u64 {
        self.count(&[QueueAttributeName::ApproximateNumberOfMessages])
            .await
    }

    /// Messages that were received, and not deleted nor given back yet.
    pub async fn in_flight(&self) -> u64 {
        self.count(&[QueueAttributeName::ApproximateNumberOfMessagesNotVisible])
            .await
    }

    /// Messages in the queue in whatever state, the delayed ones too.
    pub async fn depth(&self) -> u64 {
        self.count(&[
            QueueAttributeName::ApproximateNumberOfMessages,
            QueueAttributeName::ApproximateNumberOfMessagesNotVisible,
            QueueAttributeName::ApproximateNumberOfMessagesDelayed,
        ])
        .await
    }

    pub async fn wait_empty(&self, timeout: Duration) {
        until("the queue is empty", timeout, async || {
            self.depth().await == 0
        })
        .await;
    }

    /// Receives what is visible now, with all attributes, and deletes nothing.
    pub async fn receive_all(&self) -> Vec<Message> {
        let mut all = Vec::new();
        loop {
            let request = self
                .client
                .receive_message()
                .queue_url(&self.url)
                .max_number_of_messages(10);
            let request = request
                .wait_time_seconds(0)
                .message_attribute_names("All")
                .message_system_attribute_names(MessageSystemAttributeName::All);
            let messages = request.send().await.unwrap().messages.unwrap_or_default();
            if messages.is_empty() {
                return all;
            }
            all.extend(messages);
        }
    }

    async fn attribute(&self, name: QueueAttributeName) -> String {
        let request = self
            .client
            .get_queue_attributes()
            .queue_url(&self.url)
            .attribute_names(name.clone());
        request
            .send()
            .await
            .unwrap()
            .attributes
            .unwrap()
            .remove(&name)
            .unwrap()
    }

    async fn count(&self, names: &[QueueAttributeName]) -> u64 {
        let request = self.client.get_queue_attributes().queue_url(&self.url);
        let answer = request
            .set_attribute_names(Some(names.to_vec()))
            .send()
            .await
            .unwrap();
        let attributes = answer.attributes.unwrap();
        names
            .iter()
            .map(|name| attributes[name].parse::<u64>().unwrap())
            .sum()
    }
}
