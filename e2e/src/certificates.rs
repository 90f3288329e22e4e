//! Keys and certificates of a cluster, by `openssl`: its authority, the API server, the front proxy, service accounts.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::process::output;
use crate::state::StateDir;

/// The cluster's own keys, under `pki/` of its state directory.
pub struct Certificates {
    state: StateDir,
}

impl Certificates {
    /// Makes them all. `addresses` are the ones under which the API server is reached.
    pub fn create(state: &StateDir, addresses: &[&str]) -> Result<Self> {
        std::fs::create_dir_all(state.join("pki"))?;
        let this = Self { state: state.clone() };
        this.authority("ca", "tidegate-test-ca")?;
        this.authority("front-proxy-ca", "tidegate-test-front-proxy-ca")?;
        let names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"];
        let alternatives: Vec<String> = (names.iter().map(|name| format!("DNS:{name}")))
            .chain(addresses.iter().map(|address| format!("IP:{address}")))
            .collect();
        this.signed("apiserver", "/CN=kube-apiserver", "ca", Some(&alternatives.join(",")))?;
        this.signed("gateway", "/CN=gateway", "ca", Some("DNS:*.example.com"))?;
        this.signed("front-proxy", "/CN=front-proxy-client", "front-proxy-ca", None)?;
        this.signed("admin", "/O=system:masters/CN=admin", "ca", None)?;
        output(
            Command::new("openssl")
                .args(["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out"])
                .arg(this.path("service-account.key")),
        )?;
        Ok(this)
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.state.join("pki").join(file)
    }

    fn authority(&self, name: &str, subject: &str) -> Result<()> {
        let mut command = self.request(name, &format!("/CN={subject}"));
        command.args(["-x509", "-days", "3650", "-addext", "basicConstraints=critical,CA:TRUE"]);
        command.args(["-addext", "keyUsage=critical,keyCertSign,cRLSign,digitalSignature"]);
        command.arg("-out").arg(self.path(&format!("{name}.crt")));
        output(&mut command).map(drop)
    }

    fn signed(&self, name: &str, subject: &str, authority: &str, alternatives: Option<&str>) -> Result<()> {
        let mut command = self.request(name, subject);
        command.args(["-x509", "-days", "3650"]);
        command.arg("-CA").arg(self.path(&format!("{authority}.crt")));
        command.arg("-CAkey").arg(self.path(&format!("{authority}.key")));
        command.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
        command.args(["-addext", "keyUsage=critical,digitalSignature"]);
        command.args(["-addext", "extendedKeyUsage=serverAuth,clientAuth"]);
        if let Some(alternatives) = alternatives {
            command.args(["-addext", &format!("subjectAltName={alternatives}")]);
        }
        command.arg("-out").arg(self.path(&format!("{name}.crt")));
        output(&mut command).map(drop)
    }

    fn request(&self, name: &str, subject: &str) -> Command {
        let mut command = Command::new("openssl");
        command.args(["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-sha256"]);
        command.args(["-subj", subject, "-keyout"]).arg(self.path(&format!("{name}.key")));
        command
    }
}
