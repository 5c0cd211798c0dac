//! One connection: commands out, replies in, and notifications, in the order in which
//! the server wrote them.
//!
//! Not fred's: fred 10 drops the notification of FLUSHALL, since that holds a null in place of keys.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use fred::error::{Error, ErrorKind};
use redis_protocol::error::RedisProtocolError;
use redis_protocol::resp3::types::{BytesFrame, Resp3Frame};
use redis_protocol::{resp2, resp3};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::store::StoreError;

/// Commands that wait to be written.
const MAX_WAITING_COMMANDS: usize = 1_024;
/// Commands that are written at once.
const MAX_GATHERED_BYTES: usize = 64 * 1024;
const READ_BYTES: usize = 16 * 1024;

pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A notification of the server.
#[derive(Debug, PartialEq, Eq)]
pub enum Notification {
    /// These keys changed.
    Changed(Vec<Bytes>),
    /// All keys are gone.
    Flushed,
}

/// A reply, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    Null,
    Text(Bytes),
    /// An array, or a map with its keys and values in turn.
    List(Vec<Reply>),
    /// A number and the like.
    Other,
}

struct Command {
    bytes: Bytes,
    answer: Answer,
}

type Answer = oneshot::Sender<Result<Reply, StoreError>>;
/// Those whose command is written, in the order of the replies.
type Unanswered = Arc<Mutex<VecDeque<Answer>>>;

/// A connection. It closes when the last clone is dropped.
#[derive(Clone)]
pub struct Wire {
    commands: mpsc::Sender<Command>,
    /// RESP3 writes a null in another way.
    is_resp2: Arc<AtomicBool>,
    closing: CancellationToken,
    ended: CancellationToken,
    _open: Arc<DropGuard>,
}

impl Wire {
    /// Speaks over a stream. `notify` is called before any reply that the server wrote later is handed out.
    pub fn over(stream: Box<dyn Stream>, notify: impl Fn(Notification) + Send + 'static) -> Self {
        let (commands, waiting) = mpsc::channel(MAX_WAITING_COMMANDS);
        let (closing, ended) = (CancellationToken::new(), CancellationToken::new());
        let (from, to) = tokio::io::split(stream);
        let unanswered = Unanswered::default();
        let (close, end) = (closing.clone(), ended.clone());
        let is_resp2 = Arc::<AtomicBool>::default();
        let version = is_resp2.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = close.cancelled() => {}
                () = write(to, waiting, unanswered.clone()) => {}
                () = read(from, &version, &unanswered, notify) => {}
            }
            // Both halves are dropped by now, and with them the answers that can no longer come.
            end.cancel();
        });
        Self {
            commands,
            is_resp2,
            closing: closing.clone(),
            ended,
            _open: Arc::new(closing.drop_guard()),
        }
    }

    /// Sends a command and waits for its reply. An error that Redis replies is an error.
    pub async fn call(&self, words: &[&[u8]]) -> Result<Reply, StoreError> {
        let (answer, reply) = oneshot::channel();
        let bytes = encode(words);
        let command = Command { bytes, answer };
        self.commands.send(command).await.map_err(|_| lost())?;
        reply.await.map_err(|_| lost())?
    }

    /// Takes what the server writes from now on for RESP2, since it refused RESP3.
    pub fn set_resp2(&self) {
        self.is_resp2.store(true, Ordering::Release);
    }

    /// Closes the connection: who waits for a reply gets an error at once.
    pub fn close(&self) {
        self.closing.cancel();
    }

    /// Returns when the connection is closed, by whichever side.
    pub async fn closed(&self) {
        self.ended.cancelled().await;
    }
}

async fn write(
    mut to: WriteHalf<Box<dyn Stream>>,
    mut waiting: mpsc::Receiver<Command>,
    unanswered: Unanswered,
) {
    let mut buffer = BytesMut::new();
    while let Some(command) = waiting.recv().await {
        let mut next = Some(command);
        while let Some(command) = next {
            buffer.extend_from_slice(&command.bytes);
            lock(&unanswered).push_back(command.answer);
            next = (buffer.len() < MAX_GATHERED_BYTES)
                .then(|| waiting.try_recv().ok())
                .flatten();
        }
        let written = async {
            to.write_all(&buffer).await?;
            to.flush().await
        };
        if let Err(error) = written.await {
            fail(&unanswered, error.into());
            return;
        }
        buffer.clear();
    }
}

