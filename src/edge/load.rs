//! Requests the entitlements of a customer, as SDKs do on a miss.

use std::fmt::Write as _;
use std::ops::Deref;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Edge, EdgeError, HeldBytes, parse};

/// The entitlements of an owner: a JSON list in the GraphQL shape. Its bytes count until it is dropped.
#[derive(Debug)]
pub struct EntitlementList {
    list: Box<RawValue>,
    _held: HeldBytes,
}

impl Deref for EntitlementList {
    type Target = RawValue;

    fn deref(&self) -> &RawValue {
        &self.list
    }
}

impl Edge {
    /// Returns the entitlements of a customer or of one of its resources.
    /// Sends one request without a retry: the caller limits its own rate.
    pub async fn entitlements(
        &self,
        customer: &str,
        resource: Option<&str>,
    ) -> Result<EntitlementList, EdgeError> {
        #[derive(Deserialize)]
        struct Answer {
            data: Data,
        }
        #[derive(Deserialize)]
        struct Data {
            entitlements: Box<RawValue>,
        }
        // Any component on the path may resolve these segments.
        if let "." | ".." = customer {
            let text = format!("\"{customer}\" is not allowed in the path of a request");
            return Err(EdgeError::Declined(text));
        }
        let mut url = self.config.url.as_str().trim_end_matches('/').to_owned();
        url.push_str("/v1/c/");
        encode(&mut url, customer);
        url.push_str("/entitlements.json");
        if let Some(resource) = resource {
            url.push_str("?resourceId=");
            encode(&mut url, resource);
        }
        let body = self.ask(url, "v1/c/<customer>/entitlements.json").await?;
        let answer: Answer = parse(&body.text).map_err(|error| {
            EdgeError::Final(format!(
                "the answer of the Edge API is malformed: {error:#}"
            ))
        })?;
        match answer.data.entitlements.get().starts_with('[') {
            true => Ok(EntitlementList {
                list: answer.data.entitlements,
                _held: body.held,
            }),
            false => Err(EdgeError::Final(
                "the answer of the Edge API is malformed: its entitlements are not a list".into(),
            )),
        }
    }
}

/// Percent-encodes as JavaScript's `encodeURIComponent` does.
fn encode(url: &mut String, id: &str) {
    for byte in id.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' => url.push(char::from(byte)),
            b'-' | b'_' | b'.' | b'!' | b'~' | b'*' | b'\'' | b'(' | b')' => {
                url.push(char::from(byte));
            }
            byte => {
                let _ = write!(url, "%{byte:02X}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::encode;

    #[test]
    fn ids_are_encoded_as_javascript_does() {
        let mut url = String::new();
        encode(&mut url, "a/b?c#d%e f+g&h=é:;@,$|\\'()*!~-_.");
        assert_eq!(
            url,
            "a%2Fb%3Fc%23d%25e%20f%2Bg%26h%3D%C3%A9%3A%3B%40%2C%24%7C%5C'()*!~-_."
        );
    }
}
