//! The routes that change something, or show bodies. They exist only with `ADMIN_TOKEN`:
//!
//! | | |
//! |---|---|
//! | `POST /admin/snapshot` | writes a snapshot now |
//! | `POST /admin/reload` | `{"customerId", "resourceId"?}`: loads a customer from the Edge API |
//! | `GET /admin/dead-letters` | with `STORE=memory`: the messages that were given up, with their bodies |
//! | `DELETE /admin/dead-letters/{id}` | deletes one of them, and answers when that is on disk |

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{AUTHORIZATION, CACHE_CONTROL};
use actix_web::web::{Data, Json, JsonConfig, Path, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, delete, get, post};
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::keys::Owner;
use crate::memory::{Letter, Memory};
use crate::reads::{Access, NotLoaded, Reads};
use crate::saving::Saver;
use crate::server::reads::is_id;
use crate::store::Durability;

/// What the routes act on.
pub struct Admin {
    access: Access,
    pub saver: Option<Saver>,
    pub reads: Option<Reads>,
    pub memory: Option<Kept>,
}

/// A state in this process, and how its changes become durable.
pub struct Kept {
    pub state: Arc<Memory>,
    pub durability: Durability,
}

impl Admin {
    pub fn new(
        token: &SecretString,
        saver: Option<Saver>,
        reads: Option<Reads>,
        memory: Option<Kept>,
    ) -> Self {
        Self {
            access: Access::of(std::slice::from_ref(token)),
            saver,
            reads,
            memory,
        }
    }

    fn admits(&self, request: &HttpRequest) -> bool {
        let header = request.headers().get(AUTHORIZATION);
        let token = header.and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        token.is_some_and(|token| self.access.admits(token))
    }
}

/// Adds the routes.
pub fn routes(config: &mut ServiceConfig) {
    // Whatever a client says that its body is.
    let json = JsonConfig::default().content_type_required(false);
    config
        .app_data(json.content_type(|_| true))
        .service(snapshot)
        .service(reload)
        .service(dead_letters)
        .service(delete_dead_letter);
}

#[post("/admin/snapshot")]
async fn snapshot(request: HttpRequest, admin: Data<Admin>) -> HttpResponse {
    if !admin.admits(&request) {
        return refused();
    }
    let Some(saver) = &admin.saver else {
        return answer(
            StatusCode::CONFLICT,
            json!({"error": "no snapshots are written: set SNAPSHOT_PATH"}),
        );
    };
    match saver.save("a request").await {
        Ok(saved) => answer(
            StatusCode::OK,
            json!({"file": saved.name, "records": saved.records, "bytes": saved.bytes}),
        ),
        Err(error) => answer(StatusCode::INTERNAL_SERVER_ERROR, json!({"error": error})),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reload {
    customer_id: String,
    resource_id: Option<String>,
}

const INVALID_ID: &str = "an id is empty, longer than 1,024 bytes, has control characters, or would name the keys of another";

#[post("/admin/reload")]
async fn reload(
    request: HttpRequest,
    admin: Data<Admin>,
    body: Result<Json<Reload>, actix_web::Error>,
) -> HttpResponse {
    if !admin.admits(&request) {
        return refused();
    }
    let Ok(Json(body)) = body else {
        return answer(
            StatusCode::BAD_REQUEST,
            json!({"error": "write {\"customerId\": \"…\"}, and \"resourceId\" for a resource"}),
        );
    };
    if !is_id(&body.customer_id) || body.resource_id.as_deref().is_some_and(|id| !is_id(id)) {
        return answer(StatusCode::BAD_REQUEST, json!({"error": INVALID_ID}));
    }
    let Some(reads) = &admin.reads else {
        return answer(
            StatusCode::CONFLICT,
            json!({"error": "the read API is off: set READ_PORT"}),
        );
    };
    let owner = Owner {
        customer: &body.customer_id,
        resource: body.resource_id.as_deref(),
    };
    match reads.reload(owner).await {
        Ok(is_known) => answer(StatusCode::OK, json!({"known": is_known})),
        Err(error) => unavailable(&error),
    }
}

/// How long a deletion waits for the journal: less than the command `dead-letter` waits for the answer.
const SYNC_TIMEOUT: Duration = Duration::from_millis(1_500);
const NOT_DURABLE: &str = "the journal cannot be written, so a restart may bring the message back: see /readyz?verbose, and try again";
const IN_REDIS: &str = "the messages are in Redis: entitlement-sync dead-letter list shows them";

#[get("/admin/dead-letters")]
async fn dead_letters(request: HttpRequest, admin: Data<Admin>) -> HttpResponse {
    if !admin.admits(&request) {
        return refused();
    }
    let Some(memory) = &admin.memory else {
        return answer(StatusCode::CONFLICT, json!({"error": IN_REDIS}));
    };
    let letters: Vec<Letter> = memory.state.letters().all().cloned().collect();
    answer(StatusCode::OK, json!({"letters": letters}))
}

#[delete("/admin/dead-letters/{id}")]
async fn delete_dead_letter(
    request: HttpRequest,
    admin: Data<Admin>,
    id: Path<u64>,
) -> HttpResponse {
    if !admin.admits(&request) {
        return refused();
    }
    let Some(memory) = &admin.memory else {
        return answer(StatusCode::CONFLICT, json!({"error": IN_REDIS}));
    };
    let is_deleted = memory.state.delete_letter(*id);
    // Also of one that is gone: an earlier request may have deleted it a moment ago.
    if timeout(SYNC_TIMEOUT, memory.durability.durable())
        .await
        .is_err()
    {
        return answer(
            StatusCode::SERVICE_UNAVAILABLE,
            json!({"error": NOT_DURABLE}),
        );
    }
    match is_deleted {
        true => answer(StatusCode::OK, json!({"deleted": *id})),
        false => answer(
            StatusCode::NOT_FOUND,
            json!({"error": "no kept message has this id: GET /admin/dead-letters lists them"}),
        ),
    }
}

fn unavailable(error: &NotLoaded) -> HttpResponse {
    answer(
        StatusCode::SERVICE_UNAVAILABLE,
        json!({"error": error.to_string()}),
    )
}

fn refused() -> HttpResponse {
    answer(
        StatusCode::UNAUTHORIZED,
        json!({"error": "send ADMIN_TOKEN as Authorization: Bearer"}),
    )
}

fn answer(status: StatusCode, body: Value) -> HttpResponse {
    HttpResponse::build(status)
        .insert_header((CACHE_CONTROL, "no-store"))
        .json(body)
}
