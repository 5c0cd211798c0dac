//! Builds the HTTP agents for the Edge API, error reports and traces.

use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use secrecy::ExposeSecret;
use ureq::config::ConfigBuilder;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::typestate::AgentScope;
use url::Url;

use crate::config::NetConfig;

/// The default timeout of a call.
pub const TIMEOUT: Duration = Duration::from_secs(10);

/// An HTTP agent over rustls that trusts the system's roots and honours the proxy variables as ureq
/// finds them.
pub fn with_timeout(timeout: Duration) -> ureq::Agent {
    let settings = settings(RootCerts::PlatformVerifier);
    settings.timeout_global(Some(timeout)).build().into()
}

/// Returns an agent for the host of one URL, with the proxy and the certificates of the configuration.
pub fn for_host_of(net: &NetConfig, url: &Url, limit: Duration) -> ureq::Agent {
    let roots = match &net.ca_bundle {
        None => RootCerts::PlatformVerifier,
        Some(pem) => {
            let added = CertificateDer::pem_slice_iter(pem.as_bytes()).filter_map(Result::ok);
            let all = rustls_native_certs::load_native_certs().certs;
            let all = all.into_iter().chain(added);
            let all: Vec<_> = all
                .map(|it| Certificate::from_der(&it).to_owned())
                .collect();
            RootCerts::from(all)
        }
    };
    let proxy = net.proxy_for(url);
    let proxy = proxy.and_then(|proxy| ureq::Proxy::new(proxy.expose_secret()).ok());
    let settings = settings(roots).timeout_global(Some(limit));
    settings.proxy(proxy).build().into()
}

fn settings(roots: RootCerts) -> ConfigBuilder<AgentScope> {
    ureq::Agent::config_builder()
        .tls_config(TlsConfig::builder().root_certs(roots).build())
        .timeout_global(Some(TIMEOUT))
        .http_status_as_error(false)
        // Requests contain keys, and a redirect would send them to another host.
        .max_redirects(0)
        .max_redirects_will_error(false)
        // Many customers are loaded at once.
        .max_idle_connections_per_host(16)
}
