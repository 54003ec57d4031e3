//! A file over one raw substream of libp2p, over the same transport as ours: nothing is verified,
//! paid or acknowledged. What is left is reading, encrypting, copying and writing.

use std::path::Path;

use anyhow::{Context as _, ensure};
use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _};
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, PeerId, StreamProtocol, Swarm, SwarmBuilder, noise, tcp, yamux};
use libp2p_stream as stream;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const PROTOCOL: StreamProtocol = StreamProtocol::new("/bench/file/1");
/// Bytes that are read and written at a time.
const PIECE: usize = 256 << 10;

#[derive(Serialize, Deserialize)]
struct Offer {
    peer: String,
    address: String,
}

fn swarm() -> anyhow::Result<Swarm<stream::Behaviour>> {
    Ok(SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)?
        .with_behaviour(|_| stream::Behaviour::new())?
        .build())
}

/// Sends the file to whoever opens a substream, until `end`.
pub async fn serve(file: &Path, end: impl Future<Output = ()>) -> anyhow::Result<()> {
    let mut swarm = swarm()?;
    let mut incoming = swarm.behaviour().new_control().accept(PROTOCOL).context("accepted once")?;
    let peer = *swarm.local_peer_id();
    swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse()?)?;
    let address = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            break address;
        }
    };
    let offer = Offer { peer: peer.to_string(), address: address.to_string() };
    println!("{}", serde_json::to_string(&offer)?);
    tokio::spawn(async move { while swarm.next().await.is_some() {} });
    let serving = async {
        while let Some((_, mut stream)) = incoming.next().await {
            let mut source = tokio::fs::File::open(file).await?;
            let mut piece = vec![0; PIECE];
            loop {
                let read = source.read(&mut piece).await?;
                if read == 0 {
                    break;
                }
                stream.write_all(&piece[..read]).await?;
            }
            stream.close().await?;
        }
        anyhow::Ok(())
    };
    tokio::select! {
        result = serving => result,
        () = end => Ok(()),
    }
}

pub async fn get(offer: &str, target: &Path) -> anyhow::Result<()> {
    let offer: Offer = serde_json::from_str(offer)?;
    let mut swarm = swarm()?;
    let mut control = swarm.behaviour().new_control();
    let peer: PeerId = offer.peer.parse()?;
    swarm.dial(offer.address.parse::<Multiaddr>()?)?;
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::ConnectionEstablished { .. } => break,
            SwarmEvent::OutgoingConnectionError { error, .. } => return Err(error.into()),
            _ => {}
        }
    }
    tokio::spawn(async move { while swarm.next().await.is_some() {} });
    let mut stream = control.open_stream(peer, PROTOCOL).await?;
    let mut file = tokio::fs::File::create(target).await?;
    let mut piece = vec![0; PIECE];
    let mut got = 0;
    loop {
        let read = stream.read(&mut piece).await?;
        if read == 0 {
            break;
        }
        file.write_all(&piece[..read]).await?;
        got += read;
    }
    file.flush().await?;
    ensure!(got > 0, "the server sent nothing");
    Ok(())
}
