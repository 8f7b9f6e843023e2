//! The bare writer: it takes frames by the same posts as the server and does nothing but write them to every socket.

use std::{
    io::{self, IoSlice, Read},
    num::NonZero,
    process,
    sync::Arc,
    thread,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime,
    sync::watch,
};

use crate::{
    Result,
    picture::{field, read_head},
};

const BOUNDARY: &str = "--boundarydonotcross\r\n";
const TAIL: &[u8] = b"\r\n--boundarydonotcross\r\n";

/// One frame as it is sent.
#[derive(Default)]
struct Part {
    head: Vec<u8>,
    picture: Vec<u8>,
}

/// Until standard input ends.
pub(crate) fn run(threads: NonZero<usize>) -> Result {
    thread::spawn(|| {
        // The pipe ends with whoever started this.
        let _ = io::stdin().read_to_end(&mut Vec::new());
        process::exit(0);
    });
    let runtime = runtime::Builder::new_multi_thread().worker_threads(threads.get()).enable_all().build()?;
    let accept = async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        eprintln!("listening on http://{}", listener.local_addr()?);
        let newest = watch::Sender::new(Arc::new(Part::default()));
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::spawn(serve(stream, newest.clone()));
        }
    };
    runtime.block_on(async { tokio::spawn(accept).await? })
}

async fn serve(mut stream: TcpStream, newest: watch::Sender<Arc<Part>>) -> Result {
    let (mut head, mut picture) = read_head(&mut stream).await?;
    if head.starts_with(b"GET") {
        return write_parts(stream, newest.subscribe()).await;
    }
    loop {
        let length = field(&head, "content-length").and_then(|value| value.parse().ok()).ok_or("no length")?;
        let had = picture.len();
        picture.resize(length, 0);
        stream.read_exact(&mut picture[had..]).await?;
        let part = format!("Content-Type: image/jpeg\r\nContent-Length: {length}\r\nX-Timestamp: 0.000000\r\n\r\n");
        newest.send_replace(Arc::new(Part { head: part.into_bytes(), picture }));
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await?;
        (head, picture) = read_head(&mut stream).await?;
    }
}

async fn write_parts(mut stream: TcpStream, mut newest: watch::Receiver<Arc<Part>>) -> Result {
    let kind = "multipart/x-mixed-replace;boundary=boundarydonotcross";
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nConnection: close\r\n\r\n{BOUNDARY}");
    stream.write_all(head.as_bytes()).await?;
    loop {
        newest.changed().await?;
        let part = newest.borrow_and_update().clone();
        let mut slices = [IoSlice::new(&part.head), IoSlice::new(&part.picture), IoSlice::new(TAIL)];
        let mut left = &mut slices[..];
        while !left.is_empty() {
            let count = stream.write_vectored(left).await?;
            IoSlice::advance_slices(&mut left, count);
        }
    }
}
