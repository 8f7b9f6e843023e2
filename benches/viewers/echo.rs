//! The WebSocket relay beside this server's: it hands on what an operator says, and does nothing else.

use std::{
    io::{self, Read},
    process, thread,
};

use futures_util::{SinkExt, StreamExt};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime,
};
use tokio_tungstenite::{WebSocketStream, accept_async};

use crate::Result;

/// Until standard input ends.
pub(crate) fn run() -> Result {
    thread::spawn(|| {
        // The pipe ends with whoever started this.
        let _ = io::stdin().read_to_end(&mut Vec::new());
        process::exit(0);
    });
    // With one thread no command is passed from one to another on its way.
    runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        eprintln!("listening on http://{}", listener.local_addr()?);
        let mut vehicle = accept(&listener).await?;
        let mut operator = accept(&listener).await?;
        while let Some(message) = operator.next().await {
            vehicle.send(message?).await?;
        }
        Ok(())
    })
}

async fn accept(listener: &TcpListener) -> Result<WebSocketStream<TcpStream>> {
    let (stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok(accept_async(stream).await?)
}
