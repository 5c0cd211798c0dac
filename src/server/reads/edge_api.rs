//! The routes of the Edge API.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::HttpRequest;
use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};

use super::path::{decoded, is_id};
use super::pieces::{PIECE_BYTES, Pieces};
use super::respond::{Answered, cannot_tell, finished, unknown};
use super::{Shared, own_vias, vias};
use crate::edge::Query;
use crate::keys::Owner;
use crate::metrics::ReadResult;
use crate::reader::{self, Request, State};
use crate::reads::{Answer, Form, ForwardRequest, Forwarding, Origin, now_ms};

/// Seconds that outlast what an SDK has left: it gives entitlements 10 s, and all else 60 s.
pub const ENTITLEMENTS_RETRY_AFTER: u64 = 30;
const OTHERS_RETRY_AFTER: u64 = 120;
/// The time for a state that is forwarded after its question was answered: an SDK waits 10 s for both.
const STATE_TIMEOUT: Duration = Duration::from_secs(9);
const INCOMPLETE: &str =
    "the usage of an entitlement is missing in Redis, and the Edge API does not answer";
const NOT_UTF8: &str = "the query is not UTF-8";

/// The parameters of a question.
struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// What cannot be read is an error: without it the question would be another one.
    fn of(request: &HttpRequest) -> Result<Self, &'static str> {
        let query = request.uri().query().unwrap_or_default();
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((decoded(name)?, decoded(value)?))
        });
        let pairs: Option<_> = pairs.collect();
        pairs.map(Self).ok_or(NOT_UTF8)
    }

    /// The first value of this name; what is empty counts as none.
    fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(found, _)| found == name)?;
        Some(value.as_str()).filter(|value| !value.is_empty())
    }

    /// The resource that is asked for; an error where it names no keys.
    fn resource(&self) -> Result<Option<&str>, &'static str> {
        match self.get("resourceId") {
            Some(resource) if !is_id(resource) => Err(
                "the resource id is longer than 1,024 bytes, has control characters, or would name the keys of another",
            ),
            resource => Ok(resource),
        }
    }
}

pub async fn entitlements(request: &HttpRequest, shared: &Shared, customer: &str) -> Answered {
    let parameters = match Parameters::of(request) {
        Ok(parameters) => parameters,
        Err(why) => return Answered::refused(StatusCode::BAD_REQUEST, why),
    };
    let resource = match parameters.resource() {
        Ok(resource) => resource,
        Err(why) => return Answered::refused(StatusCode::BAD_REQUEST, why),
    };
    let owner = Owner { customer, resource };
    let via = own_vias(request.headers());
    let answer = match shared.reads.ask(owner, via.as_deref()).await {
        Ok(answer) => answer,
        Err(reason) => return cannot_tell(ENTITLEMENTS_RETRY_AFTER, &reason.to_string()),
    };
    if answer.is_unknown() {
        return unknown(shared, &answer);
    }
    if let Some(feature) = parameters.get("featureId") {
        return single(request, shared, &answer, (feature, &parameters));
    }
    list(
        request,
        shared,
        Form::Entitlements,
        &answer,
        reader::entitlements,
    )
}

pub async fn entitlements_state(
    request: &HttpRequest,
    shared: &Shared,
    customer: &str,
) -> Answered {
    let started = Instant::now();
    let parameters = match Parameters::of(request) {
        Ok(parameters) => parameters,
        Err(why) => return Answered::refused(StatusCode::BAD_REQUEST, why),
    };
    let resource = match parameters.resource() {
        Ok(resource) => resource,
        Err(why) => return Answered::refused(StatusCode::BAD_REQUEST, why),
    };
    let owner = Owner { customer, resource };
    let via = own_vias(request.headers());
    let answer = match shared.reads.ask(owner, via.as_deref()).await {
        Ok(answer) => answer,
        Err(reason) => return cannot_tell(ENTITLEMENTS_RETRY_AFTER, &reason.to_string()),
    };
    if is_for_the_edge_api(&answer) {
        let left = STATE_TIMEOUT.saturating_sub(started.elapsed());
        return forward_state(request, shared, owner, left).await;
    }
    list(
        request,
        shared,
        Form::State,
        &answer,
        reader::entitlements_state,
    )
}

/// Returns whether only the Edge API can tell the state that SDK 4.x asks for.
fn is_for_the_edge_api(answer: &Answer) -> bool {
    let state = answer.state();
    // The layout keeps no credit entitlements and no balances.
    let needs_credits = state.has_credits() || state.omits_credits();
    // A list that was fetched does not tell why a customer without entitlements is denied.
    let needs_reason = state.is_empty() && !answer.is_stored();
    answer.is_unknown() || needs_credits || needs_reason
}

