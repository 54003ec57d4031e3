//! A node that serves the app `echo`, and asks another one that does.
//!
//! ```text
//! por localnet                                                          # in a terminal of its own
//! por --home /tmp/a init --network localnet --contract por.localnet --account a.localnet \
//!     --listen /ip4/127.0.0.1/tcp/7741 --api 127.0.0.1:7740 --auto-confirm   # prints its PEER ID
//! por --home /tmp/b init --network localnet --contract por.localnet --account b.localnet \
//!     --listen /ip4/127.0.0.1/tcp/7751 --api 127.0.0.1:7750 --boot /ip4/127.0.0.1/tcp/7741/p2p/PEER
//! cargo run -p por-node --example echo -- /tmp/a                        # serves; prints its key
//! cargo run -p por-node --example echo -- /tmp/b ed25519:KEY hello      # asks
//! ```
//!
//! Before the second one gets an answer, both nodes have to be registered and a channel between
//! them open. `por` talks to the program, which is the node; for the second one run `por run` first:
//!
//! ```text
//! por --home /tmp/b run                                                 # in a terminal of its own
//! por --home /tmp/a register --stake "10 NEAR"
//! por --home /tmp/b register --stake "10 NEAR"
//! por --home /tmp/b channel propose a.localnet --deposit "1 NEAR"
//! ```
//!
//! and stop it before the example takes its home.

use std::time::Duration;

use por_node::config::Overrides;
use por_node::home::Home;
use por_node::keys::PasswordSource;
use por_node::sdk::{AppPricing, Node, NodeSetup, Request, Yocto};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let home = args.first().ok_or("usage: echo HOME [KEY TEXT]")?;
    let setup = NodeSetup::load(Home::at(home), Overrides::default(), &PasswordSource::default())?;
    let mut node = Node::start(setup).await?;
    println!("{}", node.key());
    if let [_, destination, text] = args.as_slice() {
        let request = Request {
            max_price: Some(Yocto::millinear(1)),
            ..Request::new(destination.parse()?, "echo", text.clone(), text.len() as u64)
        };
        let response = node.request(request).await?;
        println!("{} for {} yocto", String::from_utf8_lossy(&response.body), response.price);
        return Ok(node.shutdown().await?);
    }
    // At most 64 unanswered requests are taken; the answers cost nothing above the channel's price.
    let echo = node.serve("echo", AppPricing::default(), 64, |request| async move { request.body }).await?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        ended = node.stopped() => return Ok(ended?),
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
    // What was taken is answered first, if that is not for ever.
    let _ = tokio::time::timeout(Duration::from_secs(10), echo.leave()).await;
    // Everything is durable and the home is free when this is done.
    Ok(node.shutdown().await?)
}
