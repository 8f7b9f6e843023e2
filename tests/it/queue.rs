//! Push and take.

use std::time::{Duration, Instant};

use image_streamer::{
    frame::{Seq, Timestamp},
    placeholder::{self, Format, Size},
};
use tokio::io::AsyncWriteExt;

use crate::harness::{
    Answer, Backend, SOON,
    picture::{PHOTO_JPEG, PHOTO_PNG, number_of, numbered, of_every_type},
    server::{file_part, form_with},
    until,
};

#[tokio::test]
async fn pictures_come_back_unchanged_in_order_whichever_way_they_came() {
    for backend in Backend::all().await {
        let server = backend.server(&[("MIMETYPE", "auto")]).await;
        for (content_type, picture) in
            [(Some("image/jpeg"), PHOTO_JPEG), (None, PHOTO_PNG), (Some("text/plain"), PHOTO_JPEG)]
        {
            let mut request = server.request("POST", "/image/cat").body(picture);
            if let Some(content_type) = content_type {
                request = request.header("content-type", content_type);
            }
            let answer = Answer::to(request).await;
            assert_eq!((answer.status.as_u16(), answer.body.len()), (200, 0), "{answer:?}");
        }
        assert_eq!(server.ask("PUT", "/image/cat").await.error_code(), "empty_body");
        let put = Answer::to(server.request("PUT", "/image/cat").body(PHOTO_PNG)).await;
        assert_eq!(put.status, 200);
        let form = form_with("anyName", PHOTO_JPEG).text("after", "ignored");
        let form = Answer::to(server.request("POST", "/imageForm/cat").multipart(form)).await;
        assert_eq!((form.status.as_u16(), form.body.len()), (200, 0), "{form:?}");

        for expected in [PHOTO_JPEG, PHOTO_PNG, PHOTO_JPEG, PHOTO_PNG, PHOTO_JPEG] {
            assert_eq!(server.take("cat").await.as_deref(), Some(expected));
        }
        assert_eq!(server.take("cat").await, None);
    }
}

#[tokio::test]
async fn a_push_tells_its_number_and_the_queue_where_json_is_asked_for() {
    for backend in Backend::all().await {
        let server = backend.server(&[]).await;
        let mut last = None;
        for (count, accept) in
            ["application/json", "text/html, application/json;q=0.5", "application.json"].iter().enumerate()
        {
            let request = if count == 1 {
                server.request("POST", "/imageForm/a").multipart(form_with("imageFile", PHOTO_JPEG))
            } else {
                server.request("POST", "/image/a").body(PHOTO_JPEG)
            };
            let answer = Answer::to(request.header("accept", *accept)).await;
            let json = answer.json();
            assert_eq!(json.as_object().unwrap().len(), 3, "{json}");
            assert_eq!((json["queued"].as_u64(), json["dropped"].as_u64()), (Some(count as u64 + 1), Some(0)));
            let seq = Seq(json["seq"].as_u64().unwrap());
            assert!(last.is_none_or(|last: Seq| last.next() == seq), "{last:?} then {seq:?}");
            last = Some(seq);
        }
    }
}

#[tokio::test]
async fn a_taken_frame_carries_type_number_time_and_what_is_left_and_is_never_cached() {
    for backend in Backend::all().await {
        let server = backend.server(&[]).await;
        let stamped = server.request("POST", "/image/a").header("x-timestamp", "1700000000.123456").body(PHOTO_JPEG);
        assert_eq!(Answer::to(stamped).await.status, 200);
        let form =
            server.request("POST", "/imageForm/a").header("x-timestamp", "0").multipart(form_with("f", PHOTO_JPEG));
        assert_eq!(Answer::to(form).await.status, 200);
        let before = Timestamp::now();
        let seq = server.push("a", PHOTO_JPEG).await;

        let first = server.get("/image/a").await;
        assert_eq!(first.header("content-type"), "image/jpeg");
        assert_eq!(first.header("cache-control"), "no-store");
        assert_eq!(first.header("x-content-type-options"), "nosniff");
        assert!(first.header("content-security-policy").contains("sandbox"));
        assert_eq!(first.header("x-frame-seq"), (seq.0 - 2).to_string());
        assert_eq!(first.header("x-frame-timestamp"), "1700000000.123456");
        assert_eq!(first.header("x-queue-length"), "2");
        assert!(!first.has("x-no-data"));
        assert_eq!(first.body, PHOTO_JPEG);

        assert_eq!(server.get("/image/a").await.header("x-frame-timestamp"), "0.000000");
        let third = server.get("/image/a").await;
        let received: Timestamp = third.header("x-frame-timestamp").parse().unwrap();
        // The header is rounded to microseconds.
        assert!(received.seconds() >= before.seconds() - 1e-6 && received <= Timestamp::now(), "{third:?}");
        assert_eq!(third.header("x-frame-timestamp").split_once('.').unwrap().1.len(), 6);
        assert_eq!((third.header("x-frame-seq"), third.header("x-queue-length")), (seq.to_string().as_str(), "0"));
    }
}

