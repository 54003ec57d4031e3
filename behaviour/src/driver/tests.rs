use std::task::Waker;

use por_core::Limits;
use por_core::types::Network;
use por_core::wire::{Request, Response};

use super::*;
use crate::MemoryStore;
use crate::wakes::Wakes;

/// Else a peer could make a round, and the count of who asks, grow without end.
#[test]
fn empty_frames_count_too() {
    let request = || Frame::Request(Request { payment: None, resent: false, requests: Vec::new() });
    let response = Frame::Response(Response { payment: None, resent: false, responses: Vec::new() });
    let frames = vec![request(), request(), response];
    assert_eq!(weight(&FromHandler::Frames { conn: ConnId(1), frames }), 3);
}

/// A turn that nobody needs makes the executor wake a thread for it; one that is missing is a hang.
#[test]
fn the_driver_takes_another_turn_only_for_what_is_left() {
    let network = Network { chain_id: "test".to_owned(), contract: "por.test".parse().expect("an account") };
    let secret = NodeSecret::from_seed(&[1; 32]);
    let store = Box::new(MemoryStore::default());
    let (behaviour, control, mut driver) =
        assemble(Config::new(network), secret, store).expect("an empty store loads");
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(Arc::clone(&wakes));
    let mut cx = Context::from_waker(&waker);
    // Those that it gives itself; what it was woken for before is there.
    let mut turns = |driver: &mut Driver| {
        wakes.take();
        let mut turns = 0;
        loop {
            assert!(Pin::new(&mut *driver).poll(&mut cx).is_pending());
            turns += 1;
            if wakes.take() == 0 {
                return turns;
            }
        }
    };
    assert_eq!(turns(&mut driver), 1, "what a start writes is durable at once");
    assert_eq!(turns(&mut driver), 1, "nothing to do");
    let mut said = Vec::new();
    for _ in 0..2 * MAX_ROUND {
        let message = FromHandler::Drained { conn: ConnId(1), bytes: 1 };
        said.push(behaviour.to_driver.clone().try_send(message));
    }
    assert!(said.iter().all(Result::is_ok));
    assert_eq!(turns(&mut driver), 3, "two full rounds, and a look for more");
    // What is durable at once is told in the same turn.
    let mut call = Box::pin(control.set_late_fee(por_core::types::Yocto(1)));
    let mut other = Context::from_waker(Waker::noop());
    assert!(call.as_mut().poll(&mut other).is_pending());
    assert_eq!(turns(&mut driver), 1);
    assert!(call.as_mut().poll(&mut other).is_ready());
    assert!(driver.uncommitted.is_empty());
}

/// Two batches are under way, until the second time that it is asked.
#[derive(Default)]
struct Slow(usize);

impl Store for Slow {
    fn load(&mut self) -> Result<por_core::Restored, StoreError> {
        Ok(por_core::Restored { rows: Vec::new() })
    }

    fn submit(&mut self, _: u64, _: Vec<por_core::Write>) {}

    fn poll_durable(&mut self, _: &mut Context<'_>) -> Poll<Result<u64, StoreError>> {
        self.0 += 1;
        if self.0 == 2 { Poll::Ready(Ok(2)) } else { Poll::Pending }
    }
}

/// Whether the store is behind depends on the time: it must not be asked twice in a turn. The first time
/// bodies pass and it is not; then it is, and nothing is taken in that would be looked at once it is not.
#[test]
fn a_turn_that_grows_late_leaves_nothing_behind() {
    let network = Network { chain_id: "test".to_owned(), contract: "por.test".parse().expect("an account") };
    let secret = NodeSecret::from_seed(&[1; 32]);
    let (behaviour, control, mut driver) =
        assemble(Config::new(network), secret, Box::new(Slow::default())).expect("an empty store loads");
    driver.uncommitted.extend([1, 2]);
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(Arc::clone(&wakes));
    let mut call = Box::pin(control.channels());
    let mut caller = Context::from_waker(Waker::noop());
    assert!(call.as_mut().poll(&mut caller).is_pending());
    let late = Duration::from_millis(STREAMING_MS + 20);
    let (held, holds) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let guard = behaviour.shared.hold_unserved();
            held.send(()).expect("is waited for");
            std::thread::sleep(late);
            drop(guard);
        });
        holds.recv().expect("it holds");
        driver.streamed = driver.now();
        let mut cx = Context::from_waker(&waker);
        assert!(Pin::new(&mut driver).poll(&mut cx).is_pending());
        while wakes.take() > 0 {
            assert!(Pin::new(&mut driver).poll(&mut cx).is_pending());
        }
    });
    assert!(call.as_mut().poll(&mut caller).is_ready(), "it waits for the next timer");
}

struct Broken;

impl Store for Broken {
    fn load(&mut self) -> Result<por_core::Restored, StoreError> {
        Ok(por_core::Restored { rows: Vec::new() })
    }

    fn submit(&mut self, _: u64, _: Vec<por_core::Write>) {}

    fn poll_durable(&mut self, _: &mut Context<'_>) -> Poll<Result<u64, StoreError>> {
        Poll::Ready(Err(StoreError::new("no space")))
    }
}

