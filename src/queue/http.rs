//! Builds the HTTP client of AWS, with the proxies and certificates of the configuration instead of those that the
//! SDK would find in the environment.

use aws_smithy_http_client::proxy::{ProxyConfig, ProxyError};
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode};
use aws_smithy_http_client::{Builder, Connector};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::connector_metadata::ConnectorMetadata;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::runtime_components::{
    RuntimeComponents, RuntimeComponentsBuilder,
};
use aws_smithy_types::config_bag::ConfigBag;
use secrecy::ExposeSecret;
use url::Url;

use crate::config::NetConfig;

/// Returns the HTTP client for all requests to AWS.
pub fn client(net: &NetConfig) -> SharedHttpClient {
    SharedHttpClient::new(ByScheme {
        http: plain(net),
        https: encrypted(net),
    })
}

/// Returns the HTTP client for one host only.
pub fn client_for(endpoint: &Url, net: &NetConfig) -> SharedHttpClient {
    match endpoint.scheme() {
        "http" => plain(net),
        _ => encrypted(net),
    }
}

fn encrypted(net: &NetConfig) -> SharedHttpClient {
    let proxy = net.https_proxy.as_ref();
    let proxy = proxy.map(|url| ProxyConfig::https(url.expose_secret()));
    over_tls(by(proxy, net), net)
}

fn plain(net: &NetConfig) -> SharedHttpClient {
    let url = net.http_proxy.as_ref().map(ExposeSecret::expose_secret);
    let proxy = by(url.map(ProxyConfig::http), net);
    let scheme = url.and_then(|url| url.split_once(':'));
    if scheme.is_some_and(|(scheme, _)| scheme.eq_ignore_ascii_case("https")) {
        return over_tls(proxy, net);
    }
    Builder::new().build_with_connector_fn(move |settings, components| {
        let mut connector = Connector::builder().proxy_config(proxy.clone());
        connector.set_connector_settings(settings.cloned());
        if let Some(components) = components {
            connector.set_sleep_impl(components.sleep_impl());
        }
        connector.build_http()
    })
}

/// Returns the proxy. The configuration rejects invalid URLs, so a configured proxy is always used.
fn by(proxy: Option<Result<ProxyConfig, ProxyError>>, net: &NetConfig) -> ProxyConfig {
    match proxy {
        Some(Ok(proxy)) => proxy.no_proxy(&net.no_proxy),
        Some(Err(_)) | None => ProxyConfig::disabled(),
    }
}

fn over_tls(proxy: ProxyConfig, net: &NetConfig) -> SharedHttpClient {
    let mut trust = TrustStore::default();
    if let Some(pem) = &net.ca_bundle {
        trust.add_pem_certificate(pem.as_bytes());
    }
    // A builder without a choice to make cannot fail.
    let tls = TlsContext::builder()
        .with_trust_store(trust)
        .build()
        .unwrap_or_default();
    Builder::new().build_with_connector_fn(move |settings, components| {
        let mut connector = Connector::builder()
            .proxy_config(proxy.clone())
            .tls_provider(Provider::rustls(CryptoMode::AwsLc))
            .tls_context(tls.clone());
        connector.set_connector_settings(settings.cloned());
        if let Some(components) = components {
            connector.set_sleep_impl(components.sleep_impl());
        }
        connector.build()
    })
}

/// Selects the client by scheme: a client of the SDK has one proxy, and the environment may name one for each scheme.
#[derive(Debug)]
struct ByScheme {
    http: SharedHttpClient,
    https: SharedHttpClient,
}

impl HttpClient for ByScheme {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(Connectors {
            http: self.http.http_connector(settings, components),
            https: self.https.http_connector(settings, components),
        })
    }

    fn validate_base_client_config(
        &self,
        components: &RuntimeComponentsBuilder,
        bag: &ConfigBag,
    ) -> Result<(), BoxError> {
        self.https.validate_base_client_config(components, bag)
    }

    fn connector_metadata(&self) -> Option<ConnectorMetadata> {
        self.https.connector_metadata()
    }
}

#[derive(Debug)]
struct Connectors {
    http: SharedHttpConnector,
    https: SharedHttpConnector,
}

impl HttpConnector for Connectors {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        if request.uri().starts_with("http:") {
            self.http.call(request)
        } else {
            self.https.call(request)
        }
    }
}
