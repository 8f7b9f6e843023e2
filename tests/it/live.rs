//! `GET /stream/{session}`: MJPEG to any number of viewers.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::harness::{
    Backend, SOON, Server, Viewer,
    picture::{PHOTO_JPEG, PHOTO_PNG, numbered},
    scale, until,
    viewer::Part,
};

/// Less than the time to the next repetition of a part.
const MOMENT: Duration = Duration::from_millis(100);

#[tokio::test]
async fn a_stream_begins_at_once_with_the_headers_that_clients_know_and_the_newest_frame() {
    for backend in Backend::all().await {
        let server = backend.server(&[]).await;
        for number in 0..3 {
            server.push("a", &numbered(number, 50_000)).await;
        }
        let stamped = server.request("POST", "/image/a").header("x-timestamp", "1700000000.123456");
        stamped.body(numbered(3, 50_000)).send().await.unwrap();
        let seq = server.get("/stats").await.json()["sessions"][0]["seq"].as_u64();

        let mut viewer = Viewer::open(&server, "/stream/a?x=.mjpg&cache=123").await;
        assert!(viewer.head_after < Duration::from_millis(500), "{:?}", viewer.head_after);
        assert!(viewer.head.starts_with("HTTP/1.1 200 OK\r\n"), "{}", viewer.head);
        let head = viewer.head.to_ascii_lowercase();
        for line in [
            "content-type: multipart/x-mixed-replace;boundary=boundarydonotcross",
            "cache-control: no-store, no-cache, must-revalidate, max-age=0",
            "pragma: no-cache",
            "connection: close",
            "x-accel-buffering: no",
            "access-control-allow-origin: *",
        ] {
            // A browser says where it comes from; this client does not.
            let expected = !line.starts_with("access-control");
            assert!(head.contains(&format!("\r\n{line}\r\n")) || !expected, "{line} is not in {head}");
        }
        assert!(!head.contains("transfer-encoding") && !head.contains("content-length"), "{head}");

        let part = viewer.part().await;
        assert_eq!((part.number(), part.seq()), (3, seq));
        assert_eq!(part.headers["content-type"], "image/jpeg");
        assert_eq!(part.headers["x-timestamp"], "1700000000.123456", "the time of capture");
        assert_eq!(part.picture, numbered(3, 50_000));
        assert_eq!(server.stats().await, [("a".into(), 4)], "nothing was taken");

        let peek = server.ask("HEAD", "/stream/a").await;
        assert_eq!((peek.status.as_u16(), peek.body.len()), (200, 0));
        assert_eq!(peek.header("content-type"), "multipart/x-mixed-replace;boundary=boundarydonotcross");
    }
}

#[tokio::test]
async fn every_viewer_sees_every_frame_as_it_comes() {
    for backend in Backend::all().await {
        let server = backend.server(&[]).await;
        server.push("other", &numbered(999, 1000)).await;
        let mut viewers = Vec::new();
        for _ in 0..5 {
            viewers.push(Viewer::open(&server, "/stream/a?repeat=0").await);
        }
        for viewer in &mut viewers {
            assert_eq!(viewer.part().await.seq(), None, "the No Data picture");
        }
        let mut last = None;
        for number in 0..20 * scale() as u64 {
            let seq = server.push("a", &numbered(number, 20_000)).await.0;
            assert!(last.is_none_or(|last| seq == last + 1));
            last = Some(seq);
            for viewer in &mut viewers {
                let part = viewer.part_within(Duration::from_secs(1)).await.expect("it is live");
                assert_eq!((part.number(), part.seq()), (number, Some(seq)));
            }
        }
        for number in 0..20 * scale() as u64 {
            assert_eq!(server.take("a").await, Some(numbered(number, 20_000)), "and the queue is as it was");
        }
    }
}

