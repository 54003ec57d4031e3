//! Keys of which others are providers, as this node keeps them for the network: in bounded number, and of each
//! peer.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use libp2p::PeerId;
use libp2p::kad::RecordKey;

use super::behaviour::{MAX_FOREIGN, PROVIDER_TTL};

/// Most keys that one peer may bring.
const MAX_PER_PEER: usize = 1 << 13;
/// Between two looks for what has expired, which takes as long as there are keys.
const SWEEP: Duration = Duration::from_secs(60);

/// Who brought a key first, and when it was announced last.
#[derive(Debug, Default)]
pub(super) struct ForeignKeys {
    keys: HashMap<RecordKey, (PeerId, Instant)>,
    by_peer: HashMap<PeerId, usize>,
    swept: Option<Instant>,
}

impl ForeignKeys {
    /// Whether a peer may announce a key. `expired` gets what has gone to make room for it.
    pub(super) fn is_room(
        &mut self,
        key: &RecordKey,
        provider: &PeerId,
        now: Instant,
        expired: &mut Vec<RecordKey>,
    ) -> bool {
        if self.keys.contains_key(key) {
            return true;
        }
        if self.is_full(provider) && self.swept.is_none_or(|swept| now.duration_since(swept) >= SWEEP) {
            self.swept = Some(now);
            self.sweep(now, expired);
        }
        !self.is_full(provider)
    }

    /// It is kept.
    pub(super) fn note(&mut self, key: RecordKey, provider: PeerId, now: Instant) {
        let (_, announced) = self.keys.entry(key).or_insert_with(|| {
            *self.by_peer.entry(provider).or_default() += 1;
            (provider, now)
        });
        *announced = now;
    }

    fn is_full(&self, provider: &PeerId) -> bool {
        let theirs = self.by_peer.get(provider).copied().unwrap_or_default();
        self.keys.len() >= MAX_FOREIGN || theirs >= MAX_PER_PEER
    }

    fn sweep(&mut self, now: Instant, expired: &mut Vec<RecordKey>) {
        let by_peer = &mut self.by_peer;
        self.keys.retain(|key, (first, announced)| {
            let fresh = now.duration_since(*announced) < PROVIDER_TTL;
            if !fresh {
                expired.push(key.clone());
                if let Some(count) = by_peer.get_mut(first) {
                    *count -= 1;
                }
            }
            fresh
        });
        by_peer.retain(|_, count| *count > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: usize) -> RecordKey {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&n.to_le_bytes());
        RecordKey::new(&key)
    }

    #[test]
    fn a_peers_keys_are_bounded_and_expire() {
        let (one, other) = (PeerId::random(), PeerId::random());
        let (mut keys, mut expired, start) = (ForeignKeys::default(), Vec::new(), Instant::now());
        for n in 0..MAX_PER_PEER {
            assert!(keys.is_room(&key(n), &one, start, &mut expired));
            keys.note(key(n), one, start);
        }
        assert!(!keys.is_room(&key(MAX_PER_PEER), &one, start, &mut expired), "too many");
        assert!(keys.is_room(&key(0), &one, start, &mut expired), "it has that already");
        assert!(keys.is_room(&key(MAX_PER_PEER), &other, start, &mut expired), "others have their own");
        keys.note(key(0), other, start + PROVIDER_TTL);
        assert!(expired.is_empty());
        assert!(keys.is_room(&key(MAX_PER_PEER), &one, start + PROVIDER_TTL, &mut expired));
        assert_eq!(
            (expired.len(), keys.keys.len()),
            (MAX_PER_PEER - 1, 1),
            "all but the one announced since"
        );
        assert_eq!(keys.by_peer.get(&one), Some(&1), "it is still counted to whoever brought it");
    }
}
