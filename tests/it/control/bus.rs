//! The contract of the bus, for each backend.

use std::{sync::Arc, time::Duration};

use image_streamer::{
    error::Error,
    session::SessionId,
    store::{
        StoreLimits,
        bus::{Claim, Command, CommandBus, Heard, Hold, MAX_VEHICLES, MemoryBus, Operator, Sent, Side, VehicleNote},
        redis::RedisStore,
    },
};
use tokio::time::{Instant, sleep, timeout};

use crate::harness::{RedisServer, SOON};

/// Two replicas of each backend; those of memory are one.
async fn buses(redis: &RedisServer) -> [[Arc<dyn CommandBus>; 2]; 2] {
    let limits = StoreLimits { ttl: Duration::from_secs(60), max_queue: 10, max_sessions: 10 };
    let memory: Arc<dyn CommandBus> = Arc::new(MemoryBus::default());
    let on_redis = || -> Arc<dyn CommandBus> { Arc::new(RedisStore::new(&redis.url(), None, limits, 1).unwrap()) };
    [[memory.clone(), memory], [on_redis(), on_redis()]]
}

fn operator(name: &str) -> Operator {
    Operator { id: format!("id-of-{name}").into(), name: name.into() }
}

fn commands(of: &Operator, texts: &[&'static str], received: Instant) -> Vec<Command> {
    let command = |text: &&'static str| {
        let (operator, bytes) = (of.id.clone(), (*text).into());
        Command { operator, received, is_text: true, bytes }
    };
    texts.iter().map(command).collect()
}

const NOTE: VehicleNote =
    VehicleNote { lease: Duration::from_millis(250), round_trip: Some(Duration::from_micros(12_500)), dropped: 3 };

#[actix_web::test]
async fn only_who_holds_the_wheel_is_heard_and_everything_comes_in_order() {
    let redis = RedisServer::start().await;
    for [one, other] in buses(&redis).await {
        let session: SessionId = "car".parse().unwrap();
        let (ann, bob) = (operator("ann"), operator("bob"));
        let mut ear = other.listen(&session, Side::Vehicle).await.unwrap();
        let say = async |bus: &Arc<dyn CommandBus>, who: &Operator, claim, texts: &[&'static str]| {
            let now = Instant::now();
            let commands = commands(who, texts, now);
            let sent = bus.send(&session, who, claim, Hold::Connection, &commands, now + SOON).await.unwrap();
            let Sent::Now(standing) = sent else { panic!("late") };
            standing.driver.map(|driver| driver.name.to_string())
        };
        assert_eq!(say(&one, &ann, Claim::Keep, &["a0"]).await, None);
        assert_eq!(say(&one, &ann, Claim::IfFreeAndListening, &["a0"]).await, None);
        other.note_vehicle(&session, "v", Some(NOTE)).await.unwrap();
        assert_eq!(say(&one, &ann, Claim::IfFreeAndListening, &["a1", "a2"]).await.as_deref(), Some("ann"));
        assert_eq!(say(&other, &bob, Claim::IfFree, &["b0"]).await.as_deref(), Some("ann"));
        assert_eq!(say(&other, &bob, Claim::Take, &["b1"]).await.as_deref(), Some("bob"));
        assert_eq!(say(&one, &ann, Claim::Keep, &["a3"]).await.as_deref(), Some("bob"));
        one.leave(&session, &ann).await.unwrap();
        other.leave(&session, &bob).await.unwrap();
        assert_eq!(say(&one, &ann, Claim::IfFree, &["a4", ""]).await.as_deref(), Some("ann"));
        let mut heard = Vec::new();
        while heard.len() < 6 {
            match timeout(SOON, ear.next()).await.expect("it is heard") {
                Heard::Command(command) => {
                    assert!(command.is_text && command.age() < Duration::from_secs(2), "{command:?}");
                    heard.push(String::from_utf8(command.bytes.to_vec()).unwrap());
                }
                Heard::Left(who) => heard.push(format!("{who} left")),
                what => panic!("{what:?} is not for vehicles"),
            }
        }
        assert_eq!(heard, ["a1", "a2", "b1", "id-of-bob left", "a4", ""]);
        sleep(Duration::from_millis(50)).await;
        assert_eq!(ear.take(), None);
    }
}

