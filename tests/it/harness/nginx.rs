//! A real nginx before a server, as people put one there.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;
use tokio::net::TcpStream;

use super::{
    SOON, Server,
    port::free_port,
    process::{Process, program},
    until,
};

/// An nginx on a port of its own, gone with the test.
pub struct Nginx {
    _process: Process,
    _directory: TempDir,
    address: SocketAddr,
}

impl Nginx {
    /// Passes everything on to the server. Everything but the `settings` of the location is as nginx has it by default.
    pub async fn before(server: &Server, settings: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let site = format!(
            "server {{
                 listen {address};
                 location / {{ proxy_pass {}; {settings} }}
             }}",
            server.url("")
        );
        let process = start(directory.path(), &site, &[address]).await;
        Self { _process: process, _directory: directory, address }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

/// The site of `deploy/nginx` that has the root to itself.
pub const SITE: &str = include_str!("../../../deploy/nginx/image-streamer.conf");
/// The one below a path.
pub const SITE_BELOW_A_PATH: &str = include_str!("../../../deploy/nginx/sub-path.conf");

/// An nginx with a site of `deploy/nginx`, under the name `localhost` with a certificate. Gone with the test.
pub struct Site {
    _process: Process,
    directory: TempDir,
    http: SocketAddr,
    https: SocketAddr,
}

impl Site {
    /// Serves what is at the address. Of the site only what depends on the machine is changed.
    pub async fn before(upstream: SocketAddr, site: &str) -> Self {
        // Nothing listens on port 1, as where the server has no gateway.
        Self::before_both(upstream, SocketAddr::from(([127, 0, 0, 1], 1)), site).await
    }

    /// The same with the gateway for phones at another address.
    pub async fn before_both(upstream: SocketAddr, phones: SocketAddr, site: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let [http, https] = [(); 2].map(|()| SocketAddr::from(([127, 0, 0, 1], free_port())));
        certify("localhost", path);
        fs::create_dir(path.join("html")).unwrap();
        fs::write(path.join("html/index.html"), "the other things").unwrap();
        let here = path.display().to_string();
        let mut site: String =
            site.lines().filter(|line| !line.contains("listen [::]:")).map(|l| l.to_owned() + "\n").collect();
        for (text, replacement) in [
            ("/etc/letsencrypt/live/cams.example.com", &here),
            ("cams.example.com", &"localhost".to_owned()),
            ("/var/www", &here),
            ("/var/log/nginx", &here),
            ("server 127.0.0.1:3000;", &format!("server {upstream};")),
            ("server 127.0.0.1:8080;", &format!("server {phones};")),
            ("listen 80;", &format!("listen {http};")),
            ("listen 443 ", &format!("listen {https} ")),
        ] {
            assert!(site.contains(text), "the site has {text:?}");
            site = site.replace(text, replacement);
        }
        let process = start(path, &site, &[http, https]).await;
        Self { _process: process, directory, http, https }
    }

    pub fn http(&self, path: &str) -> String {
        format!("http://localhost:{}{path}", self.http.port())
    }

    pub fn https(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.https.port())
    }

    pub fn websocket(&self, path: &str) -> String {
        self.https(path).replace("https:", "wss:")
    }

    /// What clients trust instead of the machine's authorities.
    pub fn authority(&self) -> PathBuf {
        self.directory.path().join("authority.pem")
    }

    /// The directory that certbot is told.
    pub fn webroot(&self) -> PathBuf {
        self.directory.path().join("html")
    }

    /// What has been logged: in the site's own log, and in those of the machine.
    pub fn logs(&self) -> (String, String) {
        let read = |name: &str| fs::read_to_string(self.directory.path().join(name)).unwrap_or_default();
        (read("image-streamer.log"), read("error.log") + &read("access.log"))
    }
}

/// Starts an nginx with this in its `http` block, and waits until it listens there.
async fn start(directory: &Path, http: &str, addresses: &[SocketAddr]) -> Process {
    // One process, which can be killed: a master's workers would outlive it.
    let configuration = format!(
        "daemon off; master_process off; pid pid; error_log error.log warn;
         events {{}}
         http {{
             access_log access.log;
             client_body_temp_path body; proxy_temp_path proxy;
             fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
             {http}
         }}"
    );
    let file = directory.join("nginx.conf");
    fs::write(&file, configuration).unwrap();
    let nginx = || {
        // Debian has it where an ordinary user's path does not lead.
        let debians = Path::new("/usr/sbin/nginx");
        let mut nginx = if debians.is_file() { Command::new(debians) } else { program("nginx", "nginx-light") };
        nginx.arg("-p").arg(directory).arg("-c").arg(&file).args(["-e", "stderr"]);
        nginx
    };
    let checked = nginx().arg("-t").stdin(Stdio::null()).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    let process = Process::start(nginx());
    for address in addresses {
        until(SOON, "nginx answers", || async { TcpStream::connect(address).await.ok() }).await;
    }
    process
}

/// Writes a certificate for a name as certbot does, and the authority that it is from as `authority.pem`.
fn certify(name: &str, directory: &Path) {
    let (authority_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut authority = CertificateParams::default();
    authority.distinguished_name.push(DnType::CommonName, "an authority of the tests");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_certificate = authority.self_signed(&authority_key).unwrap();
    let mut certificate = CertificateParams::new([name.to_owned()]).unwrap();
    certificate.use_authority_key_identifier_extension = true;
    let certificate = certificate.signed_by(&key, &Issuer::new(authority, authority_key)).unwrap();
    for (file, pem) in [
        ("authority.pem", authority_certificate.pem()),
        ("fullchain.pem", certificate.pem()),
        ("privkey.pem", key.serialize_pem()),
    ] {
        fs::write(directory.join(file), pem).unwrap();
    }
}
