//! Keeps the node attached, and the queue of partition checks moving (protocol section 7).
//!
//! Level-triggered like the channel manager: every pass looks at the chain and derives what is to
//! be done. Nothing here is remembered over a restart, and nothing has to be: a ping that was made
//! is refused the second time, and a check that is finished has nothing to continue.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use por_types::interface::{
    ChannelStatus, ChannelView, CheckArgs, CheckView, ChecksView, NodeView, PingArgs, code,
};
use por_types::{AccountId, ChannelId, NodeKey};
use rand::Rng as _;

use super::Daemon;
use crate::chain::{Call, ChainError, Intent};
use crate::client::ClientError;
use crate::config::ChecksPolicy;
use crate::graph::is_over;

/// Neighbours looked at in one pass; the next pass looks at the next ones.
const NEIGHBOURS: usize = 16;
/// Calls that continue a check in one pass.
const CONTINUATIONS: u32 = 64;
/// Longest wait after a call that failed.
const MAX_REST: Duration = Duration::from_secs(300);

/// How patient the keeper is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Between two looks at the chain.
    interval: Duration,
    /// How long the queue may stand still before an end of the channel whose check is at its head
    /// continues it; others wait
    /// twice to three times as long, so that usually only one pays for the call.
    patience: Duration,
}

impl Pace {
    pub(super) fn new(local: bool) -> Pace {
        let (interval, patience) = if local { (500, 1_000) } else { (10_000, 20_000) };
        Pace { interval: Duration::from_millis(interval), patience: Duration::from_millis(patience) }
    }
}

/// A queue that stands still.
struct Still {
    /// What changes when it moves: the check at its head, if one is there, and its length.
    mark: (Option<CheckView>, u64),
    since: Instant,
    /// Between 0 and 1, drawn once, so that nodes do not all act at the same time.
    jitter: f64,
}

struct Keeper {
    daemon: Arc<Daemon>,
    policy: ChecksPolicy,
    pace: Pace,
    /// A ping of this node is in the queue behind a check.
    ping_waits: bool,
    still: Option<Still>,
    /// Where the next look at the neighbours begins.
    turn: usize,
    /// Looks at channels that are over.
    looks: usize,
    /// No calls before this, and how long to wait after the next failure.
    rest: Option<(Instant, Duration)>,
}

/// Runs for ever. Failures of the chain are logged and tried again.
pub(super) async fn run(daemon: Arc<Daemon>, policy: ChecksPolicy, pace: Pace) -> Result<(), ClientError> {
    let mut keeper =
        Keeper { daemon, policy, pace, ping_waits: false, still: None, turn: 0, looks: 0, rest: None };
    loop {
        if keeper.rest.is_none_or(|(until, _)| Instant::now() >= until) {
            match keeper.pass().await {
                Ok(()) => keeper.rest = None,
                Err(error) => keeper.tire(&error),
            }
        }
        tokio::time::sleep(pace.interval).await;
    }
}

impl Keeper {
    fn tire(&mut self, error: &ChainError) {
        let wait = self.rest.map_or(self.pace.interval, |(_, wait)| wait);
        tracing::warn!(%error, "attachment and checks have to wait");
        self.rest = Some((Instant::now() + wait, (wait * 2).min(MAX_REST)));
    }

    async fn pass(&mut self) -> Result<(), ChainError> {
        let channels = self.channels();
        if channels.is_empty() {
            return Ok(());
        }
        self.drop_gone(&channels).await?;
        let Some(node) = self.daemon.chain.node(&self.daemon.account).await? else { return Ok(()) };
        if node.node_key != self.daemon.node_key {
            return Ok(());
        }
        let checks = self.daemon.chain.checks().await?;
        self.attach(&node, &channels, &checks).await?;
        self.continue_check(&node, &channels, checks).await
    }

    fn channels(&self) -> Vec<ChannelView> {
        self.daemon.graph.read().channels_of(&self.daemon.node_key).into_iter().cloned().collect()
    }