#[tokio::test]
async fn no_data_is_a_picture_of_the_configured_size_or_204_where_asked_for() {
    for backend in Backend::all().await {
        let server = backend.server(&[("NODATA_HEIGHT", "300"), ("NODATA_ASPECT_RATIO", "3/4")]).await;
        let answer = server.get("/image/nobody?x=.mjpg").await;
        assert_eq!((answer.status.as_u16(), answer.header("x-no-data")), (200, "1"));
        assert_eq!((answer.header("content-type"), answer.header("cache-control")), ("image/jpeg", "no-store"));
        let picture = image::load_from_memory_with_format(&answer.body, image::ImageFormat::Jpeg).unwrap();
        assert_eq!((picture.width(), picture.height()), (400, 300));
        let size = Size::new(400, 300).unwrap();
        assert_eq!(answer.body, placeholder::draw("No Data", "", size, Format::Jpeg).unwrap());
        assert_eq!(server.get("/image/nobody").await.body, answer.body, "it is drawn once");

        let empty = server.get("/image/nobody?empty=204").await;
        assert_eq!((empty.status.as_u16(), empty.body.len()), (204, 0));
        assert_eq!((empty.header("cache-control"), empty.header("x-queue-length")), ("no-store", "0"));
        assert!(server.stats().await.is_empty(), "asking makes no session");
    }
}

#[tokio::test]
async fn the_type_that_is_carried_is_configured_and_others_are_refused() {
    for backend in Backend::all().await {
        for (mimetype, own, no_data) in [
            ("image/jpg", "image/jpg", "image/jpg"),
            ("image/png", "image/png", "image/png"),
            ("image/gif", "image/gif", "image/png"),
            ("image/webp", "image/webp", "image/png"),
            ("image/avif", "image/avif", "image/png"),
            ("image/bmp", "image/bmp", "image/png"),
            ("auto", "", "image/jpeg"),
        ] {
            let server = backend.server(&[("MIMETYPE", mimetype)]).await;
            let nothing = server.get("/image/a").await;
            assert_eq!(nothing.header("content-type"), no_data);
            let format = if no_data == "image/png" { image::ImageFormat::Png } else { image::ImageFormat::Jpeg };
            assert_eq!(image::load_from_memory_with_format(&nothing.body, format).unwrap().width(), 1280);
            for (kind, picture) in of_every_type() {
                let answer = server.post("/image/a", picture.clone()).await;
                let carried = mimetype == "auto" || kind == own || (own == "image/jpg" && kind == "image/jpeg");
                if carried {
                    assert_eq!(answer.status, 200, "{kind} to {mimetype}: {answer:?}");
                    let taken = server.get("/image/a").await;
                    assert_eq!(taken.header("content-type"), if own.is_empty() { kind } else { own });
                    assert_eq!(taken.body, picture);
                } else {
                    answer.is_refused(415, "wrong_type");
                    assert!(answer.text().contains(kind) && answer.text().contains(mimetype), "{answer:?}");
                }
            }
            let svg = server.post("/image/a", "<svg xmlns='http://www.w3.org/2000/svg'/>").await;
            svg.is_refused(415, "not_an_image");
        }
    }
}

#[tokio::test]
async fn head_tells_how_many_wait_and_takes_nothing() {
    for backend in Backend::all().await {
        let server = backend.server(&[]).await;
        let nothing = server.ask("HEAD", "/image/a").await;
        assert_eq!(
            (nothing.status.as_u16(), nothing.header("x-no-data"), nothing.header("x-queue-length")),
            (200, "1", "0")
        );
        server.push("a", PHOTO_JPEG).await;
        for _ in 0..3 {
            let head = server.ask("HEAD", "/image/a").await;
            assert_eq!((head.status.as_u16(), head.header("x-queue-length")), (200, "1"));
            assert_eq!((head.header("content-type"), head.header("cache-control")), ("image/jpeg", "no-store"));
            assert!(!head.has("x-no-data") && !head.has("content-length"));
        }
        assert_eq!(server.take("a").await.as_deref(), Some(PHOTO_JPEG));
    }
}

#[tokio::test]
async fn a_prefetch_takes_nothing_and_is_told_to_come_back() {
    for backend in Backend::all().await {
        let server = backend.server(&[]).await;
        server.push("a", PHOTO_JPEG).await;
        for (name, value) in
            [("sec-purpose", "prefetch"), ("sec-purpose", "prefetch;prerender"), ("purpose", "Prefetch")]
        {
            let answer = Answer::to(server.request("GET", "/image/a").header(name, value)).await;
            answer.is_refused(503, "prefetch");
            assert!(answer.has("retry-after"));
        }
        assert_eq!(server.take("a").await.as_deref(), Some(PHOTO_JPEG));
    }
}

