//! The read API on `READ_PORT`:
//!
//! | | |
//! |---|---|
//! | `GET /v1/c/{customer}/entitlements.json` | as the Edge API answers: all entitlements, or one by `featureId` |
//! | `GET /v1/c/{customer}/entitlements-state.json` | the same as SDK 4.x asks for it |
//! | `GET /v1/config/server-sdk-configuration.json` | the last answer of the Edge API |
//! | `GET /v1/…` | passed on to the Edge API |
//! | `POST /ofrep/v1/evaluate/flags[/{key}]` | OpenFeature's remote evaluation protocol |
//! | `GET /livez`, `GET /readyz` | without a key |
//!
//! No log line and no error text contains a customer's id.

mod configuration;
mod context;
mod edge_api;
mod ofrep;
mod path;
mod pieces;
mod respond;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use actix_web::dev::ServerHandle;
use actix_web::http::ConnectionType;
use actix_web::http::header::{
    AUTHORIZATION, CACHE_CONTROL, HeaderMap, HeaderName, HeaderValue, VIA,
};
use actix_web::http::{Method, StatusCode};
use actix_web::web::{self, Bytes, Data, Payload};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer};
use serde_json::json;

use crate::edge::is_of_this_program;
use crate::metrics::{ReadResult, ReadRoute};
use crate::reads::{Access, Reads};
use configuration::Configuration;
use path::Route;
pub(super) use path::is_id;
use respond::{Answered, error};

/// The state that the handlers share.
pub struct Shared {
    reads: Reads,
    access: Arc<Access>,
    configuration: Configuration,
    /// A request of this process came back, and the log says so.
    is_loop_logged: AtomicBool,
}

impl Shared {
    /// Logs once that a request of this process came back.
    fn log_loop(&self) {
        if !self.is_loop_logged.swap(true, Ordering::Relaxed) {
            tracing::error!(
                "a request to the Edge API came back to this process: check EDGE_API_URL"
            );
        }
    }
}

/// Maximum connections of the process; an idle one takes a few kilobytes.
const MAX_CONNECTIONS: usize = 8_192;
const HEADERS_TIMEOUT: Duration = Duration::from_secs(5);
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// Maximum bytes of a body: a context has a few ids.
const MAX_BODY_BYTES: usize = 64 * 1024;
const BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum threads of the server; more do not help where Redis or the network is the limit.
const MAX_WORKERS: usize = 4;

/// Binds the port and starts the server.
pub fn start(port: u16, reads: Reads, access: Arc<Access>) -> std::io::Result<Serving> {
    let shared = Data::new(Shared {
        reads,
        access,
        configuration: Configuration::default(),
        is_loop_logged: AtomicBool::new(false),
    });
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let server = HttpServer::new(move || {
        App::new()
            .app_data(shared.clone())
            .default_service(web::route().to(handle))
    })
    .workers(cores.min(MAX_WORKERS))
    .max_connections(MAX_CONNECTIONS / cores.min(MAX_WORKERS))
    .client_request_timeout(HEADERS_TIMEOUT)
    .keep_alive(KEEP_ALIVE)
    .disable_signals()
    .shutdown_timeout(2)
    .listen(super::listen(port)?)?
    .run();
    let handle = server.handle();
    tokio::spawn(server);
    Ok(Serving(handle))
}

/// The running API.
pub struct Serving(ServerHandle);

impl Serving {
    /// Stops accepting requests and answers those in flight.
    pub async fn stop(self) {
        self.0.stop(true).await;
    }
}

/// Answers with the `X-Request-ID` of the request, or a new one. No log line: the paths hold ids of customers.
async fn handle(request: HttpRequest, payload: Payload, shared: Data<Shared>) -> HttpResponse {
    let mut response = respond(&request, payload, &shared).await;
    if let Ok(id) = super::request_id_of(request.headers()) {
        response.headers_mut().insert(super::REQUEST_ID, id);
    }
    response
}

async fn respond(request: &HttpRequest, payload: Payload, shared: &Shared) -> HttpResponse {
    let started = Instant::now();
    let route = Route::of(request.uri().path());
    match route {
        Route::Livez => {
            return closing(health(request, StatusCode::OK, json!({"status": "UP"})));
        }
        Route::Readyz => return closing(readyz(request, shared)),
        _ => {}
    }
    let refused = |result, status, code: &str, text: &str| {
        let answered = Answered::new(result, error(status, code, text));
        (route.kind(), answered)
    };
    let (kind, answered) = if !is_admitted(request.headers(), &shared.access) {
        let code = "Unauthenticated";
        refused(ReadResult::Denied, StatusCode::UNAUTHORIZED, code, code)
    } else if is_our_own(request.headers(), shared.reads.pages.via()) {
        shared.log_loop();
        let text = "this request comes from this process: check EDGE_API_URL";
        refused(ReadResult::Refused, StatusCode::LOOP_DETECTED, "Loop", text)
    } else {
        answer(request, payload, shared, &route).await
    };
    if let Some(kind) = kind {
        shared
            .reads
            .metrics
            .answered(kind, answered.result, started.elapsed());
    }
    match answered.result {
        ReadResult::Denied => closing(answered.response),
        _ => answered.response,
    }
}

