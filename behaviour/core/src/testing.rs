//! A whole network in one process and one thread: virtual time, one seed, links that delay and
//! break, stores that commit late, crashes at any boundary between two outputs.
//!
//! Nothing of the protocol is modelled here: hosts run [`crate::Node`], every frame passes through
//! [`crate::codec`], and [`World::audit`] judges by the books and events alone.

mod asking;
mod audit;
mod chain;
mod closing;
mod host;
mod link;
mod pursuit;
mod rest;
mod rng;
pub mod scenario;
mod stall;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use por_types::{
    AccountId, ChannelId, Hop, Network, NodeKey, NodeSecret, RequestId, SeverOrder, Signed, Terms, Yocto,
};

use crate::api::{AppPricing, Command, Event, Input, Limits, Policy, RejectReason};
use crate::wire::Frame;

pub use audit::Report;
pub use closing::Close;
pub use host::{Host, Outcome};
pub use link::Link;
pub use pursuit::ANSWER_PRICE;
pub use rng::Rng;

/// App that every host serves: answers with [`expected_response`].
pub const APP: &str = "echo";

/// Block time of the world's chain, milliseconds since 1970.
pub const CHAIN_TIME_MS: u64 = 1_700_000_000_000;

/// Deposit of each side of each channel, where the options say no other.
pub const DEPOSIT: Yocto = Yocto(1_000_000_000_000);

/// How often things go wrong, per 1000.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// A host crashes before it carries out an output.
    pub crash: u32,
    /// A link breaks when a frame is put on it.
    pub cut: u32,
    /// A control frame arrives twice.
    pub duplicate: u32,
    /// A second connection is opened between two hosts that have one.
    pub second: u32,
}

#[derive(Clone, Debug)]
pub struct Options {
    pub seed: u64,
    pub limits: Limits,
    /// With any, each start of a host has these limits or some of those.
    pub other_limits: Vec<Limits>,
    pub terms: Terms,
    pub faults: Faults,
    /// One-way delay of links, milliseconds; each frame takes up to twice that.
    pub delay_ms: u64,
    /// Time of a commit, milliseconds; up to twice that.
    pub commit_ms: u64,
    /// Each side's deposit at the beginning.
    pub deposit: Yocto,
    /// Each side's bond; zero for none.
    pub bond: Yocto,
    /// How often, per 1000, a flush is formed although more inputs are ready.
    pub early_flush: u32,
    /// What lateness costs; `None` if the hosts do not know.
    pub late_fee: Option<Yocto>,
    /// Exact one-way delays of pairs, the lower host first.
    pub delays: BTreeMap<(usize, usize), u64>,
    /// Terms of channels, by the number of the pair; else `terms`.
    pub channel_terms: BTreeMap<usize, Terms>,
    /// By host; else the default.
    pub policies: BTreeMap<usize, Policy>,
    /// Syncs of the first host with the second, milliseconds modulo the heartbeat.
    pub phases: BTreeMap<(usize, usize), u64>,
    /// Hosts that say nothing any more once they have acknowledged a request.
    pub mute_after_ack: BTreeSet<usize>,
    /// Hosts that never say anything.
    pub mute: BTreeSet<usize>,
    /// Hosts that pay nothing for their lateness.
    pub cheats: BTreeSet<usize>,
    /// Hosts that change a byte of every small response that they send, or leave its last one out.
    pub forgers: BTreeSet<usize>,
    pub truncaters: BTreeSet<usize>,
    /// Hosts that neither give credit for responses nor say that they have them.
    pub stingy: BTreeSet<usize>,
    /// Time until an order is final and everybody knows.
    pub chain_ms: u64,
    /// Hosts learn of each channel of the beginning within this time, each at another moment.
    pub lag_ms: u64,
    /// A host that starts reads the chain within this time.
    pub read_ms: u64,
    /// What the app takes; else up to 30 ms by chance.
    pub app_ms: Option<u64>,
    /// What the app asks for a request.
    pub app_price: Yocto,
    /// Added to the allowances of routes.
    pub slack_ms: u64,
    /// Keep what is sent.
    pub log: bool,
}

