//! A real nginx before a server, as people put one there.

use std::{net::SocketAddr, path::Path, process::Command};

use tokio::net::TcpStream;

use super::{
    SOON, Server,
    process::{Process, program},
    redis::free_port,
    until,
};

/// An nginx on a port of its own, gone with the test.
pub struct Nginx {
    _process: Process,
    _directory: tempfile::TempDir,
    address: SocketAddr,
}

impl Nginx {
    /// Passes everything on to the server. Everything but the `settings` of the location is as nginx has it by default.
    pub async fn before(server: &Server, settings: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        // One process, which can be killed: a master's workers would outlive it.
        let configuration = format!(
            "daemon off; master_process off; pid pid; error_log stderr warn;
             events {{}}
             http {{
                 access_log off;
                 client_body_temp_path body; proxy_temp_path proxy;
                 fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
                 server {{
                     listen {address};
                     location / {{ proxy_pass {}; {settings} }}
                 }}
             }}",
            server.url("")
        );
        let file = directory.path().join("nginx.conf");
        std::fs::write(&file, configuration).unwrap();
        // Debian has it where an ordinary user's path does not lead.
        let debians = Path::new("/usr/sbin/nginx");
        let mut nginx = if debians.is_file() { Command::new(debians) } else { program("nginx", "nginx-light") };
        nginx.arg("-p").arg(directory.path()).arg("-c").arg(file).args(["-e", "stderr"]);
        let process = Process::start(nginx);
        until(SOON, "nginx answers", || async { TcpStream::connect(address).await.ok() }).await;
        Self { _process: process, _directory: directory, address }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}