async fn read(
    mut from: ReadHalf<Box<dyn Stream>>,
    is_resp2: &AtomicBool,
    unanswered: &Unanswered,
    notify: impl Fn(Notification),
) {
    let mut buffer = BytesMut::with_capacity(READ_BYTES);
    let mut replies = Vec::new();
    loop {
        loop {
            let frame = match decode(&mut buffer, is_resp2.load(Ordering::Acquire)) {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(_) => return fail(unanswered, Error::new(ErrorKind::Protocol, "")),
            };
            if let BytesFrame::Push { data, .. } = frame {
                if let Some(notification) = notification(data) {
                    notify(notification);
                }
                continue;
            }
            let Some(answer) = lock(unanswered).pop_front() else {
                return;
            };
            replies.push((answer, reply(frame)));
        }
        // After all notifications that have arrived: Redis writes those of a change after the replies that saw it, if it
        // handled both at once.
        for (answer, reply) in replies.drain(..) {
            // Who asked may have gone.
            let _ = answer.send(reply);
        }
        buffer.reserve(READ_BYTES);
        match from.read_buf(&mut buffer).await {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) => return fail(unanswered, error.into()),
        }
    }
}

/// Takes the next frame from what has arrived, once all of it has.
fn decode(buffer: &mut BytesMut, is_resp2: bool) -> Result<Option<BytesFrame>, RedisProtocolError> {
    if is_resp2 {
        let decoded = resp2::decode::decode_bytes_mut(buffer)?;
        return Ok(decoded.map(|(frame, _, _)| frame.into_resp3()));
    }
    let decoded = resp3::decode::complete::decode_bytes_mut(buffer)?;
    Ok(decoded.map(|(frame, _, _)| frame))
}

fn fail(unanswered: &Unanswered, error: Error) {
    let error = StoreError::from(error);
    for answer in lock(unanswered).drain(..) {
        let _ = answer.send(Err(error.clone()));
    }
}

fn lock(unanswered: &Unanswered) -> std::sync::MutexGuard<'_, VecDeque<Answer>> {
    unanswered.lock().unwrap_or_else(|lock| lock.into_inner())
}

/// The connection is closed, and what was asked has no answer.
pub fn lost() -> StoreError {
    Error::new(ErrorKind::Canceled, "").into()
}

/// A command in RESP, which is an array of strings in both versions.
fn encode(words: &[&[u8]]) -> Bytes {
    let mut bytes = Vec::with_capacity(words.iter().map(|word| word.len() + 16).sum());
    bytes.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.into()
}

fn reply(frame: BytesFrame) -> Result<Reply, StoreError> {
    Ok(match frame {
        BytesFrame::Null => Reply::Null,
        BytesFrame::BlobString { data, .. }
        | BytesFrame::SimpleString { data, .. }
        | BytesFrame::VerbatimString { data, .. } => Reply::Text(data),
        BytesFrame::Array { data, .. } => {
            Reply::List(data.into_iter().map(reply).collect::<Result<_, _>>()?)
        }
        BytesFrame::Map { data, .. } => {
            let parts = data.into_iter().flat_map(|(key, value)| [key, value]);
            Reply::List(parts.map(reply).collect::<Result<_, _>>()?)
        }
        BytesFrame::SimpleError { data, .. } => return Err(error(&data)),
        BytesFrame::BlobError { data, .. } => return Err(error(&String::from_utf8_lossy(&data))),
        _ => Reply::Other,
    })
}

fn error(text: &str) -> StoreError {
    if text.starts_with("MOVED") {
        return Error::new(ErrorKind::Cluster, text.to_owned()).into();
    }
    StoreError::of_redis(text)
}

