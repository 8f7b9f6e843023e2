//! What the master and other nodes ask of this one (wiki.ros.org/ROS/Slave_API).

use std::{convert::Infallible, sync::Arc, time::Duration};

use dxr::Value;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, sync::Semaphore, task::JoinSet, time::timeout};
use tracing::{info, warn};

use super::{Node, xmlrpc};

/// The longest call, in bytes: a topic with all its publishers.
const MAX_CALL: usize = 64 << 10;
/// How long a call may take to come, and how long a connection may be silent.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// The pause after a call that could not be accepted: for a lack of file descriptors, say.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How many may call at once.
const MAX_CALLERS: usize = 64;

/// Answers calls for ever.
pub async fn serve(listener: TcpListener, node: Arc<Node>) {
    // They end with this.
    let mut serving = JoinSet::new();
    let seats = Arc::new(Semaphore::new(MAX_CALLERS));
    loop {
        let Ok(seat) = Arc::clone(&seats).acquire_owned().await else { return };
        let connection = match listener.accept().await {
            Ok((connection, _)) => connection,
            Err(error) => {
                warn!("a call could not be accepted: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let node = Arc::clone(&node);
        while serving.try_join_next().is_some() {}
        serving.spawn(async move {
            let service = service_fn(|request| answer(&node, request));
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(CALL_TIMEOUT);
            // However it ends, only its caller is concerned.
            let _ = http.serve_connection(TokioIo::new(connection), service).await;
            drop(seat);
        });
    }
}

async fn answer(node: &Node, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = timeout(CALL_TIMEOUT, Limited::new(request.into_body(), MAX_CALL).collect()).await;
    let answer = match body {
        Ok(Ok(body)) => xmlrpc::call(&body.to_bytes()).and_then(|(method, parameters)| {
            let (status, message, value) = node.called(&method, &parameters);
            xmlrpc::answer(status, message, value)
        }),
        Ok(Err(error)) => Err(anyhow::anyhow!("{error}")),
        Err(_) => Err(anyhow::anyhow!("the call took too long")),
    };
    let (status, text) = match answer {
        Ok(text) => (StatusCode::OK, text),
        Err(error) => (StatusCode::BAD_REQUEST, error.to_string()),
    };
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/xml"));
    Ok(response)
}

impl Node {
    /// The status (1: done, 0: not done, -1: the caller's mistake), words, and the value.
    fn called(&self, method: &str, parameters: &[Value]) -> (i32, &'static str, Value) {
        let text = |at: usize| parameters.get(at).and_then(xmlrpc::text).unwrap_or_default();
        let nothing = || Value::Integer(0);
        match method {
            "publisherUpdate" => {
                self.publishers_changed(text(1));
                (1, "noted", nothing())
            }
            "requestTopic" => {
                if self.publications.iter().any(|it| it.topic == text(1)) {
                    let at = vec![
                        Value::String("TCPROS".into()),
                        Value::String(self.host.lock().clone()),
                        Value::Integer(self.ports.1.into()),
                    ];
                    (1, "ready", Value::Array(at))
                } else {
                    (0, "nothing is published on this topic", nothing())
                }
            }
            "getPid" => (1, "the process", Value::Integer(std::process::id().cast_signed())),
            "getMasterUri" => (1, "the master", Value::String(self.settings.master.clone())),
            "getSubscriptions" => {
                let topics: Vec<String> = self.subscriptions.lock().keys().cloned().collect();
                (1, "subscriptions", Value::Array(topics.into_iter().map(|it| pair(&it, "*")).collect()))
            }
            "getPublications" => {
                let topics = self.publications.iter().map(|it| pair(&it.topic, it.kind.name())).collect();
                (1, "publications", Value::Array(topics))
            }
            "getBusStats" => {
                (1, "not counted", Value::Array(vec![Value::Array(vec![]), Value::Array(vec![]), Value::Array(vec![])]))
            }
            "getBusInfo" => (1, "connections", Value::Array(self.connections())),
            "paramUpdate" => (1, "noted", nothing()),
            "shutdown" => {
                info!("another node wants this one to end: {}", text(1));
                self.end.cancel();
                (1, "ending", nothing())
            }
            _ => (-1, "this node has no such method", nothing()),
        }
    }

    fn connections(&self) -> Vec<Value> {
        let subscriptions = self.subscriptions.lock();
        let all = subscriptions
            .iter()
            .flat_map(|(topic, it)| it.publishers.iter().map(move |(uri, connection)| (topic, uri, connection)));
        let told = |(number, (topic, uri, connection)): (usize, (&String, &String, &super::Connection))| {
            Value::Array(vec![
                Value::Integer(number as i32),
                Value::String(uri.clone()),
                Value::String("i".into()),
                Value::String("TCPROS".into()),
                Value::String(topic.clone()),
                Value::Boolean(connection.is_up()),
            ])
        };
        all.enumerate().map(told).collect()
    }
}

fn pair(topic: &str, kind: &str) -> Value {
    Value::Array(vec![Value::String(topic.into()), Value::String(kind.into())])
}
