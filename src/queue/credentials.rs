//! Who we are to AWS.

use std::sync::Arc;

use aws_config::Region;
use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::meta::credentials::CredentialsProviderChain;
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use secrecy::ExposeSecret;

use crate::config::QueueConfig;
use crate::edge::{Edge, QueueCredentials};

/// Given keys; else what the platform provides; else the Edge API's credentials for this queue.
pub async fn credentials(config: &QueueConfig, edge: &Edge) -> SharedCredentialsProvider {
    if let Some(keys) = &config.credentials {
        return SharedCredentialsProvider::new(Credentials::new(
            keys.access_key_id.expose_secret(),
            keys.secret_access_key.expose_secret(),
            keys.session_token
                .as_ref()
                .map(|token| token.expose_secret().to_owned()),
            None,
            "Environment",
        ));
    }
    let platform = DefaultCredentialsChain::builder()
        .region(Region::new(config.region.clone()))
        .build()
        .await;
    let edge = QueueCredentials {
        edge: edge.clone(),
        queue: Arc::new(config.url.clone()),
    };
    SharedCredentialsProvider::new(
        CredentialsProviderChain::first_try("Platform", platform).or_else("EdgeApi", edge),
    )
}
