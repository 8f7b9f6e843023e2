//! XML-RPC as ROS 1 speaks it: each answer is a list of a status, words for people, and a value.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context, bail};
use dxr::{FaultResponse, MethodCall, MethodResponse, Value};
use reqwest::{Client, header::CONTENT_TYPE, redirect::Policy};

/// How long a master or a node may take to answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);
/// The longest answer: a master with thousands of topics tells all of them in one. In bytes.
const MAX_ANSWER: usize = 4 << 20;
/// How deep values may lie in each other: the parser goes down into them. ROS has 4 levels.
const MAX_DEPTH: usize = 8;

/// Calls masters and nodes.
#[derive(Clone)]
pub struct Caller {
    client: Client,
    /// Who calls.
    name: String,
}

impl Caller {
    /// # Errors
    /// When the system gives no HTTP client.
    pub fn new(name: &str) -> anyhow::Result<Self> {
        let client = Client::builder()
            .timeout(CALL_TIMEOUT)
            .connect_timeout(CALL_TIMEOUT)
            .no_proxy()
            .redirect(Policy::none())
            .build()?;
        Ok(Self { client, name: name.to_owned() })
    }

    /// The name under which it calls.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Calls a method, with the caller's name before these parameters. Returns the value.
    ///
    /// # Errors
    /// When nobody answers in time, or the answer is an error (as told by whoever was called).
    pub async fn call(&self, uri: &str, method: &str, parameters: Vec<Value>) -> anyhow::Result<Value> {
        let mut params = vec![Value::String(self.name.clone())];
        params.extend(parameters);
        let body = MethodCall { name: method.into(), params }.to_xml()?;
        let failed =
            |error: reqwest::Error| anyhow::Error::new(error.without_url()).context(format!("{method} at {uri}"));
        let request = self.client.post(uri).header(CONTENT_TYPE, "text/xml").body(body);
        let mut answer = request.send().await.and_then(reqwest::Response::error_for_status).map_err(failed)?;
        let mut text = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(failed)? {
            if text.len() + chunk.len() > MAX_ANSWER {
                bail!("{method} at {uri}: the answer is longer than {MAX_ANSWER} bytes");
            }
            text.extend_from_slice(&chunk);
        }
        value(&text).with_context(|| format!("{method} at {uri}"))
    }
}

/// The value in an answer.
fn value(answer: &[u8]) -> anyhow::Result<Value> {
    let text = checked(answer)?;
    let Ok(response) = MethodResponse::from_xml(text) else {
        match FaultResponse::from_xml(text) {
            Ok(fault) => bail!("{}", fault.fault.string()),
            Err(_) => bail!("the answer is not XML-RPC"),
        }
    };
    let Value::Array(parts) = response.value else { bail!("the answer is no list") };
    let Ok([status, message, value]) = <[Value; 3]>::try_from(parts) else { bail!("the answer has not three parts") };
    match (status, message) {
        (Value::Integer(1), _) => Ok(value),
        (_, Value::String(message)) => bail!("{message}"),
        _ => bail!("the answer is an error without words"),
    }
}

/// A call that came in, by whoever is called by it.
///
/// # Errors
/// When it is no XML-RPC.
pub fn call(body: &[u8]) -> anyhow::Result<(String, Vec<Value>)> {
    let Ok(call) = MethodCall::from_xml(checked(body)?) else { bail!("not an XML-RPC call") };
    Ok((call.name.into_owned(), call.params))
}

/// The answer to a call.
///
/// # Errors
/// Never for what ROS says.
pub fn answer(status: i32, message: &str, value: Value) -> anyhow::Result<String> {
    let value = Value::Array(vec![Value::Integer(status), Value::String(message.to_owned()), value]);
    Ok(MethodResponse { value }.to_xml()?)
}

fn checked(body: &[u8]) -> anyhow::Result<&str> {
    let text = std::str::from_utf8(body).context("not UTF-8")?;
    let mut depth = 0_usize;
    for tag in text.split('<') {
        if tag.starts_with("array") || tag.starts_with("struct") {
            depth += 1;
        } else if tag.starts_with("/array") || tag.starts_with("/struct") {
            depth = depth.saturating_sub(1);
        }
        if depth > MAX_DEPTH {
            bail!("values lie more than {MAX_DEPTH} deep in each other");
        }
    }
    Ok(text)
}

/// A text, or `None`.
#[must_use]
pub fn text(value: &Value) -> Option<&str> {
    if let Value::String(text) = value { Some(text) } else { None }
}

/// The members of a list, or none.
#[must_use]
pub fn list(value: &Value) -> &[Value] {
    if let Value::Array(values) = value { values } else { &[] }
}

/// The address in the form that goes into a URI.
#[must_use]
pub fn in_uri(host: &str) -> String {
    match host.parse() {
        Ok(IpAddr::V6(address)) => format!("[{address}]"),
        _ => host.to_owned(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_as_ros_means_it() {
        let made = answer(1, "ready", Value::Array(vec![Value::String("a".into()), Value::Integer(2)])).unwrap();
        let read = value(made.as_bytes()).unwrap();
        assert_eq!((text(&list(&read)[0]), list(&read).len()), (Some("a"), 2));
        let error = value(answer(-1, "unknown node [/x]", Value::Integer(0)).unwrap().as_bytes()).unwrap_err();
        assert_eq!(error.to_string(), "unknown node [/x]");
        for wrong in ["", "<a>", "<methodResponse/>", "\u{0}"] {
            assert!(value(wrong.as_bytes()).is_err(), "{wrong}");
        }
        assert!(value(b"\xFF").is_err());
    }

    #[test]
    fn values_deep_in_each_other_are_not_followed() {
        let deep = "<value><array><data>".repeat(100_000);
        let body = format!("<?xml version=\"1.0\"?><methodCall><methodName>getPid</methodName><params><param>{deep}");
        assert!(call(body.as_bytes()).unwrap_err().to_string().contains("deep"));
    }
}
