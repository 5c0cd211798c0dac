//! The findings of `check`: status, text and advice.

use std::time::Duration;

use serde::Serialize;

/// One check and its result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    pub name: &'static str,
    pub status: Status,
    /// The finding.
    pub detail: String,
    /// The advice, unless the check passed or the finding itself has advice.
    pub advice: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Pass,
    /// The worker runs, but with a risk or worse than it could.
    Warn,
    /// The worker cannot run.
    Fail,
}

/// The timeout of one probe.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

impl Check {
    pub fn pass(name: &'static str, detail: impl Into<String>) -> Self {
        Self {
            name,
            status: Status::Pass,
            detail: detail.into(),
            advice: None,
        }
    }

    pub fn warn(name: &'static str, detail: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            name,
            status: Status::Warn,
            detail: detail.into(),
            advice: Some(advice.into()),
        }
    }

    pub fn fail(name: &'static str, detail: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            status: Status::Fail,
            ..Self::warn(name, detail, advice)
        }
    }

    /// A failure whose text says what to do.
    pub fn fail_with_own_advice(name: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status: Status::Fail,
            ..Self::pass(name, detail)
        }
    }
}

/// Looks up the addresses of a name.
pub async fn dns(name: &'static str, variable: &str, host: &str, port: u16) -> Check {
    if host.parse::<std::net::IpAddr>().is_ok() {
        return Check::pass(name, format!("{host} is an address"));
    }
    let found = tokio::time::timeout(PROBE_TIMEOUT, tokio::net::lookup_host((host, port))).await;
    let advice = || format!("check {variable} and the DNS of this machine or pod");
    match found {
        Ok(Ok(found)) => {
            let mut found: Vec<String> = found.map(|address| address.ip().to_string()).collect();
            found.dedup();
            if found.is_empty() {
                return Check::fail(name, format!("{host} has no address"), advice());
            }
            Check::pass(name, format!("{host}: {}", found.join(", ")))
        }
        Ok(Err(error)) => Check::fail(name, format!("{host} not found: {error}"), advice()),
        Err(_) => Check::fail(name, format!("{host}: lookup timed out"), advice()),
    }
}
