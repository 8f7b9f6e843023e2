//! What a `REDIS_URL` may say: a user, a password, a database, TLS.

use std::fs;

use crate::harness::{Backend, RedisServer, Server, picture::PHOTO_JPEG, port::free_port, tls::CertificateFiles};

/// Pushes and takes, with a wait for which the server listens over a connection of its own.
async fn serves(server: &Server) {
    let (taken, ()) = tokio::join!(server.get("/image/a?wait=30&empty=204"), async {
        // The server listens by then, as a rule; if not, it finds the frame all the same.
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        server.push("a", PHOTO_JPEG).await;
    });
    assert_eq!(taken.status, 200);
    assert!(taken.body == PHOTO_JPEG);
}

#[tokio::test]
async fn user_password_and_database_are_used_on_every_connection() {
    let redis = RedisServer::start().await;
    let acl = ["ACL", "SETUSER", "streamer", "on", ">s3cret/:@", "~is:*", "&is:*", "+@all"];
    let _: String = redis.command(&acl).await;
    let url = |password: &str| format!("redis://streamer:{password}@127.0.0.1:{}/5", redis.port());
    let server = Server::start(&[("REDIS_URL", &url("s3cret%2F%3A%40")), ("REDIS_HOST", "nowhere.invalid")]).await;
    serves(&server).await;
    let clients: String = redis.command(&["CLIENT", "LIST"]).await;
    let own: Vec<_> = clients.lines().filter(|line| line.contains("user=streamer")).collect();
    assert!(own.len() >= 2 && own.iter().all(|line| line.contains(" db=5 ")), "{clients}");

    let stranger = Server::start(&[("REDIS_URL", &url("wrong"))]).await;
    stranger.post("/image/a", PHOTO_JPEG).await.is_refused(503, "store_unavailable");
}

#[tokio::test]
async fn rediss_is_tls_with_the_systems_certificates_and_no_others() {
    let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, pem: String| {
        let path = directory.path().join(name).to_str().unwrap().to_owned();
        fs::write(&path, pem).unwrap();
        path
    };
    let trusted = file("cert.pem", certificate.cert.pem());
    let key = file("key.pem", certificate.signing_key.serialize_pem());
    let port = free_port().to_string();
    let tls = [
        ["--tls-port", &port],
        ["--tls-cert-file", &trusted],
        ["--tls-key-file", &key],
        ["--tls-ca-cert-file", &trusted],
        ["--tls-auth-clients", "no"],
    ];
    let redis = RedisServer::start_with(tls.concat().into_iter().map(str::to_owned).collect()).await;
    let url = format!("rediss://localhost:{port}/");
    let server = Server::start(&[("REDIS_URL", &url), ("SSL_CERT_FILE", &trusted)]).await;
    serves(&server).await;

    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let other = file("other.pem", other.cert.pem());
    let server = Server::start(&[("REDIS_URL", &url), ("SSL_CERT_FILE", &other)]).await;
    server.post("/image/a", PHOTO_JPEG).await.is_refused(503, "store_unavailable");
    // It is the certificate: over a plain connection this Redis would serve.
    serves(&Backend::Redis(Box::new(redis)).server(&[]).await).await;
}

#[tokio::test]
async fn rediss_is_checked_against_a_ca_of_ones_own_on_every_connection() {
    let files = CertificateFiles::new();
    let port = free_port().to_string();
    let tls = [
        ["--tls-port", &port],
        ["--tls-cert-file", &files.certificate()],
        ["--tls-key-file", &files.key()],
        ["--tls-ca-cert-file", &files.ca()],
        ["--tls-auth-clients", "no"],
    ];
    let redis = RedisServer::start_with(tls.concat().into_iter().map(str::to_owned).collect()).await;
    let url = format!("rediss://localhost:{port}/");
    let server = Server::start(&[("REDIS_URL", &url), ("REDIS_CA_FILE", &files.ca())]).await;
    serves(&server).await;
    // Requests and notices.
    let clients: String = redis.command(&["CLIENT", "LIST"]).await;
    assert!(clients.lines().filter(|line| line.contains("resp=3")).count() >= 2, "{clients}");

    let other = CertificateFiles::new();
    let server = Server::start(&[("REDIS_URL", &url), ("REDIS_CA_FILE", &other.ca())]).await;
    server.post("/image/a", PHOTO_JPEG).await.is_refused(503, "store_unavailable");
    server.get("/image/a?wait=1").await.is_refused(503, "store_unavailable");
    // It says nothing about a connection in plain.
    let plain = redis.url();
    serves(&Server::start(&[("REDIS_URL", &plain), ("REDIS_CA_FILE", &other.ca())]).await).await;
}
