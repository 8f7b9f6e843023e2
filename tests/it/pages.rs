//! The pages in a real browser: what people see there, and that it is so.

mod away;
mod broadcast;
mod drive;
mod one_camera;
mod quality;
mod rights;
mod view;
mod wall;

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fmt::{Debug, Display, Formatter, Result},
    time::Duration,
};

use serde_json::{Value, json};

use crate::harness::{
    Answer, SOON, Server,
    browser::Browser,
    cameras::{History, now_ms},
    picture::PHOTO_JPEG,
    until,
    users::PASSWORD,
};

/// By when a picture that is not live any more must not be called so, beyond STALE_AFTER.
const SAID_WITHIN: Duration = Duration::from_secs(1);

/// What was looked for, and what was there instead when it was last looked at.
struct Lately<'a, W, T>(W, &'a RefCell<Option<T>>);

impl<W: Display, T: Debug> Display for Lately<'_, W, T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "{}; there is {:#?}", self.0, self.1.borrow())
    }
}

/// Looks until what is there is as it should be, and returns it. Fails with what is there instead.
async fn becomes<T: Debug>(
    deadline: Duration,
    what: impl Display,
    look: impl AsyncFn() -> T,
    is_right: impl Fn(&T) -> bool,
) -> T {
    let last = RefCell::new(None);
    until(deadline, Lately(what, &last), || async {
        let there = look().await;
        if is_right(&there) {
            return Some(there);
        }
        last.replace(Some(there));
        None
    })
    .await
}

/// Waits until a text of the page is as it should be.
async fn reads(browser: &Browser, css: &str, is_right: impl Fn(&str) -> bool) -> String {
    becomes(SOON, format!("{css} reads as it should"), || browser.text(css), |text: &String| is_right(text)).await
}

/// Waits until the browser is at an address that ends so.
async fn arrives(browser: &Browser, end: &str) {
    let address = async || browser.client.current_url().await.unwrap().to_string();
    becomes(SOON, format!("the browser is at {end}"), address, |address| address.ends_with(end)).await;
}

/// Sets a field as a person does.
async fn choose(browser: &Browser, css: &str, value: &str) {
    let script = "const [field, value] = [document.querySelector(arguments[0]), arguments[1]];
        field.value = value;
        for (const event of ['input', 'change']) field.dispatchEvent(new Event(event, { bubbles: true }));
        return field.value";
    let chosen = browser.client.execute(script, vec![json!(css), json!(value)]).await.unwrap();
    assert_eq!(chosen, value, "{css} can be set so");
}

/// Fills in the login form that is open.
async fn log_in(browser: &Browser, name: &str, password: &str) {
    for (css, text) in [("#name", name), ("#password", password)] {
        browser.find(css).await.send_keys(text).await.unwrap();
    }
    browser.click("main button").await;
}

/// Pushes a photo, as a user where there are some.
async fn push_to(server: &Server, path: &str, user: Option<&str>) {
    let request = server.request("POST", path).body(PHOTO_JPEG);
    let request = match user {
        Some(user) => request.basic_auth(user, Some(PASSWORD)),
        None => request,
    };
    let answer = Answer::to(request).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// How the page says its connection is: in a word for programs, and in one for people, which is nothing while all is well.
async fn connection(browser: &Browser) -> (String, String) {
    let state = browser.run("return document.documentElement.dataset.connection ?? ''").await;
    (state.as_str().unwrap().to_owned(), browser.text("#connection").await)
}

/// Waits until the page has a connection of this kind, and says nothing or something of it.
async fn connects(browser: &Browser, kind: &str, says_something: bool) {
    let is_right = |(state, text): &(String, String)| state == kind && text.is_empty() != says_something;
    becomes(SOON * 2, format!("the connection is {kind}"), || connection(browser), is_right).await;
}

/// How a session stands, as a tile of the wall or the view page shows it.
#[derive(Debug, Clone, PartialEq)]
struct Standing {
    state: String,
    /// The number of the frame that is shown.
    seq: Option<u64>,
    badge: String,
}

impl Standing {
    /// From the state, the number and the text of the badge.
    fn of(parts: &[Value]) -> Self {
        let [state, seq, badge] = parts else { panic!("{parts:?}") };
        let text = |part: &Value| part.as_str().unwrap_or_default().to_owned();
        Self { state: text(state), seq: seq.as_str().map(|seq| seq.parse().unwrap()), badge: text(badge) }
    }
}

/// What scripts tell of a tile, or of the one stream.
const TELL: &str = "const tell = it => [it.dataset.session ?? document.querySelector('main').dataset.session,
    it.dataset.state ?? null, it.dataset.seq ?? null, it.querySelector('.badge').textContent];";

