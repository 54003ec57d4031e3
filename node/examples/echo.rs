//! A node that serves the app `echo`, and asks another one that does.
//!
//! ```text
//! por init --network localnet --contract por.localnet --home /tmp/a
//! por init --network localnet --contract por.localnet --home /tmp/b
//! cargo run -p por-node --example echo -- /tmp/a                        # serves; prints its key
//! cargo run -p por-node --example echo -- /tmp/b ed25519:KEY hello      # asks
//! ```
//!
//! Before the second one gets an answer, both nodes have to be registered and a channel between
//! them open: `por register`, `por channel propose`, `por channel confirm` while they run.

use std::time::Duration;

use por_node::config::Overrides;
use por_node::home::Home;
use por_node::keys::PasswordSource;
use por_node::sdk::{AppPricing, Node, NodeSetup, Request};
use por_types::Yocto;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let home = args.first().ok_or("usage: echo HOME [KEY TEXT]")?;
    let setup = NodeSetup::load(Home::at(home), Overrides::default(), &PasswordSource::default())?;
    let mut node = Node::start(setup).await?;
    println!("{}", node.key());
    if let [_, destination, text] = args.as_slice() {
        let request = Request {
            destination: destination.parse()?,
            app: "echo".to_owned(),
            body: text.clone().into(),
            response_limit: text.len() as u64,
            server_price: Yocto::ZERO,
            max_price: None,
            deadline: Duration::from_secs(60),
            avoid: Vec::new(),
        };
        let response = node.request(request).await?;
        println!("{} for {} yocto", String::from_utf8_lossy(&response.body), response.price);
        return Ok(node.shutdown().await?);
    }
    // At most 64 unanswered requests are taken; the answers cost nothing above the channel's price.
    let _echo = node.serve("echo", AppPricing::default(), 64, |request| async move { request.body }).await?;
    Ok(node.stopped().await?)
}
