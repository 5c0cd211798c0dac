//! Reads the proxies and the trusted certificates for HTTP requests.

use std::path::Path;

use hyper_util::client::proxy::matcher::Matcher;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use secrecy::SecretString;
use url::Url;

use super::read::{Reader, text};
use super::secret_file::shown_path;
use super::variables::Raw;

/// The settings of every HTTP client. Redis has its own settings.
#[derive(Debug, Clone, Default)]
pub struct NetConfig {
    /// For http targets. May hold a user and a password.
    pub http_proxy: Option<SecretString>,
    /// For https targets.
    pub https_proxy: Option<SecretString>,
    /// Hosts, domains and networks that are reached directly, separated by commas.
    pub no_proxy: String,
    /// Trusted certificates in PEM, in addition to the system's roots.
    pub ca_bundle: Option<String>,
}

impl NetConfig {
    /// Returns the proxy for a URL, if there is one.
    pub fn proxy_for(&self, url: &Url) -> Option<&SecretString> {
        let proxy = match url.scheme() {
            "https" => self.https_proxy.as_ref(),
            _ => self.http_proxy.as_ref(),
        }?;
        // The rules of the AWS SDK's own client, so that all clients use the same proxy.
        let matcher = Matcher::builder()
            .all("http://proxy")
            .no(self.no_proxy.as_str())
            .build();
        let target = url.as_str().parse().ok()?;
        matcher.intercept(&target).map(|_| proxy)
    }
}

/// Addresses that no proxy can reach: the metadata of the instance, and the agents that give
/// credentials to tasks and pods.
const NEVER: &str = "169.254.169.254,169.254.170.2,169.254.170.23,fd00:ec2::254,fd00:ec2::23";

pub fn read(
    read: &mut Reader,
    raw: &mut Raw,
    rest: &[(String, String)],
    warnings: &mut Vec<String>,
) -> NetConfig {
    let with_names = |value: Option<String>, others: &[&str]| {
        let other = |name: &&str| {
            let found = rest.iter().find(|(known, _)| known == name)?;
            text(Some(found.1.clone()))
        };
        text(value).or_else(|| others.iter().find_map(other))
    };
    let https = with_names(
        raw.https_proxy.take(),
        &["https_proxy", "ALL_PROXY", "all_proxy"],
    );
    let http = with_names(
        raw.http_proxy.take(),
        &["http_proxy", "ALL_PROXY", "all_proxy"],
    );
    let no_proxy = with_names(raw.no_proxy.take(), &["no_proxy"]);
    if let Some(path) = text(raw.ssl_cert_file.take())
        && let Err(error) = certificates(&path)
    {
        warnings.push(format!(
            "SSL_CERT_FILE is {}: {error}; every TLS connection will fail",
            shown_path(Path::new(&path))
        ));
    }
    let direct = no_proxy.as_deref().is_some_and(is_everything);
    let (https, http) = (
        proxy(read, "HTTPS_PROXY", https),
        proxy(read, "HTTP_PROXY", http),
    );
    NetConfig {
        https_proxy: https.filter(|_| !direct),
        http_proxy: http.filter(|_| !direct),
        no_proxy: match no_proxy {
            Some(hosts) => format!("{hosts},{NEVER}"),
            None => NEVER.into(),
        },
        ca_bundle: text(raw.aws_ca_bundle.take()).and_then(|path| match certificates(&path) {
            Ok(pem) => Some(pem),
            Err(error) => {
                read.problem(
                    "AWS_CA_BUNDLE",
                    format!(
                        "is {}: {error}; write the path of a PEM file",
                        shown_path(Path::new(&path))
                    ),
                );
                None
            }
        }),
    }
}

/// Returns whether the list holds `*`: all names and all addresses are then reached directly.
fn is_everything(no_proxy: &str) -> bool {
    no_proxy.split([',', ' ']).any(|entry| entry.trim() == "*")
}