#[actix_web::test]
async fn a_command_never_seems_younger_than_it_is_and_one_that_is_late_is_not_handed_on() {
    let redis = RedisServer::start().await;
    for [one, other] in buses(&redis).await {
        let (session, ann) = ("car".parse::<SessionId>().unwrap(), operator("ann"));
        let mut ear = other.listen(&session, Side::Vehicle).await.unwrap();
        let begun = Instant::now();
        let send = async |received: Instant, latest: Instant| {
            let commands = commands(&ann, &["go"], received);
            one.send(&session, &ann, Claim::IfFree, Hold::Connection, &commands, latest).await.unwrap()
        };
        // The connection is made by then.
        send(begun, begun + SOON).await;
        let Heard::Command(_) = timeout(SOON, ear.next()).await.unwrap() else { panic!("a command") };
        for age in [0, 40, 300] {
            let received = Instant::now() - Duration::from_millis(age);
            send(received, received + SOON).await;
            let Heard::Command(command) = timeout(SOON, ear.next()).await.unwrap() else { panic!("a command") };
            assert!(command.received <= received, "by {:?}", command.received - received);
            assert!(received - command.received < Duration::from_millis(50), "{:?}", received - command.received);
        }
        let now = Instant::now();
        sleep(Duration::from_millis(20)).await;
        assert_eq!(send(now, now).await, Sent::Late);
        assert_eq!(ear.take(), None);
    }
    // What waited in a Redis that hung is too late when it goes on.
    let [_, [one, other]] = buses(&redis).await;
    let (session, ann) = ("truck".parse::<SessionId>().unwrap(), operator("ann"));
    let mut ear = other.listen(&session, Side::Vehicle).await.unwrap();
    let now = Instant::now();
    one.send(&session, &ann, Claim::Take, Hold::Connection, &[], now).await.unwrap();
    redis.freeze();
    let now = Instant::now();
    let commands = commands(&ann, &["go"], now);
    let latest = now + Duration::from_millis(300);
    let send = one.send(&session, &ann, Claim::Keep, Hold::Connection, &commands, latest);
    let thaw = async {
        sleep(Duration::from_millis(500)).await;
        redis.thaw();
    };
    let (sent, ()) = tokio::join!(send, thaw);
    assert!(!matches!(sent, Ok(Sent::Now(_))), "{sent:?}");
    sleep(Duration::from_millis(100)).await;
    assert_eq!(ear.take(), None);
}

#[actix_web::test]
async fn vehicles_are_known_everywhere_until_they_go_and_there_are_only_so_many() {
    let redis = RedisServer::start().await;
    for [one, other] in buses(&redis).await {
        let (session, ann) = ("car".parse::<SessionId>().unwrap(), operator("ann"));
        let mut ear = other.listen(&session, Side::Operator).await.unwrap();
        let standing = async || {
            let now = Instant::now();
            match other.send(&session, &ann, Claim::Keep, Hold::Connection, &[], now).await.unwrap() {
                Sent::Now(standing) => standing.vehicles,
                Sent::Late => panic!("nothing is late"),
            }
        };
        one.note_vehicle(&session, "v", Some(NOTE)).await.unwrap();
        assert_eq!(timeout(SOON, ear.next()).await.unwrap(), Heard::Changed);
        assert_eq!(standing().await, [("v".to_owned(), NOTE)]);
        let later = VehicleNote { round_trip: None, dropped: 4, ..NOTE };
        one.note_vehicle(&session, "v", Some(later)).await.unwrap();
        assert_eq!(standing().await, [("v".to_owned(), later)]);
        for number in 1..MAX_VEHICLES {
            one.note_vehicle(&session, &number.to_string(), Some(NOTE)).await.unwrap();
        }
        let one_more = one.note_vehicle(&session, "more", Some(NOTE)).await;
        assert!(matches!(one_more, Err(Error::ControlFull { limit: MAX_VEHICLES })), "{one_more:?}");
        one.note_vehicle(&session, "v", Some(NOTE)).await.unwrap();
        one.note_vehicle(&session, "v", None).await.unwrap();
        assert_eq!(standing().await.len(), MAX_VEHICLES - 1);
        // Those of which nothing more is noted are forgotten.
        sleep(Duration::from_millis(3200)).await;
        assert_eq!(standing().await, []);
        for what in
            [Heard::Telemetry { vehicle: "v".into(), text: "7.4 V".into() }, Heard::LeaseEnded { vehicle: "v".into() }]
        {
            one.tell(&session, what.clone()).await.unwrap();
            let heard = async { while ear.next().await != what {} };
            timeout(SOON, heard).await.expect("it is heard");
        }
    }
}
