//! The customers in Redis, and their changes.

use std::io::Write;
use std::net::TcpStream as StdTcpStream;
use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub fn customer(rank: usize) -> String {
    format!("customer-{rank:07}")
}

/// The entitlements of a customer: half of them metered.
pub fn entitlements(features: usize, usage: usize) -> (String, Vec<(String, String)>) {
    let mut map = serde_json::Map::new();
    let mut usages = Vec::new();
    for at in 0..features {
        let id = format!("feature-{at:02}");
        let is_metered = at % 2 == 0;
        let feature = match is_metered {
            true => {
                json!({"id": id, "featureType": "NUMBER", "meterType": "Fluctuating", "units": "seat", "unitsPlural": "seats"})
            }
            false => json!({"id": id, "featureType": "BOOLEAN", "units": "", "unitsPlural": ""}),
        };
        map.insert(id.clone(), json!({
            "calculatedEntitlement": {"feature": feature, "usageLimit": 1_000_000, "hasUnlimitedUsage": false, "hasSoftLimit": false, "enumValues": []},
            "featureUsage": {"resetPeriod": "MONTH", "resetPeriodConfiguration": {"__typename": "MonthlyResetPeriodConfig", "monthlyAccordingTo": "SubscriptionStart"},
                "currentUsage": 0, "usagePeriodAnchor": 1_761_955_200_000_u64, "usagePeriodStart": 1_761_955_200_000_u64, "usagePeriodEnd": 4_102_444_800_000_u64},
        }));
        if is_metered {
            usages.push((id, json!({"currentUsage": usage, "usagePeriodStart": 1_761_955_200_000_u64, "usagePeriodEnd": 4_102_444_800_000_u64}).to_string()));
        }
    }
    (serde_json::Value::Object(map).to_string(), usages)
}

pub fn command(words: &[&str]) -> String {
    let mut text = format!("*{}\r\n", words.len());
    for word in words {
        text += &format!("${}\r\n{word}\r\n", word.len());
    }
    text
}

/// The commands that write a customer, one for all its keys.
pub fn write_customer(rank: usize, features: usize, usage: usize, at: u64) -> String {
    let key = format!("production:c_{}", customer(rank));
    let (map, usages) = entitlements(features, usage);
    let at = at.to_string();
    let mut words = vec![
        "MSET".to_owned(),
        key.clone(),
        map,
        format!("{key}#timestamp"),
        at.clone(),
    ];
    for (feature, value) in usages {
        words.extend([format!("{key}:f_{feature}"), value]);
        words.extend([format!("{key}:f_{feature}#timestamp"), at.clone()]);
    }
    command(&words.iter().map(String::as_str).collect::<Vec<_>>())
}

pub fn fill(redis_port: u16, features: usize, ranks: Range<usize>) -> Result<()> {
    let mut stream = StdTcpStream::connect(("127.0.0.1", redis_port))?;
    let mut answers = stream.try_clone()?;
    let expected = ranks.len() * 5;
    let reading = std::thread::spawn(move || {
        let mut bytes = vec![0; expected];
        std::io::Read::read_exact(&mut answers, &mut bytes)
    });
    for rank in ranks {
        stream.write_all(write_customer(rank, features, 1, 1_763_000_000_000).as_bytes())?;
    }
    reading
        .join()
        .map_err(|_| anyhow::anyhow!("reading failed"))??;
    Ok(())
}

/// A thousand customers a second, spread evenly.
pub async fn change(redis_port: u16, hot: usize, features: usize, end: Instant) -> Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", redis_port)).await?;
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    let (mut rank, mut usage) = (0, 2);
    let mut answers = vec![0; 50];
    while Instant::now() < end {
        ticks.tick().await;
        let mut commands = String::new();
        for _ in 0..10 {
            rank = (rank + 7_907) % hot;
            usage += 1;
            commands += &write_customer(rank, features, usage, 1_763_000_000_000 + usage as u64);
        }
        stream.write_all(commands.as_bytes()).await?;
        stream.read_exact(&mut answers).await?;
    }
    Ok(())
}
