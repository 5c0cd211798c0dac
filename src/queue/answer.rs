//! Reads the answers to receives, which carry all messages, in place of the SDK's own reader: that
//! looks at each byte by itself, and took more than a quarter of the worker's instructions.
//!
//! Only what a receive asks for is read, and only of an answer that is none of an error: those stay
//! the SDK's business.

mod json;

use std::collections::HashMap;

use aws_sdk_sqs::operation::receive_message::{ReceiveMessageError, ReceiveMessageOutput};
use aws_sdk_sqs::types::{Message, MessageAttributeValue, MessageSystemAttributeName};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::context::{
    BeforeDeserializationInterceptorContextMut, Error, Output,
};
use aws_smithy_runtime_api::client::interceptors::{Intercept, dyn_dispatch_hint};
use aws_smithy_runtime_api::client::orchestrator::{HttpResponse, OrchestratorError};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_runtime_api::client::ser_de::{DeserializeResponse, SharedResponseDeserializer};
use aws_smithy_types::config_bag::ConfigBag;

use json::{Json, Unexpected};

/// For clients that do nothing but receive.
#[derive(Debug)]
pub struct ReadReceived;

#[dyn_dispatch_hint]
impl Intercept for ReadReceived {
    fn name(&self) -> &'static str {
        "ReadReceived"
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _components: &RuntimeComponents,
        cfg: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if context.response().status().is_success() {
            cfg.interceptor_state()
                .store_put(SharedResponseDeserializer::new(Reader));
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Reader;

impl DeserializeResponse for Reader {
    fn deserialize_nonstreaming_with_config(
        &self,
        response: &HttpResponse,
        _cfg: &ConfigBag,
    ) -> Result<Output, OrchestratorError<Error>> {
        let body = response.body().bytes().unwrap_or_default();
        match read(body) {
            Ok(messages) => {
                let output = ReceiveMessageOutput::builder().set_messages(messages);
                Ok(Output::erase(output.build()))
            }
            Err(error) => {
                let error = ReceiveMessageError::unhandled(Unreadable(error));
                Err(OrchestratorError::operation(Error::erase(error)))
            }
        }
    }
}

/// Says where it went wrong and quotes nothing: a body is not logged.
#[derive(Debug, thiserror::Error)]
#[error("the answer to a receive cannot be read: {0}")]
struct Unreadable(Unexpected);

/// Of messages, what a receive asks for.
fn read(body: &[u8]) -> Result<Option<Vec<Message>>, Unexpected> {
    if body.is_empty() {
        return Ok(None);
    }
    let mut found = None;
    let mut json = Json::new(body);
    json.object(|json, name| match name {
        "Messages" => {
            found = json.present(|json| {
                let mut messages = Vec::new();
                json.array(|json| {
                    messages.push(message(json)?);
                    Ok(())
                })?;
                Ok(messages)
            })?;
            Ok(())
        }
        _ => json.skip(),
    })?;
    json.end()?;
    Ok(found)
}

fn message(json: &mut Json<'_>) -> Result<Message, Unexpected> {
    let mut message = Message::builder();
    json.object(|json, name| {
        let read = std::mem::take(&mut message);
        message = match name {
            "MessageId" => read.set_message_id(json.present(Json::string)?),
            "ReceiptHandle" => read.set_receipt_handle(json.present(Json::string)?),
            "Body" => read.set_body(json.present(Json::string)?),
            "Attributes" => read.set_attributes(json.present(system_attributes)?),
            "MessageAttributes" => read.set_message_attributes(json.present(attributes)?),
            _ => {
                json.skip()?;
                read
            }
        };
        Ok(())
    })?;
    Ok(message.build())
}

fn system_attributes(
    json: &mut Json<'_>,
) -> Result<HashMap<MessageSystemAttributeName, String>, Unexpected> {
    let mut attributes = HashMap::new();
    json.object(|json, name| {
        if let Some(value) = json.present(Json::string)? {
            attributes.insert(name.into(), value);
        }
        Ok(())
    })?;
    Ok(attributes)
}

/// Those that have a string.
fn attributes(json: &mut Json<'_>) -> Result<HashMap<String, MessageAttributeValue>, Unexpected> {
    let mut attributes = HashMap::new();
    json.object(|json, name| {
        let mut value = None;
        json.object(|json, name| match name {
            "StringValue" => {
                value = json.present(Json::string)?;
                Ok(())
            }
            _ => json.skip(),
        })?;
        let value = value.map(|value| MessageAttributeValue::builder().string_value(value));
        if let Some(Ok(value)) = value.map(|value| value.data_type("String").build()) {
            attributes.insert(name.to_owned(), value);
        }
        Ok(())
    })?;
    Ok(attributes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_receive_asks_for_is_read() {
        let answer = r#"{"Messages":[{
            "MessageId":"m","ReceiptHandle":"r","MD5OfBody":"x","Body":"{\"a\":\"\u00e9\\n\"}",
            "Attributes":{"SentTimestamp":"17","ApproximateReceiveCount":"2","SenderId":"s","MessageGroupId":"g","AWSTraceHeader":"Root=1"},
            "MessageAttributes":{
                "type":{"DataType":"String","StringValue":"T"},
                "other":{"DataType":"Binary","BinaryValue":"AA=="}}},
            {"Body":null}]}"#;
        let messages = read(answer.as_bytes()).unwrap().unwrap();
        let [message, bare] = messages.as_slice() else {
            panic!("{messages:?}")
        };
        assert_eq!(message.message_id(), Some("m"));
        assert_eq!(message.receipt_handle(), Some("r"));
        assert_eq!(message.body(), Some(r#"{"a":"é\n"}"#));
        let system = message.attributes().unwrap();
        let of = |name| system.get(&name).map(String::as_str);
        use MessageSystemAttributeName as Name;
        assert_eq!(of(Name::SentTimestamp), Some("17"));
        assert_eq!(of(Name::ApproximateReceiveCount), Some("2"));
        assert_eq!(of(Name::MessageGroupId), Some("g"));
        assert_eq!(of(Name::AwsTraceHeader), Some("Root=1"));
        let attributes = message.message_attributes().unwrap();
        assert_eq!(attributes.keys().collect::<Vec<_>>(), ["type"]);
        assert_eq!(attributes["type"].string_value(), Some("T"));
        assert_eq!(bare.body(), None);
        assert_eq!(bare.attributes(), None);
    }

    #[test]
    fn an_empty_queue_answers_in_several_ways() {
        for answer in ["", "{}", r#"{"Messages":null}"#] {
            assert_eq!(read(answer.as_bytes()).unwrap(), None, "{answer}");
        }
        let none = read(br#"{"Messages":[],"More":1}"#).unwrap();
        assert_eq!(none, Some(Vec::new()));
    }

    #[test]
    fn what_cannot_be_read_is_said_without_a_quote() {
        for answer in [
            r#"{"Messages":[{"Body":"secret"#,
            r#"{"Messages":[{"Body":{"a":"secret"}}]}"#,
            r#"{"Messages":"secret"}"#,
            "<html>secret",
        ] {
            let error = Unreadable(read(answer.as_bytes()).unwrap_err());
            let said = error.to_string();
            assert!(
                said.starts_with("the answer to a receive cannot be read"),
                "{said}"
            );
            assert!(!said.contains("secret"), "{said}");
        }
    }
}
