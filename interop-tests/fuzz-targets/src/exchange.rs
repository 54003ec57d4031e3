//! Frames that two real nodes send each other.

use std::collections::VecDeque;

use bytes::Bytes;
use por_core::testing::{APP, CHAIN_TIME_MS, Options, World, expected_response, request_body};
use por_core::wire::{Frame, Hello, Lane};
use por_core::{
    AppPricing, Command, ConnId, CoreConfig, Event, Input, Node, Output, Restored, Time, types::RequestId,
};
use por_types::Yocto;

struct Pair {
    world: World,
    nodes: [Node; 2],
    frames: Vec<Frame>,
    queue: VecDeque<(usize, Input)>,
}

/// Requests with small and large bodies, one that is refused, a lost connection and its repair.
pub(crate) fn frames() -> Vec<Frame> {
    let world = World::line(Options::new(5), 2);
    let node = |host: usize| {
        let config = CoreConfig {
            network: World::network(),
            secret: world.secret(host).clone(),
            limits: Options::new(5).limits,
            policy: Default::default(),
            seed: [host as u8; 32],
        };
        Node::new(config, Restored::default()).ok()
    };
    let (Some(first), Some(second)) = (node(0), node(1)) else { return Vec::new() };
    let mut pair = Pair { world, nodes: [first, second], frames: Vec::new(), queue: VecDeque::new() };
    pair.begin();
    pair.connect(1);
    for (token, body, app) in [(1, 20, APP), (2, 40_000, APP), (3, 30, "unknown"), (4, 10, APP)] {
        pair.request(token, body, app);
    }
    pair.run(usize::MAX);
    for conn in [1, 2] {
        pair.request(4 + conn, 20_000, APP);
        pair.run(6);
        for host in 0..2 {
            let peer = pair.world.key(1 - host);
            pair.queue.push_back((host, Input::Disconnected { peer, conn: ConnId(conn) }));
        }
        pair.connect(conn + 1);
    }
    pair.frames
}

impl Pair {
    fn begin(&mut self) {
        for host in 0..2 {
            let edges = self.world.graph(host);
            let pricing = AppPricing { base: Yocto(50), per_byte: Yocto::ZERO };
            self.queue.extend([
                (host, Input::Channels { channels: self.world.channels_of(host) }),
                (host, Input::Graph { version: 1, chain_time_ms: CHAIN_TIME_MS, edges }),
                (host, Input::Command(Command::Serve { app: APP.into(), pricing, max_queued: 10 })),
            ]);
        }
        self.run(usize::MAX);
    }

    fn connect(&mut self, conn: u64) {
        for host in 0..2 {
            let hello = Hello::new(World::network(), Lane::Control, &self.world.options.limits);
            self.frames.push(Frame::Hello(hello.clone()));
            let (peer, conn) = (self.world.key(1 - host), ConnId(conn));
            self.queue.push_back((host, Input::Connected { peer, conn, hello }));
        }
        self.run(usize::MAX);
    }

    fn request(&mut self, token: u64, len: usize, app: &str) {
        let body = request_body(token, len);
        let command = Command::Request {
            token,
            destination: self.world.key(1),
            app: app.into(),
            response_limit: 30_000,
            server_price: Yocto(50),
            expires_ms: CHAIN_TIME_MS + 3_600_000,
            graph_version: 1,
            route: self.world.route(&[0, 1], body.len() as u64, 30_000),
            body,
        };
        self.queue.push_back((0, Input::Command(command)));
    }

    /// Carries out at most so many inputs.
    fn run(&mut self, inputs: usize) {
        for _ in 0..inputs {
            let Some((host, input)) = self.queue.pop_front() else { return };
            self.nodes[host].handle(Time(1_000), input);
            while let Some(output) = self.nodes[host].poll() {
                self.carry_out(host, output);
            }
        }
    }

    fn carry_out(&mut self, host: usize, output: Output) {
        let peer = self.world.key(host);
        match output {
            Output::Send { conn, frame, .. } => {
                if let Frame::Fragment(fragment) = &frame {
                    let bytes = fragment.data.len() as u64;
                    let peer = self.world.key(1 - host);
                    self.queue.push_back((host, Input::Drained { peer, conn, bytes }));
                }
                self.frames.push(frame.clone());
                self.queue.push_back((1 - host, Input::Frame { peer, conn, frame }));
            }
            Output::Persist { batch, .. } => self.queue.push_back((host, Input::Persisted { batch })),
            Output::Notify(Event::Incoming { request, body, .. }) => {
                let body = answer(request, &body);
                self.queue.push_back((host, Input::Command(Command::Respond { request, body })));
            }
            _ => {}
        }
    }
}

fn answer(request: RequestId, body: &[u8]) -> Bytes {
    expected_response(request.0[0].into(), if body.len() > 1_000 { 25_000 } else { 40 })
}
