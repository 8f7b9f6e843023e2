//! The contract of `FrameStore`, checked for every backend through the trait itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use image_streamer::{
    frame::{Frame, ImageType, NewFrame, Seq, Timestamp},
    session::SessionId,
    store::{FrameStore, StoreLimits, TAKEN_GRACE, memory::MemoryStore, redis::RedisStore},
};

use crate::harness::{
    RedisServer,
    picture::{number_of, numbered},
    scale,
};

const LIMITS: StoreLimits = StoreLimits { ttl: Duration::from_secs(60), max_queue: 1_000_000, max_sessions: 10_000 };

/// A store, and the Redis that must live as long.
struct Backend {
    name: &'static str,
    store: Arc<dyn FrameStore>,
    _redis: Option<RedisServer>,
}

async fn backends(limits: StoreLimits) -> [Backend; 2] {
    let redis = RedisServer::start().await;
    let on_redis = RedisStore::new(&redis.url(), None, limits, 4).unwrap();
    [
        Backend { name: "memory", store: Arc::new(MemoryStore::new(limits, 1 << 30)), _redis: None },
        Backend { name: "redis", store: Arc::new(on_redis), _redis: Some(redis) },
    ]
}

fn session(name: &str) -> SessionId {
    name.parse().unwrap()
}

fn frame(number: u64) -> NewFrame {
    NewFrame { bytes: numbered(number, 500).into(), kind: ImageType::Jpeg, captured: None }
}

fn number(frame: &Frame) -> u64 {
    number_of(&frame.bytes)
}

/// Many producers, sessions and takers at once: each frame comes out once, none is lost, and every taker sees the frames
/// of every producer in the order in which they were pushed.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn with_many_concurrent_takers_each_frame_comes_out_once_and_in_order() {
    const PRODUCERS: u64 = 8;
    const TAKERS: usize = 16;
    const SESSIONS: u64 = 3;
    let frames = 300 * scale() as u64;
    for Backend { name, store, .. } in backends(LIMITS).await {
        let producing = Arc::new(AtomicUsize::new(PRODUCERS as usize));
        let producers = (0..PRODUCERS).map(|producer| {
            let (store, producing) = (store.clone(), producing.clone());
            tokio::spawn(async move {
                let id = session(&format!("s{}", producer % SESSIONS));
                let mut last = Seq(0);
                for number in 0..frames {
                    let pushed = store.push(&id, frame(producer << 32 | number)).await.unwrap();
                    let seq = pushed.seq;
                    assert!(seq > last, "numbers grow");
                    last = seq;
                }
                producing.fetch_sub(1, Ordering::SeqCst);
            })
        });
        let producers: Vec<_> = producers.collect();
        let takers = (0..TAKERS).map(|taker| {
            let (store, producing) = (store.clone(), producing.clone());
            tokio::spawn(async move {
                let session = session(&format!("s{}", taker as u64 % SESSIONS));
                let mut taken = Vec::new();
                loop {
                    let over = producing.load(Ordering::SeqCst) == 0;
                    match store.take(&session).await.unwrap() {
                        Some(it) => taken.push((it.frame.seq, number_of(&it.frame.bytes))),
                        None if over => return taken,
                        None => tokio::task::yield_now().await,
                    }
                }
            })
        });
        let takers: Vec<_> = takers.collect();
        for producer in producers {
            producer.await.unwrap();
        }
        let mut all = BTreeSet::new();
        for taker in takers {
            let taken = taker.await.unwrap();
            assert!(taken.is_sorted_by_key(|(seq, _)| *seq), "{name}: a taker sees numbers grow");
            let mut last_of_producer = BTreeMap::new();
            for (_, number) in taken {
                assert!(all.insert(number), "{name}: {number:x} came out twice");
                let last = last_of_producer.insert(number >> 32, number);
                assert!(last.is_none_or(|last| last < number), "{name}: order of a producer");
            }
        }
        assert_eq!(all.len() as u64, PRODUCERS * frames, "{name}: none is lost");
    }
}

