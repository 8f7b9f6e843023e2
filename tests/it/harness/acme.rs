//! A real certificate authority that speaks ACME, pebble, and the client that most people use, certbot.

use std::{fs, path::PathBuf, process::Command};

use serde_json::json;

use super::{
    SOON,
    port::free_port,
    process::{Process, program},
    tls::{CertificateFiles, NAME, Trust},
    until,
};

/// The name that certificates are wanted for. It leads to this machine, as pebble sees it.
pub const CAMS: &str = "cams.example.test";

/// A pebble with a name server of its own, gone with the test. It asks for challenges on one port of this machine.
pub struct Pebble {
    _pebble: Process,
    _names: Process,
    /// Its own certificate, and its configuration.
    files: CertificateFiles,
    directory_url: String,
    management_url: String,
}

impl Pebble {
    pub async fn asking(challenge_port: u16) -> Self {
        let files = CertificateFiles::new();
        let [acme, management, dns, dns_management] = [(); 4].map(|()| free_port());
        let mut names = program("pebble-challtestsrv", "pebble");
        names.args(["-defaultIPv4", "127.0.0.1", "-defaultIPv6", "", "-dns01", &format!("127.0.0.1:{dns}")]);
        names.args(["-http01", "", "-https01", "", "-tlsalpn01", ""]);
        names.args(["-management", &format!("127.0.0.1:{dns_management}")]);
        let names = Process::start(names);
        let configuration = json!({ "pebble": {
            "listenAddress": format!("127.0.0.1:{acme}"),
            "managementListenAddress": format!("127.0.0.1:{management}"),
            "certificate": files.certificate(),
            "privateKey": files.key(),
            "httpPort": challenge_port,
            "tlsPort": free_port(),
        }});
        let file = files.path("pebble.json");
        fs::write(&file, configuration.to_string()).unwrap();
        let mut pebble = program("pebble", "pebble");
        pebble.arg("-config").arg(file).args(["-dnsserver", &format!("127.0.0.1:{dns}")]);
        // Challenges are asked for at once, and for every certificate anew.
        pebble.env("PEBBLE_VA_NOSLEEP", "1").env("PEBBLE_WFE_NONCEREJECT", "0").env("PEBBLE_AUTHZREUSE", "0");
        let pebble = Process::start(pebble);
        let directory_url = format!("https://{NAME}:{acme}/dir");
        let management_url = format!("https://{NAME}:{management}");
        let started = Self { _pebble: pebble, _names: names, files, directory_url, management_url };
        until(SOON, "pebble answers", || async {
            let answer = started.client().get(&started.directory_url).send().await.ok()?;
            answer.status().is_success().then_some(())
        })
        .await;
        started
    }

    fn client(&self) -> reqwest::Client {
        let trust = Trust::new(NAME, &self.files.authority.pem());
        reqwest::Client::builder().no_proxy().tls_backend_preconfigured(trust.config()).build().unwrap()
    }

    /// Whom the clients of a server trust that has a certificate of this authority.
    pub async fn trust(&self) -> Trust {
        let url = format!("{}/roots/0", self.management_url);
        let root = self.client().get(url).send().await.unwrap().text().await.unwrap();
        Trust::new(CAMS, &root)
    }
}

/// A certbot with a place of its own.
pub struct Certbot {
    directory: tempfile::TempDir,
}

impl Certbot {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("webroot")).unwrap();
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Where it puts what answers challenges.
    pub fn webroot(&self) -> String {
        self.path("webroot").to_str().unwrap().to_owned()
    }

    /// The chain of the certificate that it got last.
    pub fn certificate(&self) -> String {
        self.live("fullchain.pem")
    }

    /// Its key.
    pub fn key(&self) -> String {
        self.live("privkey.pem")
    }

    fn live(&self, name: &str) -> String {
        self.path(&format!("config/live/{CAMS}/{name}")).to_str().unwrap().to_owned()
    }

    fn command(&self, what: &str, authority: &Pebble) -> Command {
        let mut certbot = program("certbot", "certbot");
        certbot.args([what, "--non-interactive", "--server", &authority.directory_url]);
        for place in ["config", "work", "logs"] {
            certbot.arg(format!("--{place}-dir")).arg(self.path(place));
        }
        // It looks at the certificate of the authority's own site.
        certbot.env("REQUESTS_CA_BUNDLE", authority.files.ca()).env("NO_PROXY", "*");
        certbot
    }

    /// Gets a certificate, proving by a file in the webroot whose name it is.
    pub async fn obtain(&self, authority: &Pebble) {
        let mut certbot = self.command("certonly", authority);
        certbot.args(["--webroot", "--webroot-path", &self.webroot(), "--domain", CAMS]);
        certbot.args(["--agree-tos", "--register-unsafely-without-email"]);
        run(certbot).await;
    }

    /// Gets another one, though that is not yet due, proving everything again.
    pub async fn renew(&self, authority: &Pebble) {
        let mut certbot = self.command("renew", authority);
        certbot.args(["--force-renewal", "--no-random-sleep-on-renew"]);
        run(certbot).await;
    }
}

async fn run(command: Command) {
    let (status, output) = Process::start(command).ended_within(SOON * 6).await;
    assert!(status.success(), "{status}: {output}");
}
