//! Sealed apps: author and destination read, relays learn sizes only.

#[allow(dead_code, reason = "each test binary uses its part")]
mod common;

use std::collections::VecDeque;
use std::path::Path;

use bytes::{Bytes, BytesMut};
use common::{World, request};
use por_core::testing::{CHAIN_TIME_MS, Options, World as Graph};
use por_core::wire::{Hello, Lane};
use por_core::{AppPricing, Command, ConnId, CoreConfig, Event, Input, Node, Output, Restored, Time, codec};
use por_node::client::{Client, QuoteRequest};
use por_node::seal::{Context, open_request, seal_request, sealed_len};
use por_types::Yocto;

const APP: &str = "sealed/echo";
/// More than a relay keeps in one frame, in more than one chunk.
const LONG: usize = 150_000;

fn secret_text(len: usize) -> Vec<u8> {
    // No 16 bytes of it appear anywhere by chance.
    let mut next = random(0x9e37_79b9_7f4a_7c15);
    (0..len).map(|_| next()).collect()
}

/// Bytes of a xorshift generator.
fn random(mut state: u64) -> impl FnMut() -> u8 {
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    }
}

/// Some 16 bytes of `text` are in `seen`.
fn shows(seen: &[u8], text: &[u8]) -> bool {
    let pieces: std::collections::HashSet<&[u8]> = text.chunks_exact(16).collect();
    seen.windows(16).any(|window| pieces.contains(window))
}

