//! Asks flags by OpenFeature's Rust SDK and its remote evaluation provider. Input and output: see ../client.mjs.

use open_feature::provider::{FeatureProvider, ResolutionDetails};
use open_feature::{EvaluationContext, EvaluationError, StructValue, Value as Flag};
use open_feature_ofrep::{OfrepOptions, OfrepProvider};
use reqwest::header::{HeaderMap, HeaderValue};
use serde_json::{Map, Value, json};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let asked: Value = serde_json::from_reader(std::io::stdin())?;
    let text = |name: &str| asked[name].as_str().unwrap_or_default();
    let mut headers = HeaderMap::new();
    headers.insert("x-api-key", HeaderValue::from_str(text("key"))?);
    let options = OfrepOptions {
        base_url: text("url").to_owned(),
        headers,
        ..OfrepOptions::default()
    };
    let provider = OfrepProvider::new(options).await?;
    let mut answers = Vec::new();
    for question in asked["questions"].as_array().into_iter().flatten() {
        answers.push(answer(&provider, question).await);
    }
    println!("{}", json!({ "answers": answers }));
    Ok(())
}

/// With the caller's default where the provider has an error, as the SDK does.
async fn answer(provider: &impl FeatureProvider, question: &Value) -> Value {
    let flag = question["flag"].as_str().unwrap_or_default();
    let context = context(&question["context"]);
    let found = match question["type"].as_str() {
        Some("boolean") => provider
            .resolve_bool_value(flag, &context)
            .await
            .map(|found| told(found, Value::from)),
        Some("integer") => provider
            .resolve_int_value(flag, &context)
            .await
            .map(|found| told(found, Value::from)),
        Some("float") => provider
            .resolve_float_value(flag, &context)
            .await
            .map(|found| told(found, Value::from)),
        _ => provider
            .resolve_struct_value(flag, &context)
            .await
            .map(|found| told(found, object)),
    };
    found.unwrap_or_else(|EvaluationError { code, .. }| {
        json!({"value": question["default"], "errorCode": format!("{code:?}")})
    })
}

fn told<T>(found: ResolutionDetails<T>, plain: impl Fn(T) -> Value) -> Value {
    let reason = found.reason.map(|reason| format!("{reason:?}"));
    let metadata = found.flag_metadata.map(|metadata| metadata.values.len());
    json!({"value": plain(found.value), "variant": found.variant, "reason": reason, "metadata": metadata})
}

fn context(from: &Value) -> EvaluationContext {
    let mut context = EvaluationContext::default();
    for (name, value) in from.as_object().into_iter().flatten() {
        context = match value {
            Value::String(key) if name == "targetingKey" => context.with_targeting_key(key),
            Value::String(text) => context.with_custom_field(name.clone(), text.clone()),
            value => context.with_custom_field(name.clone(), value.as_f64().unwrap_or_default()),
        };
    }
    context
}

fn object(value: StructValue) -> Value {
    let fields = value.fields.into_iter();
    fields
        .map(|(name, value)| (name, plain(value)))
        .collect::<Map<_, _>>()
        .into()
}

fn plain(value: Flag) -> Value {
    match value {
        Flag::Bool(value) => value.into(),
        Flag::Int(value) => value.into(),
        Flag::Float(value) => value.into(),
        Flag::String(value) => value.into(),
        Flag::Array(values) => values.into_iter().map(plain).collect(),
        Flag::Struct(value) => object(value),
    }
}
