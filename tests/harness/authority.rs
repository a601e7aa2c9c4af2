//! Certificates for tests, made by openssl(1).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A certificate authority and what it has signed. The files go with it.
#[derive(Debug)]
pub struct Authority {
    directory: tempfile::TempDir,
}

impl Authority {
    /// Makes one with a server's certificate for 127.0.0.1 and a client's, each in a directory of
    /// its own with the names that docker has for them. Ask [`has`](crate::has)`("openssl")` before.
    ///
    /// # Panics
    /// If openssl does not do it.
    #[must_use]
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let authority = Self { directory };
        let ca = authority.path("ca.pem");
        let key = authority.path("ca-key.pem");
        let arguments = [
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=tests",
        ];
        openssl(&arguments, &[("-out", &ca), ("-keyout", &key)]);
        for (name, extension) in [
            (
                "server",
                "subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth",
            ),
            ("client", "extendedKeyUsage=clientAuth"),
        ] {
            let place = authority.path(name);
            fs::create_dir(&place).expect("it is not there");
            fs::copy(&ca, place.join("ca.pem")).expect("it was made");
            let extensions = place.join("extensions");
            fs::write(&extensions, extension).expect("there is room");
            let request = place.join("request");
            let subject = format!("/CN={name}");
            let arguments = [
                "req",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-subj",
                &subject,
            ];
            openssl(
                &arguments,
                &[("-out", &request), ("-keyout", &place.join("key.pem"))],
            );
            let files = [
                ("-in", &*request),
                ("-CA", &*ca),
                ("-CAkey", &*key),
                ("-extfile", &*extensions),
                ("-out", &*place.join("cert.pem")),
            ];
            openssl(&["x509", "-req", "-days", "2", "-CAcreateserial"], &files);
        }
        authority
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Directory of the server's files: `ca.pem`, `cert.pem`, `key.pem`.
    #[must_use]
    pub fn server(&self) -> PathBuf {
        self.path("server")
    }

    /// Directory of the client's files.
    #[must_use]
    pub fn client(&self) -> PathBuf {
        self.path("client")
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

fn openssl(arguments: &[&str], files: &[(&str, &Path)]) {
    let mut command = Command::new("openssl");
    command.args(arguments);
    for (option, path) in files {
        command.arg(option).arg(path);
    }
    let done = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    assert!(
        done.expect("openssl runs").success(),
        "openssl {arguments:?}"
    );
}