/// A frame that was sent.
#[derive(Clone, Debug)]
pub struct Logged {
    pub from: usize,
    pub to: usize,
    pub sent_ms: u64,
    pub received_ms: u64,
    pub frame: Frame,
}

impl Options {
    pub fn new(seed: u64) -> Options {
        Options {
            seed,
            limits: Limits { window: 64 << 10, ..Limits::default() },
            other_limits: Vec::new(),
            terms: Terms {
                rtt_ms: 50,
                bytes_per_s: 1_000_000,
                base_fee: Yocto(100),
                byte_fee: Yocto(1),
                heartbeat_ms: 1000,
                grace_ms: 1000,
                max_requests: 256,
                max_bytes: 64 << 20,
            },
            faults: Faults::default(),
            delay_ms: 10,
            commit_ms: 3,
            deposit: DEPOSIT,
            bond: Yocto::ZERO,
            early_flush: 300,
            late_fee: None,
            delays: BTreeMap::new(),
            channel_terms: BTreeMap::new(),
            policies: BTreeMap::new(),
            phases: BTreeMap::new(),
            mute_after_ack: BTreeSet::new(),
            mute: BTreeSet::new(),
            cheats: BTreeSet::new(),
            forgers: BTreeSet::new(),
            truncaters: BTreeSet::new(),
            stingy: BTreeSet::new(),
            chain_ms: 2_000,
            lag_ms: 0,
            read_ms: 0,
            app_ms: None,
            app_price: Yocto(50),
            slack_ms: 1_000_000,
            log: false,
        }
    }
}

/// A channel of the world.
#[derive(Clone, Debug)]
pub struct Edge {
    pub channel: ChannelId,
    /// Index of the host on side A.
    pub a: usize,
    pub b: usize,
}

/// A request as it was asked for.
#[derive(Clone, Debug)]
pub struct Asked {
    pub author: usize,
    pub route: Vec<Hop>,
    pub server_price: Yocto,
    pub response_len: u64,
}

/// What happens at a point in time.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "inputs are by far the most frequent")]
pub(crate) enum Happening {
    Input {
        host: usize,
        life: u32,
        input: Input,
    },
    /// A host's disk has everything up to this batch.
    Committed {
        host: usize,
        life: u32,
        batch: u64,
    },
    Restart {
        host: usize,
    },
    /// A host looks at the chain.
    View {
        host: usize,
    },
    /// A host stands still no more.
    Resume {
        host: usize,
    },
    /// The chain has executed an order.
    Severed {
        order: Signed<SeverOrder>,
    },
    /// A host learns how a channel is on chain.
    Learn {
        host: usize,
        channel: ChannelId,
        record: chain::Record,
    },
    /// A close goes on.
    Closing {
        channel: ChannelId,
    },
    /// Hosts without a connection try again.
    Dial {
        a: usize,
        b: usize,
    },
    /// Bytes of a frame arrive.
    Arrive {
        link: u64,
        to: usize,
        bytes: Bytes,
    },
    /// One end of a link learns that it broke.
    Broken {
        link: u64,
        at: usize,
    },
}

