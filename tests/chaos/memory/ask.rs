//! Asks as readers do, by every route, and has the model judge the answers.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use serde_json::{Value, json};
use testkit::http::{Reply, request};
use testkit::reader::KEY;
use tokio::time::{sleep, timeout};

use super::model::{Answer, Moment};
use super::report::{Asked, Report};
use super::story::{CUSTOMERS, FEATURE, WITNESSES, name};
use super::world::World;

/// How many ask at once while nothing fails.
const AT_ONCE: usize = 6;
/// Of the readers while things fail: a frozen process takes longer.
const PATIENCE: Duration = Duration::from_millis(500);

#[derive(Debug, Clone, Copy)]
enum Route {
    Entitlements,
    Limit,
    Usage,
}

const ROUTES: [Route; 3] = [Route::Entitlements, Route::Limit, Route::Usage];

/// `None`: no answer at all.
async fn ask(port: u16, customer: usize, route: Route) -> Option<Answer> {
    let id = name(customer);
    let flag = |of| {
        let path = format!("/ofrep/v1/evaluate/flags/{FEATURE}%40{of}");
        let context = json!({"context": {"targetingKey": &id}});
        ("POST", path, context.to_string())
    };
    let (method, path, body) = match route {
        Route::Entitlements => {
            let path = format!("/v1/c/{id}/entitlements.json");
            ("GET", path, String::new())
        }
        Route::Limit => flag("limit"),
        Route::Usage => flag("usage"),
    };
    let headers = [("x-api-key", KEY), ("content-type", "application/json")];
    let reply = request(port, (method, &path), &headers, &body).await.ok()?;
    Some(read(&reply, route))
}

fn read(reply: &Reply, route: Route) -> Answer {
    if reply.status == 503 {
        return Answer::CannotTell;
    }
    let body: Value = serde_json::from_str(&reply.body).unwrap_or_default();
    let (limit, usage, stale) = match route {
        Route::Entitlements => {
            let only = &body["data"]["entitlements"][0];
            let stale = reply.header("cache-status").contains("detail=unproven");
            (
                only["usageLimit"].as_u64(),
                only["currentUsage"].as_u64(),
                stale,
            )
        }
        Route::Limit => (body["value"].as_u64(), None, body["reason"] == "STALE"),
        Route::Usage => (None, body["value"].as_u64(), body["reason"] == "STALE"),
    };
    if reply.status != 200 || limit.or(usage).is_none() {
        return Answer::Odd(format!("{route:?}: {} {}", reply.status, reply.body));
    }
    Answer::Known {
        limit,
        usage,
        stale,
    }
}

/// One after the other, so that the answers have an order.
pub async fn keep_asking(world: &World, seed: u64, over: &AtomicBool) -> (Asked, Report) {
    let mut rng = fastrand::Rng::with_seed(seed ^ 0xa5_4e4);
    let (mut asked, mut report) = (Asked::default(), Report::default());
    while !over.load(Ordering::SeqCst) {
        let of = match world.asks_witnesses.load(Ordering::SeqCst) && rng.u8(..4) > 0 {
            true => WITNESSES,
            false => 0..[CUSTOMERS, CUSTOMERS / 20][usize::from(rng.bool())],
        };
        let (customer, route) = (rng.usize(of), ROUTES[rng.usize(..ROUTES.len())]);
        let life = world.host.life();
        let port = world.host.reader().read_port();
        let answer = timeout(PATIENCE, ask(port, customer, route))
            .await
            .ok()
            .flatten();
        // It may be from the life before.
        if world.host.life() != life {
            continue;
        }
        let Some(answer) = answer else {
            asked.no_answer += 1;
            sleep(Duration::from_millis(20)).await;
            continue;
        };
        asked.count(&answer);
        let verdict = world
            .model()
            .judge(customer, &answer, Moment::Busy { life });
        report.note(verdict);
        sleep(Duration::from_millis(2)).await;
    }
    (asked, report)
}

/// Every customer by every route, with an empty queue.
pub async fn ask_everyone(world: &World, is_proven: bool) -> (Asked, Report) {
    let port = world.host.reader().read_port();
    let questions = (0..CUSTOMERS).flat_map(|customer| ROUTES.map(|route| (customer, route)));
    let answers = stream::iter(questions)
        .map(async |(customer, route)| (customer, route, ask(port, customer, route).await))
        .buffer_unordered(AT_ONCE)
        .collect::<Vec<_>>()
        .await;
    let (mut asked, mut report) = (Asked::default(), Report::default());
    for (customer, route, answer) in answers {
        let answer = answer.unwrap_or_else(|| Answer::Odd(format!("{route:?}: no answer")));
        asked.count(&answer);
        let verdict = world
            .model()
            .judge(customer, &answer, Moment::Calm { is_proven });
        report.note(verdict);
    }
    (asked, report)
}