#[tokio::test]
async fn a_taker_can_wait_for_a_frame() {
    for backend in Backend::all().await {
        let server = backend.server(&[]).await;
        let start = Instant::now();
        let (taken, ()) = tokio::join!(server.get("/image/a?wait=30"), async {
            tokio::time::sleep(Duration::from_millis(400)).await;
            server.push("a", PHOTO_JPEG).await;
        });
        assert_eq!(taken.body, PHOTO_JPEG);
        assert!(
            (Duration::from_millis(400)..Duration::from_secs(5)).contains(&start.elapsed()),
            "{:?}",
            start.elapsed()
        );

        let start = Instant::now();
        assert_eq!(server.get("/image/a?wait=0.3").await.header("x-no-data"), "1");
        assert_eq!(server.get("/image/a?wait=0.3&empty=204").await.status, 204);
        assert!(start.elapsed() >= Duration::from_millis(600));
        for bad in ["wait=61", "wait=-1", "wait=soon", "wait=NaN", "wait=", "empty=200"] {
            server.get(&format!("/image/a?{bad}")).await.is_refused(400, "bad_query");
        }
    }
}

#[tokio::test]
async fn many_can_wait_and_each_frame_wakes_one_of_them() {
    for backend in Backend::all().await {
        let server = backend.server(&[]).await;
        let waiters = (0..20).map(|_| server.get("/image/a?wait=20&empty=204"));
        let pushes = async {
            for number in 0..20 {
                server.push("a", &numbered(number, 2000)).await;
            }
        };
        let (taken, ()) = tokio::join!(futures_util::future::join_all(waiters), pushes);
        let mut numbers: Vec<_> = taken.iter().map(|answer| number_of(&answer.body)).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..20).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_waiter_that_has_gone_takes_nothing() {
    for backend in Backend::all().await {
        let server = backend.server(&[]).await;
        for _ in 0..5 {
            let mut gone = server.connect().await;
            gone.write_all(b"GET /image/a?wait=30 HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
            drop(gone);
        }
        // The connections' ends have to arrive first: nothing can be seen of that from outside.
        tokio::time::sleep(Duration::from_millis(300)).await;
        server.push("a", PHOTO_JPEG).await;
        assert_eq!(server.take("a").await.as_deref(), Some(PHOTO_JPEG));
    }
}

#[tokio::test]
async fn a_picture_of_the_largest_size_gets_through_whole() {
    for backend in Backend::all().await {
        let server = backend.server(&[]).await;
        let picture = numbered(7, 16 << 20);
        server.push("a", &picture).await;
        assert!(server.take("a").await == Some(picture.clone()));
        let form = reqwest::multipart::Form::new().part("f", file_part(&picture));
        assert_eq!(Answer::to(server.request("POST", "/imageForm/a").multipart(form)).await.status, 200);
        assert!(server.take("a").await == Some(picture));
    }
}

#[tokio::test]
async fn a_chunked_body_that_does_not_tell_its_length_is_one_picture_too() {
    for backend in Backend::all().await {
        let server = backend.server(&[]).await;
        let picture = numbered(3, 300_000);
        let chunks: Vec<_> = picture.chunks(1000).map(|chunk| Ok::<_, std::io::Error>(chunk.to_vec())).collect();
        let body = reqwest::Body::wrap_stream(futures_util::stream::iter(chunks));
        assert_eq!(server.post("/image/a", body).await.status, 200);
        assert_eq!(server.take("a").await, Some(picture));
    }
}

#[tokio::test]
async fn frames_of_one_producer_come_out_in_order_while_others_push_and_take() {
    for backend in Backend::all().await {
        let server = backend.server(&[]).await;
        let producer = async |session: &str| {
            for number in 0..100 {
                server.push(session, &numbered(number, 5000)).await;
            }
        };
        let consumer = async |session: &str| {
            let mut numbers = Vec::new();
            while numbers.len() < 100 {
                let taken = server.get(&format!("/image/{session}?wait=10&empty=204")).await;
                assert_eq!(taken.status, 200, "a frame was lost after {numbers:?}");
                numbers.push(number_of(&taken.body));
            }
            assert!(numbers.is_sorted(), "{numbers:?}");
        };
        tokio::join!(producer("a"), producer("b"), producer("c"), consumer("a"), consumer("b"), consumer("c"));
    }
}

#[tokio::test]
async fn sessions_are_apart() {
    for backend in Backend::all().await {
        let server = backend.server(&[]).await;
        for (number, session) in ["a", "A", "a.", "a-b", "a@b", "is", "sessions"].iter().enumerate() {
            server.push(session, &numbered(number as u64, 20)).await;
        }
        for (number, session) in ["a", "A", "a.", "a-b", "a@b", "is", "sessions"].iter().enumerate() {
            assert_eq!(server.take(session).await.map(|frame| number_of(&frame)), Some(number as u64));
            let empty = async || server.take(session).await.is_none().then_some(());
            until(SOON, "it held that one only", empty).await;
        }
    }
}
