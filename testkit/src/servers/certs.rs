//! Certificates, made by openssl for one test.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// A CA and what it signs, in a folder of their own.
pub struct Certs {
    folder: TempDir,
}

impl Certs {
    pub fn new() -> Certs {
        let certs = Certs {
            folder: TempDir::new().unwrap(),
        };
        certs.authority("ca");
        certs
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    /// The same as text, for variables and options.
    pub fn file(&self, file: &str) -> String {
        self.path(file).to_str().unwrap().to_owned()
    }

    /// `<name>.pem` and `<name>.key`: a CA that signs itself.
    pub fn authority(&self, name: &str) {
        let (key, cert) = (format!("{name}.key"), format!("{name}.pem"));
        let subject = format!("/CN={name}");
        let mut arguments = vec!["req", "-x509"];
        arguments.extend(KEY);
        arguments.extend([
            "-subj", &subject, "-days", "2", "-keyout", &key, "-out", &cert,
        ]);
        self.openssl(&arguments);
    }

    /// `<name>.pem` and `<name>.key`, signed by the CA for these names, such as `IP:127.0.0.1`.
    pub fn signed(&self, name: &str, names: &str) {
        self.sign(name, names, "20200101000000Z", "21000101000000Z");
    }

    /// The same, but its time is over.
    pub fn expired(&self, name: &str, names: &str) {
        self.sign(name, names, "20200101000000Z", "20200102000000Z");
    }

    fn sign(&self, name: &str, names: &str, from: &str, to: &str) {
        let (key, request, cert) = (
            format!("{name}.key"),
            format!("{name}.csr"),
            format!("{name}.pem"),
        );
        let subject = format!("/CN={name}");
        let mut arguments = vec!["req"];
        arguments.extend(KEY);
        arguments.extend(["-subj", &subject, "-keyout", &key, "-out", &request]);
        self.openssl(&arguments);
        let write = |file: &str, text: &str| std::fs::write(self.path(file), text).unwrap();
        write("index.txt", "");
        write("index.txt.attr", "unique_subject = no\n");
        write(
            "ca.cnf",
            &format!(
                "[ca]\ndefault_ca=c\n[c]\ndatabase=index.txt\nnew_certs_dir=.\nrand_serial=yes\n\
                default_md=sha256\npolicy=p\nx509_extensions=e\n[p]\ncommonName=supplied\n\
                [e]\nsubjectAltName={names}\n"
            ),
        );
        self.openssl(&[
            "ca",
            "-batch",
            "-notext",
            "-config",
            "ca.cnf",
            "-cert",
            "ca.pem",
            "-keyfile",
            "ca.key",
            "-startdate",
            from,
            "-enddate",
            to,
            "-in",
            &request,
            "-out",
            &cert,
        ]);
    }

    fn openssl(&self, arguments: &[&str]) {
        let output = Command::new("openssl")
            .args(arguments)
            .current_dir(self.folder.path() as &Path)
            .output()
            .expect("openssl is not there");
        assert!(
            output.status.success(),
            "openssl {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

const KEY: [&str; 5] = [
    "-newkey",
    "ec",
    "-pkeyopt",
    "ec_paramgen_curve:prime256v1",
    "-nodes",
];
