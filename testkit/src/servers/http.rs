//! HTTP/1.1 on loopback in a few lines: one request for one answer, and a server with one handler.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};

use super::{free_port, listen};

#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: String,
}

impl Reply {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {:?}", self.body))
    }

    /// A header's value, or the empty string.
    pub fn header(&self, name: &str) -> &str {
        header(&self.headers, name)
    }
}

/// `GET` on a loopback port, within 2 s.
pub async fn get(port: u16, path: &str) -> Result<Reply, String> {
    let request = Request::get(path)
        .header("host", format!("127.0.0.1:{port}"))
        .body(Full::default())
        .unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(2), send(port, request)).await;
    let (parts, body) = answer
        .map_err(|_| format!("no answer to GET {path} in 2 s"))??
        .into_parts();
    let body = String::from_utf8_lossy(&body).into_owned();
    Ok(Reply {
        status: parts.status.as_u16(),
        headers: parts.headers,
        body,
    })
}

/// A request with these headers and this body on a loopback port, within 30 s.
pub async fn request(
    port: u16,
    (method, path): (&str, &str),
    headers: &[(&str, &str)],
    body: &str,
) -> Result<Reply, String> {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", format!("127.0.0.1:{port}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request
        .body(Full::from(body.to_owned()))
        .map_err(|error| error.to_string())?;
    let answer = tokio::time::timeout(Duration::from_secs(30), send(port, request)).await;
    let (parts, body) = answer
        .map_err(|_| format!("no answer to {method} {path} in 30 s"))??
        .into_parts();
    Ok(Reply {
        status: parts.status.as_u16(),
        headers: parts.headers,
        body: String::from_utf8_lossy(&body).into_owned(),
    })
}

/// One request on a connection of its own, for as long as it takes.
pub async fn send(port: u16, request: Request<Full<Bytes>>) -> Result<Response<Bytes>, String> {
    let stream = TcpStream::connect(("127.0.0.1", port))
        .await
        .map_err(|error| error.to_string())?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| error.to_string())?;
    let mut exchange = pin!(async {
        let (parts, body) = sender.send_request(request).await?.into_parts();
        Ok(Response::from_parts(
            parts,
            body.collect().await?.to_bytes(),
        ))
    });
    // Driven here rather than in a task, so that a caller who gives up takes the connection with him.
    let mut connection = pin!(connection);
    let mut open = true;
    loop {
        tokio::select! {
            answer = &mut exchange => return answer.map_err(|error: hyper::Error| error.to_string()),
            _ = &mut connection, if open => open = false,
        }
    }
}

/// A request as a server of ours got it.
#[derive(Clone, Debug)]
pub struct Received {
    pub method: String,
    pub path: String,
    /// What follows the question mark, or the empty string.
    pub query: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub at: Instant,
}

impl Received {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {:?}", self.body))
    }

    /// A header's value, or the empty string.
    pub fn header(&self, name: &str) -> &str {
        header(&self.headers, name)
    }
}

/// What a handler wants to become of its request.
pub enum Outcome {
    Answer(Response<Full<Bytes>>),
    /// The connection ends in order, but without an answer.
    Close,
    /// The connection is reset (RST).
    Reset,
}

pub fn answer(status: u16, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Outcome {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    Outcome::Answer(response.body(Full::new(body.into())).unwrap())
}

/// A server on a free loopback port; its connections end with it.
pub struct Server {
    pub port: u16,
    accepting: JoinHandle<()>,
}

impl Server {
    pub async fn start<H, F>(handler: H) -> Server
    where
        H: Fn(Received) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Outcome> + Send + 'static,
    {
        let port = free_port();
        let listener = listen(port).await;
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    Ok((stream, _)) = listener.accept() => {
                        connections.spawn(converse(stream, handler.clone()));
                    }
                    Some(_) = connections.join_next() => {}
                }
            }
        });
        Server { port, accepting }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn converse<H, F>(stream: TcpStream, handler: H)
where
    H: Fn(Received) -> F + Send + Sync + 'static,
    F: Future<Output = Outcome> + Send + 'static,
{
    let _ = stream.set_nodelay(true);
    let reset = Arc::new(Notify::new());
    let handler = Arc::new(handler);
    let service = service_fn(|request: Request<Incoming>| {
        let (handler, reset) = (handler.clone(), reset.clone());
        async move {
            // hyper ends a connection without an answer when its service fails.
            let received = receive(request).await.ok_or("cut short")?;
            match handler(received).await {
                Outcome::Answer(response) => Ok(response),
                Outcome::Close => Err("closed"),
                Outcome::Reset => {
                    reset.notify_one();
                    std::future::pending().await
                }
            }
        }
    });
    let mut connection =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        _ = &mut connection => {}
        () = reset.notified() => {
            let _ = connection.into_parts().io.into_inner().set_zero_linger();
        }
    }
}

async fn receive(request: Request<Incoming>) -> Option<Received> {
    let at = Instant::now();
    let (parts, body) = request.into_parts();
    Some(Received {
        method: parts.method.to_string(),
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        headers: parts.headers,
        body: body.collect().await.ok()?.to_bytes(),
        at,
    })
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}
