//! `GET /snapshot/{session}`: the newest frame, not taken.

use std::time::{Duration, Instant};

use crate::harness::{
    Answer, Backend,
    picture::{number_of, numbered},
};

#[tokio::test]
async fn the_newest_frame_is_shown_to_everybody_and_not_taken() {
    for backend in Backend::all().await {
        let server = backend.server(&[]).await;
        for number in 0..3 {
            server.push("a", &numbered(number, 5000)).await;
        }
        let seq = server.push("a", &numbered(3, 5000)).await;
        for _ in 0..3 {
            let answer = server.get("/snapshot/a").await;
            assert_eq!((answer.status.as_u16(), number_of(&answer.body)), (200, 3));
            assert_eq!(answer.header("x-frame-seq"), seq.to_string());
            assert_eq!(answer.header("content-type"), "image/jpeg");
            assert_eq!(answer.header("cache-control"), "no-store");
            assert!(answer.header("x-frame-timestamp").parse::<f64>().unwrap() > 1.7e9);
        }
        let peek = server.ask("HEAD", "/snapshot/a").await;
        assert_eq!((peek.header("x-frame-seq"), peek.body.len()), (seq.to_string().as_str(), 0));
        assert_eq!(server.stats().await, [("a".into(), 4)]);
        for number in 0..4 {
            assert_eq!(server.take("a").await.map(|frame| number_of(&frame)), Some(number));
        }
        tokio::time::sleep(Duration::from_millis(2500)).await;
        assert_eq!(number_of(&server.get("/snapshot/a").await.body), 3, "though it was taken a while ago");
    }
}

#[tokio::test]
async fn its_age_is_told_and_may_be_limited() {
    for backend in Backend::all().await {
        let server = backend.server(&[]).await;
        let before = Instant::now();
        // The time of capture is a label: no age is counted from it.
        let stamped = server.request("POST", "/image/a").header("x-timestamp", "5.5").body(numbered(1, 1000));
        assert_eq!(Answer::to(stamped).await.status, 200);
        tokio::time::sleep(Duration::from_millis(1100)).await;
        let answer = server.get("/snapshot/a").await;
        assert_eq!(answer.header("x-frame-timestamp"), "5.500000");
        let age = answer.header("x-frame-age-ms").parse::<u128>().unwrap();
        assert!((1090..=before.elapsed().as_millis()).contains(&age), "{age} ms");

        let fresh = server.get("/snapshot/a?max_age=100").await;
        assert_eq!(number_of(&fresh.body), 1);
        let old = server.get("/snapshot/a?max_age=1").await;
        assert_eq!((old.status.as_u16(), old.header("x-no-data")), (200, "1"));
        assert_eq!(old.header("content-type"), "image/jpeg");
        assert!(!old.has("etag") && !old.has("x-frame-seq"));
        assert_eq!(old.body, server.get("/image/nobody").await.body, "the same No Data picture");
        assert_eq!(server.get("/snapshot/a?max_age=1&empty=204").await.status, 204);

        let start = Instant::now();
        let (waited, ()) = tokio::join!(server.get("/snapshot/a?max_age=1&wait=10"), async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            server.push("a", &numbered(2, 1000)).await;
        });
        assert_eq!(number_of(&waited.body), 2);
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        let start = Instant::now();
        assert_eq!(server.get("/snapshot/b?wait=0.5").await.header("x-no-data"), "1");
        assert!((400..3000).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    }
}

#[tokio::test]
async fn a_client_that_has_it_is_told_so_and_gets_the_next_one() {
    for backend in Backend::all().await {
        let server = backend.server(&[]).await;
        let seq = server.push("a", &numbered(1, 1000)).await;
        let tag = server.get("/snapshot/a").await.header("etag").to_owned();
        assert!(tag.starts_with('"') && tag.ends_with('"'), "{tag}");
        let ask =
            async |tags: &str| Answer::to(server.request("GET", "/snapshot/a").header("if-none-match", tags)).await;
        for tags in [&tag, &format!("W/{tag}"), &format!("\"other\", {tag}"), "*"] {
            let answer = ask(tags).await;
            assert_eq!((answer.status.as_u16(), answer.body.len()), (304, 0), "{tags}");
            assert_eq!((answer.header("etag"), answer.header("x-frame-seq")), (tag.as_str(), seq.to_string().as_str()));
            assert!(answer.header("x-frame-age-ms").parse::<u64>().is_ok());
        }
        let other_life = format!("\"{seq}-1\"");
        for tags in ["\"1-2\"", "\"x\"", &other_life] {
            assert_eq!(number_of(&ask(tags).await.body), 1, "{tags}");
        }
        server.push("a", &numbered(2, 1000)).await;
        let next = ask(&tag).await;
        assert_eq!((next.status.as_u16(), number_of(&next.body)), (200, 2));
        assert_ne!(next.header("etag"), tag);
    }
}

#[tokio::test]
async fn there_is_none_after_it_has_expired_or_been_removed() {
    for backend in Backend::all().await {
        let server = backend.server(&[("EXPIRE", "1")]).await;
        server.push("a", &numbered(1, 1000)).await;
        server.take("a").await.unwrap();
        assert_eq!(number_of(&server.get("/snapshot/a").await.body), 1);
        tokio::time::sleep(Duration::from_millis(1300)).await;
        assert_eq!(server.get("/snapshot/a").await.header("x-no-data"), "1");
        server.push("b", &numbered(1, 1000)).await;
        server.ask("DELETE", "/session/b").await;
        assert_eq!(server.get("/snapshot/b").await.header("x-no-data"), "1");
    }
}

#[tokio::test]
async fn what_it_may_not_be_asked_for_is_refused_and_named() {
    let server = Backend::Memory.server(&[]).await;
    for query in ["wait=61", "wait=-1", "max_age=-1", "max_age=x", "empty=yes"] {
        server.get(&format!("/snapshot/a?{query}")).await.is_refused(400, "bad_query");
    }
}
