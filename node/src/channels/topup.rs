//! What is added to deposits so that lateness can be passed on.
//!
//! A node pays its upstream neighbour while the next one is late, out of its balance on one channel, and is paid on
//! another. When the one is used up it has to sever the next edge, though nobody there did anything wrong (protocol
//! section 4). Adding to the deposit in time moves money of its own, where severing costs the bond. An author and a
//! destination that are one could keep a request late for ever, so there is a limit.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use por_types::{AmountError, ChannelId, Yocto};
use serde::{Deserialize, Serialize};

use super::store_error;
use crate::chain::now_ms;
use crate::client::{ClientError, ErrorCode};
use crate::store::{AppTable, NodeStore};

const KEY: &[u8] = b"late top-ups";
/// What was added counts for this long.
const WINDOW: Duration = Duration::from_secs(24 * 3_600);
/// Longest wait until the chain shows what was added.
const SHOWN: Duration = Duration::from_secs(120);
/// That nothing more is added is told this often at most.
const TOLD: Duration = Duration::from_secs(60);

/// One that was made, or may have been.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct TopUp {
    /// By the wall clock, milliseconds since 1970.
    at_ms: u64,
    channel: ChannelId,
    amount: Yocto,
    /// The own deposit with it.
    deposit: Yocto,
}

pub(super) struct TopUps {
    store: NodeStore,
    limit: Yocto,
    made: Vec<TopUp>,
    /// The own deposit that the chain is to show first.
    expected: HashMap<ChannelId, (Yocto, Instant)>,
    told: HashMap<ChannelId, Instant>,
}

impl TopUps {
    /// `limit`: most within [`WINDOW`], those of earlier runs included.
    pub(super) fn load(store: NodeStore, limit: Yocto) -> Result<TopUps, ClientError> {
        let kept = store.get(AppTable::Metadata, KEY).map_err(store_error)?;
        let made: Vec<TopUp> = kept.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        // What a run before has signed may be on its way yet.
        let shown = u64::try_from(SHOWN.as_millis()).unwrap_or(u64::MAX);
        let lately = made.iter().filter(|it| now_ms() < it.at_ms.saturating_add(shown));
        let expected = lately.map(|it| (it.channel, (it.deposit, Instant::now()))).collect();
        Ok(TopUps { store, limit, made, expected, told: HashMap::new() })
    }

    /// What may be added now to a channel in which the chain shows this own deposit.
    pub(super) fn most(&mut self, channel: ChannelId, deposit: Yocto) -> Yocto {
        match self.expected.get(&channel) {
            Some((least, since)) if deposit < *least && since.elapsed() < SHOWN => Yocto::ZERO,
            _ => {
                self.expected.remove(&channel);
                self.left(now_ms())
            }
        }
    }

    fn left(&mut self, now_ms: u64) -> Yocto {
        let window = u64::try_from(WINDOW.as_millis()).unwrap_or(u64::MAX);
        self.made.retain(|it| now_ms < it.at_ms.saturating_add(window));
        let used = Yocto::checked_sum(self.made.iter().map(|it| it.amount));
        self.limit.saturating_sub(used.unwrap_or(self.limit))
    }

    /// Notes what is to be added, durably: a restart does not begin anew.
    pub(super) async fn note(
        &mut self,
        channel: ChannelId,
        deposit: Yocto,
        amount: Yocto,
    ) -> Result<(), ClientError> {
        let deposit = deposit.checked_add(amount).unwrap_or(deposit);
        self.made.push(TopUp { at_ms: now_ms(), channel, amount, deposit });
        self.expected.insert(channel, (deposit, Instant::now()));
        self.keep().await
    }

    /// What was noted last for a channel was not added.
    pub(super) async fn take_back(&mut self, channel: ChannelId) -> Result<(), ClientError> {
        self.expected.remove(&channel);
        if let Some(at) = self.made.iter().rposition(|it| it.channel == channel) {
            self.made.remove(at);
        }
        self.keep().await
    }

    async fn keep(&self) -> Result<(), ClientError> {
        let bytes = serde_json::to_vec(&self.made)
            .map_err(|error| ClientError::new(ErrorCode::Other, error.to_string(), ""))?;
        self.store.put(AppTable::Metadata, KEY, bytes).await.map_err(store_error)
    }

