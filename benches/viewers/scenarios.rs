//! The scenarios, and the order in which they run.

use std::fs;

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    Bench, FRAMES, HEALTHY, KIB, PAIR_FRAMES, PAIRS, Pace, REPLICA_VIEWERS, Result, STALLED, WARM_UP,
    audience::Audience,
    crew::Crew,
    measure::{FRAME_COLUMNS, Sample, compare},
    options::{Scenario, Side},
    program::{cores, cpu_seconds, start_redis},
    target::Target,
};

impl Bench {
    async fn viewers(&self, viewers: usize) -> Result<Value> {
        const RATIOS: [&str; 4] =
            ["deliveries_per_second", "delay_p50_ms", "delay_p99_ms", "cpu_seconds_per_1000_deliveries"];
        println!("\nviewers: {viewers} of one session, {}", describe(FRAMES));
        Sample::header(&FRAME_COLUMNS);
        let (mut samples, mut faults) = (Vec::new(), Vec::new());
        for round in 0..self.options.rounds.get() {
            for turn in 0..self.options.sides.len() {
                // Whoever is first finds another machine than the others, so each is in turn.
                let side = self.options.sides[(turn + round) % self.options.sides.len()];
                match self.viewers_of(side, viewers).await {
                    Ok(more) => samples.extend(more.into_iter().inspect(Sample::print)),
                    Err(error) => {
                        println!("{}: INVALID: {error}", side.name());
                        faults.push(format!("{}: {error}", side.name()));
                    }
                }
            }
        }
        let ratios = compare(&samples, "server", self.options.sides.iter().map(|it| it.name()), &RATIOS);
        let samples: Vec<Value> = samples.iter().map(Sample::json).collect();
        Ok(json!({ "viewers": viewers, "samples": samples, "ratios_of_medians": ratios, "faults": faults }))
    }

    async fn viewers_of(&self, side: Side, viewers: usize) -> Result<Vec<Sample>> {
        let target = match side {
            Side::Server => Target::server(&self.options, None)?,
            Side::Bare => Target::bare(&self.options)?,
            Side::Nchan => Target::nchan(viewers)?,
        };
        let audience = Audience::gather(self.clock, &target, (0..viewers).map(|_| 0)).await?;
        self.run_crew(&[&target], (1, FRAMES), &[(side.name(), &audience)]).await
    }

    async fn pairs(&self) -> Result<Value> {
        println!("\npairs: {PAIRS} sessions with a producer and a viewer each, {}", describe(PAIR_FRAMES));
        let target = Target::server(&self.options, None)?;
        let audience = Audience::gather(self.clock, &target, 0..u32::try_from(PAIRS).unwrap()).await?;
        let samples = self.run_crew(&[&target], (PAIRS, PAIR_FRAMES), &[("server", &audience)]).await?;
        Ok(report(&samples))
    }

    async fn stalled(&self) -> Result<Value> {
        println!("\nstalled: {HEALTHY} viewers, alone and beside {STALLED} that never read, {}", describe(FRAMES));
        let target = Target::server(&self.options, None)?;
        let audience = Audience::gather(self.clock, &target, (0..HEALTHY).map(|_| 0)).await?;
        let mut crew = Crew::start(self.clock, &target, 1, FRAMES);
        sleep(WARM_UP).await;
        let mut samples = Vec::new();
        let mut never_read = Vec::new();
        for side in ["alone", "beside stalled"] {
            if side != "alone" {
                for _ in 0..STALLED {
                    never_read.push(target.ask(0).await?);
                }
                // Until then they have stalled.
                sleep(WARM_UP).await;
            }
            samples.extend(self.measure(&[&target], &mut crew, true, &[(side, &audience)]).await?);
        }
        crew.stop().await?;
        let mut value = report(&samples);
        let [p50, p99] = ["delay_p50_ms", "delay_p99_ms"].map(|it| samples[1].figure(it) / samples[0].figure(it));
        let (lost, grown) =
            (samples[1].figure("deliveries_lost"), samples[1].figure("rss_mb") - samples[0].figure("rss_mb"));
        println!("beside/alone: delay p50 {p50:.2}, p99 {p99:.2}; RSS grew by {grown:.1} MB; {lost} lost");
        for (name, figure) in [("delay_p50_ratio", p50), ("delay_p99_ratio", p99), ("rss_growth_mb", grown)] {
            value[name] = json!(figure);
        }
        Ok(value)
    }

    async fn replicas(&self) -> Result<Value> {
        println!("\nreplicas: {REPLICA_VIEWERS} viewers on two servers, posts to A, {}", describe(FRAMES));
        let directory = tempfile::tempdir()?;
        let (redis, port) = start_redis(&directory)?;
        let a = Target::server(&self.options, Some(port))?;
        let b = Target::server(&self.options, Some(port))?;
        let at_a = Audience::gather(self.clock, &a, (0..REPLICA_VIEWERS / 2).map(|_| 0)).await?;
        let at_b = Audience::gather(self.clock, &b, (0..REPLICA_VIEWERS / 2).map(|_| 0)).await?;
        let used = || cpu_seconds(&redis.family());
        let before = used();
        let samples = self.run_crew(&[&a, &b], (1, FRAMES), &[("at A", &at_a), ("at B", &at_b)]).await?;
        let redis_cpu = used() - before;
        let mut value = report(&samples);
        println!("CPU and memory are those of A and B together; Redis used {redis_cpu:.2} s of CPU time");
        value["redis_cpu_seconds"] = json!(redis_cpu);
        Ok(value)
    }

    pub(crate) async fn run(self) -> Result {
        let read = |path| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let (load, linux) = (read("/proc/loadavg"), read("/proc/sys/kernel/osrelease"));
        let (cores, seconds) = (cores(), self.options.seconds);
        println!("{cores} cores, Linux {linux}, load average {load}; {seconds} s each");
        let mut results = json!({ "cores": cores, "linux": linux, "load_average": load, "seconds": seconds });
        let mut valid = true;
        let mut keep = |name: &str, result: Result<Value>| {
            let value = result.unwrap_or_else(|error| {
                println!("{name}: INVALID: {error}");
                json!({ "faults": [error.to_string()] })
            });
            valid &= value["faults"].as_array().is_none_or(Vec::is_empty);
            results[name] = value;
        };
        if self.options.runs(Scenario::Viewers) {
            for count in &self.options.viewers {
                keep(&format!("viewers_{count}"), self.viewers(count.get()).await);
            }
        }
        if self.options.runs(Scenario::Pairs) {
            keep("pairs", self.pairs().await);
        }
        if self.options.runs(Scenario::Stalled) {
            keep("stalled", self.stalled().await);
        }
        if self.options.runs(Scenario::Replicas) {
            keep("replicas", self.replicas().await);
        }
        if self.options.runs(Scenario::Control) {
            keep("control", self.control().await);
            if self.options.redis {
                keep("control_replicas", self.control_replicas().await);
            }
        }
        if let Some(path) = &self.options.json {
            fs::write(path, format!("{results:#}\n")).map_err(|error| format!("{}: {error}", path.display()))?;
        }
        if valid { Ok(()) } else { Err("something could not be measured".into()) }
    }
}

pub(crate) fn describe(pace: Pace) -> String {
    format!("{} KiB every {} ms", pace.bytes / KIB, pace.period.as_millis())
}

fn report(samples: &[Sample]) -> Value {
    Sample::header(&FRAME_COLUMNS);
    samples.iter().for_each(Sample::print);
    json!({ "samples": samples.iter().map(Sample::json).collect::<Vec<_>>() })
}