#[tokio::test]
async fn a_frame_comes_back_with_all_that_was_said_of_it() {
    for Backend { name, store, .. } in backends(LIMITS).await {
        for (number, kind) in ImageType::ALL.into_iter().enumerate() {
            let captured = Timestamp::from_seconds(1_700_000_000.5 + number as f64);
            let bytes = Bytes::from(vec![number as u8; 1000 * number + 1]);
            let pushed = store.push(&session("a"), NewFrame { bytes: bytes.clone(), kind, captured }).await.unwrap();
            assert_eq!((pushed.queued, pushed.dropped), (1, 0));
            let taken = store.take(&session("a")).await.unwrap().unwrap();
            assert_eq!((taken.frame.seq, taken.left), (pushed.seq, 0), "{name}");
            assert_eq!(
                (taken.frame.kind, taken.frame.bytes, Some(taken.frame.captured)),
                (kind, bytes, captured),
                "{name}"
            );
        }
    }
}

#[tokio::test]
async fn numbers_grow_by_one_and_begin_at_the_current_time_in_microseconds() {
    for Backend { name, store, .. } in backends(LIMITS).await {
        let now = (Timestamp::now().seconds() * 1e6) as u64;
        let first = store.push(&session("a"), frame(0)).await.unwrap().seq;
        assert!(first.0.abs_diff(now) < 60_000_000, "{name}: {first} at {now}");
        for number in 1..20 {
            assert_eq!(store.push(&session("a"), frame(number)).await.unwrap().seq.0, first.0 + number, "{name}");
        }
    }
}

#[tokio::test]
async fn numbers_do_not_go_back_when_a_session_ends_and_begins_again() {
    let limits = StoreLimits { ttl: Duration::from_millis(300), ..LIMITS };
    for Backend { name, store, .. } in backends(limits).await {
        let mut last = Seq(0);
        for _ in 0..3 {
            for number in 0..50 {
                let seq = store.push(&session("a"), frame(number)).await.unwrap().seq;
                assert!(seq > last, "{name}: {seq} after {last}");
                last = seq;
            }
            tokio::time::sleep(Duration::from_millis(400)).await;
            assert!(store.stats().await.unwrap().is_empty(), "{name}: it has ended");
        }
    }
}

#[tokio::test]
async fn a_notice_wakes_who_listens_to_that_session_and_nobody_else() {
    for Backend { name, store, .. } in backends(LIMITS).await {
        let mut mine = store.notices(&session("mine")).await.unwrap();
        let mut too = store.notices(&session("mine")).await.unwrap();
        let mut others = store.notices(&session("other")).await.unwrap();
        store.push(&session("mine"), frame(1)).await.unwrap();
        for notices in [&mut mine, &mut too] {
            assert!(tokio::time::timeout(Duration::from_secs(5), notices.next()).await.expect(name).is_some());
        }
        let silence = tokio::time::timeout(Duration::from_millis(300), others.next()).await;
        assert!(silence.is_err(), "{name}: nothing was pushed there");
        drop((mine, too));
        store.push(&session("other"), frame(2)).await.unwrap();
        assert!(tokio::time::timeout(Duration::from_secs(5), others.next()).await.expect(name).is_some());
    }
}

