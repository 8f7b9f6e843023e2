//! Certificates that a real authority issues to a real certbot, which proves by this server whose name it is.

use std::{cell::Cell, fs, time::Duration};

use crate::harness::{
    SOON, Server, Viewer,
    acme::{CAMS, Certbot, Pebble},
    picture::numbered,
    port::free_port,
    tls::first_certificate,
    until,
};

/// The time from one frame of the stream to the next.
const PAUSE: Duration = Duration::from_millis(50);

#[tokio::test]
async fn certbot_gets_a_first_certificate_and_its_renewal_and_a_running_stream_loses_nothing() {
    let challenge_port = free_port();
    let (certbot, authority) = (Certbot::new(), Pebble::asking(challenge_port).await);
    let variables = [
        ("TLS_CERT", &*certbot.certificate()),
        ("TLS_KEY", &certbot.key()),
        ("ACME_WEBROOT", &certbot.webroot()),
        ("HTTP_REDIRECT_PORT", &challenge_port.to_string()),
    ];
    let mut server = Server::start(&variables).await;
    let (trust, address) = (authority.trust().await, server.address());
    server.trust(trust.clone());
    assert_eq!(trust.shown(address).await, None);

    certbot.obtain(&authority).await;
    let issued = || first_certificate(&fs::read_to_string(certbot.certificate()).unwrap());
    let first = issued();
    let shown = async |certificate: &[u8]| {
        until(SOON, "the certificate is shown", || async {
            (trust.shown(address).await.as_deref() == Some(certificate)).then_some(())
        })
        .await;
    };
    shown(&first).await;

    let mut viewer = Viewer::open(&server, "/stream/a?repeat=0").await;
    assert_eq!(viewer.part().await.seq(), None);
    let renewed = Cell::new(false);
    let renewal = async {
        certbot.renew(&authority).await;
        let second = issued();
        assert_ne!(first, second);
        shown(&second).await;
        renewed.set(true);
    };
    let streaming = async {
        let mut seqs = Vec::new();
        // Some more, after the new certificate is there.
        let mut after = 0;
        for number in 0.. {
            let pushed = server.push("a", &numbered(number, 50_000)).await;
            let part = viewer.part().await;
            assert_eq!((part.number(), part.seq()), (number, Some(pushed.0)));
            seqs.push(pushed.0);
            after += u32::from(renewed.get());
            if after == 10 {
                return seqs;
            }
            tokio::time::sleep(PAUSE).await;
        }
        unreachable!("the numbers do not end")
    };
    let (seqs, ()) = tokio::join!(streaming, renewal);
    assert!(seqs.len() > 20, "the stream ran all the while: {} frames", seqs.len());
    assert!(seqs.windows(2).all(|pair| pair[1] == pair[0] + 1), "{seqs:?}");
}

#[tokio::test]
async fn challenges_are_answered_on_the_main_port_too_whatever_the_base_path() {
    let port = free_port();
    let (certbot, authority) = (Certbot::new(), Pebble::asking(port).await);
    let variables = [("ACME_WEBROOT", &*certbot.webroot()), ("BASE_PATH", "/cams")];
    let server = Server::start_with(&["--ip", "127.0.0.1", "--port", &port.to_string()], &variables).await;
    certbot.obtain(&authority).await;
    let issued = fs::read_to_string(certbot.certificate()).unwrap();
    assert!(first_certificate(&issued).windows(CAMS.len()).any(|bytes| bytes == CAMS.as_bytes()));
    drop(server);
}
