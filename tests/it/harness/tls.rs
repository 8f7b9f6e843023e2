//! Certificates of the tests' own, and connections that are encrypted.

use std::{fs, net::SocketAddr, path::PathBuf, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::Server;

/// The name that certificates are for, as a rule.
pub const NAME: &str = "localhost";

/// A certificate authority.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, as PEM.
pub struct Issued {
    pub certificate: String,
    pub key: String,
}

impl Issued {
    /// The certificate as it goes over the wire.
    pub fn der(&self) -> Vec<u8> {
        first_certificate(&self.certificate)
    }
}

/// The first certificate of a chain in PEM form.
pub fn first_certificate(pem: &str) -> Vec<u8> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec()
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "The test's authority");
        params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::CrlSign];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Its own certificate.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A new certificate for the local host.
    pub fn issue(&self) -> Issued {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([NAME.to_owned(), "127.0.0.1".to_owned()]).unwrap();
        params.use_authority_key_identifier_extension = true;
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Issued { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

/// The files that a server with HTTPS is told of, and the authority that they come from.
pub struct CertificateFiles {
    pub authority: Authority,
    directory: TempDir,
}

impl CertificateFiles {
    /// With a certificate in them.
    pub fn new() -> Self {
        let files = Self::none_yet();
        files.renew();
        files
    }

    /// Not there yet.
    pub fn none_yet() -> Self {
        let (authority, directory) = (Authority::new(), tempfile::tempdir().unwrap());
        fs::write(directory.path().join("ca.pem"), authority.pem()).unwrap();
        Self { authority, directory }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// The authority's certificate, for clients.
    pub fn ca(&self) -> String {
        self.text("ca.pem")
    }

    pub fn certificate(&self) -> String {
        self.text("cert.pem")
    }

    pub fn key(&self) -> String {
        self.text("key.pem")
    }

    /// Puts a new certificate and its key into the files. What it is on the wire.
    pub fn renew(&self) -> Vec<u8> {
        let issued = self.authority.issue();
        fs::write(self.certificate(), &issued.certificate).unwrap();
        fs::write(self.key(), &issued.key).unwrap();
        issued.der()
    }

    /// A server with these files, whose clients trust the authority.
    pub async fn server(&self, variables: &[(&str, &str)]) -> Server {
        let (certificate, key) = (self.certificate(), self.key());
        let variables = [&[("TLS_CERT", certificate.as_str()), ("TLS_KEY", key.as_str())], variables].concat();
        let mut server = Server::start(&variables).await;
        server.trust(Trust::new(NAME, &self.authority.pem()));
        server
    }
}

/// Whom a client trusts, and what it calls the server.
#[derive(Clone)]
pub struct Trust {
    pub name: String,
    pub roots: RootCertStore,
}

impl Trust {
    pub fn new(name: &str, roots_pem: &str) -> Self {
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(roots_pem.as_bytes()) {
            roots.add(root.unwrap()).unwrap();
        }
        Self { name: name.to_owned(), roots }
    }

    /// Rules for a client that remembers no earlier handshake.
    pub fn config(&self) -> ClientConfig {
        ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth()
    }

    /// An encrypted connection, once the server has shown a certificate that is trusted.
    pub async fn connect(&self, address: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
        self.connect_by(self.config(), address).await
    }

    /// The same by other rules.
    pub async fn connect_by(&self, rules: ClientConfig, address: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(self.name.clone()).unwrap();
        TlsConnector::from(Arc::new(rules)).connect(name, TcpStream::connect(address).await?).await
    }

    /// The certificate that new handshakes are shown, if one is and it is trusted.
    pub async fn shown(&self, address: SocketAddr) -> Option<Vec<u8>> {
        let stream = self.connect(address).await.ok()?;
        let (_, session) = stream.get_ref();
        Some(session.peer_certificates()?.first()?.to_vec())
    }
}
