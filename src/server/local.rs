//! Asks a process of ours on this machine, for probes and commands.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpStream};
use std::time::Duration;

use anyhow::Context;

/// An answer.
pub struct Reply {
    pub status: u16,
    pub body: String,
}

const TIMEOUT: Duration = Duration::from_secs(2);

/// Sends a request without a body, with a bearer token if there is one. HTTP/1.0, so that the answer ends with the
/// connection and has no encoding.
pub fn request(port: u16, method: &str, path: &str, token: Option<&str>) -> anyhow::Result<Reply> {
    let connect = |address: IpAddr| TcpStream::connect_timeout(&(address, port).into(), TIMEOUT);
    let mut stream = connect(Ipv4Addr::LOCALHOST.into())
        .or_else(|error| connect(Ipv6Addr::LOCALHOST.into()).map_err(|_| error))
        .with_context(|| format!("nothing answers on port {port}"))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let bearer = token.map(|token| format!("Authorization: Bearer {token}\r\n"));
    let bearer = bearer.unwrap_or_default();
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nHost: localhost\r\n{bearer}\r\n"
    )?;
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .with_context(|| format!("{path} does not answer"))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    Ok(Reply {
        status: status.with_context(|| format!("port {port} does not answer HTTP"))?,
        body: body.to_owned(),
    })
}