pub struct World {
    pub options: Options,
    pub rng: Rng,
    pub hosts: Vec<Host>,
    pub edges: Vec<Edge>,
    /// By token, which is also the beginning of each request's body.
    pub asked: BTreeMap<u64, Asked>,
    /// Crash this host before its n-th output (counted over all its lives).
    pub crash_at: Option<(usize, u64)>,
    pub(crate) now: u64,
    pub(crate) links: BTreeMap<u64, Link>,
    pub log: Vec<Logged>,
    /// When the chain executed the order for a channel, and whose it was.
    pub severed: BTreeMap<ChannelId, (u64, SeverOrder)>,
    /// Closes that a host has asked for.
    pub closes: BTreeMap<ChannelId, Close>,
    /// What the chain has of channels that have changed, and what hosts have seen of them.
    records: BTreeMap<ChannelId, chain::Record>,
    known: BTreeMap<(usize, ChannelId), chain::Record>,
    /// Hosts that take nothing new over a channel since they want to close it.
    winding_down: BTreeSet<(usize, ChannelId)>,
    /// When a host sees a channel, if that is after the beginning.
    seen_at: BTreeMap<(usize, ChannelId), u64>,
    stalled: stall::Stalled,
    /// For how long each host has stood still, milliseconds.
    pub stood_still_ms: BTreeMap<usize, u64>,
    muted: BTreeSet<usize>,
    parted: BTreeSet<(usize, usize)>,
    server_price: Yocto,
    queue: BTreeMap<(u64, u64), Happening>,
    next: u64,
}

/// A request's body: the token, then filler.
pub fn request_body(token: u64, len: usize) -> Bytes {
    let mut body = token.to_be_bytes().to_vec();
    body.extend((0..len.saturating_sub(8)).map(|i| (i as u64 * 7 + token) as u8));
    body.into()
}

/// What the app answers to a request of which it is told the first time: as many bytes as asked for, beginning with
/// the token.
pub fn expected_response(token: u64, len: u64) -> Bytes {
    nth_response(token, len, 0)
}

/// The same if it is told of it once more, after a crash: apps need not answer as they did before.
pub(crate) fn nth_response(token: u64, len: u64, nth: u64) -> Bytes {
    let mut body = token.to_be_bytes().to_vec();
    body.extend((8..len).map(|i| (i * 13 + token * 3 + nth * 101) as u8));
    // Nor as long; the token stays.
    body.truncate(len.saturating_sub(nth.min(3) * (len / 5)).max(len.min(8)) as usize);
    body.into()
}

impl World {
    /// Hosts `0..nodes` and channels between the given pairs, everything connected and served.
    pub fn new(options: Options, nodes: usize, pairs: &[(usize, usize)]) -> World {
        let mut rng = Rng::new(options.seed);
        let hosts = (0..nodes).map(|index| Host::new(index, &mut rng)).collect();
        let edges = (1u64..).zip(pairs).map(|(id, &(a, b))| Edge { channel: ChannelId(id), a, b }).collect();
        let mut world = World {
            options,
            rng,
            hosts,
            edges,
            asked: BTreeMap::new(),
            crash_at: None,
            now: 0,
            links: BTreeMap::new(),
            log: Vec::new(),
            severed: BTreeMap::new(),
            closes: BTreeMap::new(),
            records: BTreeMap::new(),
            known: BTreeMap::new(),
            winding_down: BTreeSet::new(),
            seen_at: BTreeMap::new(),
            stalled: BTreeMap::new(),
            stood_still_ms: BTreeMap::new(),
            muted: BTreeSet::new(),
            parted: BTreeSet::new(),
            server_price: Yocto(50),
            queue: BTreeMap::new(),
            next: 0,
        };
        world.delay_views();
        for host in 0..nodes {
            world.boot(host);
        }
        for &(a, b) in pairs {
            world.at(0, Happening::Dial { a, b });
        }
        world
    }

    /// A line of hosts.
    pub fn line(options: Options, nodes: usize) -> World {
        let pairs: Vec<_> = (1..nodes).map(|i| (i - 1, i)).collect();
        World::new(options, nodes, &pairs)
    }

    pub fn network() -> Network {
        let contract: AccountId = "por.test.near".parse().unwrap_or_else(|_| unreachable!("a valid account"));
        Network { chain_id: "localnet".into(), contract }
    }

    pub fn key(&self, host: usize) -> NodeKey {
        self.hosts[host].secret.public()
    }

    pub fn secret(&self, host: usize) -> &NodeSecret {
        &self.hosts[host].secret
    }

