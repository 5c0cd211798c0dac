//! TLS in front of a server of the tests, with an authority of their own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use tempfile::TempDir;
use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::{free_port, listen};

/// Whoever signs, and whom it signed for: `127.0.0.1` and `localhost`.
pub struct Authority {
    folder: TempDir,
}

impl Authority {
    pub fn new() -> Authority {
        let folder = TempDir::new().unwrap();
        let run = |arguments: &[&str]| {
            let output = Command::new("openssl")
                .args(arguments)
                .current_dir(folder.path())
                .output()
                .unwrap_or_else(|error| panic!("cannot start openssl: {error}"));
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "openssl {arguments:?}: {said}");
        };
        let curve = [
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
        ];
        let authority = [
            "req",
            "-x509",
            "-subj",
            "/CN=authority of the tests",
            "-days",
            "2",
        ];
        run(&[
            &authority[..],
            &curve,
            &["-keyout", "ca.key", "-out", "ca.pem"],
        ]
        .concat());
        let request = [
            "req",
            "-subj",
            "/CN=localhost",
            "-keyout",
            "key.pem",
            "-out",
            "leaf.csr",
        ];
        run(&[&request[..], &curve].concat());
        std::fs::write(
            folder.path().join("leaf.cnf"),
            "subjectAltName=IP:127.0.0.1,DNS:localhost\n",
        )
        .unwrap();
        run(&[
            "x509",
            "-req",
            "-in",
            "leaf.csr",
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            "2",
            "-extfile",
            "leaf.cnf",
            "-out",
            "leaf.pem",
        ]);
        Authority { folder }
    }

    /// The authority's own certificate, as a PEM file.
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    fn server(&self) -> ServerConfig {
        let path = |name: &str| Path::join(self.folder.path(), name);
        let chain = CertificateDer::pem_file_iter(path("leaf.pem"))
            .unwrap()
            .collect::<Result<Vec<_>, _>>()
            .unwrap();
        let key = PrivateKeyDer::from_pem_file(path("key.pem")).unwrap();
        ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap()
    }
}

/// Takes off the TLS and passes the rest on to a loopback port.
pub struct TlsFront {
    pub port: u16,
    accepting: JoinHandle<()>,
}

impl TlsFront {
    pub async fn start(authority: &Authority, target: u16) -> TlsFront {
        let acceptor = TlsAcceptor::from(Arc::new(authority.server()));
        let port = free_port();
        let listener = listen(port).await;
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    Ok((stream, _)) = listener.accept() => {
                        connections.spawn(carry(acceptor.clone(), stream, target));
                    }
                    Some(_) = connections.join_next() => {}
                }
            }
        });
        TlsFront { port, accepting }
    }

    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }
}

impl Drop for TlsFront {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn carry(acceptor: TlsAcceptor, stream: TcpStream, target: u16) -> Option<()> {
    let mut client = acceptor.accept(stream).await.ok()?;
    let mut server = TcpStream::connect(("127.0.0.1", target)).await.ok()?;
    let _ = copy_bidirectional(&mut client, &mut server).await;
    Some(())
}
