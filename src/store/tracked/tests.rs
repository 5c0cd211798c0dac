//! Tests the connection with a server that writes given bytes.

use bytes::BytesMut;
use redis_protocol::resp2::decode::decode_bytes_mut;
use redis_protocol::resp2::types::{BytesFrame, Resp2Frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::config::{Config, Uses};

const NEWS: &str = ">2\r\n$10\r\ninvalidate\r\n*1\r\n$17\r\nproduction:c_acme\r\n";

/// Answers one connection: nothing is stored. News are written with the answer to each read of acme, behind it or
/// before it.
async fn serve(listener: TcpListener, news_first: bool) {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut buffer = BytesMut::new();
    loop {
        while let Ok(Some((frame, _, _))) = decode_bytes_mut(&mut buffer) {
            let BytesFrame::Array(words) = frame else {
                return;
            };
            let words: Vec<&str> = words.iter().filter_map(Resp2Frame::as_str).collect();
            let reply = match words[0] {
                "HELLO" => "%1\r\n$4\r\nrole\r\n$6\r\nmaster\r\n".to_owned(),
                "MGET" => format!(
                    "*{}\r\n{}",
                    words.len() - 1,
                    "_\r\n".repeat(words.len() - 1)
                ),
                _ => "+OK\r\n".to_owned(),
            };
            let news = match words[..] {
                ["MGET", "production:c_acme", ..] => NEWS,
                _ => "",
            };
            let bytes = match news_first {
                true => [news, &reply].concat(),
                false => [&reply, news].concat(),
            };
            stream.write_all(bytes.as_bytes()).await.unwrap();
        }
        if stream.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_during_which_the_customer_changed_is_not_fresh() {
    for news_first in [true, false] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        let server = tokio::spawn(serve(listener, news_first));
        let variables = [("REDIS_HOST", "127.0.0.1"), ("REDIS_PORT", &port)];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let config = Config::load_for(variables.into(), &[Uses::Redis]).unwrap();
        let fresh = Duration::from_secs(1);
        let tracked = Tracked::start(
            config.redis.as_ref().unwrap(),
            Keys::new("production"),
            fresh,
        )
        .unwrap();
        let mut returns = tracked.returns().unwrap();
        returns.wait_for(|count| *count > 0).await.unwrap();
        let owner = |customer| Owner {
            customer,
            resource: None,
        };
        for _ in 0..100 {
            let (_, other) = tracked.read(owner("other")).await.unwrap();
            let learnt = tracked.mark();
            let (_, mark) = tracked.read(owner("acme")).await.unwrap();
            let is_fresh = |customer, mark| tracked.fresh_age(customer, mark).is_some();
            assert!(!is_fresh("acme", mark) && !is_fresh("acme", learnt));
            assert!(is_fresh("other", other));
        }
        assert_eq!(tracked.invalidations(), 100);
        drop(tracked);
        // Its connection closes with the last clone.
        server.await.unwrap();
    }
}