/// Reads the URL of a proxy; `host:port` is enough. Its password is a secret.
fn proxy(read: &mut Reader, name: &str, value: Option<String>) -> Option<SecretString> {
    let value = value?;
    let whole = if value.contains("://") {
        value
    } else {
        format!("http://{value}")
    };
    let url = Url::parse(&whole)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.host().is_some());
    let is_whole = |url: &Url| {
        matches!(url.path(), "" | "/") && url.query().is_none() && url.fragment().is_none()
    };
    if let Some(url) = &url
        && !is_whole(url)
    {
        read.problem(name, "has more than a user, a password, a host and a port: write http://user:password@host:port, with %23 for #, %2F for / and %3F for ? in the password");
        return None;
    }
    let Some(url) = url else {
        // Not shown: it may hold a password.
        read.problem(
            name,
            "is not the URL of an HTTP proxy: write http://host:port",
        );
        return None;
    };
    read.secret(url.password().map(str::to_owned));
    Some(String::from(url).into())
}

/// Reads a PEM file; it must hold at least one certificate, and only valid ones.
fn certificates(path: &str) -> Result<String, String> {
    let pem = std::fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}"))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let added = certificate.map_err(|error| error.to_string());
        let added = added.and_then(|it| roots.add(it).map_err(|error| error.to_string()));
        added.map_err(|error| format!("holds an invalid certificate: {error}"))?;
    }
    if roots.is_empty() {
        return Err("holds no certificate".into());
    }
    Ok(pem)
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    fn net(variables: &[(&str, &str)]) -> NetConfig {
        let rest: Vec<(String, String)> = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let mut raw = Raw::default();
        let no_proxy = rest.iter().find(|(name, _)| name == "NO_PROXY");
        raw.no_proxy = no_proxy.map(|(_, value)| value.clone());
        read(&mut Reader::default(), &mut raw, &rest, &mut Vec::new())
    }

    fn by(net: &NetConfig, url: &str) -> Option<String> {
        let proxy = net.proxy_for(&Url::parse(url).unwrap());
        proxy.map(|proxy| proxy.expose_secret().to_owned())
    }

    #[test]
    fn a_proxy_is_chosen_by_scheme_and_exceptions() {
        let none = net(&[]);
        assert_eq!(by(&none, "https://sqs.us-east-1.amazonaws.com"), None);
        let both = net(&[
            ("https_proxy", "secure:1"),
            ("http_proxy", "http://plain:2"),
            ("no_proxy", "internal.example, 10.0.0.0/8"),
        ]);
        for (url, proxy) in [
            (
                "https://sqs.us-east-1.amazonaws.com",
                Some("http://secure:1/"),
            ),
            ("http://localhost:4566", Some("http://plain:2/")),
            ("https://internal.example", None),
            ("https://edge.internal.example", None),
            ("https://10.1.2.3", None),
            ("https://11.1.2.3", Some("http://secure:1/")),
        ] {
            assert_eq!(by(&both, url).as_deref(), proxy, "{url}");
        }
        let all = net(&[("ALL_PROXY", "http://all:3")]);
        assert_eq!(by(&all, "http://x").as_deref(), Some("http://all:3/"));
        assert_eq!(by(&all, "https://x").as_deref(), Some("http://all:3/"));
    }

    #[test]
    fn a_star_means_every_name_and_every_address() {
        for no_proxy in ["*", " * ", "example.com, *", "10.0.0.0/8,*"] {
            let net = net(&[("ALL_PROXY", "http://all:3"), ("NO_PROXY", no_proxy)]);
            for url in [
                "https://sqs.us-east-1.amazonaws.com",
                "http://10.1.2.3:4566",
                "http://[fd00::1]:4566",
                "http://localhost:4566",
            ] {
                assert_eq!(by(&net, url), None, "{no_proxy} {url}");
            }
        }
    }

    /// No proxy can ask for the credentials of this pod or instance.
    #[test]
    fn what_gives_credentials_is_never_asked_by_a_proxy() {
        let net = net(&[("ALL_PROXY", "http://all:3"), ("NO_PROXY", "x")]);
        for url in [
            "http://169.254.169.254/latest",
            "http://[fd00:ec2::254]/latest",
            "http://169.254.170.2/v2/credentials",
            "http://169.254.170.23/v1/credentials",
            "http://[fd00:ec2::23]/v1/credentials",
        ] {
            assert_eq!(by(&net, url), None, "{url}");
        }
    }
}