#[tokio::test]
async fn where_nothing_was_pushed_the_no_data_picture_is_shown_and_then_the_first_frame() {
    for backend in Backend::all().await {
        let server = backend.server(&[("NODATA_HEIGHT", "90")]).await;
        let no_data = server.get("/image/a").await.body;
        let mut viewer = Viewer::open(&server, "/stream/a").await;
        let part = viewer.part().await;
        assert_eq!((part.seq(), part.headers["content-type"].as_str()), (None, "image/jpeg"));
        assert_eq!(part.picture, no_data);
        server.push("a", &numbered(1, 1000)).await;
        viewer.part_with(1).await;
    }
}

#[tokio::test]
async fn a_frame_that_is_stale_gives_way_to_the_no_data_picture_and_a_new_one_to_live() {
    for backend in Backend::all().await {
        let server = backend.server(&[("STALE_AFTER", "1")]).await;
        server.push("a", &numbered(1, 1000)).await;
        let pushed = Instant::now();
        let mut viewer = Viewer::open(&server, "/stream/a?repeat=0").await;
        assert_eq!(viewer.part().await.number(), 1);
        assert_eq!(viewer.part().await.seq(), None);
        let after = pushed.elapsed();
        assert!((900..1500).contains(&after.as_millis()), "{after:?}");
        let mut late = Viewer::open(&server, "/stream/a?repeat=0").await;
        assert_eq!(late.part().await.seq(), None, "a stale frame is not shown to begin with");
        server.push("a", &numbered(2, 1000)).await;
        assert_eq!(viewer.part().await.number(), 2);
        assert_eq!(late.part().await.number(), 2);
    }
}

#[tokio::test]
async fn who_asks_for_the_last_frame_sees_it_until_it_expires() {
    for backend in Backend::all().await {
        let server = backend.server(&[("STALE_AFTER", "0.5"), ("EXPIRE", "2")]).await;
        server.push("a", &numbered(1, 1000)).await;
        let pushed = Instant::now();
        let mut viewer = Viewer::open(&server, "/stream/a?offline=last&repeat=0").await;
        assert_eq!(viewer.part().await.number(), 1);
        assert!(viewer.part_within(Duration::from_millis(1200)).await.is_none(), "stale, and still shown");
        let mut late = Viewer::open(&server, "/stream/a?offline=last&repeat=0").await;
        assert_eq!(late.part().await.number(), 1);
        // A frame that is gone is not shown for ever: whoever follows looks for it every 5 s.
        assert_eq!(viewer.part().await.seq(), None);
        let after = pushed.elapsed();
        assert!((1800..8000).contains(&after.as_millis()), "{after:?}");
    }
}