    /// Whether an app has answered this request so, any of the times that it was told of it.
    pub fn is_response(&self, token: u64, body: &Bytes) -> bool {
        let told =
            self.hosts.iter().filter_map(|host| host.seen.get(&token)).max().copied().unwrap_or_default();
        let len = self.asked.get(&token).map_or(0, |asked| asked.response_len);
        (0..u64::from(told)).any(|nth| nth_response(token, len, nth) == body)
    }

    /// Virtual time, milliseconds.
    pub fn now_ms(&self) -> u64 {
        self.now
    }

    pub(crate) fn at(&mut self, delay: u64, happening: Happening) {
        self.next += 1;
        self.queue.insert((self.now + delay, self.next), happening);
    }

    /// Inputs with which a host starts: chain view and apps.
    pub(crate) fn boot(&mut self, host: usize) {
        let limits = match self.options.other_limits.len() as u64 {
            0 => None,
            others => self.options.other_limits.get(self.rng.below(others + 1) as usize).cloned(),
        };
        let limits = limits.unwrap_or_else(|| self.options.limits.clone());
        let seed = self.rng.next();
        let mut policy = self.options.policies.get(&host).cloned().unwrap_or_default();
        for ((of, with), phase) in &self.options.phases {
            if *of == host {
                policy.phases.insert(self.key(*with), *phase);
            }
        }
        let fee = self.options.late_fee.map(|per_ms| Input::LateFee { per_ms });
        let mut inputs: Vec<Input> = fee.into_iter().collect();
        match self.options.read_ms {
            0 => inputs.extend(self.view(host)),
            most => {
                let delay = self.rng.below(most);
                self.at(delay, Happening::View { host });
            }
        }
        inputs.push(Input::Command(Command::Serve {
            app: APP.into(),
            pricing: AppPricing { base: self.options.app_price, per_byte: Yocto::ZERO },
            max_queued: 2000,
        }));
        let cheats = self.options.cheats.contains(&host);
        self.hosts[host].start(limits, policy, cheats, seed);
        for input in inputs {
            self.input(host, input);
        }
    }

    /// Queues an input for a host, now.
    pub fn input(&mut self, host: usize, input: Input) {
        let life = self.hosts[host].life;
        self.at(0, Happening::Input { host, life, input });
    }

    /// Takes the next point in time: everything that happens then, then each host's flush. False
    /// when nothing is left.
    pub fn step(&mut self) -> bool {
        let Some((&(time, _), _)) = self.queue.first_key_value() else { return false };
        self.now = time;
        let mut touched = std::collections::BTreeSet::new();
        while let Some(entry) = self.queue.first_entry()
            && entry.key().0 == time
        {
            let happening = entry.remove();
            touched.extend(self.happen(happening));
            if self.rng.chance(self.options.early_flush) {
                for host in std::mem::take(&mut touched) {
                    self.drain(host);
                }
            }
        }
        for host in touched {
            self.drain(host);
        }
        true
    }

    /// Runs until this time, which is now then.
    pub fn run_until(&mut self, end_ms: u64) {
        self.run(end_ms.saturating_sub(self.now));
        self.now = self.now.max(end_ms);
    }

    /// Runs until nothing happens any more or the time is over.
    pub fn run(&mut self, max_ms: u64) {
        let end = self.now.saturating_add(max_ms);
        while self.queue.first_key_value().is_some_and(|((time, _), _)| *time <= end) {
            self.step();
        }
    }