#[tokio::test]
async fn counts_stay_exact_through_pushes_takes_expiry_and_caps() {
    let limits = StoreLimits { ttl: Duration::from_millis(800), max_queue: 5, ..LIMITS };
    for Backend { name, store, .. } in backends(limits).await {
        let a = session("a");
        for number in 0..8 {
            let pushed = store.push(&a, frame(number)).await.unwrap();
            assert_eq!(
                (pushed.queued, pushed.dropped),
                ((number as usize + 1).min(5), usize::from(number >= 5)),
                "{name}"
            );
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(number_of(&store.take(&a).await.unwrap().unwrap().frame.bytes), 3, "{name}");
        let pushed = store.push(&a, frame(8)).await.unwrap();
        assert_eq!((pushed.queued, pushed.dropped), (5, 0), "{name}");
        tokio::time::sleep(Duration::from_millis(400)).await;
        assert_eq!(store.queued(&a).await.unwrap(), 1, "{name}: the old ones have expired");
        let pushed = store.push(&a, frame(9)).await.unwrap();
        assert_eq!((pushed.queued, pushed.dropped), (2, 0), "{name}");
        let taken = store.take(&a).await.unwrap().unwrap();
        assert_eq!((number_of(&taken.frame.bytes), taken.left), (8, 1), "{name}");
    }
}

/// A frame is never taken after its time, also while many look at the moment at which it ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_frame_is_taken_after_its_time() {
    let ttl = Duration::from_millis(300);
    for Backend { name, store, .. } in backends(StoreLimits { ttl, ..LIMITS }).await {
        for round in 0..3 {
            let id = session(&format!("r{round}"));
            store.push(&id, frame(round)).await.unwrap();
            let pushed = Instant::now();
            tokio::time::sleep(ttl - Duration::from_millis(20)).await;
            let found = Arc::new(AtomicBool::new(false));
            let lookers: Vec<_> = (0..4)
                .map(|_| {
                    let (store, id, found) = (store.clone(), id.clone(), found.clone());
                    tokio::spawn(async move {
                        while pushed.elapsed() < ttl + Duration::from_millis(200) {
                            let asked = pushed.elapsed();
                            if store.take(&id).await.unwrap().is_some() {
                                // Redis counts in whole milliseconds.
                                assert!(asked <= ttl + Duration::from_millis(2), "taken {asked:?} after the push");
                                assert!(!found.swap(true, Ordering::SeqCst), "taken twice");
                            }
                        }
                    })
                })
                .collect();
            for looker in lookers {
                looker.await.expect(name);
            }
        }
    }
}

#[tokio::test]
async fn a_taken_frame_leaves_redis_after_its_grace_although_the_session_goes_on() {
    let redis = RedisServer::start().await;
    let store = RedisStore::new(&redis.url(), None, LIMITS, 1).unwrap();
    let id = session("a");
    // A consumer that keeps up: each frame is the newest when it is taken.
    for number in 0..20 {
        store.push(&id, frame(number)).await.unwrap();
        store.take(&id).await.unwrap().unwrap();
    }
    let mut long_lived = 0;
    for key in redis.command::<Vec<String>>(&["KEYS", "is:{a}:f:*"]).await {
        long_lived += usize::from(redis.command::<i64>(&["PTTL", &key]).await > 2000);
    }
    assert_eq!(long_lived, 1, "only the newest keeps its whole life");
}

#[tokio::test]
async fn reading_takes_nothing_and_shows_the_newest_a_certain_one_and_the_next() {
    for Backend { name, store, .. } in backends(LIMITS).await {
        let a = session("a");
        assert!(store.newest(&a, None).await.unwrap().is_none(), "{name}");
        assert!(store.after(&a, Seq(0)).await.unwrap().is_none(), "{name}");
        let first = store.push(&a, frame(0)).await.unwrap().seq;
        for number in 1..5 {
            store.push(&a, frame(number)).await.unwrap();
        }
        let last = Seq(first.0 + 4);
        for _ in 0..2 {
            let newest = store.newest(&a, None).await.unwrap().unwrap();
            assert_eq!((newest.seq, newest.frame.map(|frame| number(&frame))), (last, Some(4)), "{name}");
            assert!(newest.age < Duration::from_secs(2), "{name}: {:?}", newest.age);
            let known = store.newest(&a, Some(last)).await.unwrap().unwrap();
            assert!(known.frame.is_none() && known.seq == last && known.received == newest.received, "{name}");
            for offset in 0..5 {
                let seen = store.get(&a, Seq(first.0 + offset)).await.unwrap().unwrap();
                assert_eq!((seen.frame.seq.0, number(&seen.frame)), (first.0 + offset, offset), "{name}");
                let next = store.after(&a, Seq(first.0 + offset - 1)).await.unwrap().unwrap();
                assert_eq!((next.frame.seq.0, next.missed), (first.0 + offset, 0), "{name}");
            }
            assert!(store.get(&a, last.next()).await.unwrap().is_none(), "{name}");
            assert!(store.after(&a, last).await.unwrap().is_none(), "{name}");
        }
        assert_eq!(store.queued(&a).await.unwrap(), 5, "{name}");
    }
}

