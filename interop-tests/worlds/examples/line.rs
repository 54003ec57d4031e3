//! CPU time of the protocol core alone for an exchange: a line of nodes on one thread, with every frame
//! written and read, without sockets or disk. For profiles: `line --nodes 4 --inflight 1024`.

use std::collections::VecDeque;
use std::time::Instant;

use anyhow::{Context as _, bail};
use bytes::{Bytes, BytesMut};
use clap::Parser;
use por_core::types::{ChannelId, Hop, Network, NodeKey, NodeSecret, Side, Terms, Totals, Yocto};
use por_core::wire::{Frame, Hello, Lane};
use por_core::{
    AppPricing, Command, ConnId, CoreConfig, Event, GraphEdge, Input, Limits, MyChannel, Node, Output,
    Policy, Restored, Time, codec,
};

/// Longer than a run: nothing is late.
const LONG_MS: u32 = 600_000;

#[derive(Parser)]
struct Args {
    #[arg(long, default_value_t = 4)]
    nodes: usize,
    #[arg(long, default_value_t = 1024)]
    inflight: usize,
    #[arg(long, default_value_t = 200_000)]
    requests: usize,
    #[arg(long, default_value_t = 256)]
    body: usize,
    /// Most requests and responses that a node takes in before its flush.
    #[arg(long, default_value_t = 256)]
    round: usize,
}

struct Host {
    node: Node,
    key: NodeKey,
    /// From whom, and the bytes of frames.
    inbox: VecDeque<(NodeKey, Bytes)>,
    decoder: codec::Decoder,
    written: usize,
}

fn network() -> anyhow::Result<Network> {
    Ok(Network { chain_id: "bench".to_owned(), contract: "por.bench".parse()? })
}

fn terms() -> Terms {
    Terms {
        rtt_ms: LONG_MS,
        bytes_per_s: 1_000_000_000,
        base_fee: Yocto(1_000),
        byte_fee: Yocto(1),
        heartbeat_ms: LONG_MS,
        grace_ms: LONG_MS,
        max_requests: 4_000,
        max_bytes: 1 << 30,
    }
}

fn secret(index: usize) -> NodeSecret {
    NodeSecret::from_seed(&[index as u8 + 1; 32])
}

fn mine(channel: u64, peer: NodeKey, side: Side) -> anyhow::Result<MyChannel> {
    Ok(MyChannel {
        channel: ChannelId(channel),
        peer,
        peer_account: "peer.bench".parse()?,
        side,
        deposit_mine: Yocto::near(1_000),
        deposit_theirs: Yocto::near(1_000),
        drawn_mine: Yocto::ZERO,
        drawn_theirs: Yocto::ZERO,
        bond: Yocto::near(1_000),
        floors: Totals::default(),
        terms: terms(),
        open: true,
        gone: false,
    })
}

struct Line {
    hosts: Vec<Host>,
    answered: usize,
    flushes: usize,
}

impl Line {
    fn new(nodes: usize) -> anyhow::Result<Line> {
        let keys: Vec<NodeKey> = (0..nodes).map(|index| secret(index).public()).collect();
        let edge = |i: usize| GraphEdge {
            channel: ChannelId(i as u64),
            a: keys[i - 1],
            b: keys[i],
            terms: terms(),
            open: true,
        };
        let edges: Vec<GraphEdge> = (1..nodes).map(edge).collect();
        let hello = Hello::new(network()?, Lane::Control, &Limits::default());
        let mut hosts = Vec::new();
        for index in 0..nodes {
            let config = CoreConfig {
                network: network()?,
                secret: secret(index),
                limits: Limits::default(),
                policy: Policy::default(),
                seed: [index as u8; 32],
            };
            let mut node = Node::new(config, Restored::default())?;
            let mut channels = Vec::new();
            if index > 0 {
                channels.push(mine(index as u64, keys[index - 1], Side::B)?);
            }
            if index + 1 < nodes {
                channels.push(mine(index as u64 + 1, keys[index + 1], Side::A)?);
            }
            let peers: Vec<NodeKey> = channels.iter().map(|channel| channel.peer).collect();
            let serve = Command::Serve {
                app: "echo".to_owned(),
                pricing: AppPricing::default(),
                max_queued: Limits::default().max_exchanges,
            };
            for input in [
                Input::LateFee { per_ms: Yocto(1) },
                Input::Graph { version: 1, chain_time_ms: 1, edges: edges.clone() },
                Input::Channels { channels },
                Input::Command(serve),
            ] {
                node.handle(Time(1), input);
            }
            for peer in peers {
                node.handle(Time(1), Input::Connected { peer, conn: ConnId(1), hello: hello.clone() });
            }
            let decoder = codec::Decoder::new(Limits::default().max_frame);
            hosts.push(Host { node, key: keys[index], inbox: VecDeque::new(), decoder, written: 0 });
        }
        Ok(Line { hosts, answered: 0, flushes: 0 })
    }

