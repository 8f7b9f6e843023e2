//! Several servers on one Redis.

use std::{collections::BTreeSet, time::Duration};

use crate::harness::{
    RedisServer,
    picture::{PHOTO_JPEG, number_of, numbered},
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