#[tokio::test]
async fn who_asks_for_the_end_gets_it_when_the_camera_falls_silent() {
    for backend in Backend::all().await {
        let server = backend.server(&[("STALE_AFTER", "1")]).await;
        let start = Instant::now();
        let mut early = Viewer::open(&server, "/stream/a?offline=close").await;
        assert!(early.ended_within(SOON).await.is_empty(), "no camera at all");
        assert!((900..2000).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());

        server.push("a", &numbered(1, 1000)).await;
        let start = Instant::now();
        let mut viewer = Viewer::open(&server, "/stream/a?offline=close&repeat=0").await;
        let parts = viewer.ended_within(SOON).await;
        assert_eq!(parts.iter().map(Part::number).collect::<Vec<_>>(), [1]);
        assert!((900..2000).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    }
}

#[tokio::test]
async fn a_part_is_sent_again_after_150_ms_of_silence_and_then_every_2_s_unless_that_is_not_wanted() {
    let server = Backend::Memory.server(&[]).await;
    let seq = server.push("a", &numbered(1, 1000)).await.0;
    let mut viewer = Viewer::open(&server, "/stream/a").await;
    let mut recorder = Viewer::open(&server, "/stream/a?repeat=0").await;
    assert_eq!(viewer.part().await.seq(), Some(seq));
    assert_eq!(recorder.part().await.seq(), Some(seq));
    let mut last = Instant::now();
    for wanted in [150, 2000, 2000] {
        assert_eq!(viewer.part().await.seq(), Some(seq), "the same number: it is the same frame");
        let pause = last.elapsed().as_millis();
        assert!((wanted - 50..wanted + 300).contains(&pause), "{pause} ms, not {wanted}");
        last = Instant::now();
    }
    assert!(recorder.part_within(MOMENT).await.is_none(), "a recorder gets each frame once");
    server.push("a", &numbered(2, 1000)).await;
    assert_eq!(viewer.part().await.number(), 2);
    let first = Instant::now();
    assert_eq!(viewer.part().await.number(), 2);
    assert!(first.elapsed() < Duration::from_millis(500), "a new frame is soon sent again too");
    assert_eq!(recorder.part().await.number(), 2);
}

#[tokio::test]
async fn a_viewer_may_limit_its_rate_and_then_sees_the_newest_frame_each_time() {
    let server = Backend::Memory.server(&[]).await;
    let mut all = Viewer::open(&server, "/stream/a?repeat=0").await;
    let mut some = Viewer::open(&server, "/stream/a?repeat=0&fps=5").await;
    assert_eq!((all.part().await.seq(), some.part().await.seq()), (None, None));
    let start = Instant::now();
    for number in 0..60 {
        server.push("a", &numbered(number, 1000)).await;
        tokio::time::sleep_until((start + Duration::from_millis(number * 33)).into()).await;
    }
    let count = async |viewer: &mut Viewer| {
        let mut numbers = Vec::new();
        while let Some(part) = viewer.part_within(Duration::from_millis(500)).await {
            numbers.push(part.number());
        }
        numbers
    };
    let (all, some) = (count(&mut all).await, count(&mut some).await);
    assert_eq!(all, (0..60).collect::<Vec<_>>());
    assert!((9..=12).contains(&some.len()), "2 s at 5 fps: {some:?}");
    assert!(some.is_sorted() && some.last() == Some(&59), "{some:?}");
    // A pause is not made up for.
    let mut few = Viewer::open(&server, "/stream/b?repeat=0&fps=1").await;
    assert_eq!(few.part().await.seq(), None);
    server.push("b", &numbered(0, 1000)).await;
    assert_eq!(few.part().await.number(), 0);
    tokio::time::sleep(Duration::from_millis(2500)).await;
    for number in 1..3 {
        server.push("b", &numbered(number, 1000)).await;
    }
    assert_eq!(few.part().await.number(), 1);
    let first = Instant::now();
    assert_eq!(few.part().await.number(), 2);
    assert!(first.elapsed() > Duration::from_millis(800), "{:?}", first.elapsed());
}

#[tokio::test]
async fn what_a_viewer_may_not_ask_for_is_refused_and_named() {
    let server = Backend::Memory.server(&[]).await;
    for query in ["fps=0", "fps=61", "fps=x", "offline=never", "repeat=2", "repeat=no"] {
        let answer = server.get(&format!("/stream/a?{query}")).await;
        answer.is_refused(400, "bad_query");
        assert!(answer.text().contains(query.split('=').next().unwrap()), "{}", answer.text());
    }
    server.get("/stream/a%20b").await.is_refused(400, "bad_session");
}

#[tokio::test]
async fn viewers_of_a_session_that_is_removed_are_told_at_once_and_see_it_begin_again() {
    for backend in Backend::all().await {
        let server = backend.server(&[]).await;
        server.push("a", &numbered(1, 1000)).await;
        let mut viewer = Viewer::open(&server, "/stream/a?repeat=0&offline=last").await;
        assert_eq!(viewer.part().await.number(), 1);
        assert_eq!(server.ask("DELETE", "/session/a").await.status, 204);
        let part = viewer.part_within(Duration::from_secs(1)).await.expect("something else");
        assert_eq!(part.seq(), None);
        server.push("a", &numbered(2, 1000)).await;
        assert_eq!(viewer.part().await.number(), 2);
        let skipped = server.metric(r#"image_streamer_frames_dropped_total{reason="slow_viewer"}"#).await;
        assert_eq!(skipped, 0.0, "its numbers have made a leap, and no viewer was too slow");
    }
}

#[tokio::test]
async fn a_slow_viewer_skips_to_the_newest_frame_and_delays_nobody() {
    for backend in Backend::all().await {
        let server = backend.server(&[]).await;
        // Far more than any buffer between here and there holds.
        let size = 1_000_000;
        let mut slow = Viewer::open(&server, "/stream/a?repeat=0").await;
        assert_eq!(slow.part().await.seq(), None);
        let mut quick = Viewer::open(&server, "/stream/a?repeat=0").await;
        assert_eq!(quick.part().await.seq(), None);
        for number in 0..40 {
            let start = Instant::now();
            server.push("a", &numbered(number, size)).await;
            let part = quick.part_within(Duration::from_secs(1)).await.expect("nobody waits for a slow viewer");
            assert_eq!(part.number(), number);
            assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
        }
        let mut seen = Vec::new();
        while let Some(part) = slow.part_within(Duration::from_secs(1)).await {
            seen.push(part.number());
        }
        assert!(seen.is_sorted() && seen.last() == Some(&39), "{seen:?}");
        assert!(seen.len() < 20, "what it was too slow for was skipped, not kept: {seen:?}");
        let skipped = server.metric(r#"image_streamer_frames_dropped_total{reason="slow_viewer"}"#).await;
        assert_eq!(skipped as usize, 40 - seen.len());
    }
}

#[tokio::test]
async fn a_viewer_that_leaves_is_gone_within_a_second() {
    for backend in Backend::all().await {
        let server = backend.server(&[]).await;
        server.push("a", &numbered(1, 1000)).await;
        let mut viewers = Vec::new();
        for path in ["/stream/a", "/stream/a?repeat=0", "/stream/b", "/stream/a?fps=0.1"] {
            viewers.push(Viewer::open(&server, path).await);
        }
        let counts = async |wanted: f64, at_a: &str| {
            until(Duration::from_secs(1), format!("{wanted} viewers"), || async {
                (server.metric("image_streamer_viewers").await == wanted).then_some(())
            })
            .await;
            until(SOON, format!("{at_a} viewers of a"), || async {
                let answer = server.post("/image/a", numbered(2, 1000)).await;
                (answer.header("x-viewers") == at_a).then_some(())
            })
            .await;
        };
        counts(4.0, "3").await;
        assert_eq!(server.get("/stats").await.json()["sessions"][0]["viewers"], 3);
        viewers.remove(0);
        counts(3.0, "2").await;
        viewers.clear();
        counts(0.0, "0").await;
    }
}

#[tokio::test]
async fn a_viewer_that_stops_reading_is_dropped_after_30_s_and_holds_nobody_up_until_then() {
    let server = Backend::Memory.server(&[]).await;
    let stalled = Viewer::open(&server, "/stream/a?repeat=0").await;
    let start = Instant::now();
    let mut number = 0;
    until(Duration::from_secs(45), "the stalled viewer is dropped", || {
        number += 1;
        let (server, number) = (&server, number);
        async move {
            server.push("a", &numbered(number, 1_000_000)).await;
            server.take("a").await.unwrap();
            tokio::time::sleep(Duration::from_millis(300)).await;
            (server.metric("image_streamer_viewers").await == 0.0).then_some(())
        }
    })
    .await;
    assert!(start.elapsed() > Duration::from_secs(28), "{:?}", start.elapsed());
    drop(stalled);
}

#[tokio::test]
async fn a_client_of_http_1_0_gets_parts_without_chunks() {
    for backend in Backend::all().await {
        let server = backend.server(&[]).await;
        server.push("a", &numbered(1, 1000)).await;
        let mut viewer = Viewer::request(&server, "GET /stream/a?repeat=0 HTTP/1.0\r\n\r\n").await;
        assert!(!viewer.head.to_ascii_lowercase().contains("chunked"), "{}", viewer.head);
        assert_eq!(viewer.part().await.number(), 1);
        for number in 2..5 {
            server.push("a", &numbered(number, 1000)).await;
            assert_eq!(viewer.part().await.number(), number);
        }
    }
}

#[tokio::test]
async fn parts_have_the_type_of_their_picture_and_jpeg_has_the_one_name_that_ffmpeg_takes() {
    for (mimetype, pictures) in [
        ("image/png", &[(PHOTO_PNG, "image/png")][..]),
        ("image/jpg", &[(PHOTO_JPEG, "image/jpeg")]),
        ("auto", &[(PHOTO_JPEG, "image/jpeg"), (PHOTO_PNG, "image/png")]),
    ] {
        let server = Backend::Memory.server(&[("MIMETYPE", mimetype)]).await;
        let mut viewer = Viewer::open(&server, "/stream/a?repeat=0").await;
        let no_data = if mimetype == "image/png" { "image/png" } else { "image/jpeg" };
        assert_eq!(viewer.part().await.headers["content-type"], no_data);
        for (picture, kind) in pictures {
            server.push("a", picture).await;
            let part = viewer.part().await;
            assert_eq!((part.headers["content-type"].as_str(), &part.picture[..]), (*kind, *picture));
        }
    }
}

#[tokio::test]
async fn streams_end_when_the_server_does() {
    let mut server: Server = Backend::Memory.server(&[]).await;
    server.push("a", &numbered(1, 1000)).await;
    let mut viewer = Viewer::open(&server, "/stream/a").await;
    viewer.part_with(1).await;
    let start = Instant::now();
    server.process().signal(Signal::SIGTERM);
    viewer.ended_within(Duration::from_secs(2)).await;
    let (status, _) = server.into_process().ended_within(Duration::from_secs(3)).await;
    assert!(status.success() && start.elapsed() < Duration::from_secs(3), "{status} {:?}", start.elapsed());
}

#[tokio::test]
async fn frames_that_stalled_viewers_hold_have_a_bound_and_nobody_else_pays_for_it() {
    let variables = [("MAX_IMAGE_BYTES", "4MiB"), ("MAX_INFLIGHT_BYTES", "12MiB")];
    let server = Backend::Memory.server(&variables).await;
    let mut healthy = Viewer::open(&server, "/stream/other?repeat=0").await;
    let mut rare = Viewer::open(&server, "/stream/a?fps=0.1").await;
    assert_eq!((healthy.part().await.seq(), rare.part().await.seq()), (None, None));
    let mut stalled = Vec::new();
    for number in 0..6 {
        // Each of them holds another frame.
        stalled.push(Viewer::open(&server, "/stream/a?repeat=0").await);
        server.push("a", &numbered(number, 4_000_000)).await;
        server.take("a").await.unwrap();
    }
    let is_full = async || server.request("GET", "/stream/a").send().await.unwrap().status() == 503;
    until(SOON, "one too many is refused", || async {
        server.push("a", &numbered(9, 4_000_000)).await;
        is_full().await.then_some(())
    })
    .await;
    server.get("/stream/a").await.is_refused(503, "busy");
    assert!(server.resident_bytes() < 120 << 20, "{} bytes", server.resident_bytes());
    for number in 0..20 {
        server.push("other", &numbered(number, 50_000)).await;
        let part = healthy.part_within(Duration::from_secs(1)).await.expect("others are not held up");
        assert_eq!(part.number(), number);
    }
    assert_eq!(rare.part().await.number(), 0);
    // Those who have stalled are dropped sooner than usual, and then there is room again.
    until(SOON, "there is room again", || async { (!is_full().await).then_some(()) }).await;
    until(SOON, "most of the stalled are gone", || async {
        // Three of them fit.
        (server.metric("image_streamer_viewers").await <= 5.0).then_some(())
    })
    .await;
    server.push("other", &numbered(20, 50_000)).await;
    assert_eq!(healthy.part().await.number(), 20);
    drop(stalled);
}

#[tokio::test]
async fn as_many_sessions_can_be_watched_as_there_may_be() {
    for backend in Backend::all().await {
        let server = backend.server(&[("MAX_SESSIONS", "2")]).await;
        let first = Viewer::open(&server, "/stream/a").await;
        let _others = [Viewer::open(&server, "/stream/b").await, Viewer::open(&server, "/stream/a").await];
        server.get("/stream/c").await.is_refused(503, "too_many_sessions");
        drop((first, _others));
        until(SOON, "there is room again", || async {
            (server.request("GET", "/stream/c").send().await.unwrap().status() == 200).then_some(())
        })
        .await;
    }
}
