//! Reads the answers to receives, which carry all messages, with serde_json instead of the SDK's own
//! reader. The SDK's reads each string byte by byte; docs/performance.md has the figures.
//!
//! It reads only successful answers, and only the fields that a receive requests. The SDK reads errors.

use std::collections::HashMap;

use aws_sdk_sqs::operation::receive_message::{ReceiveMessageError, ReceiveMessageOutput};
use aws_sdk_sqs::types::{Message, MessageAttributeValue};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::context::{
    BeforeDeserializationInterceptorContextMut, Error, Output,
};
use aws_smithy_runtime_api::client::interceptors::{Intercept, dyn_dispatch_hint};
use aws_smithy_runtime_api::client::orchestrator::{HttpResponse, OrchestratorError};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_runtime_api::client::ser_de::{DeserializeResponse, SharedResponseDeserializer};
use aws_smithy_types::config_bag::ConfigBag;
use serde::Deserialize;

/// Configures clients that only receive.
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
                let error = ReceiveMessageError::unhandled(error);
                Err(OrchestratorError::operation(Error::erase(error)))
            }
        }
    }
}

/// The position of an error in an answer. The text of serde_json may quote a body, which must not be logged.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the answer to a receive: unexpected input at line {line}, column {column}")]
struct Unreadable {
    line: usize,
    column: usize,
}

impl From<serde_json::Error> for Unreadable {
    fn from(error: serde_json::Error) -> Self {
        Self {
            line: error.line(),
            column: error.column(),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    messages: Option<Vec<Received>>,
}

/// The fields of a message that a receive requests.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Received {
    message_id: Option<String>,
    receipt_handle: Option<String>,
    body: Option<String>,
    attributes: Option<HashMap<String, Option<String>>>,
    message_attributes: Option<HashMap<String, Attribute>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Attribute {
    string_value: Option<String>,
}

fn read(body: &[u8]) -> Result<Option<Vec<Message>>, Unreadable> {
    if body.is_empty() {
        return Ok(None);
    }
    let answer: Answer = serde_json::from_slice(body)?;
    let messages = answer.messages;
    Ok(messages.map(|messages| messages.into_iter().map(Message::from).collect()))
}

impl From<Received> for Message {
    fn from(received: Received) -> Self {
        let system = received.attributes.map(|attributes| {
            let present =
                |(name, value): (String, Option<String>)| Some((name.as_str().into(), value?));
            attributes.into_iter().filter_map(present).collect()
        });
        let own = received.message_attributes.map(|attributes| {
            let texts = |(name, attribute): (String, Attribute)| Some((name, text(attribute)?));
            attributes.into_iter().filter_map(texts).collect()
        });
        Self::builder()
            .set_message_id(received.message_id)
            .set_receipt_handle(received.receipt_handle)
            .set_body(received.body)
            .set_attributes(system)
            .set_message_attributes(own)
            .build()
    }
}

/// `None` for an attribute that holds bytes.
fn text(attribute: Attribute) -> Option<MessageAttributeValue> {
    let value = MessageAttributeValue::builder().data_type("String");
    value.string_value(attribute.string_value?).build().ok()
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
        use aws_sdk_sqs::types::MessageSystemAttributeName as Name;
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
    fn strings_of_any_letters_are_unescaped() {
        let body = "\"\\/\n\r\t\u{8}\u{c}\u{1}é😀 and a longer tail";
        let escaped = r#"{"Messages":[{"Body":"\"\\\/\n\r\t\b\f\u0001\u00e9\ud83d\ude00 and a longer tail"}]}"#;
        let messages = read(escaped.as_bytes()).unwrap().unwrap();
        assert_eq!(messages[0].body(), Some(body));
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
    fn errors_quote_nothing_of_a_body() {
        for answer in [
            r#"{"Messages":[{"Body":"secret"#,
            r#"{"Messages":[{"Body":{"a":"secret"}}]}"#,
            r#"{"Messages":"secret"}"#,
            r#"{"Messages":[{"Body":"secret\ud83d"}]}"#,
            "<html>secret",
        ] {
            let error = read(answer.as_bytes()).unwrap_err().to_string();
            assert!(error.contains("the answer to a receive"), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
