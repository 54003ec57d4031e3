//! What a connection costs on which nothing happens.
#![cfg(target_os = "linux")]

mod support;

use std::collections::HashSet;
use std::process::Stdio;

use futures::StreamExt;
use libp2p::swarm::{NetworkBehaviour, Swarm, SwarmEvent};
use libp2p::{Multiaddr, SwarmBuilder, identify, identity, noise, ping, tcp, yamux};
use libp2p_por as por;
use por::por_core::MyChannel;
use por::por_core::types::{ChannelId, NodeKey, NodeSecret, Side};
use support::{bounded, my_channel, network};
use tokio::io::{AsyncBufReadExt, BufReader};

const PEERS: u8 = 150;
/// The most that one connection may add to the memory of its node, KiB. A node with 1,000 of them has
/// to stay below 100 MB with all else that it holds.
const MOST_KIB: u64 = 60;
/// Marks what the hub says among what the test harness says.
const SAYS: &str = "hub: ";
/// Set for the process that this test starts of itself.
const IS_HUB: &str = "POR_TEST_IDLE_HUB";

#[derive(NetworkBehaviour)]
struct Net {
    por: por::Behaviour,
    ping: ping::Behaviour,
    identify: identify::Behaviour,
}

fn secret(number: u8) -> NodeSecret {
    NodeSecret::from_seed(&[number; 32])
}

fn channel(number: u8, peer: NodeKey, side: Side) -> MyChannel {
    my_channel(ChannelId(number.into()), peer, side)
}

/// A node over TCP, noise and yamux with these channels.
async fn node(number: u8, channels: Vec<MyChannel>) -> (Swarm<Net>, por::Control) {
    let pair = identity::Keypair::ed25519_from_bytes([number; 32]).expect("a key");
    let config = por::Config::new(network()).with_redial(None);
    let (behaviour, control, driver) =
        por::new(config, secret(number), por::MemoryStore::default()).expect("an empty store");
    tokio::spawn(driver);
    bounded("channels", control.set_channels(channels)).await.expect("runs");
    let identify = identify::Config::new("/test/1".to_owned(), pair.public());
    let swarm = SwarmBuilder::with_existing_identity(pair)
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)
        .expect("a transport")
        .with_behaviour(|_| Net {
            por: behaviour,
            ping: ping::Behaviour::default(),
            identify: identify::Behaviour::new(identify),
        })
        .expect("a behaviour")
        .build();
    (swarm, control)
}

/// Memory of this process, KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("resident memory");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
}

/// The node with all the connections, in a process of its own: its memory is what is measured.
async fn hub() {
    let channels = (1..=PEERS).map(|peer| channel(peer, secret(peer).public(), Side::A)).collect();
    let (mut swarm, _control) = node(255, channels).await;
    swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse().expect("an address")).expect("listens");
    let (mut before, mut ready) = (0, HashSet::new());
    while ready.len() < PEERS.into() {
        match swarm.select_next_some().await {
            SwarmEvent::NewListenAddr { address, .. } => println!("{SAYS}{address}"),
            SwarmEvent::Behaviour(NetEvent::Por(por::Event::PeerReady { peer })) => {
                // The first ones pay for what is allocated once.
                if ready.len() == 10 {
                    before = resident();
                }
                ready.insert(peer);
            }
            _ => {}
        }
    }
    println!("{SAYS}{}", (resident() - before) / (u64::from(PEERS) - 10));
}

#[tokio::test]
async fn an_idle_connection_costs_little_memory() {
    if std::env::var_os(IS_HUB).is_some() {
        return hub().await;
    }
    let mut child = tokio::process::Command::new(std::env::current_exe().expect("this test"))
        .args(["an_idle_connection_costs_little_memory", "--exact", "--nocapture"])
        .env(IS_HUB, "1")
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("it starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut says = async || loop {
        let line = bounded("the hub", lines.next_line()).await.expect("text").expect("it goes on");
        if let Some((_, said)) = line.split_once(SAYS) {
            return said.to_owned();
        }
    };
    let address: Multiaddr = says().await.parse().expect("an address");
    let hub = secret(255).public();
    let mut controls = Vec::new();
    for number in 1..=PEERS {
        let (mut swarm, control) = node(number, vec![channel(number, hub, Side::B)]).await;
        swarm.dial(address.clone()).expect("dialable");
        tokio::spawn(async move {
            loop {
                swarm.select_next_some().await;
            }
        });
        controls.push(control);
    }
    let each: u64 = says().await.parse().expect("KiB");
    println!("{each} KiB for each connection");
    assert!(each <= MOST_KIB, "{each} KiB for each connection");
}
