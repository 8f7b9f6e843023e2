//! HTTPS: the certificate, which may change while the server runs, and the handshake that makes a TCP connection an
//! encrypted one.
//!
//! Every handshake is given the certificate as it is then; connections that are open already are not touched by a new one.

use std::{fmt, io, sync::Arc, time::Duration};

use anyhow::Context;
use rustls::{
    Error as TlsError, InconsistentKeys, ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Semaphore,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{
    config::{Tls, TlsFiles},
    reload::{Contents, Reloading},
};

/// How long a client may take from connecting to the end of the handshake.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Handshakes that are under way at once, for each worker thread. Who comes then waits. Clients that have not sent a byte yet
/// do not count.
const MAX_HANDSHAKES: usize = 1024;
/// Encrypted bytes that one connection holds while its client does not take them.
const BUFFER_BYTES: usize = 64 * 1024;
/// The first byte of every TLS connection: a record that belongs to a handshake.
const HANDSHAKE_RECORD: u8 = 0x16;
/// What who speaks plain HTTP is told.
const USE_HTTPS: &str = "this port speaks HTTPS: use https:// in place of http://\n";
/// How much is read of a request that came without encryption, in bytes, and for how long. If it were not read at all, the
/// client would see a reset in place of the answer.
const PLAIN_BYTES: u64 = 64 * 1024;
/// See [`PLAIN_BYTES`].
const PLAIN_TIME: Duration = Duration::from_secs(1);

/// What all connections share: the certificate and the rules.
#[derive(Clone)]
pub struct Https {
    acceptor: TlsAcceptor,
}

impl Https {
    /// Reads certificate and key and watches their files from then on, on the current Tokio runtime.
    ///
    /// Where `ACME_WEBROOT` is set and a file is not there yet, it starts without: handshakes fail until there are both.
    ///
    /// # Errors
    /// When there is no certificate, or none with its key; the message names the file.
    pub fn new(files: &TlsFiles, config: &Tls) -> anyhow::Result<Self> {
        let provider = Arc::new(ring::default_provider());
        let paths = [&files.certificate, &files.key];
        // What cannot be looked at may well be there.
        let awaited = config.acme_webroot.is_some() && paths.iter().any(|path| matches!(path.try_exists(), Ok(false)));
        if awaited {
            tracing::info!(
                "HTTPS waits for its first certificate: until TLS_CERT and TLS_KEY are there, every handshake fails"
            );
        }
        let (parsing, files) = (provider.clone(), files.clone());
        let parse = move |contents: &Contents| certified_key(&files, contents, &parsing).map(Some);
        let certificate = Reloading::new("HTTPS", paths.map(Clone::clone).to_vec(), parse, awaited.then_some(None))
            .map_err(anyhow::Error::msg)
            .context("HTTPS")?;
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13, &TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Certificate(certificate)));
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        // A client that comes again need not be remembered here: it brings what is needed for a short handshake.
        server.ticketer = ring::Ticketer::new()?;
        // By TLS 1.3 tickets come after the handshake, and FFmpeg never reads while it pushes: when it hangs up, what it has not
        // read makes its system reset the connection, and what it sent last would be lost on the way.
        server.send_tls13_tickets = 0;
        Ok(Self { acceptor: Arc::new(server).into() })
    }

    /// The same for one worker thread, with places of its own for handshakes.
    #[must_use]
    pub fn for_worker(&self) -> Handshakes {
        Handshakes { acceptor: self.acceptor.clone(), places: Arc::new(Semaphore::new(MAX_HANDSHAKES)) }
    }
}

/// The handshakes of one worker thread.
#[derive(Clone)]
pub struct Handshakes {
    acceptor: TlsAcceptor,
    places: Arc<Semaphore>,
}

impl Handshakes {
    /// Makes a connection an encrypted one. A client that speaks plain HTTP is told what to do.
    ///
    /// # Errors
    /// When the handshake fails, or is not done within [`HANDSHAKE_TIMEOUT`].
    pub async fn accept(&self, tcp: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        timeout(HANDSHAKE_TIMEOUT, self.accept_at_leisure(tcp)).await?
    }

