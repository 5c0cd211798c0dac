//! Responses, and what they count as.

use actix_web::http::StatusCode;
use actix_web::http::header::{
    AGE, CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, IF_NONE_MATCH, RETRY_AFTER,
};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder};
use serde::Serialize;

use super::Shared;
use crate::metrics::ReadResult;
use crate::reads::{Answer, Body, Origin};

/// A response, and what it counts as.
pub(super) struct Answered {
    pub(super) result: ReadResult,
    pub(super) response: HttpResponse,
}

impl Answered {
    pub(super) fn new(result: ReadResult, response: HttpResponse) -> Self {
        Self { result, response }
    }

    pub(super) fn refused(status: StatusCode, text: &str) -> Self {
        Self::new(ReadResult::Refused, error(status, "BadRequest", text))
    }
}

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

impl Origin {
    pub(super) fn cache_status(self) -> &'static str {
        match self {
            Self::Copy => "entitlement-sync; hit",
            Self::Redis => "entitlement-sync; hit; detail=redis",
            Self::Upstream => "entitlement-sync; fwd=miss; stored",
            Self::Unproven => "entitlement-sync; hit; detail=unproven",
        }
    }

    pub(super) fn result(self) -> ReadResult {
        match self {
            Self::Copy => ReadResult::Fresh,
            Self::Redis => ReadResult::Redis,
            Self::Upstream => ReadResult::Upstream,
            Self::Unproven => ReadResult::Stale,
        }
    }
}

/// The headers of an answer from state.
pub(super) fn describe(response: &mut HttpResponseBuilder, shared: &Shared, answer: &Answer) {
    if answer.origin == Origin::Unproven {
        shared.reads.metrics.ages.observe(answer.age.as_secs_f64());
    }
    let age = match answer.age.as_secs() {
        0 => HeaderValue::from_static("0"),
        seconds => seconds.into(),
    };
    response
        .insert_header((CACHE_CONTROL, HeaderValue::from_static("private, no-cache")))
        .insert_header((AGE, age))
        .insert_header((
            CACHE_STATUS,
            HeaderValue::from_static(answer.origin.cache_status()),
        ));
}

/// A finished body, or 304 where the reader has it.
pub(super) fn finished(
    request: &HttpRequest,
    shared: &Shared,
    answer: &Answer,
    body: &Body,
) -> Answered {
    let is_known = has(request, &body.etag);
    let mut response = match is_known {
        true => HttpResponse::NotModified(),
        false => HttpResponse::Ok(),
    };
    describe(&mut response, shared, answer);
    if let Ok(etag) = HeaderValue::from_maybe_shared(body.etag.clone().into_inner()) {
        response.insert_header((ETAG, etag));
    }
    let response = match is_known {
        true => response.finish(),
        false => response
            .insert_header((CONTENT_TYPE, HeaderValue::from_static("application/json")))
            .body(body.bytes.clone()),
    };
    Answered::new(answer.origin.result(), response)
}

/// Whether the reader has this version.
pub(super) fn has(request: &HttpRequest, etag: &str) -> bool {
    let Some(known) = request
        .headers()
        .get(IF_NONE_MATCH)
        .and_then(|known| known.to_str().ok())
    else {
        return false;
    };
    let is_it = |known: &str| known == "*" || known.trim_start_matches("W/") == etag;
    known.split(',').map(str::trim).any(is_it)
}

/// In the order of the Edge API's bodies.
#[derive(Serialize)]
struct Errors<'a> {
    errors: [Failure<'a>; 1],
}

#[derive(Serialize)]
struct Failure<'a> {
    message: &'a str,
    extensions: Extensions<'a>,
}

#[derive(Serialize)]
struct Extensions<'a> {
    code: &'a str,
}

impl<'a> Errors<'a> {
    fn of(code: &'a str, message: &'a str) -> Self {
        let extensions = Extensions { code };
        Self {
            errors: [Failure {
                message,
                extensions,
            }],
        }
    }
}

/// An error in the shape of the Edge API.
pub(super) fn error(status: StatusCode, code: &str, text: &str) -> HttpResponse {
    HttpResponse::build(status)
        .insert_header((CACHE_CONTROL, "no-store"))
        .json(Errors::of(code, text))
}

/// The Edge API does not know the customer, which is an answer, with its source and its age.
pub(super) fn unknown(shared: &Shared, answer: &Answer) -> Answered {
    let mut response = HttpResponse::NotFound();
    describe(&mut response, shared, answer);
    let text = "the Edge API does not know this customer";
    let response = response.json(Errors::of("CustomerNotFound", text));
    Answered::new(answer.origin.result(), response)
}

/// Nothing can be told. `retry_after` outlasts what is left of the reader's own timeout, so that an SDK gives its
/// fallback at once.
pub(super) fn cannot_tell(retry_after: u64, text: &str) -> Answered {
    let mut response = error(StatusCode::SERVICE_UNAVAILABLE, "Unavailable", text);
    response
        .headers_mut()
        .insert(RETRY_AFTER, HeaderValue::from(retry_after));
    Answered::new(ReadResult::CannotTell, response)
}
