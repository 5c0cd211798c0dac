//! OpenFeature's remote evaluation protocol, OFREP 0.3.0 (open-feature/protocol, service/openapi.yaml).

use actix_web::http::StatusCode;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderValue, RETRY_AFTER};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder};
use serde_json::{Map, Value, json};

use super::Shared;
use super::edge_api::ENTITLEMENTS_RETRY_AFTER;
use super::path::is_id;
use super::respond::{Answered, describe, has};
use crate::keys::Owner;
use crate::metrics::ReadResult;
use crate::reader::{self, Flag, Request};
use crate::reads::{Answer, Origin, etag, now_ms};

/// Who asks for what.
struct Context {
    customer: String,
    resource: Option<String>,
    request: Request,
}

/// Why a question cannot be asked.
struct Refusal {
    code: &'static str,
    details: &'static str,
}

const fn refusal(code: &'static str, details: &'static str) -> Refusal {
    Refusal { code, details }
}

fn context(body: &[u8]) -> Result<Context, Refusal> {
    let invalid = |details| refusal("INVALID_CONTEXT", details);
    let body: Value =
        serde_json::from_slice(body).map_err(|_| refusal("PARSE_ERROR", "the body is not JSON"))?;
    let Some(body) = body.as_object() else {
        return Err(refusal("PARSE_ERROR", "the body is not a JSON object"));
    };
    let missing = || {
        refusal(
            "TARGETING_KEY_MISSING",
            "context.targetingKey is missing: it is the id of the customer",
        )
    };
    let context = match body.get("context") {
        None | Some(Value::Null) => return Err(missing()),
        Some(Value::Object(context)) => context,
        Some(_) => return Err(invalid("context is not an object")),
    };
    let id = |name: &str| match context.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(id)) if id.is_empty() => Ok(None),
        Some(Value::String(id)) => Ok(Some(id.clone())),
        Some(Value::Number(id)) if id.is_i64() || id.is_u64() => Ok(Some(id.to_string())),
        Some(_) => Err(invalid("targetingKey and resourceId are ids, as text")),
    };
    let customer = id("targetingKey")?.ok_or_else(missing)?;
    let resource = id("resourceId")?;
    if !is_id(&customer) || resource.as_deref().is_some_and(|id| !is_id(id)) {
        return Err(invalid(
            "an id is longer than 1,024 bytes, has control characters, or would name the keys of another",
        ));
    }
    let usage = match context.get("requestedUsage") {
        None | Some(Value::Null) => 0.0,
        Some(usage) => usage
            .as_f64()
            .ok_or_else(|| invalid("requestedUsage is not a number"))?,
    };
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let values = match context.get("requestedValues") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::String(value)) => vec![value.clone()],
        Some(Value::Array(values)) => values
            .iter()
            .map(text)
            .collect::<Option<_>>()
            .ok_or_else(|| invalid("requestedValues holds something that is not text"))?,
        Some(_) => return Err(invalid("requestedValues is not a list")),
    };
    Ok(Context {
        customer,
        resource,
        request: Request { usage, values },
    })
}

/// The context, and what is known of its customer.
async fn ask(
    shared: &Shared,
    body: &[u8],
    key: Option<&str>,
) -> Result<(Context, Answer), Answered> {
    let context = context(body).map_err(|refusal| refused(key, &refusal))?;
    let owner = Owner {
        customer: &context.customer,
        resource: context.resource.as_deref(),
    };
    let answer = shared.reads.ask(owner).await;
    let answer = answer.map_err(|reason| cannot_tell(key, &reason.to_string()))?;
    Ok((context, answer))
}

pub async fn flag(shared: &Shared, key: &str, body: &[u8]) -> Answered {
    let (context, answer) = match ask(shared, body, Some(key)).await {
        Ok(asked) => asked,
        Err(answered) => return answered,
    };
    match reader::flag(answer.state(), key, &context.request, now_ms()) {
        Ok(flag) => {
            let mut response = HttpResponse::Ok();
            describe(&mut response, shared, &answer);
            let mut evaluated = success(key.to_owned(), flag, reason(&answer));
            evaluated["metadata"]["ageMs"] = (answer.age.as_millis() as u64).into();
            Answered::new(answer.origin.result(), json_body(response, &evaluated))
        }
        Err(why) => cannot_tell(Some(key), why),
    }
}

pub async fn flags(request: &HttpRequest, shared: &Shared, body: &[u8]) -> Answered {
    let (context, answer) = match ask(shared, body, None).await {
        Ok(asked) => asked,
        Err(answered) => return answered,
    };
    let flags = reader::flags(answer.state(), &context.request, now_ms());
    // Whether it is confirmed is no part of the version: the flags are the same.
    let list = |reason: &str| -> Vec<Value> {
        let flags = flags.iter().cloned();
        flags
            .map(|(key, flag)| match flag {
                Ok(flag) => success(key, flag, reason),
                Err(why) => json!({"key": key, "errorCode": "GENERAL", "errorDetails": why}),
            })
            .collect()
    };
    let version = etag(json!(list("")).to_string().as_bytes());
    let is_known = has(request, &version);
    let mut response = match is_known {
        true => HttpResponse::NotModified(),
        false => HttpResponse::Ok(),
    };
    describe(&mut response, shared, &answer);
    if let Ok(version) = HeaderValue::from_str(&version) {
        response.insert_header((ETAG, version));
    }
    let response = match is_known {
        true => response.finish(),
        false => json_body(response, &json!({"flags": list(reason(&answer))})),
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

fn success(key: String, flag: Flag, reason: &str) -> Value {
    let mut evaluated = Map::new();
    evaluated.insert("key".into(), key.into());
    evaluated.insert("reason".into(), reason.into());
    let variant = if flag.is_granted { "granted" } else { "denied" };
    evaluated.insert("variant".into(), variant.into());
    if let Some(value) = flag.value {
        evaluated.insert("value".into(), value);
    }
    evaluated.insert("metadata".into(), flag.metadata.into());
    evaluated.into()
}

fn json_body(mut response: HttpResponseBuilder, value: &Value) -> HttpResponse {
    response
        .insert_header((CONTENT_TYPE, HeaderValue::from_static("application/json")))
        .body(value.to_string())
}

fn refused(key: Option<&str>, refusal: &Refusal) -> Answered {
    let mut failure = json!({"errorCode": refusal.code, "errorDetails": refusal.details});
    if let Some(key) = key {
        failure["key"] = key.into();
    }
    let mut response = HttpResponse::build(StatusCode::BAD_REQUEST);
    response.insert_header((CACHE_CONTROL, "no-store"));
    Answered::new(ReadResult::Refused, json_body(response, &failure))
}

/// An error, so that the caller's own default counts.
fn cannot_tell(key: Option<&str>, details: &str) -> Answered {
    let mut failure = json!({"errorCode": "GENERAL", "errorDetails": details});
    if let Some(key) = key {
        failure["key"] = key.into();
    }
    let mut response = HttpResponse::build(StatusCode::SERVICE_UNAVAILABLE);
    response
        .insert_header((CACHE_CONTROL, "no-store"))
        .insert_header((RETRY_AFTER, HeaderValue::from(ENTITLEMENTS_RETRY_AFTER)));
    Answered::new(ReadResult::CannotTell, json_body(response, &failure))
}
