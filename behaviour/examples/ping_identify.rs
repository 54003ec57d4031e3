//! Three nodes in one process, over TCP: Alice asks Carol, Bob relays and earns. The behaviour
//! lives in a swarm next to ping and identify; nothing here knows of a chain. The channels are made
//! up, where an application would read them from a contract.
//!
//! ```text
//! cargo run -p libp2p-por --example ping_identify
//! ```

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use libp2p::swarm::{NetworkBehaviour, Swarm, SwarmEvent};
use libp2p::{Multiaddr, SwarmBuilder, identify, identity, noise, ping, tcp, yamux};
use libp2p_por as por;
use por::por_core::types::{ChannelId, Hop, Network, NodeKey, NodeSecret, Side, Terms, Totals, Yocto};
use por::por_core::{AppPricing, GraphEdge, MyChannel};

#[derive(NetworkBehaviour)]
struct Behaviour {
    por: por::Behaviour,
    ping: ping::Behaviour,
    identify: identify::Behaviour,
}

struct Party {
    name: &'static str,
    key: NodeKey,
    control: por::Control,
    address: Multiaddr,
    swarm: Swarm<Behaviour>,
}

fn network() -> Result<Network, Box<dyn Error>> {
    Ok(Network { chain_id: "example".to_owned(), contract: "por.example.near".parse()? })
}

async fn party(name: &'static str) -> Result<Party, Box<dyn Error>> {
    let pair = identity::Keypair::generate_ed25519();
    let mut seed = [0; 32];
    seed.copy_from_slice(pair.clone().try_into_ed25519()?.secret().as_ref());
    let secret = NodeSecret::from_seed(&seed);
    let key = secret.public();

    let (behaviour, control, driver) =
        por::new(por::Config::new(network()?), secret, por::MemoryStore::default())?;
    tokio::spawn(driver);

    let mut swarm = SwarmBuilder::with_existing_identity(pair)
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)?
        .with_behaviour(|pair| Behaviour {
            por: behaviour,
            ping: ping::Behaviour::default(),
            identify: identify::Behaviour::new(identify::Config::new("/example/1".to_owned(), pair.public())),
        })?
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(60)))
        .build();
    swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse()?)?;
    let address = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            break address;
        }
    };
    Ok(Party { name, key, control, address, swarm })
}

fn terms() -> Terms {
    Terms {
        rtt_ms: 200,
        bytes_per_s: 10_000_000,
        base_fee: Yocto(1_000),
        byte_fee: Yocto(1),
        heartbeat_ms: 1_000,
        grace_ms: 1_000,
        max_requests: 100,
        max_bytes: 1 << 24,
    }
}

/// What `mine` knows of channel `id`, of which it is `side`.
fn channel(id: u64, peer: NodeKey, side: Side) -> Result<MyChannel, Box<dyn Error>> {
    Ok(MyChannel {
        channel: ChannelId(id),
        peer,
        peer_account: "somebody.example.near".parse()?,
        side,
        deposit_mine: Yocto::near(1),
        deposit_theirs: Yocto::near(1),
        drawn_mine: Yocto::ZERO,
        drawn_theirs: Yocto::ZERO,
        bond: Yocto::near(1),
        floors: Totals::default(),
        terms: terms(),
        open: true,
        gone: false,
    })
}

/// Alice -0- Bob -1- Carol: tells everyone the graph and their own channels.
async fn open_channels(parties: &[Party; 3]) -> Result<(), Box<dyn Error>> {
    let [alice, bob, carol] = parties;
    let edge = |id, a: &Party, b: &Party| GraphEdge {
        channel: ChannelId(id),
        a: a.key,
        b: b.key,
        terms: terms(),
        open: true,
    };
    let edges = vec![edge(0, alice, bob), edge(1, bob, carol)];
    for party in parties {
        party.control.update_graph(1, 1, edges.clone()).await?;
    }
    alice.control.set_channels(vec![channel(0, bob.key, Side::A)?]).await?;
    bob.control.set_channels(vec![channel(0, alice.key, Side::B)?, channel(1, carol.key, Side::A)?]).await?;
    carol.control.set_channels(vec![channel(1, bob.key, Side::B)?]).await?;
    Ok(())
}

/// Polls a swarm and tells when the protocol is ready with a peer.
fn run(mut swarm: Swarm<Behaviour>, name: &'static str) -> tokio::sync::mpsc::Receiver<()> {
    let (ready, readies) = tokio::sync::mpsc::channel(8);
    tokio::spawn(async move {
        loop {
            match swarm.select_next_some().await {
                SwarmEvent::Behaviour(BehaviourEvent::Por(por::Event::PeerReady { peer })) => {
                    println!("{name}: ready with {peer}");
                    let _ = ready.send(()).await;
                }
                SwarmEvent::Behaviour(BehaviourEvent::Ping(ping::Event {
                    peer, result: Ok(rtt), ..
                })) => {
                    println!("{name}: ping {peer} {rtt:?}");
                }
                _ => {}
            }
        }
    });
    readies
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut parties = [party("alice").await?, party("bob").await?, party("carol").await?];
    open_channels(&parties).await?;
    let addresses: Vec<Multiaddr> = parties.iter().map(|party| party.address.clone()).collect();
    parties[0].swarm.dial(addresses[1].clone())?;
    parties[1].swarm.dial(addresses[2].clone())?;

    let keys: Vec<NodeKey> = parties.iter().map(|party| party.key).collect();
    let controls: Vec<por::Control> = parties.iter().map(|party| party.control.clone()).collect();
    let mut readies: Vec<_> = parties.into_iter().map(|Party { name, swarm, .. }| run(swarm, name)).collect();
    // Bob has two neighbours.
    for (ready, neighbours) in readies.iter_mut().zip([1, 2, 1]) {
        for _ in 0..neighbours {
            ready.recv().await;
        }
    }

    let mut serving = controls[2].serve("shout", AppPricing::default(), 10).await?;
    tokio::spawn(async move {
        while let Some(request) = serving.next().await {
            let answer = String::from_utf8_lossy(request.body()).to_uppercase();
            if let Err(error) = request.respond(Bytes::from(answer)).await {
                eprintln!("carol: {error}");
            }
        }
    });

    let body = Bytes::from_static(b"hello through bob");
    let limit = 100;
    let quote = terms().quote(body.len() as u64, limit)?;
    let hop =
        |id, to| Hop { channel: ChannelId(id), to, price: quote.price, allowance_ms: quote.allowance_ms };
    let pending = controls[0]
        .request(por::OutboundRequest {
            destination: keys[2],
            app: "shout".to_owned(),
            body,
            response_limit: limit,
            server_price: Yocto::ZERO,
            expires_ms: 60_000,
            graph_version: 1,
            route: vec![hop(0, keys[1]), hop(1, keys[2])],
        })
        .await?;
    println!("alice: request {} is on its way, paid {} yoctoNEAR", pending.id, pending.price);
    match pending.outcome().await? {
        por::Outcome::Response { body, receipt } => {
            println!(
                "alice: {:?}, signed by carol ({} bytes)",
                String::from_utf8_lossy(&body),
                receipt.receipt.body_len
            );
        }
        por::Outcome::Severed { order, .. } => println!("alice: severed: {:?}", order.statement),
        por::Outcome::Rejected { reason, .. } => println!("alice: rejected: {reason}"),
    }
    for (control, name) in controls.iter().zip(["alice", "bob", "carol"]) {
        for channel in control.channels().await? {
            println!("{name}: channel {} owns {}", channel.channel, channel.balance_mine.to_near_string());
        }
    }
    Ok(())
}