/// Closes the connection of who showed no key. The library limits the time for the headers of the first request on a
/// connection only, so a kept connection could stay open for good.
fn closing(mut response: HttpResponse) -> HttpResponse {
    response
        .head_mut()
        .set_connection_type(ConnectionType::Close);
    response
}

async fn answer(
    request: &HttpRequest,
    payload: Payload,
    shared: &Shared,
    route: &Route,
) -> (Option<ReadRoute>, Answered) {
    let is_read = [Method::GET, Method::HEAD].contains(request.method());
    let wrong_method = || {
        let mut refused = Answered::refused(
            StatusCode::METHOD_NOT_ALLOWED,
            "this route does not support this method",
        );
        let allow = if route.is_evaluation() {
            "POST"
        } else {
            "GET, HEAD"
        };
        refused.response.headers_mut().insert(
            HeaderName::from_static("allow"),
            HeaderValue::from_static(allow),
        );
        refused
    };
    let answered = match route {
        _ if route.is_evaluation() && request.method() != Method::POST => wrong_method(),
        Route::MalformedFlag => ofrep::malformed_key(),
        Route::Flag(key) => match body(payload).await {
            Ok(body) => ofrep::flag(request, shared, key, &body).await,
            Err(status) => ofrep::not_received(status, Some(key)),
        },
        Route::Flags => match body(payload).await {
            Ok(body) => ofrep::flags(request, shared, &body).await,
            Err(status) => ofrep::not_received(status, None),
        },
        Route::Unknown => Answered::refused(StatusCode::NOT_FOUND, "there is no such route"),
        Route::Malformed(why) => Answered::refused(StatusCode::BAD_REQUEST, why),
        Route::Credentials => Answered::new(
            ReadResult::Refused,
            error(
                StatusCode::FORBIDDEN,
                "Forbidden",
                "queue credentials are not for readers",
            ),
        ),
        _ if !is_read => wrong_method(),
        Route::Entitlements(customer) => edge_api::entitlements(request, shared, customer).await,
        Route::EntitlementsState(customer) => {
            edge_api::entitlements_state(request, shared, customer).await
        }
        Route::Configuration => configuration::configuration(request, shared).await,
        Route::PassedThrough(segments) => edge_api::pass_through(request, shared, segments).await,
        Route::Livez | Route::Readyz => unreachable!("answered before"),
    };
    (route.kind(), answered)
}

async fn body(payload: Payload) -> Result<Bytes, StatusCode> {
    match tokio::time::timeout(BODY_TIMEOUT, payload.to_bytes_limited(MAX_BODY_BYTES)).await {
        Ok(Ok(Ok(body))) => Ok(body),
        Ok(Ok(Err(_))) => Err(StatusCode::BAD_REQUEST),
        Ok(Err(_)) => Err(StatusCode::PAYLOAD_TOO_LARGE),
        Err(_) => Err(StatusCode::REQUEST_TIMEOUT),
    }
}

const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Reads the key from `X-API-Key` or `Authorization: Bearer`.
fn is_admitted(headers: &HeaderMap, access: &Access) -> bool {
    let bearer = || {
        let value = headers.get(AUTHORIZATION)?.as_bytes();
        let (scheme, key) = value.split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"bearer ").then_some(key)
    };
    let key = headers
        .get(API_KEY)
        .map(HeaderValue::as_bytes)
        .or_else(bearer);
    key.is_some_and(|key| access.admits(key))
}

/// Returns the processes that a request came through, in order.
fn vias(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let vias = headers.get_all(VIA).filter_map(|via| via.to_str().ok());
    vias.flat_map(|via| via.split(',')).map(str::trim)
}

/// Returns the processes of this program that a request came through; `None`: it came from a reader.
fn own_vias(headers: &HeaderMap) -> Option<String> {
    let own: Vec<&str> = vias(headers)
        .filter(|via| is_of_this_program(via))
        .collect();
    (!own.is_empty()).then(|| own.join(", "))
}

/// Returns whether a request of this process has come back: its answer would wait for itself.
fn is_our_own(headers: &HeaderMap, via: &str) -> bool {
    vias(headers).any(|found| found == via)
}

/// Answers 200 while any question can be answered.
fn readyz(request: &HttpRequest, shared: &Shared) -> HttpResponse {
    let sources = shared.reads.sources();
    let (status, word) = match sources.can_answer() {
        true => (StatusCode::OK, "UP"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "DOWN"),
    };
    let shown = |is_there| {
        if is_there {
            "CONNECTED"
        } else {
            "DISCONNECTED"
        }
    };
    let mut answer = json!({
        "status": word,
        "upstream": shown(sources.upstream),
        "copies": sources.copies,
    });
    match shared.reads.is_memory() {
        true => answer["proven"] = sources.redis.into(),
        false => answer["redis"] = shown(sources.redis).into(),
    }
    health(request, status, answer)
}

fn health(request: &HttpRequest, status: StatusCode, answer: serde_json::Value) -> HttpResponse {
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        return error(
            StatusCode::METHOD_NOT_ALLOWED,
            "BadRequest",
            "this route does not support this method",
        );
    }
    HttpResponse::build(status)
        .insert_header((CACHE_CONTROL, "no-store"))
        .json(answer)
}
