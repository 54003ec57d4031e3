//! Connections to the local API of who has no token: any user of the machine can make them.

#[allow(dead_code, reason = "each test binary uses its part")]
mod common;

use std::time::Duration;

use common::World;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// For what does not depend on the speed of this machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection over which a call has been begun, whose header does not end.
async fn begun(addr: std::net::SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(addr).await.expect("connects");
    stream.write_all(b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\nX: ").await.expect("written");
    stream
}

/// The daemon has closed the connection; what it sends before does not matter.
async fn closed(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    // A connection that is reset is closed as well.
    let end = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
    let _ = end.expect("who never shows a token is sent away");
}

/// Each would take a file of the daemon's: without one left it reaches no endpoint of the chain, neither to sever nor
/// to show evidence.
#[tokio::test(flavor = "multi_thread")]
async fn strangers_cannot_use_up_the_daemons_connections() {
    let world = World::start().await;
    let alice = world.node("alice", &[]).await;
    let addr = alice.node().api_addr();
    let mut first = begun(addr).await;
    let mut others = Vec::new();
    for _ in 0..200 {
        others.push(begun(addr).await);
    }
    closed(&mut first).await;
    alice.client().status().await.expect("who has the token is answered");
    for mut other in others {
        closed(&mut other).await;
    }
}

/// Between calls a client may rest for as long as it likes.
#[tokio::test(flavor = "multi_thread")]
async fn who_has_shown_the_token_stays() {
    let world = World::start().await;
    let alice = world.node("alice", &[]).await;
    let addr = alice.node().api_addr();
    let token = alice.home().api_token().expect("token");
    let ask = format!("GET /v1/peers HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n");
    let mut known = TcpStream::connect(addr).await.expect("connects");
    let mut answered = async || {
        known.write_all(ask.as_bytes()).await.expect("written");
        let mut answer = [0; 4096];
        let len =
            tokio::time::timeout(PATIENCE, known.read(&mut answer)).await.expect("in time").expect("read");
        assert!(answer[..len].starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer[..len]));
    };
    answered().await;
    // Came later, and is sent away for its silence.
    closed(&mut begun(addr).await).await;
    answered().await;
}