    /// The other side may have had the record of a channel removed, of which the change log says
    /// nothing: one channel a pass is looked at.
    async fn drop_gone(&mut self, channels: &[ChannelView]) -> Result<(), ChainError> {
        let over: Vec<ChannelId> =
            channels.iter().filter(|view| is_over(&view.status)).map(|view| view.channel).collect();
        self.looks = self.looks.wrapping_add(1);
        let Some(at) = self.looks.checked_rem(over.len()) else { return Ok(()) };
        if self.daemon.chain.channel(over[at]).await?.is_none() {
            self.daemon.graph.write().forget(over[at]);
        }
        Ok(())
    }

    /// Pings through an attached neighbour while this node is not attached.
    async fn attach(
        &mut self,
        node: &NodeView,
        channels: &[ChannelView],
        checks: &ChecksView,
    ) -> Result<(), ChainError> {
        if node.attached || (self.ping_waits && checks.waiting == 0) {
            self.ping_waits = false;
        }
        if node.attached || self.ping_waits {
            return Ok(());
        }
        let Some(through) = self.attached_neighbour(channels).await? else { return Ok(()) };
        tracing::info!(%through, "pinging, to become attached");
        match self.daemon.chain.call(Intent::new(Call::Ping(PingArgs { through }))).await {
            // With checks pending it is judged after them.
            Ok(_) => self.ping_waits = checks.waiting > 0,
            Err(error) => {
                // One that was made before waits to be judged. Or it was cut off, or the channel closed, since the
                // look; or an endpoint says what is not so, and goes on to: a refused call costs gas all the same.
                self.ping_waits = error.contract_code() == Some(code::ATTACHED);
                return Err(error);
            }
        }
        Ok(())
    }

    async fn attached_neighbour(
        &mut self,
        channels: &[ChannelView],
    ) -> Result<Option<AccountId>, ChainError> {
        let all = neighbours(channels, &self.daemon.node_key);
        let count = all.len().min(NEIGHBOURS);
        let first = self.turn.checked_rem(all.len()).unwrap_or(0);
        self.turn = self.turn.wrapping_add(count);
        for account in all.iter().cycle().skip(first).take(count) {
            if self.daemon.chain.node(account).await?.is_some_and(|node| node.attached) {
                return Ok(Some(account.clone()));
            }
        }
        Ok(None)
    }

    /// Continues the queue if what is at its head concerns this node and nobody else does.
    async fn continue_check(
        &mut self,
        node: &NodeView,
        channels: &[ChannelView],
        checks: ChecksView,
    ) -> Result<(), ChainError> {
        if checks.waiting == 0 {
            self.still = None;
            return Ok(());
        }
        let head = checks.head.as_ref();
        let ours = concerned(head, node.index, channels, self.ping_waits);
        let wanted = match self.policy {
            ChecksPolicy::None => false,
            ChecksPolicy::Own => ours,
            ChecksPolicy::Any => true,
        };
        let is_end = head.is_some_and(|head| head.a == node.index || head.b == node.index);
        let mark = (checks.head, checks.waiting);
        let still = match self.still.take() {
            Some(still) if still.mark == mark => still,
            _ => Still { mark, since: Instant::now(), jitter: rand::rng().random_range(0.0..1.0) },
        };
        let patience = self.pace.patience.mul_f64(if is_end { 1.0 } else { 2.0 + still.jitter });
        let due = wanted && still.since.elapsed() >= patience;
        self.still = Some(still);
        if due { self.crank().await } else { Ok(()) }
    }

    async fn crank(&mut self) -> Result<(), ChainError> {
        for number in 0..CONTINUATIONS {
            let outcome = self.daemon.chain.call(Intent::new(Call::Check(CheckArgs::default()))).await;
            let left = match outcome {
                Ok(outcome) => outcome.value.as_u64().unwrap_or(0),
                // Others were quicker. If there was none from the start, it is not called for again at once.
                Err(error) if number > 0 && error.contract_code() == Some(code::NO_CHECK) => break,
                Err(error) => return Err(error),
            };
            tracing::info!(left, "continued the pending partition checks");
            // Behind the last check other operations may wait for their turn.
            if left == 0 && self.daemon.chain.checks().await?.waiting == 0 {
                break;
            }
        }
        Ok(())
    }
}