fn files(folder: &Path, seen: &mut Vec<u8>) {
    for entry in std::fs::read_dir(folder).expect("folder") {
        let path = entry.expect("entry").path();
        match path.is_dir() {
            true => files(&path, seen),
            false => seen.extend(std::fs::read(&path).unwrap_or_default()),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sealed_bodies_pass_a_relay_and_are_read_at_both_ends() {
    let world = World::start().await;
    let relay = world.node("relay", &[]).await;
    let author = world.node("author", &[&relay]).await;
    let server = world.node("server", &[&relay]).await;
    author.open_channel(&relay, Yocto::near(10)).await;
    relay.open_channel(&server, Yocto::near(10)).await;
    let serving = server.node().serve(APP, AppPricing::default(), 16, |incoming| async move {
        assert_eq!(incoming.response_limit, incoming.body.len() as u64);
        incoming.body
    });
    let serving = serving.await.expect("serve");
    for len in [0, 20, LONG] {
        let text = secret_text(len);
        let answer = author.ask(&server, APP, &text).await;
        assert_eq!(answer.body, text);
        // What was signed for and paid is the sealed body; the quote says so beforehand.
        assert_eq!(answer.receipt.receipt.body_len, sealed_len(len as u64));
        let query = QuoteRequest {
            destination: server.node().key(),
            app: Some(APP.to_owned()),
            body_len: len as u64,
            response_limit: len as u64,
            server_price: Yocto::ZERO,
            max_latency_ms: None,
            alternatives: None,
        };
        let quote = author.node().quote(&query).await.expect("quote");
        assert_eq!(quote.routes[0].price, answer.price);
    }
    let mut seen = Vec::new();
    files(relay.home().data_dir(), &mut seen);
    assert!(!seen.is_empty() && !shows(&seen, &secret_text(LONG)), "the relay has stored a part of a body");

    // Over the local API too.
    drop(serving);
    let (asker, clerk) = (author.client(), server.client());
    let app = served(&clerk).await;
    let text = secret_text(70_000);
    let pending = asker.request(request(&server, APP, &text));
    let serve = async {
        let incoming = app.next().await.expect("a request");
        assert_eq!(incoming.body, text);
        assert_eq!(incoming.response_limit, text.len() as u64);
        app.respond(incoming.request, Bytes::from_static(b"read")).await.expect("respond");
    };
    let (answer, ()) = tokio::join!(pending, serve);
    assert_eq!(answer.expect("answer").body, "read");
}

async fn served(clerk: &Client) -> por_node::client::AppServer {
    clerk.serve(APP, AppPricing::default(), 8).await.expect("serve")
}

/// Author, relay and server as bare cores, and all that the relay receives, sends and stores.
struct Line {
    graph: Graph,
    nodes: Vec<Node>,
    queue: VecDeque<(usize, Input)>,
    relay_saw: Vec<u8>,
    asked: Option<Bytes>,
    answered: Option<Bytes>,
}

impl Line {
    fn new() -> Line {
        let graph = Graph::line(Options::new(1), 3);
        let node = |host: usize| {
            let config = CoreConfig {
                network: Graph::network(),
                secret: graph.secret(host).clone(),
                limits: Options::new(1).limits,
                policy: Default::default(),
                seed: [host as u8; 32],
            };
            Node::new(config, Restored::default()).expect("a new node")
        };
        let nodes = (0..3).map(node).collect();
        let mut line =
            Line { graph, nodes, queue: VecDeque::new(), relay_saw: Vec::new(), asked: None, answered: None };
        for host in 0..3 {
            let edges = line.graph.graph(host);
            let pricing = AppPricing::default();
            line.queue.extend([
                (host, Input::Channels { channels: line.graph.channels_of(host) }),
                (host, Input::Graph { version: 1, chain_time_ms: CHAIN_TIME_MS, edges }),
                (host, Input::Command(Command::Serve { app: APP.into(), pricing, max_queued: 10 })),
            ]);
        }
        for (a, b) in [(0, 1), (1, 2)] {
            for (host, other) in [(a, b), (b, a)] {
                let hello = Hello::new(Graph::network(), Lane::Control, &Options::new(1).limits);
                let (peer, conn) = (line.graph.key(other), ConnId(b as u64));
                line.queue.push_back((host, Input::Connected { peer, conn, hello }));
            }
        }
        line.run();
        line
    }

    fn send(&mut self, body: Bytes, response_limit: u64) {
        let command = Command::Request {
            token: 1,
            destination: self.graph.key(2),
            app: APP.into(),
            route: self.graph.route(&[0, 1, 2], body.len() as u64, response_limit),
            body,
            response_limit,
            server_price: Yocto::ZERO,
            expires_ms: CHAIN_TIME_MS + 3_600_000,
            graph_version: 1,
        };
        self.queue.push_back((0, Input::Command(command)));
        self.run();
    }

    fn run(&mut self) {
        while let Some((host, input)) = self.queue.pop_front() {
            self.nodes[host].handle(Time(1_000), input);
            while let Some(output) = self.nodes[host].poll() {
                self.carry_out(host, output);
            }
        }
    }

    fn carry_out(&mut self, host: usize, output: Output) {
        match output {
            Output::Send { peer, conn, frame, .. } => {
                let to = (0..3).find(|to| self.graph.key(*to) == peer).expect("a host");
                let mut bytes = BytesMut::new();
                codec::encode(&frame, &mut bytes);
                // The relay has a part in all of it.
                self.relay_saw.extend_from_slice(&bytes);
                if let por_core::wire::Frame::Fragment(fragment) = &frame {
                    let bytes = fragment.data.len() as u64;
                    self.queue.push_back((host, Input::Drained { peer, conn, bytes }));
                }
                let from = self.graph.key(host);
                self.queue.push_back((to, Input::Frame { peer: from, conn, frame }));
            }
            Output::Persist { batch, writes } => {
                if host == 1 {
                    writes.into_iter().filter_map(|write| write.value).for_each(|v| self.relay_saw.extend(v));
                }
                self.queue.push_back((host, Input::Persisted { batch }));
            }
            Output::Notify(Event::Incoming { request, body, .. }) => {
                self.asked = Some(body.clone());
                let body = self.answer(&body);
                self.queue.push_back((host, Input::Command(Command::Respond { request, body })));
            }
            Output::Notify(Event::Response { body, .. }) => self.answered = Some(body),
            _ => {}
        }
    }

    /// As a node of a sealed app answers, and open if the request is open.
    fn answer(&self, body: &Bytes) -> Bytes {
        let (network, author, destination) = (Graph::network(), self.graph.key(0), self.graph.key(2));
        let context = Context { network: &network, author: &author, destination: &destination, app: APP };
        match open_request(&context, self.graph.secret(2), body) {
            Ok((body, sealer)) => sealer.seal(&body).expect("sealed"),
            Err(_) => body.clone(),
        }
    }
}

#[test]
fn a_relays_core_sees_sizes_only() {
    let network = Graph::network();
    for len in [64, 5_000, LONG] {
        let text = secret_text(len);
        let mut open = Line::new();
        open.send(text.clone().into(), len as u64);
        assert_eq!(open.answered.as_deref(), Some(&text[..]));
        assert!(shows(&open.relay_saw, &text), "an open body is seen, or this test sees nothing");

        let mut line = Line::new();
        let (author, destination) = (line.graph.key(0), line.graph.key(2));
        let context = Context { network: &network, author: &author, destination: &destination, app: APP };
        let (sealed, opener) = seal_request(&context, &text).expect("sealed");
        line.send(sealed.clone(), sealed_len(len as u64));
        assert_eq!(line.asked.as_ref(), Some(&sealed));
        let answer = line.answered.take().expect("an answer");
        assert_eq!(opener.open(&answer).expect("opened"), text);
        assert!(!shows(&line.relay_saw, &text), "the relay saw a part of a body of {len} bytes");
        assert!(line.relay_saw.len() >= sealed.len() * 2);
    }
}