/// How everything stands that the page shows, by session.
async fn standings(browser: &Browser) -> BTreeMap<String, Standing> {
    let all = browser.run(&format!("{TELL} return [...document.querySelectorAll('.tile, #stage')].map(tell)")).await;
    let all = all.as_array().unwrap().iter().map(|one| {
        let parts = one.as_array().unwrap();
        (parts[0].as_str().unwrap().to_owned(), Standing::of(&parts[1..]))
    });
    all.collect()
}

/// Waits until everything that is shown is as it should be, and there are so many.
async fn all_stand(
    browser: &Browser,
    deadline: Duration,
    number: usize,
    is_right: impl Fn(&str, &Standing) -> bool,
) -> BTreeMap<String, Standing> {
    let are_right = |all: &BTreeMap<String, Standing>| {
        all.len() == number && all.iter().all(|(session, standing)| is_right(session, standing))
    };
    becomes(deadline, format!("all {number} are as they should be"), || standings(browser), are_right).await
}

/// Waits until all are live with a frame that is none of these, nor older.
async fn all_go_on(browser: &Browser, earlier: &BTreeMap<String, Standing>) -> BTreeMap<String, Standing> {
    all_stand(browser, SOON * 2, earlier.len(), |session, standing| {
        standing.state == "live" && standing.seq > earlier[session].seq
    })
    .await
}

/// One change of what a page showed.
#[derive(Debug)]
struct Change {
    /// In milliseconds of the epoch.
    at_ms: f64,
    session: String,
    standing: Standing,
}

/// Has the page note every change of what it shows. It goes on for as long as the page is not loaded anew.
async fn note_changes(browser: &Browser) {
    let script = "
        window.changes = [];
        const note = it => window.changes.push([Date.now(), ...tell(it)]);
        const things = '.tile, #stage';
        new MutationObserver(mutations => {
            const changed = new Set(mutations.map(({ target }) => target.closest?.(things)).filter(Boolean));
            for (const { addedNodes } of mutations)
                for (const node of addedNodes) if (node.matches?.(things)) changed.add(node);
            changed.forEach(note);
        }).observe(document.body, {
            subtree: true, childList: true, attributes: true, attributeFilter: ['data-state', 'data-seq'],
        });
        document.querySelectorAll(things).forEach(note)";
    browser.run(&format!("{TELL} {script}")).await;
}

/// What has been noted. Fails where the page was loaded anew since, which would have hidden something.
async fn changes(browser: &Browser) -> Vec<Change> {
    let changes = browser.run("return window.changes").await;
    let changes = changes.as_array().expect("the page has not been loaded anew").iter().map(|change| {
        let parts = change.as_array().unwrap();
        Change {
            at_ms: parts[0].as_f64().unwrap(),
            session: parts[1].as_str().unwrap().to_owned(),
            standing: Standing::of(&parts[2..]),
        }
    });
    changes.collect()
}

/// Checks that the page has at no time called a picture live that the server had received more than a little over STALE_AFTER
/// before, and that it has always said the same in a word as by its state. When each session became what it is now.
async fn was_never_wrong(browser: &Browser, history: &History, stale_after: Duration) -> BTreeMap<String, Change> {
    let limit_ms = (stale_after + SAID_WITHIN).as_secs_f64() * 1000.0;
    let mut open: BTreeMap<String, Change> = BTreeMap::new();
    let check = |before: &Change, end_ms: f64| {
        let (standing, session) = (&before.standing, &before.session);
        let word = if standing.state == "stale" { "stale since " } else { &standing.state };
        assert!(standing.badge.starts_with(word), "{before:?}");
        if standing.state != "live" {
            return;
        }
        let seq = standing.seq.unwrap_or_else(|| panic!("live without a picture: {before:?}"));
        // One whose push was not answered any more.
        let Some(pushed) = history.get(session).and_then(|frames| frames.get(&seq)) else { return };
        let age_ms = end_ms - pushed.answered_ms;
        assert!(age_ms <= limit_ms, "called live until it was {age_ms} ms old: {before:?}");
    };
    for change in changes(browser).await {
        let at_ms = change.at_ms;
        if let Some(before) = open.insert(change.session.clone(), change) {
            check(&before, at_ms);
        }
    }
    let end_ms = now_ms();
    open.values().for_each(|last| check(last, end_ms));
    open
}
