//! `GET /frames/{session}`: every frame in order, to any number of readers, taken from nobody.

use std::time::{Duration, Instant};

use crate::harness::{
    Answer, Backend, Server,
    picture::{number_of, numbered},
};

/// The next frame's number within the session, the number in its picture, and how many were missed.
async fn next(server: &Server, after: u64, wait: u32) -> Option<(u64, u64, u64)> {
    let answer: Answer = server.get(&format!("/frames/a?after={after}&wait={wait}")).await;
    if answer.status == 204 {
        return None;
    }
    assert_eq!(answer.status, 200, "{answer:?}");
    let number = |name: &str| answer.header(name).parse::<u64>().unwrap();
    Some((number("x-frame-seq"), number_of(&answer.body), number("x-frames-missed")))
}

#[tokio::test]
async fn any_number_of_readers_get_every_frame_in_order() {
    for backend in Backend::all().await {
        let server = backend.server(&[]).await;
        let read = async |_: usize| {
            let (mut after, mut numbers) = (0, Vec::new());
            while numbers.len() < 50 {
                let (seq, number, missed) = next(&server, after, 20).await.expect("the next one comes");
                assert_eq!(missed, 0);
                after = seq;
                numbers.push(number);
            }
            assert_eq!(numbers, (0..50).collect::<Vec<_>>());
        };
        let push = async {
            for number in 0..50 {
                server.push("a", &numbered(number, 3000)).await;
                // One who takes does not disturb them.
                if number % 3 == 0 {
                    server.take("a").await.unwrap();
                }
            }
        };
        tokio::join!(push, futures_util::future::join_all((0..4).map(read)));
    }
}

#[tokio::test]
async fn a_frame_that_was_taken_can_be_read_for_2_s_more_and_then_counts_as_missed() {
    for backend in Backend::all().await {
        let server = backend.server(&[]).await;
        let first = server.push("a", &numbered(0, 1000)).await.0;
        for number in 1..6 {
            server.push("a", &numbered(number, 1000)).await;
        }
        for number in 0..4 {
            assert_eq!(server.take("a").await.map(|frame| number_of(&frame)), Some(number));
        }
        let taken = Instant::now();
        while taken.elapsed() < Duration::from_millis(1800) {
            for number in 0..6 {
                assert_eq!(next(&server, first + number - 1, 0).await, Some((first + number, number, 0)));
            }
            assert_eq!(next(&server, 0, 0).await, Some((first, 0, 0)), "nothing was missed before the first");
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        tokio::time::sleep(Duration::from_millis(900)).await;
        assert_eq!(next(&server, first, 0).await, Some((first + 4, 4, 3)));
        assert_eq!(next(&server, 0, 0).await, Some((first + 4, 4, 4)));
        assert_eq!(next(&server, first + 4, 0).await, Some((first + 5, 5, 0)));
        assert_eq!(next(&server, first + 5, 0).await, None);
    }
}

#[tokio::test]
async fn frames_beyond_the_cap_and_frames_that_expired_count_as_missed() {
    for backend in Backend::all().await {
        let server = backend.server(&[("MAX_QUEUE", "3"), ("EXPIRE", "2")]).await;
        let first = server.push("a", &numbered(0, 1000)).await.0;
        for number in 1..10 {
            server.push("a", &numbered(number, 1000)).await;
        }
        assert_eq!(next(&server, first, 0).await, Some((first + 7, 7, 6)));
        tokio::time::sleep(Duration::from_millis(1500)).await;
        server.push("a", &numbered(10, 1000)).await;
        tokio::time::sleep(Duration::from_millis(800)).await;
        assert_eq!(next(&server, first + 7, 0).await, Some((first + 10, 10, 2)), "the others have expired");
    }
}

#[tokio::test]
async fn a_cursor_into_an_earlier_life_of_a_session_counts_only_what_this_one_has_missed() {
    for backend in Backend::all().await {
        let server = backend.server(&[]).await;
        let old = server.push("a", &numbered(0, 1000)).await.0;
        server.push("a", &numbered(0, 1000)).await;
        server.take("a").await.unwrap();
        server.ask("DELETE", "/session/a").await;
        assert_eq!(next(&server, old - 1, 0).await, None, "what was taken of it is gone too");
        tokio::time::sleep(Duration::from_millis(50)).await;
        let begun = server.push("a", &numbered(1, 1000)).await.0;
        assert!(begun > old + 1, "there is a gap between {old} and {begun}");
        assert_eq!(next(&server, old, 0).await, Some((begun, 1, 0)));
    }
}

#[tokio::test]
async fn a_wait_ends_with_the_next_frame_or_with_204() {
    for backend in Backend::all().await {
        let server = backend.server(&[]).await;
        let seq = server.push("a", &numbered(0, 1000)).await.0;
        let start = Instant::now();
        let (read, ()) = tokio::join!(next(&server, seq, 20), async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            server.push("a", &numbered(1, 1000)).await;
        });
        assert_eq!(read, Some((seq + 1, 1, 0)));
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        let start = Instant::now();
        let none = server.get(&format!("/frames/a?after={}&wait=0.5", seq + 1)).await;
        assert_eq!((none.status.as_u16(), none.header("x-no-data"), none.body.len()), (204, "1", 0));
        assert!((400..3000).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
        assert_eq!(next(&server, u64::MAX, 0).await, None, "ahead of everything");
        assert_eq!(server.get("/frames/nobody").await.status, 204);
    }
}

#[tokio::test]
async fn what_it_may_not_be_asked_for_is_refused_and_named() {
    let server = Backend::Memory.server(&[]).await;
    for query in ["after=x", "after=-1", "after=1.5", "wait=61"] {
        server.get(&format!("/frames/a?{query}")).await.is_refused(400, "bad_query");
    }
}