    /// One node takes in a round of what has come, and carries out what it wants.
    fn turn(&mut self, index: usize, round: usize) -> anyhow::Result<bool> {
        let mut taken = 0;
        while taken < round {
            let host = &mut self.hosts[index];
            let Some((from, bytes)) = host.inbox.pop_front() else { break };
            let mut bytes = BytesMut::from(bytes);
            while let Some(frame) = host.decoder.decode(&mut bytes)? {
                taken += match &frame {
                    Frame::Request(frame) => frame.requests.len(),
                    Frame::Response(frame) => frame.responses.len(),
                    _ => 1,
                };
                host.node.handle(Time(1), Input::Frame { peer: from, conn: ConnId(1), frame });
            }
        }
        self.flushes += 1;
        let mut any = taken > 0;
        let me = self.hosts[index].key;
        loop {
            let mut last = None;
            let mut answers = Vec::new();
            while let Some(output) = self.hosts[index].node.poll() {
                any = true;
                match output {
                    Output::Send { peer, frame, .. } => {
                        let mut out = BytesMut::with_capacity(1024);
                        codec::encode(&frame, &mut out);
                        let to = self.hosts.iter_mut().find(|host| host.key == peer);
                        to.context("a host")?.inbox.push_back((me, out.freeze()));
                    }
                    Output::Persist { batch, writes } => {
                        let sizes = writes.iter().map(|w| w.key.len() + w.value.as_ref().map_or(0, Vec::len));
                        self.hosts[index].written += sizes.sum::<usize>();
                        last = Some(batch);
                    }
                    Output::Notify(Event::Incoming { request, body, .. }) => answers.push((request, body)),
                    Output::Notify(Event::Response { .. }) => self.answered += 1,
                    Output::Notify(Event::Refused { reason, .. }) => bail!("refused: {reason:?}"),
                    Output::Notify(Event::Rejected { reason, .. }) => bail!("rejected: {reason:?}"),
                    Output::Notify(Event::Misbehaved { reason, .. }) => bail!("misbehaved: {reason}"),
                    Output::Notify(_) => {}
                    other => bail!("{other:?}"),
                }
            }
            let node = &mut self.hosts[index].node;
            if last.is_none() && answers.is_empty() {
                return Ok(any);
            }
            if let Some(batch) = last {
                node.handle(Time(1), Input::Persisted { batch });
            }
            for (request, body) in answers {
                node.handle(Time(1), Input::Command(Command::Respond { request, body }));
            }
        }
    }

    fn ask(&mut self, token: u64, body: Bytes) -> anyhow::Result<()> {
        let quote = terms().quote(body.len() as u64, body.len() as u64)?;
        let hops = (1..self.hosts.len()).map(|index| Hop {
            channel: ChannelId(index as u64),
            to: self.hosts[index].key,
            price: quote.price,
            allowance_ms: quote.allowance_ms + 1_000,
        });
        let command = Command::Request {
            token,
            destination: self.hosts.last().context("nodes")?.key,
            app: "echo".to_owned(),
            response_limit: body.len() as u64,
            body,
            server_price: Yocto::ZERO,
            expires_ms: 3_600_000,
            graph_version: 1,
            route: hops.collect(),
        };
        self.hosts[0].node.handle(Time(1), Input::Command(command));
        Ok(())
    }
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let mut line = Line::new(args.nodes)?;
    for _ in 0..8 {
        for index in 0..args.nodes {
            line.turn(index, args.round)?;
        }
    }
    let body = Bytes::from(vec![7; args.body]);
    let (mut asked, start) = (0, Instant::now());
    line.flushes = 0;
    while line.answered < args.requests {
        for _ in 0..args.round {
            if asked < args.requests && asked - line.answered < args.inflight {
                line.ask(asked as u64, body.clone())?;
                asked += 1;
            }
        }
        let mut any = false;
        for index in 0..args.nodes {
            any |= line.turn(index, args.round)?;
        }
        if !any {
            bail!("stuck at {} of {}", line.answered, args.requests);
        }
    }
    let us = start.elapsed().as_secs_f64() * 1e6 / args.requests as f64;
    let written: usize = line.hosts.iter().map(|host| host.written).sum();
    println!(
        "{us:.2} us, {} bytes written and {:.3} flushes per exchange",
        written / args.requests,
        line.flushes as f64 / args.requests as f64
    );
    Ok(())
}
