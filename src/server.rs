//! Serves health, metrics and status by HTTP:
//!
//! | `GET` | |
//! |---|---|
//! | `/livez` | 200 while the process works; independent of Redis and the queue |
//! | `/readyz` | 200 while Redis answers and a consumer polls, else 503; `?verbose` says why |
//! | `/metrics` | OpenMetrics |
//! | `/status` | JSON of the whole state, without secrets |
//! | `/` | the status as a page that updates itself |
//!
//! With `ADMIN_TOKEN` there are routes that change something too, see [`admin`].
//!
//! Every answer comes from memory, so that probes get an answer while everything else hangs. A request's
//! `X-Request-ID` is echoed, or one is made.

mod admin;
mod local;
pub mod reads;

pub use admin::{Admin, Kept};
pub use local::{Reply, request};

use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::Arc;

use actix_web::body::MessageBody;
use actix_web::dev::{Server, ServerHandle, ServiceRequest, ServiceResponse};
use actix_web::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderMap, HeaderName, HeaderValue, InvalidHeaderValue,
};
use actix_web::middleware::{Next, from_fn};
use actix_web::web::{Data, Query, ServiceConfig};
use actix_web::{App, HttpResponse, HttpServer, route};
use prometheus_client::registry::Registry;
use serde::Deserialize;
use uuid::Uuid;

use crate::health::{Health, Status};
use crate::status::Observer;

struct Shared {
    health: Arc<Health>,
    observer: Arc<Observer>,
    registry: Registry,
}

/// Binds the port. The server runs until its handle stops it.
pub fn start(
    port: u16,
    health: Arc<Health>,
    observer: Arc<Observer>,
    registry: Registry,
    admin: Option<Admin>,
) -> std::io::Result<(Server, ServerHandle)> {
    let shared = Data::new(Shared {
        health,
        observer,
        registry,
    });
    let admin = admin.map(Data::new);
    let server = HttpServer::new(move || {
        let administration = |config: &mut ServiceConfig| {
            if let Some(admin) = &admin {
                config.app_data(admin.clone()).configure(admin::routes);
            }
        };
        App::new()
            .wrap(from_fn(request_id))
            .app_data(shared.clone())
            .service(livez)
            .service(readyz)
            .service(metrics)
            .service(whole_status)
            .service(page)
            .configure(administration)
    })
    .workers(1)
    .disable_signals()
    .shutdown_timeout(1)
    .listen(listen(port)?)?
    .run();
    let handle = server.handle();
    Ok((server, handle))
}

/// Binds all addresses, IPv6 and IPv4, because probes use the version of the cluster. Without IPv6 on the system it
/// binds only IPv4.
fn listen(port: u16) -> std::io::Result<TcpListener> {
    use socket2::{Domain, SockAddr, Socket, Type};
    let on = |domain, address: SocketAddr| -> std::io::Result<TcpListener> {
        let socket = Socket::new(domain, Type::STREAM, None)?;
        if domain == Domain::IPV6 {
            // Independent of the system's default.
            socket.set_only_v6(false)?;
        }
        socket.set_reuse_address(true)?;
        socket.bind(&SockAddr::from(address))?;
        socket.listen(1024)?;
        Ok(TcpListener::from(socket))
    };
    match on(Domain::IPV6, (Ipv6Addr::UNSPECIFIED, port).into()) {
        Err(error) if error.kind() != ErrorKind::AddrInUse => {
            on(Domain::IPV4, (Ipv4Addr::UNSPECIFIED, port).into())
        }
        bound => bound,
    }
}

/// Requests a path of a service on this machine; returns an error unless the status is 200.
pub fn ask(port: u16, path: &str) -> anyhow::Result<()> {
    let Reply { status, body } = request(port, "GET", path, None)?;
    match status {
        200 => Ok(()),
        _ => anyhow::bail!("{path} answers {status}: {body}"),
    }
}

/// The longest request id that is echoed; it must also be plain text.
const MAX_REQUEST_ID_BYTES: usize = 128;

/// Answers with the `X-Request-ID` of the request, or a new one, and logs it.
async fn request_id(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    let id = request_id_of(request.headers())?;
    tracing::debug!(
        request_id = id.to_str().unwrap_or_default(),
        path = request.path(),
        "request"
    );
    answer_with_id(request, next, id).await
}

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

fn request_id_of(headers: &HeaderMap) -> Result<HeaderValue, InvalidHeaderValue> {
    let given = headers.get(REQUEST_ID).cloned().filter(|id| {
        (1..=MAX_REQUEST_ID_BYTES).contains(&id.len())
            && id.as_bytes().iter().all(u8::is_ascii_graphic)
    });
    match given {
        Some(id) => Ok(id),
        None => {
            let id = Uuid::from_u128(fastrand::u128(..)).simple();
            HeaderValue::from_str(id.encode_lower(&mut Uuid::encode_buffer()))
        }
    }
}

async fn answer_with_id(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
    id: HeaderValue,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    let mut response = next.call(request).await?;
    response.headers_mut().insert(REQUEST_ID, id);
    Ok(response)
}

#[route("/livez", method = "GET", method = "HEAD")]
async fn livez(shared: Data<Shared>) -> HttpResponse {
    let liveness = shared.health.liveness();
    answer(liveness.status).json(liveness)
}

#[derive(Deserialize)]
struct Verbose {
    verbose: Option<String>,
}

#[route("/readyz", method = "GET", method = "HEAD")]
async fn readyz(shared: Data<Shared>, query: Query<Verbose>) -> HttpResponse {
    let readiness = shared.health.readiness();
    let reason = shared.observer.unready_reason();
    let mut response = answer(readiness.status);
    if query.verbose.is_none() {
        return response.json(readiness);
    }
    response
        .content_type("text/plain; charset=utf-8")
        .body(match reason {
            None if shared.health.only_answers() => match shared.observer.sources() {
                sources if sources.is_empty() => "ready\n".to_owned(),
                sources => format!("ready: {} answers\n", sources.join(", ")),
            },
            None => format!(
                "ready: {} consumers poll, {}\n",
                readiness.consumers,
                shared.health.store_in_words()
            ),
            Some(reason) => format!("not ready: {reason}\n"),
        })
}

fn answer(status: Status) -> actix_web::HttpResponseBuilder {
    let mut response = match status {
        Status::Up => HttpResponse::Ok(),
        Status::Down => HttpResponse::ServiceUnavailable(),
    };
    response.insert_header((CACHE_CONTROL, "no-store"));
    response
}

#[route("/metrics", method = "GET", method = "HEAD")]
async fn metrics(shared: Data<Shared>) -> HttpResponse {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &shared.registry) {
        Ok(()) => HttpResponse::Ok()
            .content_type("application/openmetrics-text; version=1.0.0; charset=utf-8")
            .body(text),
        Err(error) => HttpResponse::InternalServerError().body(error.to_string()),
    }
}

#[route("/status", method = "GET", method = "HEAD")]
async fn whole_status(shared: Data<Shared>) -> HttpResponse {
    answer(Status::Up).json(shared.observer.snapshot())
}

#[route("/", method = "GET", method = "HEAD")]
async fn page() -> HttpResponse {
    // The page requests only this server, and no page may embed it.
    const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; frame-ancestors 'none'";
    HttpResponse::Ok()
        .insert_header((CONTENT_SECURITY_POLICY, POLICY))
        .content_type("text/html; charset=utf-8")
        .body(include_str!("server/page.html"))
}
