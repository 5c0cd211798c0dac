//! Makes IAM tokens for ElastiCache: a presigned request replaces the password.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use aws_config::Region;
use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials;
use aws_sigv4::http_request::{
    SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign,
};
use aws_sigv4::sign::v4;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::ExposeSecret;
use tokio::sync::Mutex;

use crate::config::IamConfig;

/// Makes tokens.
#[derive(Debug)]
pub struct Iam {
    config: IamConfig,
    user: String,
    /// The last credentials from the AWS default chain.
    known: Arc<Mutex<Option<Credentials>>>,
}

/// The lifetime of a token; the maximum that ElastiCache allows.
const TOKEN_LIFETIME: Duration = Duration::from_secs(900);
/// Credentials that expire sooner are requested again.
const RENEWAL_MARGIN: Duration = Duration::from_secs(300);

/// All characters except the unreserved ones of RFC 3986.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

impl Iam {
    pub fn new(config: IamConfig, user: String) -> Self {
        Self {
            config,
            user,
            known: Arc::default(),
        }
    }

    /// Returns a token that is valid from now on, or the reason why there is none.
    pub async fn token(&self) -> Result<String, String> {
        let token = async {
            let credentials = self.credentials().await?;
            token(&self.config, &self.user, &credentials, SystemTime::now())
        };
        token.await.map_err(|error: anyhow::Error| {
            format!("cannot make an IAM token for Redis: {error:#}")
        })
    }

    async fn credentials(&self) -> anyhow::Result<Credentials> {
        if let Some(keys) = &self.config.keys {
            return Ok(Credentials::new(
                keys.access_key_id.expose_secret(),
                keys.secret_access_key.expose_secret(),
                keys.session_token
                    .as_ref()
                    .map(|token| token.expose_secret().to_owned()),
                None,
                "Environment",
            ));
        }
        let (known, region) = (self.known.clone(), self.config.region.clone());
        // A separate task: it may take longer than the connection timeout, and then serves the next try.
        let asked = tokio::spawn(async move {
            let mut known = known.lock().await;
            let fresh = known.as_ref().filter(|known| {
                known
                    .expiry()
                    .is_none_or(|expiry| expiry > SystemTime::now() + RENEWAL_MARGIN)
            });
            if let Some(fresh) = fresh {
                return anyhow::Ok(fresh.clone());
            }
            let chain = DefaultCredentialsChain::builder().region(Region::new(region));
            let found = chain.build().await.provide_credentials().await;
            let found = found.context("the AWS default chain has no credentials")?;
            *known = Some(found.clone());
            Ok(found)
        });
        asked.await.context("cannot get credentials")?
    }
}

/// Returns the presigned connect request, without its scheme.
fn token(
    config: &IamConfig,
    user: &str,
    credentials: &Credentials,
    now: SystemTime,
) -> anyhow::Result<String> {
    let mut query = format!("Action=connect&User={}", encoded(user));
    if config.serverless {
        query.push_str("&ResourceType=ServerlessCache");
    }
    let base = format!("{}/?{query}", config.cache_name);
    let mut settings = SigningSettings::default();
    settings.signature_location = SignatureLocation::QueryParams;
    settings.expires_in = Some(TOKEN_LIFETIME);
    let identity = credentials.clone().into();
    let parameters = v4::SigningParams::builder()
        .identity(&identity)
        .region(&config.region)
        .name("elasticache")
        .time(now)
        .settings(settings)
        .build()?
        .into();
    let request = SignableRequest::new(
        "GET",
        format!("http://{base}"),
        std::iter::empty(),
        SignableBody::Bytes(&[]),
    )?;
    let (instructions, _) = sign(request, &parameters)?.into_parts();
    let mut token = base;
    for (name, value) in instructions.params() {
        token.push_str(&format!("&{name}={}", encoded(value)));
    }
    Ok(token)
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn parts(token: &str) -> BTreeMap<&str, &str> {
        let (_, query) = token.split_once("/?").unwrap();
        query
            .split('&')
            .map(|part| part.split_once('=').unwrap())
            .collect()
    }

    fn made(serverless: bool, session: Option<&str>) -> String {
        let config = IamConfig {
            cache_name: "cache-1".into(),
            serverless,
            region: "us-east-1".into(),
            keys: None,
        };
        let credentials = Credentials::new(
            "AKIDEXAMPLE",
            "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
            session.map(str::to_owned),
            None,
            "test",
        );
        // 2015-08-30T12:36:00Z
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_440_938_160);
        token(&config, "iam-user-01", &credentials, now).unwrap()
    }

    /// The form is the one in ElastiCache's documentation. The signatures were worked out apart
    /// from this code, step by step as AWS describes Signature Version 4 in a query.
    #[test]
    fn the_token_has_the_published_form() {
        for (serverless, session, signature) in [
            (
                false,
                None,
                "31bbae47bf069632a404361b1033f9f95768da9e64a3ffc7e8f2bbb91b099ef4",
            ),
            (
                true,
                Some("to/ken+=="),
                "e3ece2cfea0e3e16fdf8ef3f36dd656b8d80f0bdc3a11837bcfcce5725415dae",
            ),
        ] {
            let token = made(serverless, session);
            assert!(
                token.starts_with("cache-1/?Action=connect&User=iam-user-01"),
                "{token}"
            );
            let parts = parts(&token);
            assert_eq!(parts["X-Amz-Algorithm"], "AWS4-HMAC-SHA256");
            assert_eq!(
                parts["X-Amz-Credential"],
                "AKIDEXAMPLE%2F20150830%2Fus-east-1%2Felasticache%2Faws4_request"
            );
            assert_eq!(parts["X-Amz-Date"], "20150830T123600Z");
            assert_eq!(parts["X-Amz-Expires"], "900");
            assert_eq!(parts["X-Amz-SignedHeaders"], "host");
            assert_eq!(
                parts.get("ResourceType").copied(),
                serverless.then_some("ServerlessCache")
            );
            assert_eq!(
                parts.get("X-Amz-Security-Token").copied(),
                session.map(|_| "to%2Fken%2B%3D%3D")
            );
            assert_eq!(parts["X-Amz-Signature"], signature, "{token}");
        }
    }
}
