//! The way to the queue, without credentials: its name, its certificate, its clock.

use std::time::{Duration, SystemTime};

use secrecy::ExposeSecret;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;
use url::Url;

use crate::check::{Check, LIMIT, dns};
use crate::config::QueueConfig;
use crate::http_agent;

pub fn region(config: &QueueConfig) -> Check {
    // That they disagree is an error of the configuration.
    let region = &config.region;
    let named = config.url.as_str().contains(region.as_str());
    Check::pass(
        "region",
        match named {
            true => format!("{region}, as in QUEUE_URL"),
            false => format!("{region}; QUEUE_URL names none"),
        },
    )
}

pub async fn check(config: &QueueConfig) -> Vec<Check> {
    let (name, answer) = tokio::join!(resolve(config), tokio::time::timeout(LIMIT, ask(config)));
    let mut checks = vec![name];
    let endpoint = &config.endpoint;
    let failed = |detail: String| Check::fail("queue-link", detail, LINK);
    match answer {
        Ok(Ok(answer)) => {
            let kind = match endpoint.scheme() {
                "https" => "its certificate is trusted",
                _ => "plain http",
            };
            checks.push(Check::pass(
                "queue-link",
                format!("{endpoint} answers, {kind}"),
            ));
            checks.extend(answer.skew_secs.map(clock));
        }
        Ok(Err(error)) if error.contains("certificate") => checks.push(Check::fail(
            "queue-link",
            error,
            "give the authority that signed it in AWS_CA_BUNDLE",
        )),
        Ok(Err(error)) => checks.push(failed(error)),
        Err(_) => checks.push(failed(format!("{endpoint} does not answer in time"))),
    }
    checks
}

const LINK: &str =
    "check the network between here and the queue, HTTPS_PROXY, NO_PROXY and AWS_ENDPOINT_URL_SQS";

async fn resolve(config: &QueueConfig) -> Check {
    let endpoint = &config.endpoint;
    if let Some(proxy) = config.net.proxy_for(endpoint) {
        let proxy = Url::parse(proxy.expose_secret());
        let proxy = proxy.ok().and_then(|url| url.host_str().map(str::to_owned));
        return Check::pass(
            "queue-dns",
            format!("left to the proxy {}", proxy.unwrap_or_default()),
        );
    }
    let host = endpoint.host_str().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = endpoint.port_or_known_default().unwrap_or(443);
    dns("queue-dns", "QUEUE_URL", host, port).await
}

struct Answer {
    /// How far its clock is ahead of ours.
    skew_secs: Option<i64>,
}

/// Any answer will do, a refusal too.
async fn ask(config: &QueueConfig) -> Result<Answer, String> {
    let agent = http_agent::for_host_of(&config.net, &config.endpoint);
    let url = config.endpoint.to_string();
    let asked = tokio::task::spawn_blocking(move || {
        let before = SystemTime::now();
        // AWS redirects this to a page about SQS; the agent does not follow it.
        let answer = agent.get(&url).call().map_err(|error| error.to_string())?;
        let date = answer.headers().get("date").cloned();
        let date = date.and_then(|date| OffsetDateTime::parse(date.to_str().ok()?, &Rfc2822).ok());
        // The answer was written somewhere between, and seconds are all it has.
        let half = before.elapsed().unwrap_or_default() / 2;
        let ours = OffsetDateTime::from(before + half);
        Ok(Answer {
            skew_secs: date.map(|date| (date - ours).whole_seconds()),
        })
    });
    asked.await.map_err(|error| error.to_string())?
}

/// From here on AWS may refuse what we sign.
const REFUSED: Duration = Duration::from_secs(300);
const DOUBTFUL: Duration = Duration::from_secs(60);

fn clock(skew_secs: i64) -> Check {
    const ADVICE: &str = "set the clock of this machine by NTP";
    let off = Duration::from_secs(skew_secs.unsigned_abs());
    let way = if skew_secs < 0 { "ahead" } else { "behind" };
    let detail = format!("{} s {way} of the queue's", off.as_secs());
    if off >= REFUSED {
        let detail = format!("{detail}: AWS refuses what is signed 5 minutes off");
        return Check::fail("clock", detail, ADVICE);
    }
    if off > DOUBTFUL {
        let detail = format!("{detail}: at 5 minutes AWS refuses what is signed");
        return Check::warn("clock", detail, ADVICE);
    }
    Check::pass(
        "clock",
        format!("within {} s of the queue's", off.as_secs() + 1),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Status;

    #[test]
    fn a_clock_is_judged_both_ways() {
        for (skew, status, says) in [
            (0, Status::Pass, "within"),
            (-60, Status::Pass, "within"),
            (61, Status::Warn, "61 s behind"),
            (-299, Status::Warn, "299 s ahead"),
            (300, Status::Fail, "300 s behind"),
            (-4000, Status::Fail, "4000 s ahead"),
        ] {
            let found = clock(skew);
            assert_eq!(found.status, status, "{skew}");
            assert!(found.detail.contains(says), "{}", found.detail);
        }
    }
}