/// Returns the state of an owner as the Edge API tells it, within the time that is `left`.
async fn forward_state(
    request: &HttpRequest,
    shared: &Shared,
    owner: Owner<'_>,
    left: Duration,
) -> Answered {
    let segments = ["v1", "c", owner.customer, "entitlements-state.json"].map(str::to_owned);
    let query = owner.resource.map_or_else(Query::default, |resource| {
        Query::default().with("resourceId", resource)
    });
    let outgoing = outgoing(request, shared, &segments, query);
    let forwarded = forward(&shared.reads.states, outgoing, ENTITLEMENTS_RETRY_AFTER);
    let in_time = tokio::time::timeout(left, forwarded).await;
    in_time
        .unwrap_or_else(|_| cannot_tell(ENTITLEMENTS_RETRY_AFTER, "the Edge API does not answer"))
}

fn list(
    request: &HttpRequest,
    shared: &Shared,
    form: Form,
    answer: &Answer,
    make: impl FnOnce(&State, f64) -> reader::Listing,
) -> Answered {
    let now = now_ms();
    let bodies = shared.reads.bodies();
    match bodies.get(form, answer, now, || make(answer.state(), now)) {
        Ok(body) => finished(request, shared, answer, &body),
        Err(reader::Incomplete) => cannot_tell(ENTITLEMENTS_RETRY_AFTER, INCOMPLETE),
    }
}

fn single(
    request: &HttpRequest,
    shared: &Shared,
    answer: &Answer,
    (feature, parameters): (&str, &Parameters),
) -> Answered {
    let usage = parameters.get("requestedUsage").map(str::parse::<f64>);
    let usage = match usage.transpose() {
        Ok(None) => 0.0,
        Ok(Some(usage)) if usage.is_finite() => usage,
        Ok(Some(_)) | Err(_) => {
            return Answered::refused(StatusCode::BAD_REQUEST, "requestedUsage is not a number");
        }
    };
    let asked = Request {
        usage,
        values: Vec::new(),
    };
    match reader::single(answer.state(), feature, &asked, now_ms()) {
        Ok(text) => finished(request, shared, answer, &crate::reads::Body::once(text)),
        Err(reader::Incomplete) => cannot_tell(ENTITLEMENTS_RETRY_AFTER, INCOMPLETE),
    }
}

pub async fn pass_through(request: &HttpRequest, shared: &Shared, segments: &[String]) -> Answered {
    let query = request.uri().query().unwrap_or_default();
    let Some(query) = Query::rebuilt(query) else {
        return Answered::refused(StatusCode::BAD_REQUEST, NOT_UTF8);
    };
    let outgoing = outgoing(request, shared, segments, query);
    forward(&shared.reads.pages, outgoing, OTHERS_RETRY_AFTER).await
}

/// Returns the request to forward.
pub fn outgoing(
    request: &HttpRequest,
    shared: &Shared,
    segments: &[String],
    query: Query,
) -> ForwardRequest {
    let vias = vias(request.headers()).chain([shared.reads.pages.via()]);
    ForwardRequest {
        segments: segments.to_vec(),
        query,
        via: vias.collect::<Vec<_>>().join(", "),
    }
}

async fn forward(
    forwarding: &Arc<Forwarding>,
    request: ForwardRequest,
    retry_after: u64,
) -> Answered {
    let answer = match forwarding.forward(request).await {
        Ok(answer) => answer,
        Err(reason) => return cannot_tell(retry_after, &reason.to_string()),
    };
    // To a reader of ours it is our key that was refused, and not the reader's.
    if answer.status == 401 || answer.status == 403 {
        return cannot_tell(retry_after, "the Edge API refuses SERVER_API_KEY");
    }
    let Ok(status) = StatusCode::from_u16(answer.status) else {
        return cannot_tell(retry_after, "the Edge API gives an answer that is not HTTP");
    };
    if status.is_redirection() {
        return cannot_tell(
            retry_after,
            "the Edge API answers with a redirect, which is not followed: check EDGE_API_URL",
        );
    }
    let mut response = HttpResponse::build(status);
    response.insert_header((CACHE_CONTROL, "private, no-cache"));
    if let Some(kind) = answer
        .content_type
        .and_then(|kind| HeaderValue::from_str(&kind).ok())
    {
        response.insert_header((CONTENT_TYPE, kind));
    }
    let is_failure = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
    if is_failure {
        let asked = answer.retry_after.map_or(0, |pause| pause.as_secs());
        response.insert_header((RETRY_AFTER, HeaderValue::from(asked.max(retry_after))));
    }
    let result = if is_failure {
        ReadResult::CannotTell
    } else {
        Origin::Upstream.result()
    };
    let response = match answer.body.len() {
        0..=PIECE_BYTES => response.body(answer.body),
        _ => response.body(Pieces::new(answer.body, answer.held)),
    };
    Answered::new(result, response)
}
