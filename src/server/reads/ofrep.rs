//! OpenFeature's remote evaluation protocol, OFREP 0.3.0 (open-feature/protocol, service/openapi.yaml).

use actix_web::http::StatusCode;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderValue, RETRY_AFTER};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder};
use serde::Serialize;

use super::context::{Context, Refusal};
use super::edge_api::ENTITLEMENTS_RETRY_AFTER;
use super::respond::{Answered, describe, has};
use super::{Shared, own_vias};
use crate::metrics::ReadResult;
use crate::reader::{self, Evaluated};
use crate::reads::{Answer, Origin, etag, now_ms};

/// Parses the context, and loads its customer.
async fn ask<'a>(
    request: &HttpRequest,
    shared: &Shared,
    body: &'a [u8],
    key: Option<&str>,
) -> Result<(Context<'a>, Answer), Answered> {
    let bad_request = StatusCode::BAD_REQUEST;
    let context = Context::parse(body).map_err(|refusal| refused(bad_request, key, &refusal))?;
    let via = own_vias(request.headers());
    let answer = shared.reads.ask(context.owner(), via.as_deref()).await;
    let answer = answer.map_err(|reason| cannot_tell(key, &reason.to_string()))?;
    Ok((context, answer))
}

pub async fn flag(request: &HttpRequest, shared: &Shared, key: &str, body: &[u8]) -> Answered {
    let (context, answer) = match ask(request, shared, body, Some(key)).await {
        Ok(asked) => asked,
        Err(answered) => return answered,
    };
    match reader::flag(answer.state(), key, &context.request, now_ms()) {
        Ok(flag) => {
            let mut response = HttpResponse::Ok();
            describe(&mut response, shared, &answer);
            let age_ms = answer.age.as_millis() as u64;
            let evaluated = flag.evaluated(key, reason(&answer), Some(age_ms));
            Answered::new(answer.origin.result(), json_body(response, &evaluated))
        }
        Err(why) => cannot_tell(Some(key), why),
    }
}

/// A flag of a list.
#[derive(Serialize)]
#[serde(untagged)]
enum Listed<'a> {
    Evaluated(Evaluated<'a>),
    Failed(Failure<'a>),
}

#[derive(Serialize)]
struct List<'a> {
    flags: Vec<Listed<'a>>,
}

/// Why a flag cannot be evaluated.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Failure<'a> {
    error_code: &'static str,
    error_details: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
}

impl<'a> Failure<'a> {
    fn general(key: Option<&'a str>, error_details: &'a str) -> Self {
        Self {
            error_code: "GENERAL",
            error_details,
            key,
        }
    }
}

pub async fn flags(request: &HttpRequest, shared: &Shared, body: &[u8]) -> Answered {
    let (context, answer) = match ask(request, shared, body, None).await {
        Ok(asked) => asked,
        Err(answered) => return answered,
    };
    let flags = reader::flags(answer.state(), &context.request, now_ms());
    let list = |reason| {
        let listed = flags.iter().map(|(key, flag)| match flag {
            Ok(flag) => Listed::Evaluated(flag.evaluated(key, reason, None)),
            Err(why) => Listed::Failed(Failure::general(Some(key), why)),
        });
        listed.collect::<Vec<_>>()
    };
    // Whether the answer is confirmed is no part of the version: the flags are the same.
    let version = etag(&json(&list("")));
    let is_known = has(request, &version);
    let mut response = match is_known {
        true => HttpResponse::NotModified(),
        false => HttpResponse::Ok(),
    };
    describe(&mut response, shared, &answer);
    if let Ok(version) = HeaderValue::from_maybe_shared(version.into_inner()) {
        response.insert_header((ETAG, version));
    }
    let response = match is_known {
        true => response.finish(),
        false => {
            let flags = list(reason(&answer));
            json_body(response, &List { flags })
        }
    };
    Answered::new(answer.origin.result(), response)
}

fn reason(answer: &Answer) -> &'static str {
    match answer.origin {
        Origin::Redis | Origin::Upstream => "TARGETING_MATCH",
        Origin::Copy => "CACHED",
        Origin::Unproven => "STALE",
    }
}

/// Converts to JSON. These types have no keys but names, so it does not fail.
fn json(value: &impl Serialize) -> Vec<u8> {
    // A flag takes less.
    let mut text = Vec::with_capacity(512);
    match serde_json::to_writer(&mut text, value) {
        Ok(()) => text,
        Err(_) => Vec::new(),
    }
}

fn json_body(mut response: HttpResponseBuilder, value: &impl Serialize) -> HttpResponse {
    response
        .insert_header((CONTENT_TYPE, HeaderValue::from_static("application/json")))
        .body(json(value))
}

fn refused(status: StatusCode, key: Option<&str>, refusal: &Refusal) -> Answered {
    let failure = Failure {
        error_code: refusal.code,
        error_details: refusal.details,
        key,
    };
    let mut response = HttpResponse::build(status);
    response.insert_header((CACHE_CONTROL, "no-store"));
    Answered::new(ReadResult::Refused, json_body(response, &failure))
}

/// The protocol requires a key in each failure. This one is unreadable, so it is not repeated.
pub fn malformed_key() -> Answered {
    let details = "the key of the flag is not UTF-8, or longer than 1,024 bytes";
    let refusal = Refusal {
        code: "PARSE_ERROR",
        details,
    };
    refused(StatusCode::BAD_REQUEST, Some(""), &refusal)
}

/// Refuses a request whose body did not arrive whole.
pub fn not_received(status: StatusCode, key: Option<&str>) -> Answered {
    let details = match status {
        StatusCode::PAYLOAD_TOO_LARGE => "the body is larger than 64 KiB",
        StatusCode::REQUEST_TIMEOUT => "the body did not arrive within 5 s",
        _ => "the body did not arrive whole",
    };
    let refusal = Refusal {
        code: "PARSE_ERROR",
        details,
    };
    refused(status, key, &refusal)
}

/// An error, so that the caller's own default counts.
fn cannot_tell(key: Option<&str>, details: &str) -> Answered {
    let mut response = HttpResponse::build(StatusCode::SERVICE_UNAVAILABLE);
    response
        .insert_header((CACHE_CONTROL, "no-store"))
        .insert_header((RETRY_AFTER, HeaderValue::from(ENTITLEMENTS_RETRY_AFTER)));
    let failure = Failure::general(key, details);
    Answered::new(ReadResult::CannotTell, json_body(response, &failure))
}
