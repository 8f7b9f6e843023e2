//! The parts alone: push and take on each store, drawing a placeholder, telling a picture's type.
//!
//! `cargo bench`. It starts a `redis-server` of its own.

#![allow(missing_docs, reason = "criterion's macros make public functions")]
#![allow(clippy::expect_used, reason = "a bench that cannot be set up stops, as a test does")]

use std::{
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use image_streamer::{
    frame::{ImageType, NewFrame},
    placeholder::{self, Format, Size},
    session::SessionId,
    store::{FrameStore, StoreLimits, memory::MemoryStore, redis::RedisStore},
};
use tokio::runtime::Runtime;

const LIMITS: StoreLimits = StoreLimits { ttl: Duration::from_secs(600), max_queue: 1000, max_sessions: 1000 };
const SIZES: [usize; 3] = [10 << 10, 100 << 10, 1 << 20];

/// A Redis that ends with the bench.
struct Redis {
    process: Child,
    url: String,
}

impl Redis {
    fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a free port").port();
        let process = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is needed: apt-get install -y redis-server");
        let deadline = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "redis-server answers");
        }
        Self { process, url: format!("redis://127.0.0.1:{port}/") }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn frame(size: usize) -> NewFrame {
    let mut bytes = vec![0xFF, 0xD8, 0xFF, 0xE0];
    bytes.resize(size, 7);
    NewFrame { bytes: bytes.into(), kind: ImageType::Jpeg, captured: None }
}

fn stores(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let redis = Redis::start();
    let session: SessionId = "bench".parse().expect("an id");
    let (memory, on_redis) = runtime.block_on(async {
        (MemoryStore::new(LIMITS, 4 << 30), RedisStore::new(&redis.url, None, LIMITS, 4).expect("a URL"))
    });
    let backends: [(&str, &dyn FrameStore); 2] = [("memory", &memory), ("redis", &on_redis)];
    for (name, store) in backends {
        let mut group = criterion.benchmark_group(name);
        for size in SIZES {
            group.throughput(Throughput::Bytes(size as u64));
            let push = async || store.push(&session, frame(size)).await.expect("a push");
            group.bench_function(BenchmarkId::new("push", size), |bencher| {
                bencher.iter(|| runtime.block_on(push()));
            });
            // A take needs a push before it, which is not counted.
            group.bench_function(BenchmarkId::new("take", size), |bencher| {
                bencher.iter_custom(|times| {
                    runtime.block_on(async {
                        let mut spent = Duration::ZERO;
                        for _ in 0..times {
                            push().await;
                            let start = Instant::now();
                            let taken = store.take(&session).await.expect("a take");
                            spent += start.elapsed();
                            assert!(taken.is_some());
                        }
                        spent
                    })
                });
            });
        }
        group.finish();
    }
}

fn pictures(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("placeholder");
    group.sample_size(20);
    for (width, height) in [(320, 180), (1280, 720)] {
        let size = Size::new(width, height).expect("a size");
        for format in [Format::Jpeg, Format::Png] {
            let id = BenchmarkId::new(format!("{format:?}"), format!("{width}x{height}"));
            group.bench_function(id, |bencher| bencher.iter(|| placeholder::draw("No Data", "", size, format)));
        }
    }
    group.finish();
    let avif = Bytes::from_static(b"\0\0\0\x1cftypavif\0\0\0\0");
    criterion.bench_function("sniff", |bencher| bencher.iter(|| ImageType::sniff(std::hint::black_box(&avif))));
}

criterion_group!(benches, stores, pictures);
criterion_main!(benches);