/// Whoever spawned it may keep the future.
#[test]
fn a_driver_that_has_returned_has_ended_though_it_is_held() {
    let network = Network { chain_id: "test".to_owned(), contract: "por.test".parse().expect("an account") };
    let secret = NodeSecret::from_seed(&[1; 32]);
    let (behaviour, control, mut driver) =
        assemble(Config::new(network), secret, Box::new(Broken)).expect("an empty store loads");
    let mut cx = Context::from_waker(Waker::noop());
    let mut call = Box::pin(control.channels());
    assert!(call.as_mut().poll(&mut cx).is_pending());
    assert!(matches!(Pin::new(&mut driver).poll(&mut cx), Poll::Ready(Err(_))));
    assert!(behaviour.shared.is_stopped(), "handlers would keep connections for nothing");
    assert!(matches!(call.as_mut().poll(&mut cx), Poll::Ready(Err(_))));
    let mut next = Box::pin(control.channels());
    assert!(matches!(next.as_mut().poll(&mut cx), Poll::Ready(Err(_))));
}

/// A connection that is ready and closed while the driver is busy must not be taken for open
/// when its first message is reached at last.
#[test]
fn a_connection_that_closed_before_it_was_noticed_leaves_nothing() {
    let network = Network { chain_id: "test".to_owned(), contract: "por.test".parse().expect("an account") };
    let secret = NodeSecret::from_seed(&[1; 32]);
    let peer = NodeSecret::from_seed(&[2; 32]).public();
    let store = Box::new(MemoryStore::default());
    let (behaviour, _control, mut driver) =
        assemble(Config::new(network.clone()), secret, store).expect("an empty store loads");
    let send = |message| behaviour.to_driver.clone().try_send(message).expect("each sender has a place");
    for _ in 0..2 * MAX_ROUND {
        send(FromHandler::Drained { conn: ConnId(1), bytes: 1 });
    }
    let hello = Hello::new(network, Lane::Control, &Limits::default());
    let (_, inbound) = mpsc::channel(0);
    send(FromHandler::Ready { conn: ConnId(2), peer, hello, outbound: Arc::default(), inbound });
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..4 {
        assert!(Pin::new(&mut driver).poll(&mut cx).is_pending());
    }
    assert!(driver.links.is_empty());
    assert_eq!(driver.inbound.take_ended(), []);
}

/// A neighbour that always has something to say must not keep the node from noticing that others are gone: what
/// it sends them would go nowhere, and what it holds for them would never be given back.
#[test]
fn a_connection_that_closed_is_noticed_while_others_flood() {
    let network = Network { chain_id: "test".to_owned(), contract: "por.test".parse().expect("an account") };
    let [me, busy, gone] = [1, 2, 3].map(|seed| NodeSecret::from_seed(&[seed; 32]));
    let store = Box::new(MemoryStore::default());
    let (behaviour, _control, mut driver) =
        assemble(Config::new(network.clone()), me, store).expect("an empty store loads");
    let connect = |conn, peer: &NodeSecret| {
        let hello = Hello::new(network.clone(), Lane::Control, &Limits::default());
        let (sender, inbound) = mpsc::channel(3);
        let peer = peer.public();
        let ready = FromHandler::Ready { conn, peer, hello, outbound: Arc::default(), inbound };
        behaviour.to_driver.clone().try_send(ready).expect("each sender has a place");
        sender
    };
    let (mut flood, other) = (connect(ConnId(1), &busy), connect(ConnId(2), &gone));
    let mut cx = Context::from_waker(Waker::noop());
    let frames = || vec![Frame::Sync(por_core::wire::Sync { epoch: 1, ..Default::default() }); MAX_ROUND];
    let mut turn = |driver: &mut Driver| {
        while flood.try_send(FromHandler::Frames { conn: ConnId(1), frames: frames() }).is_ok() {}
        assert!(Pin::new(driver).poll(&mut cx).is_pending());
    };
    (0..4).for_each(|_| turn(&mut driver));
    assert_eq!(driver.links.len(), 2);
    drop(other);
    (0..4).for_each(|_| turn(&mut driver));
    assert_eq!(driver.links.keys().collect::<Vec<_>>(), [&ConnId(1)]);
}

/// Else the node would run, and never have a peer.
#[test]
fn limits_that_every_peer_refuses_are_refused_here() {
    let network = Network { chain_id: "test".to_owned(), contract: "por.test".parse().expect("an account") };
    let good = Limits::default();
    let bad = [
        Limits { max_frame: por_core::wire::MIN_FRAME - 1, ..good.clone() },
        Limits { window: por_core::wire::MIN_FRAME - 1, ..good.clone() },
        Limits { max_inline: good.max_frame / 2 + 1, ..good },
    ];
    for limits in bad {
        let config = Config::new(network.clone()).with_limits(limits);
        let secret = NodeSecret::from_seed(&[1; 32]);
        let made = assemble(config, secret, Box::new(MemoryStore::default()));
        assert!(matches!(made, Err(crate::Error::Limits(_))));
    }
}

/// A round ends before it has cost so much that others miss this node's syncs: small numbers make long lists.
#[test]
fn long_lists_make_short_rounds() {
    use por_core::ExchangeId;
    use por_core::wire::{Ack, Done};
    let exchanges = vec![ExchangeId(1); 1 << 16];
    let ack = Frame::Ack(Ack { exchanges: exchanges.clone(), receipts: Vec::new() });
    let done = Frame::Done(Done { exchanges, receipts: Vec::new() });
    for frame in [ack, done] {
        let frames = vec![frame];
        assert_eq!(weight(&FromHandler::Frames { conn: ConnId(1), frames }), MAX_ROUND);
    }
}