    async fn accept_at_leisure(&self, tcp: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let speaks_tls = speaks_tls(&tcp).await?;
        let _place = self.places.acquire().await.map_err(io::Error::other)?;
        if !speaks_tls {
            refuse_plain(tcp).await?;
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the client does not speak TLS"));
        }
        self.acceptor.accept_with(tcp, |session| session.set_buffer_limit(Some(BUFFER_BYTES))).await
    }
}

/// Whether a connection begins as TLS does. Nothing is read of it.
///
/// # Errors
/// When it ends before its first byte, or that takes longer than [`HANDSHAKE_TIMEOUT`].
pub async fn speaks_tls(tcp: &TcpStream) -> io::Result<bool> {
    let mut first = [0];
    match timeout(HANDSHAKE_TIMEOUT, tcp.peek(&mut first)).await?? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(first == [HANDSHAKE_RECORD]),
    }
}

async fn refuse_plain(mut tcp: TcpStream) -> io::Result<()> {
    let head = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n";
    let answer = format!("{head}Content-Length: {}\r\n\r\n{USE_HTTPS}", USE_HTTPS.len());
    tcp.write_all(answer.as_bytes()).await?;
    tcp.shutdown().await?;
    let mut rest = tcp.take(PLAIN_BYTES);
    timeout(PLAIN_TIME, tokio::io::copy(&mut rest, &mut tokio::io::sink())).await??;
    Ok(())
}

/// The certificate for whoever asks next; none while the first is awaited.
struct Certificate(Reloading<Option<Arc<CertifiedKey>>>);

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Certificate")
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Option::clone(&self.0.get())
    }
}

/// What the two files mean together, or what is wrong with which.
fn certified_key(
    files: &TlsFiles,
    contents: &Contents,
    provider: &CryptoProvider,
) -> Result<Arc<CertifiedKey>, String> {
    let [certificate, key] = &contents[..] else { return Err("expected two files".to_owned()) };
    let certificate = certificate.as_ref().map_err(|missing| {
        format!("TLS_CERT: {missing}; expected a file with the certificate chain in PEM form that this user may read")
    })?;
    let key = key.as_ref().map_err(|missing| {
        format!("TLS_KEY: {missing}; expected a file with the private key in PEM form that this user may read")
    })?;
    let in_certificate = |fault: &str| {
        let file = files.certificate.display();
        format!("TLS_CERT: {file} {fault}; expected the certificate chain in PEM form, the server's own first")
    };
    let in_key = |fault: &str| {
        let file = files.key.display();
        format!("TLS_KEY: {file} {fault}; expected an RSA, ECDSA or Ed25519 key in PEM form, without a password")
    };
    let chain: Vec<_> = CertificateDer::pem_slice_iter(certificate)
        .collect::<Result<_, _>>()
        .map_err(|fault| in_certificate(&format!("is not in PEM form ({fault})")))?;
    let Some(own) = chain.first() else { return Err(in_certificate("holds no certificate")) };
    rustls::server::ParsedCertificate::try_from(own)
        .map_err(|fault| in_certificate(&format!("holds a certificate that cannot be read ({fault})")))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|fault| match fault {
        pem::Error::NoItemsFound => in_key("holds no private key"),
        fault => in_key(&format!("is not in PEM form ({fault})")),
    })?;
    CertifiedKey::from_der(chain, key, provider).map(Arc::new).map_err(|fault| match fault {
        TlsError::InconsistentKeys(InconsistentKeys::KeyMismatch) => format!(
            "TLS_KEY: {} is not the key of the certificate in {} (TLS_CERT); expected the two that were made together",
            files.key.display(),
            files.certificate.display()
        ),
        fault => in_key(&format!("holds a key that cannot be used ({fault})")),
    })
}