    fn happen(&mut self, happening: Happening) -> Option<usize> {
        match self.unless_stalled(happening)? {
            Happening::Input { host, life, input } => {
                (self.hosts[host].life == life).then(|| self.hosts[host].handle(self.now, input))?;
                Some(host)
            }
            Happening::Committed { host, life, batch } => {
                if self.hosts[host].life != life || !self.hosts[host].commit(batch) {
                    return None;
                }
                self.hosts[host].handle(self.now, Input::Persisted { batch });
                Some(host)
            }
            Happening::Restart { host } => {
                self.boot(host);
                let pairs: Vec<_> = self.edges.iter().map(|edge| (edge.a, edge.b)).collect();
                for (a, b) in pairs.into_iter().filter(|&(a, b)| a == host || b == host) {
                    let delay = self.rng.below(20);
                    self.at(delay, Happening::Dial { a, b });
                }
                None
            }
            Happening::Resume { host } => self.resume(host),
            Happening::View { host } => {
                self.look(host);
                None
            }
            Happening::Severed { order } => {
                self.execute(order);
                None
            }
            Happening::Learn { host, channel, record } => {
                self.learn(host, channel, &record);
                None
            }
            Happening::Closing { channel } => {
                self.close_on(channel);
                None
            }
            Happening::Dial { a, b } => {
                self.dial(a, b);
                None
            }
            Happening::Arrive { link, to, bytes } => self.arrive(link, to, bytes),
            Happening::Broken { link, at } => self.broken(link, at),
        }
    }

    /// Carries out what a host's node wants, with a chance to crash before each output.
    fn drain(&mut self, host: usize) {
        while let Some(output) = self.hosts[host].poll() {
            let count = self.hosts[host].outputs;
            self.hosts[host].outputs += 1;
            let planned = self.crash_at == Some((host, count));
            if planned || self.rng.chance(self.options.faults.crash) {
                self.crash(host);
                return;
            }
            self.carry_out(host, output);
        }
        let deadline = self.hosts[host].node.as_ref().and_then(|node| node.next_deadline());
        if let Some(deadline) = deadline
            && self.hosts[host].tick_at != Some(deadline.0)
        {
            self.hosts[host].tick_at = Some(deadline.0);
            let life = self.hosts[host].life;
            let delay = deadline.0.saturating_sub(self.now);
            self.at(delay, Happening::Input { host, life, input: Input::Tick });
        }
    }

    /// Kills a host: what is not committed is lost, or a part of it was committed unnoticed.
    pub fn crash(&mut self, host: usize) {
        self.kill(host);
        let delay = 1 + self.rng.below(200);
        self.at(delay, Happening::Restart { host });
    }

    /// The same, for ever.
    pub fn kill(&mut self, host: usize) {
        let keep = self.rng.below(1 + self.hosts[host].uncommitted() as u64);
        self.hosts[host].crash(keep as usize);
        let links: Vec<u64> =
            self.links.iter().filter(|(_, link)| link.has(host)).map(|(id, _)| *id).collect();
        for id in links {
            self.cut(id);
        }
    }

    /// Terms of a channel.
    pub fn terms(&self, channel: ChannelId) -> &Terms {
        let pair = usize::try_from(channel.0.saturating_sub(1)).ok();
        pair.and_then(|pair| self.options.channel_terms.get(&pair)).unwrap_or(&self.options.terms)
    }

    /// Events of a host so far.
    pub fn events(&self, host: usize) -> &[Event] {
        &self.hosts[host].events
    }

    /// Why the node refused or the path rejected the request of this token, if it did.
    pub fn rejection(&self, token: u64) -> Option<RejectReason> {
        match self.outcome(token)? {
            Outcome::Refused(reason) | Outcome::Rejected(reason, _) => Some(reason),
            Outcome::Response(_) | Outcome::Severed(..) => None,
        }
    }

    pub fn outcome(&self, token: u64) -> Option<Outcome> {
        let asked = self.asked.get(&token)?;
        self.hosts[asked.author].outcomes.get(&token).and_then(|all| all.first().cloned())
    }

    /// Id of a started request.
    pub fn id(&self, token: u64) -> Option<RequestId> {
        let asked = self.asked.get(&token)?;
        self.hosts[asked.author].started.iter().find(|(_, t)| **t == token).map(|(id, _)| *id)
    }
}
