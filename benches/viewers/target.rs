//! What frames are posted to: this server, the bare writer, or nchan. And what commands go through beside this server.

use std::{
    env, fs,
    num::NonZero,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    process::{Command, Stdio},
};

use tempfile::TempDir;
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::{
    FRAMES, OTHER_FILES, Result,
    options::Options,
    picture::Protocol,
    program::{Running, cores, find, free_port},
};

/// Frames that this server's queues and nchan's buffer hold, so that little of the memory is theirs.
const HELD_FRAMES: usize = 10;

/// Something that frames are posted to and watched at.
pub(crate) struct Target {
    pub(crate) port: u16,
    pub(crate) protocol: Protocol,
    pub(crate) process: Running,
    _directory: Option<TempDir>,
}

impl Target {
    pub(crate) fn server(options: &Options, redis: Option<u16>) -> Result<Self> {
        let mut command = Command::new(&options.server);
        command.env_clear().envs([("HOST", "127.0.0.1"), ("PORT", "0"), ("MAX_QUEUE", &HELD_FRAMES.to_string())]);
        command.envs(options.workers.map(|count| ("WORKERS", count.to_string())));
        if let Some(port) = redis {
            command.envs([("REDIS_HOST", "127.0.0.1"), ("REDIS_PORT", &port.to_string())]);
        }
        Self::telling(command.stdin(Stdio::null()))
    }

    pub(crate) fn bare(options: &Options) -> Result<Self> {
        // One thread less than there are cores is what this server starts.
        let threads = options.workers.map_or((cores() - 1).max(1), NonZero::get).to_string();
        Self::telling(Command::new(env::current_exe()?).args(["--bare", &threads]).stdin(Stdio::piped()))
    }

    /// Hands on commands and nothing else.
    pub(crate) fn echo() -> Result<Self> {
        Self::telling(Command::new(env::current_exe()?).arg("--echo").stdin(Stdio::piped()))
    }

    fn telling(command: &mut Command) -> Result<Self> {
        let mut process = Running::start(command.stdout(Stdio::null()).stderr(Stdio::piped()))?;
        let port = process.listening()?;
        Ok(Self { port, protocol: Protocol::Mjpeg, process, _directory: None })
    }

    pub(crate) fn nchan(viewers: usize) -> Result<Self> {
        let (nginx, module) = find_nchan().ok_or("nginx or nchan is missing")?;
        let directory = tempfile::tempdir()?;
        let port = free_port();
        // Started by root its workers would be somebody who may not use this directory.
        let is_root = directory.path().metadata().is_ok_and(|it| it.uid() == 0);
        let user = if is_root { "user root;" } else { "" };
        let config = format!(
            "load_module {module};
            {user}
            worker_processes auto;
            daemon off;
            pid nginx.pid;
            events {{ worker_connections {connections}; }}
            http {{
                access_log off;
                tcp_nodelay on;
                keepalive_requests 1000000000;
                client_max_body_size {body};
                client_body_buffer_size {body};
                client_body_in_single_buffer on;
                client_body_temp_path temp;
                proxy_temp_path temp;
                fastcgi_temp_path temp;
                uwsgi_temp_path temp;
                scgi_temp_path temp;
                nchan_shared_memory_size 1g;
                nchan_message_buffer_length {HELD_FRAMES};
                nchan_message_timeout 60s;
                server {{
                    listen 127.0.0.1:{port} reuseport;
                    location ~ ^/image/(.+)$ {{ nchan_publisher; nchan_channel_id $1; }}
                    location ~ ^/stream/(.+)$ {{ nchan_subscriber websocket; nchan_channel_id $1; }}
                }}
            }}",
            connections = viewers + OTHER_FILES,
            body = 2 * FRAMES.bytes,
        );
        fs::write(directory.path().join("nginx.conf"), config)?;
        let mut command = Command::new(nginx);
        command.arg("-p").arg(directory.path()).args(["-e", "error.log", "-c", "nginx.conf"]);
        let mut process = Running::start(command.stdout(Stdio::null()).stderr(Stdio::null()))?;
        let log = || fs::read_to_string(directory.path().join("error.log")).unwrap_or_default();
        process.answering(port).map_err(|error| format!("{error}: {}", log()))?;
        Ok(Self { port, protocol: Protocol::WebSocket, process, _directory: Some(directory) })
    }

    /// An MQTT broker that keeps nothing.
    pub(crate) fn mosquitto() -> Result<Self> {
        let program = find("mosquitto").ok_or("mosquitto is missing")?;
        let directory = tempfile::tempdir()?;
        let port = free_port();
        let config = format!(
            "listener {port} 127.0.0.1\n\
            allow_anonymous true\n\
            persistence false\n\
            set_tcp_nodelay true\n\
            log_dest stderr\n\
            log_type error\n"
        );
        let path = directory.path().join("mosquitto.conf");
        fs::write(&path, config)?;
        let mut command = Command::new(program);
        let mut process = Running::start(command.arg("-c").arg(path).stdin(Stdio::null()).stdout(Stdio::null()))?;
        process.answering(port)?;
        Ok(Self { port, protocol: Protocol::Mjpeg, process, _directory: Some(directory) })
    }

    /// A connection that has asked to watch a session, and has read nothing yet.
    pub(crate) async fn ask(&self, session: u32) -> Result<TcpStream> {
        let request = match self.protocol {
            Protocol::Mjpeg => format!("GET /stream/s{session}?repeat=0 HTTP/1.1\r\nHost: localhost\r\n\r\n"),
            Protocol::WebSocket => format!(
                "GET /stream/s{session} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dmlld2Vycy1vZi1mcmFtZQ==\r\n\r\n"
            ),
        };
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        stream.write_all(request.as_bytes()).await?;
        Ok(stream)
    }
}

pub(crate) fn find_nchan() -> Option<(PathBuf, String)> {
    let nginx = find("nginx")?;
    let build = Command::new(&nginx).arg("-V").output().ok()?.stderr;
    let build = String::from_utf8_lossy(&build).into_owned();
    let modules = build.split_whitespace().find_map(|it| it.strip_prefix("--modules-path="));
    let module = format!("{}/ngx_nchan_module.so", modules.unwrap_or("/usr/lib/nginx/modules"));
    fs::exists(&module).ok()?.then_some((nginx, module))
}
