//! Others are not blamed for what the driver could not take in.

use std::task::Waker;

use futures::Stream;
use por_core::types::{AccountId, ChannelId, Hop, Network, Side, Terms, Totals, Yocto};
use por_core::wire::{SeenChannel, Sync};
use por_core::{Command, GraphEdge, Limits, MyChannel};

use super::*;
use crate::MemoryStore;
use crate::orders::OrderStream;

const CHANNEL: ChannelId = ChannelId(1);
const DEPOSIT: Yocto = Yocto(1_000_000);
const NOW: u64 = 1_700_000_000_000;

/// A node that has asked its only neighbour for something, which has said nothing yet.
struct Asking {
    driver: Driver,
    orders: OrderStream,
    inbound: mpsc::Sender<FromHandler>,
    _behaviour: Behaviour,
    _control: Control,
}

fn poll(driver: &mut Driver) {
    for _ in 0..4 {
        assert!(Pin::new(&mut *driver).poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
}

fn terms() -> Terms {
    Terms {
        rtt_ms: 100,
        bytes_per_s: 1_000,
        base_fee: Yocto(1),
        byte_fee: Yocto(1),
        heartbeat_ms: 1_000,
        grace_ms: 1_000,
        max_requests: 8,
        max_bytes: 1 << 20,
    }
}

impl Asking {
    fn new() -> Asking {
        let account: AccountId = "por.test".parse().expect("an account");
        let network = Network { chain_id: "test".to_owned(), contract: account.clone() };
        let (secret, peer) = (NodeSecret::from_seed(&[1; 32]), NodeSecret::from_seed(&[2; 32]).public());
        let me = secret.public();
        let (behaviour, control, mut driver) =
            assemble(Config::new(network.clone()), secret, Box::new(MemoryStore::default())).expect("loads");
        let channel = MyChannel {
            channel: CHANNEL,
            peer,
            peer_account: account,
            side: Side::A,
            deposit_mine: DEPOSIT,
            deposit_theirs: DEPOSIT,
            drawn_mine: Yocto::ZERO,
            drawn_theirs: Yocto::ZERO,
            bond: Yocto::ZERO,
            floors: Totals::default(),
            terms: terms(),
            open: true,
            gone: false,
        };
        let edge = GraphEdge { channel: CHANNEL, a: me, b: peer, terms: terms(), open: true };
        driver.input(Input::Channels { channels: vec![channel] });
        driver.input(Input::Graph { version: 1, chain_time_ms: NOW, edges: vec![edge] });
        let outbound = Arc::new(Outbound::default());
        let (mut inbound, receiver) = mpsc::channel(64);
        let hello = Hello::new(network, Lane::Control, &Limits::default());
        let conn = ConnId(1);
        let ready =
            FromHandler::Ready { conn, peer, hello, outbound: Arc::clone(&outbound), inbound: receiver };
        behaviour.to_driver.clone().try_send(ready).expect("there is room");
        poll(&mut driver);
        let Some(Frame::Sync(probe)) = outbound.pop(Lane::Control) else {
            panic!("the node says Sync first")
        };
        let seen = vec![SeenChannel { channel: CHANNEL, deposit: DEPOSIT }];
        let sync = Sync { epoch: 1, complete: true, seen, ..Sync::default() };
        let answer = Sync { answers: probe.epoch, ..sync.clone() };
        let frames = vec![Frame::Sync(sync), Frame::Sync(answer)];
        inbound.try_send(FromHandler::Frames { conn, frames }).expect("there is room");
        poll(&mut driver);
        driver.input(Input::Command(Command::Request {
            token: 1,
            destination: peer,
            app: "app".into(),
            body: "question".into(),
            response_limit: 100,
            server_price: Yocto::ZERO,
            expires_ms: NOW + 60_000,
            graph_version: 1,
            route: vec![Hop { channel: CHANNEL, to: peer, price: Yocto(1_000), allowance_ms: 300_000 }],
        }));
        poll(&mut driver);
        let asked = std::iter::from_fn(|| outbound.pop(Lane::Control));
        assert!(asked.into_iter().any(|frame| matches!(frame, Frame::Request(_))), "nothing was asked");
        let mut orders = Box::pin(control.orders());
        let mut cx = Context::from_waker(Waker::noop());
        let place = loop {
            if let Poll::Ready(place) = orders.as_mut().poll(&mut cx) {
                break place.expect("it runs");
            }
            poll(&mut driver);
        };
        drop(orders);
        Asking { driver, orders: place, inbound, _behaviour: behaviour, _control: control }
    }

    /// Time passes.
    fn pass(&mut self, ms: u64) {
        self.driver.start -= Duration::from_millis(ms);
        poll(&mut self.driver);
    }

    fn alive(&mut self) {
        let frames = vec![Frame::Sync(Sync { epoch: 1, complete: true, ..Sync::default() })];
        self.inbound.try_send(FromHandler::Frames { conn: ConnId(1), frames }).expect("there is room");
    }

    fn severs(&mut self) -> bool {
        Pin::new(&mut self.orders).poll_next(&mut Context::from_waker(Waker::noop())).is_ready()
    }
}

#[test]
fn silence_that_is_heard_is_severed() {
    let mut asking = Asking::new();
    let severed = (0..50).any(|_| {
        asking.pass(200);
        asking.severs()
    });
    assert!(severed);
}

#[test]
fn a_process_that_stood_still_blames_nobody() {
    let mut asking = Asking::new();
    asking.pass(60_000);
    assert!(!asking.severs());
    asking.pass(1_000);
    assert!(!asking.severs(), "what has come meanwhile is read first");
}

#[test]
fn a_node_whose_store_hangs_blames_nobody() {
    let mut asking = Asking::new();
    asking.driver.uncommitted.extend([1_000, 1_001]);
    for _ in 0..300 {
        asking.pass(200);
        assert!(!asking.severs());
    }
    asking.alive();
    asking.driver.uncommitted.clear();
    for _ in 0..5 {
        asking.pass(200);
        assert!(!asking.severs());
    }
}

/// It takes something in after each write, and so finds out who says nothing.
#[test]
fn a_node_whose_store_is_always_slow_severs_the_silent() {
    let mut asking = Asking::new();
    let severed = (0..40).any(|_| {
        asking.driver.uncommitted.extend([1_000, 1_001]);
        (0..6).for_each(|_| asking.pass(200));
        asking.driver.uncommitted.clear();
        asking.pass(0);
        asking.severs()
    });
    assert!(severed);
}
