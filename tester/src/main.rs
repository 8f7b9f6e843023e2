//! The test producer: a camera that counts.
//!
//! It takes a session, prints `SESSION: <id>`, and pushes a picture with the next number, drawn large with the time, in a
//! fixed rhythm. A server that is away or refuses a picture does not stop the count: that number is lost.

mod settings;

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::Context;
use bytes::Bytes;
use image_streamer::{placeholder, session::SessionId};
use ureq::{
    Agent, SendBody,
    http::{HeaderValue, Request, header::AUTHORIZATION},
    middleware::MiddlewareNext,
    unversioned::multipart::{Form, Part},
};

use crate::settings::Settings;

/// How long one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause before a server that gave no session is asked again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

fn main() -> anyhow::Result<()> {
    let settings = Settings::from_env()?;
    let agent = Agent::config_builder().timeout_global(Some(REQUEST_TIMEOUT));
    let authorization =
        settings.authorization.as_deref().map(HeaderValue::from_str).transpose().context("SERVER_URL")?;
    let log_in = move |mut request: Request<SendBody<'_>>, next: MiddlewareNext<'_>| {
        request.headers_mut().extend(authorization.clone().map(|it| (AUTHORIZATION, it)));
        next.handle(request)
    };
    let agent: Agent = agent.middleware(log_in).build().into();
    let session = settings.session.clone().unwrap_or_else(|| ask_for_session(&agent, &settings.server));
    println!("SESSION: {session}");

    let producer = Producer { agent, session, settings };
    let mut link = Link::default();
    let mut due = Instant::now();
    for number in 1_u64.. {
        let picture = producer.draw(number)?;
        link.note(producer.push(&picture).with_context(|| format!("picture {number}")));
        due = (due + producer.settings.interval).max(Instant::now());
        sleep(due - Instant::now());
    }
    Ok(())
}

fn ask_for_session(agent: &Agent, server: &str) -> SessionId {
    let mut link = Link::default();
    loop {
        let ask = || -> anyhow::Result<SessionId> {
            let url = format!("{server}/session");
            let id = agent.get(&url).call().context(url)?.body_mut().read_to_string()?;
            Ok(id.parse()?)
        };
        match ask() {
            Ok(session) => return session,
            Err(error) => link.note(Err(error)),
        }
        sleep(RETRY_PAUSE);
    }
}

struct Producer {
    agent: Agent,
    session: SessionId,
    settings: Settings,
}

impl Producer {
    fn draw(&self, number: u64) -> anyhow::Result<Bytes> {
        let Settings { size, format, .. } = self.settings;
        Ok(placeholder::draw(&number.to_string(), &placeholder::clock(), size, format)?)
    }

    fn push(&self, picture: &[u8]) -> anyhow::Result<()> {
        let Self { agent, session, settings } = self;
        let (kind, name) = match settings.format {
            placeholder::Format::Jpeg => ("image/jpeg", "picture.jpg"),
            placeholder::Format::Png => ("image/png", "picture.png"),
        };
        if settings.form {
            let part = Part::bytes(picture).file_name(name).mime_str(kind)?;
            let form = Form::new().text("source", "tester").part("image", part);
            agent.post(format!("{}/imageForm/{session}", settings.server)).send(form)?;
        } else {
            let url = format!("{}/image/{session}", settings.server);
            agent.post(url).header("content-type", kind).send(picture)?;
        }
        Ok(())
    }
}

/// Tells of a change from working to not and back, once each.
#[derive(Default)]
struct Link {
    broken: bool,
}

impl Link {
    fn note(&mut self, result: anyhow::Result<()>) {
        let was_broken = std::mem::replace(&mut self.broken, result.is_err());
        match result {
            Ok(()) if was_broken => eprintln!("the server takes pictures again"),
            Err(error) if !was_broken => eprintln!("going on without the server: {error:#}"),
            _ => {}
        }
    }
}
