//! Several servers on one Redis.

use std::{collections::BTreeSet, time::Duration};

use crate::harness::{
    RedisServer,
    picture::{PHOTO_JPEG, number_of, numbered},
    scale,
};

#[tokio::test]
async fn what_one_server_takes_in_the_other_gives_out() {
    let redis = RedisServer::start().await;
    let (one, other) = (redis.server(&[]).await, redis.server(&[]).await);
    for number in 0..10 {
        let (from, to) = if number % 2 == 0 { (&one, &other) } else { (&other, &one) };
        from.push("a", &numbered(number, 1000)).await;
        assert_eq!(to.stats().await, [("a".into(), 1)]);
        assert_eq!(to.take("a").await.map(|frame| number_of(&frame)), Some(number));
    }
    let first = one.push("b", PHOTO_JPEG).await;
    assert_eq!(other.push("b", PHOTO_JPEG).await, first.next(), "numbers are the session's, not a server's");
}

#[tokio::test]
async fn a_push_to_one_server_wakes_a_waiter_at_the_other() {
    let redis = RedisServer::start().await;
    let (one, other) = (redis.server(&[]).await, redis.server(&[]).await);
    for number in 0..5 {
        let (taken, ()) = tokio::join!(one.get("/image/a?wait=20"), async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            other.push("a", &numbered(number, 1000)).await;
        });
        assert_eq!(number_of(&taken.body), number);
    }
}

#[tokio::test]
async fn takers_at_two_servers_never_get_the_same_frame() {
    let redis = RedisServer::start().await;
    let servers = [redis.server(&[]).await, redis.server(&[]).await];
    for number in 0..200 {
        servers[number as usize % 2].push("a", &numbered(number, 1000)).await;
    }
    let taker = async |index: usize| {
        let mut numbers = Vec::new();
        while let Some(frame) = servers[index % 2].take("a").await {
            numbers.push(number_of(&frame));
        }
        assert!(numbers.is_sorted());
        numbers
    };
    let taken = futures_util::future::join_all((0..8).map(taker)).await.concat();
    assert_eq!(taken.len(), 200);
    assert_eq!(taken.into_iter().collect::<BTreeSet<_>>(), (0..200).collect());
}

#[tokio::test]
async fn a_session_that_one_server_removed_is_listed_again_by_a_push_to_the_other() {
    let redis = RedisServer::start().await;
    let (one, other) = (redis.server(&[]).await, redis.server(&[]).await);
    for _ in 0..3 {
        one.push("a", PHOTO_JPEG).await;
        assert_eq!(other.ask("DELETE", "/session/a").await.status, 204);
        assert!(one.stats().await.is_empty());
        // This one wrote the session's entry a moment ago and would not write it again so soon.
        one.push("a", PHOTO_JPEG).await;
        assert_eq!(other.stats().await, [("a".into(), 1)]);
    }
}

#[tokio::test]
async fn a_session_that_is_removed_and_pushed_to_at_once_is_listed_if_it_exists() {
    let redis = RedisServer::start().await;
    let (one, other) = (redis.server(&[]).await, redis.server(&[]).await);
    let mut survived = 0;
    for round in 0..200 * scale() {
        let session = format!("s{round}");
        let (image, path) = (format!("/image/{session}"), format!("/session/{session}"));
        one.push(&session, PHOTO_JPEG).await;
        let (pushed, removed) = tokio::join!(one.post(&image, PHOTO_JPEG), other.ask("DELETE", &path));
        assert_eq!((pushed.status.as_u16(), removed.status.as_u16()), (200, 204));
        let listed = one.stats().await;
        let exists = one.take(&session).await.is_some();
        assert_eq!(listed, if exists { vec![(session.clone(), 1)] } else { vec![] });
        one.ask("DELETE", &path).await;
        survived += usize::from(exists);
    }
    assert!(survived > 0, "at times the push comes after the removal");
}

#[tokio::test]
async fn very_many_waits_for_many_sessions_are_all_woken_through_the_other_server() {
    let redis = RedisServer::start().await;
    let (one, other) = (redis.server(&[]).await, redis.server(&[]).await);
    let (one, other) = (&one, &other);
    let sessions = 0..500_u64;
    let waits = sessions.clone().map(async |session| one.get(&format!("/image/s{session}?wait=30")).await);
    let waits = futures_util::future::join_all(waits);
    let pushes = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        for session in sessions.clone() {
            other.push(&format!("s{session}"), &numbered(session, 1000)).await;
        }
    };
    let (taken, ()) = tokio::join!(waits, pushes);
    for (session, answer) in sessions.zip(taken) {
        assert_eq!((answer.status.as_u16(), number_of(&answer.body)), (200, session));
    }
}
