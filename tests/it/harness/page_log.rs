//! What Chromium noted while a page was open: what it complained of, and what it fetched.

use std::collections::HashMap;

use serde_json::Value;

use super::browser::Browser;

/// Something that a page fetched, or a WebSocket that it opened.
#[derive(Debug, Default, Clone)]
pub struct Fetched {
    pub url: String,
    /// As the browser calls it: `Document`, `Script`, `Stylesheet`, `Image`, `Fetch`, `WebSocket`.
    pub kind: String,
    pub status: u64,
    /// As they came over the wire, with the head.
    pub bytes: u64,
}

impl Browser {
    /// What the console has had of errors and of breaches of the page's policy since this was last asked. That the page's own
    /// address was answered with an error is none: it is what the page is about.
    pub async fn complaints(&self) -> Vec<String> {
        let address = self.client.current_url().await.unwrap();
        let own = format!("{address} - Failed to load resource: the server responded with a status of");
        let entries = self.log("browser").await;
        let complaints = entries.iter().filter_map(|entry| {
            let text = entry["message"].as_str()?;
            let is_bad = entry["level"] == "SEVERE" || text.contains("Content Security Policy");
            (is_bad && !text.starts_with(&own)).then(|| text.to_owned())
        });
        complaints.collect()
    }

    /// What has been fetched over the network since this was last asked, in order.
    pub async fn fetched(&self) -> Vec<Fetched> {
        let mut all: Vec<Fetched> = Vec::new();
        let mut latest: HashMap<String, usize> = HashMap::new();
        for entry in self.log("performance").await {
            let message: Value = serde_json::from_str(entry["message"].as_str().unwrap()).unwrap();
            let (event, about) = (&message["message"]["method"], &message["message"]["params"]);
            let Some(id) = about["requestId"].as_str() else { continue };
            let known = latest.get(id).map(|place| &mut all[*place]);
            match (event.as_str().unwrap_or_default(), known) {
                ("Network.requestWillBeSent" | "Network.webSocketCreated", _) => {
                    let url = about["request"]["url"].as_str().or(about["url"].as_str()).unwrap_or_default().to_owned();
                    let kind = about["type"].as_str().unwrap_or("WebSocket").to_owned();
                    // One that was sent on to another address keeps its id, and counts as another.
                    latest.insert(id.to_owned(), all.len());
                    all.push(Fetched { url, kind, ..Fetched::default() });
                }
                ("Network.responseReceived", Some(fetched)) => {
                    fetched.status = about["response"]["status"].as_u64().unwrap_or_default();
                }
                ("Network.loadingFinished", Some(fetched)) => {
                    fetched.bytes = about["encodedDataLength"].as_f64().unwrap_or_default() as u64;
                }
                _ => {}
            }
        }
        // What is in the page itself, the browser reports as well.
        all.retain(|fetched| ["http", "ws"].iter().any(|scheme| fetched.url.starts_with(scheme)));
        all
    }
}