#[tokio::test]
async fn a_taken_frame_can_be_read_for_its_grace_and_the_newest_for_its_life() {
    for Backend { name, store, .. } in backends(LIMITS).await {
        let a = session("a");
        let first = store.push(&a, frame(0)).await.unwrap().seq;
        store.push(&a, frame(1)).await.unwrap();
        for wanted in 0..2 {
            assert_eq!(number(&store.take(&a).await.unwrap().unwrap().frame), wanted, "{name}");
        }
        let grace = TAKEN_GRACE - Duration::from_millis(300);
        tokio::time::sleep(grace).await;
        assert!(store.get(&a, first).await.unwrap().is_some(), "{name}");
        tokio::time::sleep(TAKEN_GRACE - grace + Duration::from_millis(200)).await;
        assert!(store.get(&a, first).await.unwrap().is_none(), "{name}: it has had its time");
        assert!(store.newest(&a, None).await.unwrap().is_some(), "{name}: the newest has not");
        // Now it is not the newest any more.
        let third = store.push(&a, frame(2)).await.unwrap().seq;
        assert!(store.get(&a, first.next()).await.unwrap().is_some(), "{name}");
        tokio::time::sleep(TAKEN_GRACE + Duration::from_millis(200)).await;
        assert!(store.get(&a, first.next()).await.unwrap().is_none(), "{name}");
        let next = store.after(&a, first).await.unwrap().unwrap();
        assert_eq!((next.frame.seq, next.missed), (third, 1), "{name}");
    }
}

#[tokio::test]
async fn a_rate_is_measured_anew_after_a_long_pause() {
    for Backend { name, store, .. } in backends(LIMITS).await {
        let a = session("a");
        store.push(&a, frame(0)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(10_200)).await;
        assert_eq!(store.stats().await.unwrap()[0].fps, 0.0, "{name}");
        let start = Instant::now();
        for number in 1..=10 {
            tokio::time::sleep_until((start + Duration::from_millis(number * 100)).into()).await;
            store.push(&a, frame(number)).await.unwrap();
        }
        let fps = store.stats().await.unwrap()[0].fps;
        assert!((9.0..11.0).contains(&fps), "{name}: {fps}");
    }
}

#[tokio::test]
async fn viewers_are_counted_as_they_were_noted_and_rates_as_frames_came() {
    for Backend { name, store, .. } in backends(LIMITS).await {
        let (a, b) = (session("a"), session("b"));
        store.note_viewers(&[(a.clone(), 3), (b.clone(), 1)]).await.unwrap();
        assert_eq!(store.push(&a, frame(0)).await.unwrap().viewers, 3, "{name}");
        store.note_viewers(&[(a.clone(), 2), (b.clone(), 0)]).await.unwrap();
        assert_eq!(store.push(&b, frame(0)).await.unwrap().viewers, 0, "{name}");
        let start = Instant::now();
        let mut seq = Seq(0);
        for number in 1..=25 {
            tokio::time::sleep_until((start + Duration::from_millis(number * 100)).into()).await;
            seq = store.push(&a, frame(number)).await.unwrap().seq;
        }
        let stats = store.stats().await.unwrap();
        let of_a = stats.iter().find(|stats| stats.session == a).unwrap();
        assert_eq!((of_a.seq, of_a.viewers), (seq, 2), "{name}");
        assert!((9.0..11.0).contains(&of_a.fps), "{name}: {}", of_a.fps);
        assert!(of_a.age < Duration::from_secs(1), "{name}: {:?}", of_a.age);
        assert_eq!(store.sessions().await.unwrap(), 2, "{name}");
        let of_b = stats.iter().find(|stats| stats.session == b).unwrap();
        assert!(of_b.fps == 0.0 && of_b.age > Duration::from_secs(2), "{name}: {of_b:?}");
    }
}
