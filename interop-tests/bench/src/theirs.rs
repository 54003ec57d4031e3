//! libp2p's request-response: unpaid, unsigned, nothing stored; over the same transport.

use std::collections::HashMap;
use std::io;

use anyhow::anyhow;
use futures::future::{BoxFuture, FutureExt};
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, StreamExt};
use libp2p::request_response::{self, Event, Message, OutboundRequestId, ProtocolSupport};
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, PeerId, StreamProtocol, Swarm, SwarmBuilder, noise, tcp, yamux};
use tokio::sync::{mpsc, oneshot};

use crate::requests::BODY;

/// Bodies of a fixed length: the cheapest codec there can be.
#[derive(Clone, Copy, Debug, Default)]
struct Plain;

async fn read<T: AsyncRead + Unpin + Send>(io: &mut T) -> io::Result<Vec<u8>> {
    let mut body = vec![0; BODY];
    io.read_exact(&mut body).await?;
    Ok(body)
}

impl request_response::Codec for Plain {
    type Protocol = StreamProtocol;
    type Request = Vec<u8>;
    type Response = Vec<u8>;

    async fn read_request<T: AsyncRead + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
    ) -> io::Result<Vec<u8>> {
        read(io).await
    }

    async fn read_response<T: AsyncRead + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
    ) -> io::Result<Vec<u8>> {
        read(io).await
    }

    async fn write_request<T: AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        body: Vec<u8>,
    ) -> io::Result<()> {
        io.write_all(&body).await
    }

    async fn write_response<T: AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        body: Vec<u8>,
    ) -> io::Result<()> {
        io.write_all(&body).await
    }
}

type Behaviour = request_response::Behaviour<Plain>;

type Reply = oneshot::Sender<anyhow::Result<()>>;

/// Nodes in a row; the first one asks the last one. Those between pass on by hand.
pub struct Row {
    calls: mpsc::Sender<Reply>,
}

fn swarm() -> anyhow::Result<Swarm<Behaviour>> {
    let protocol = (StreamProtocol::new("/bench/1"), ProtocolSupport::Full);
    let config = request_response::Config::default().with_max_concurrent_streams(4096);
    let mut muxer = yamux::Config::default();
    muxer.set_max_num_streams(4096);
    Ok(SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, || muxer.clone())?
        .with_behaviour(|_| Behaviour::new([protocol], config))?
        .build())
}

impl Row {
    pub async fn start(count: usize) -> anyhow::Result<Row> {
        let (mut peer, mut address) = listen(None).await?;
        for _ in 2..count {
            (peer, address) = listen(Some((peer, address))).await?;
        }
        let (calls, receiver) = mpsc::channel(4096);
        tokio::spawn(ask(swarm()?, peer, address, receiver));
        Ok(Row { calls })
    }

    /// Sends a request with each call and waits for its response.
    pub fn asker(&self) -> impl Fn() -> BoxFuture<'static, anyhow::Result<()>> + Send + Sync + 'static {
        let calls = self.calls.clone();
        move || {
            let calls = calls.clone();
            async move {
                let (done, is_done) = oneshot::channel();
                calls.send(done).await.map_err(|_| anyhow!("the client has ended"))?;
                is_done.await?
            }
            .boxed()
        }
    }
}

/// Starts a server, or a relay to the next node.
async fn listen(next: Option<(PeerId, Multiaddr)>) -> anyhow::Result<(PeerId, Multiaddr)> {
    let mut swarm = swarm()?;
    swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse()?)?;
    let address = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            break address;
        }
    };
    let peer = *swarm.local_peer_id();
    match next {
        None => tokio::spawn(serve(swarm)),
        Some((next, address)) => tokio::spawn(pass(swarm, next, address)),
    };
    Ok((peer, address))
}

async fn serve(mut swarm: Swarm<Behaviour>) {
    loop {
        if let SwarmEvent::Behaviour(Event::Message {
            message: Message::Request { request, channel, .. },
            ..
        }) = swarm.select_next_some().await
        {
            // A client that is gone does not wait for it.
            let _ = swarm.behaviour_mut().send_response(channel, request);
        }
    }
}

async fn pass(mut swarm: Swarm<Behaviour>, next: PeerId, address: Multiaddr) {
    swarm.add_peer_address(next, address);
    let mut running = HashMap::new();
    loop {
        let SwarmEvent::Behaviour(Event::Message { message, .. }) = swarm.select_next_some().await else {
            continue;
        };
        match message {
            Message::Request { request, channel, .. } => {
                running.insert(swarm.behaviour_mut().send_request(&next, request), channel);
            }
            Message::Response { request_id, response } => {
                if let Some(channel) = running.remove(&request_id) {
                    // A client that is gone does not wait for it.
                    let _ = swarm.behaviour_mut().send_response(channel, response);
                }
            }
        }
    }
}

async fn ask(
    mut swarm: Swarm<Behaviour>,
    peer: PeerId,
    address: Multiaddr,
    mut calls: mpsc::Receiver<Reply>,
) {
    swarm.add_peer_address(peer, address);
    let mut running: HashMap<OutboundRequestId, Reply> = HashMap::new();
    loop {
        tokio::select! {
            call = calls.recv() => {
                let Some(call) = call else { return };
                running.insert(swarm.behaviour_mut().send_request(&peer, vec![7; BODY]), call);
            }
            event = swarm.select_next_some() => match event {
                SwarmEvent::Behaviour(Event::Message { message: Message::Response { request_id, .. }, .. }) => {
                    if let Some(call) = running.remove(&request_id) {
                        let _ = call.send(Ok(()));
                    }
                }
                SwarmEvent::Behaviour(Event::OutboundFailure { request_id, error, .. }) => {
                    if let Some(call) = running.remove(&request_id) {
                        let _ = call.send(Err(error.into()));
                    }
                }
                _ => {}
            },
        }
    }
}
