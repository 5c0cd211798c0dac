//! The floor of the read API: the same server with the same settings, answering the same bytes without a look at
//! anything.
//!
//! The answer is the file that `FLOOR_ANSWER` names: headers, an empty line, and the body.

use std::time::Duration;

use actix_web::web::{self, Bytes, Data, Payload};
use actix_web::{App, HttpResponse, HttpServer};
use anyhow::Context;

struct Answer {
    headers: Vec<(String, String)>,
    body: Bytes,
}

#[actix_web::main]
async fn main() -> anyhow::Result<()> {
    let port: u16 = std::env::var("READ_PORT")?.parse()?;
    let text = std::fs::read_to_string(std::env::var("FLOOR_ANSWER")?)?;
    let (head, body) = text.split_once("\r\n\r\n").context("no empty line")?;
    let headers = head.split("\r\n").filter_map(|line| line.split_once(": "));
    let answer = Data::new(Answer {
        headers: headers
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        body: body.to_owned().into(),
    });
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    HttpServer::new(move || {
        App::new()
            .app_data(answer.clone())
            .default_service(web::route().to(give))
    })
    .workers(cores.min(4))
    .client_request_timeout(Duration::from_secs(5))
    .keep_alive(Duration::from_secs(75))
    .bind(("127.0.0.1", port))?
    .run()
    .await?;
    Ok(())
}

async fn give(payload: Payload, answer: Data<Answer>) -> HttpResponse {
    // A question of OFREP has a body.
    drop(payload.to_bytes_limited(65_536).await);
    let mut response = HttpResponse::Ok();
    for (name, value) in &answer.headers {
        response.insert_header((name.as_str(), value.as_str()));
    }
    response.body(answer.body.clone())
}