fn notification(push: Vec<BytesFrame>) -> Option<Notification> {
    let mut parts = push.into_iter();
    let is_invalidation = parts.next()?.as_str()? == "invalidate";
    match (is_invalidation, parts.next()?) {
        (true, BytesFrame::Array { data, .. }) => Some(Notification::Changed(
            data.into_iter()
                .filter_map(|key| match key {
                    BytesFrame::BlobString { data, .. } => Some(data),
                    _ => None,
                })
                .collect(),
        )),
        (true, BytesFrame::Null) => Some(Notification::Flushed),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Replies = (Vec<Result<Reply, StoreError>>, Vec<String>);

    async fn replies(bytes: &[u8], commands: usize) -> Replies {
        replies_of(false, bytes, commands).await
    }

    async fn replies_of(is_resp2: bool, bytes: &[u8], commands: usize) -> Replies {
        let (ours, mut theirs) = tokio::io::duplex(64);
        let log = Arc::new(Mutex::new(Vec::new()));
        let kept = log.clone();
        let wire = Wire::over(Box::new(ours), move |told| {
            kept.lock().unwrap().push(format!("{told:?}"));
        });
        if is_resp2 {
            wire.set_resp2();
        }
        let bytes = bytes.to_vec();
        let server = async move {
            // Everything is asked before anything is answered, and the answer comes in pieces.
            let mut asked = vec![0; commands * "*1\r\n$1\r\nX\r\n".len()];
            theirs.read_exact(&mut asked).await.unwrap();
            for byte in bytes {
                theirs.write_all(&[byte]).await.unwrap();
            }
        };
        let ask = (0..commands).map(|_| wire.call(&[b"X"]));
        let (replies, ()) = tokio::join!(futures_util::future::join_all(ask), server);
        wire.closed().await;
        let log = log.lock().unwrap().clone();
        (replies, log)
    }

    fn text(text: &'static str) -> Reply {
        Reply::Text(Bytes::from_static(text.as_bytes()))
    }

    #[tokio::test]
    async fn replies_of_both_versions_are_read() {
        let resp2 = b"*2\r\n$1\r\na\r\n$-1\r\n+OK\r\n:1\r\n";
        let resp3 = b"*2\r\n$1\r\na\r\n_\r\n+OK\r\n:1\r\n%1\r\n$4\r\nrole\r\n$6\r\nmaster\r\n";
        let expected = [
            Reply::List(vec![text("a"), Reply::Null]),
            text("OK"),
            Reply::Other,
            Reply::List(vec![text("role"), text("master")]),
        ];
        for (is_resp2, bytes, count) in [(true, &resp2[..], 3), (false, &resp3[..], 4)] {
            let (replies, told) = replies_of(is_resp2, bytes, count).await;
            let replies: Vec<Reply> = replies.into_iter().map(Result::unwrap).collect();
            assert_eq!(replies, expected[..count]);
            assert!(told.is_empty());
        }
    }

    #[tokio::test]
    async fn news_that_arrive_with_a_reply_are_known_before_it_is_handed_out() {
        let (ours, mut theirs) = tokio::io::duplex(1024);
        let (told, is_told) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicBool::new(false)),
        );
        let setter = told.clone();
        let wire = Wire::over(Box::new(ours), move |_| {
            setter.store(true, Ordering::SeqCst)
        });
        let ask = async {
            wire.call(&[b"X"]).await.unwrap();
            is_told.store(told.load(Ordering::SeqCst), Ordering::SeqCst);
        };
        let answer = async {
            theirs.read_u8().await.unwrap();
            let bytes = b"+A\r\n>2\r\n$10\r\ninvalidate\r\n_\r\n";
            theirs.write_all(bytes).await.unwrap();
        };
        tokio::join!(ask, answer);
        assert!(is_told.load(Ordering::SeqCst));
    }

    #[tokio::test]
    async fn pushes_are_no_replies() {
        let bytes = b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n+A\r\n>2\r\n$10\r\ninvalidate\r\n_\r\n>2\r\n+other\r\n_\r\n+B\r\n";
        let (replies, told) = replies(bytes, 2).await;
        assert_eq!(replies, [Ok(text("A")), Ok(text("B"))]);
        assert_eq!(told, ["Changed([b\"k\"])", "Flushed"]);
    }

    #[tokio::test]
    async fn who_waits_hears_of_the_end_and_nothing_is_quoted() {
        let (replies, _) = replies(b"-ERR unknown command 'acme'\r\n", 2).await;
        let errors: Vec<String> = replies
            .into_iter()
            .map(|reply| reply.unwrap_err().to_string())
            .collect();
        assert_eq!(
            errors,
            ["ERR unknown command …", "the connection to Redis was lost"]
        );
        for garbage in [&b"hello\r\n"[..], b"+OK\r\n+OK\r\n"] {
            let (replies, _) = self::replies(garbage, 1).await;
            assert_eq!(replies.len(), 1, "and the connection ends");
        }
    }

    #[test]
    fn a_command_is_an_array_of_strings() {
        assert_eq!(
            encode(&[b"GET", b"a b"]),
            "*2\r\n$3\r\nGET\r\n$3\r\na b\r\n"
        );
    }
}