    /// The balance is running out, and nothing is added.
    pub(super) fn tell_used_up(&mut self, channel: ChannelId) {
        if self.expected.contains_key(&channel)
            || self.told.get(&channel).is_some_and(|told| told.elapsed() < TOLD)
        {
            return;
        }
        self.told.insert(channel, Instant::now());
        tracing::warn!(
            %channel, late_top_up = %self.limit.to_near_string(),
            "late payments use up this node's balance on the channel, and policy.late_top_up allows no more to be \
             added: `por channel top-up`, or the next channels of these requests will have to be severed"
        );
    }
}

/// How much to add to a balance from which `per_s` is paid for lateness each second, of at most `most`; `None` while
/// it lasts, or if that would not help.
pub(super) fn enough(
    balance: Yocto,
    per_s: Yocto,
    limit: Yocto,
    most: Yocto,
) -> Result<Option<Yocto>, AmountError> {
    let lasts = |seconds| per_s.checked_mul(seconds);
    if per_s.is_zero() || balance >= lasts(LOW_S)? {
        return Ok(None);
    }
    let amount = lasts(FOR_S)?.max(Yocto(limit.0 / STEPS)).min(most);
    Ok((amount >= lasts(LEAST_S)?).then_some(amount))
}

/// A balance that lasts for less than this is added to.
const LOW_S: u128 = 60;
/// For how long it is to last then.
const FOR_S: u128 = 600;
/// For less it is not worth a transaction.
const LEAST_S: u128 = 10;
/// The limit is used in this many steps, or fewer.
const STEPS: u128 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_added_to_what_is_running_out_alone() {
        let (limit, per_s) = (Yocto(100_000), Yocto(10));
        let of = |balance, most| enough(Yocto(balance), per_s, limit, Yocto(most)).expect("in range");
        assert_eq!(of(600, 100_000), None, "it lasts for a minute");
        assert_eq!(of(599, 100_000), Some(Yocto(10_000)), "a tenth of the limit");
        assert_eq!(of(0, 7_000), Some(Yocto(7_000)), "what is left of it");
        assert_eq!(of(0, 99), None, "for less than ten seconds");
        let dear = enough(Yocto(5), Yocto(50), limit, limit).expect("in range");
        assert_eq!(dear, Some(Yocto(30_000)), "ten minutes");
        assert_eq!(enough(Yocto(0), Yocto::ZERO, limit, limit), Ok(None), "nothing is late");
        assert!(enough(Yocto(0), Yocto(u128::MAX), limit, limit).is_err());
    }

    fn open(path: &std::path::Path) -> NodeStore {
        let identity = crate::store::StoreIdentity {
            network: por_types::Network {
                chain_id: "localnet".into(),
                contract: "por.test".parse().expect("account"),
            },
            node_key: por_types::NodeSecret::from_seed(&[1; 32]).public(),
        };
        NodeStore::open(path, &identity).expect("opens")
    }

    #[tokio::test]
    async fn the_limit_is_for_a_day_whatever_restarts() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("por.redb");
        let (channel, other) = (ChannelId(1), ChannelId(2));
        let limit = Yocto(100);
        {
            let store = open(&path);
            let mut made = TopUps::load(store.clone(), limit).expect("loads");
            assert_eq!(made.most(channel, Yocto(5)), limit);
            made.note(channel, Yocto(5), Yocto(60)).await.expect("kept");
            assert_eq!(made.most(channel, Yocto(64)), Yocto::ZERO, "the chain does not show it yet");
            assert_eq!(made.most(other, Yocto(0)), Yocto(40));
            assert_eq!(made.most(channel, Yocto(65)), Yocto(40));
            made.note(other, Yocto(0), Yocto(30)).await.expect("kept");
            made.take_back(other).await.expect("kept");
            assert_eq!(made.most(other, Yocto(0)), Yocto(40), "it was refused");
            store.close().await.expect("closes");
        }
        let mut again = TopUps::load(open(&path), limit).expect("loads");
        assert_eq!(again.most(channel, Yocto(64)), Yocto::ZERO, "it may be on its way yet");
        assert_eq!(again.most(channel, Yocto(65)), Yocto(40));
        let day = u64::try_from(WINDOW.as_millis()).expect("fits");
        let at = again.made[0].at_ms;
        assert_eq!(again.left(at + day - 1), Yocto(40));
        assert_eq!(again.left(at + day), limit);
    }
}