/// Accounts at the other ends of this node's edges. An edge counts until its close is finalized.
fn neighbours(channels: &[ChannelView], key: &NodeKey) -> Vec<AccountId> {
    let edge =
        |view: &&ChannelView| matches!(view.status, ChannelStatus::Open | ChannelStatus::Closing { .. });
    let other = |view: &ChannelView| if view.key_a == *key { view.b.clone() } else { view.a.clone() };
    channels.iter().filter(edge).map(other).collect::<BTreeSet<_>>().into_iter().collect()
}

/// Something of this node waits for the check: it is its own close, or a later one of its closes or
/// its ping is in the queue behind it. Where no check is at the head, what is there concerns
/// everybody: nobody prepaid for it, and until it is applied all stake, bonds and checks wait.
fn concerned(head: Option<&CheckView>, index: u32, channels: &[ChannelView], ping_waits: bool) -> bool {
    let Some(head) = head else { return true };
    let later = |view: &ChannelView| match view.status {
        ChannelStatus::Severed { severed_ms, .. } => severed_ms >= head.closed_ms,
        // When it was closed is not on record; while its bonds are held it was lately.
        ChannelStatus::Closed { bonds_until_ms, .. } => bonds_until_ms.is_some(),
        _ => false,
    };
    ping_waits || head.a == index || head.b == index || channels.iter().any(later)
}

#[cfg(test)]
mod tests {
    use por_types::{Side, Terms, Totals, Yocto};

    use super::*;

    fn channel(a: u8, b: u8, status: ChannelStatus) -> ChannelView {
        let account = |node: u8| format!("n{node}.near").parse().expect("account");
        ChannelView {
            channel: ChannelId(1),
            a: account(a),
            b: account(b),
            key_a: NodeKey([a; 32]),
            key_b: NodeKey([b; 32]),
            deposit_a: Yocto::ZERO,
            deposit_b: Yocto::ZERO,
            drawn_a: Yocto::ZERO,
            drawn_b: Yocto::ZERO,
            bond: Yocto::ZERO,
            totals: Totals::default(),
            terms: Terms {
                rtt_ms: 1,
                bytes_per_s: 1,
                base_fee: Yocto(1),
                byte_fee: Yocto(1),
                heartbeat_ms: 1,
                grace_ms: 1,
                max_requests: 1,
                max_bytes: 1,
            },
            sequence: 0,
            status,
        }
    }

    fn severed(severed_ms: u64) -> ChannelStatus {
        ChannelStatus::Severed { by: Side::A, severed_ms, settles_ms: 99 }
    }

    #[test]
    fn neighbours_are_the_other_ends_of_edges_once_each() {
        let closing =
            ChannelStatus::Closing { by: Side::A, totals: Totals::default(), confirmed: true, closes_ms: 9 };
        let channels = [
            channel(1, 2, ChannelStatus::Open),
            channel(2, 1, ChannelStatus::Open),
            channel(3, 1, closing),
            channel(1, 4, severed(0)),
            channel(1, 5, ChannelStatus::Proposed),
        ];
        assert_eq!(neighbours(&channels, &NodeKey([1; 32])), ["n2.near", "n3.near"]);
    }

    #[test]
    fn a_check_concerns_its_ends_and_those_who_wait_behind_it() {
        let head = CheckView { channel: ChannelId(0), a: 7, b: 8, closed_ms: 100, reward: Yocto::ZERO };
        let open = [channel(1, 2, ChannelStatus::Open), channel(1, 3, severed(99))];
        assert!(!concerned(Some(&head), 1, &open, false));
        assert!(concerned(Some(&head), 1, &open, true));
        assert!(concerned(Some(&head), 7, &[], false) && concerned(Some(&head), 8, &[], false));
        assert!(concerned(Some(&head), 1, &[channel(1, 2, severed(100))], false));
        // Pings or stakes that a check has left behind.
        assert!(concerned(None, 1, &open, false));
    }
}
