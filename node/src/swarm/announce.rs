//! What this node announces as a provider of.
//!
//! Kademlia repeats announcements by itself, but rarely, and tells nobody how many heard of one. So what was
//! announced while nobody listened is announced again once somebody does; and of many keys only some are
//! announced at the same time, since each is a search of its own.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use libp2p::PeerId;
use libp2p::kad::{self, ProviderRecord, QueryId, RecordKey, store::MemoryStore, store::RecordStore as _};
use tokio::time::Instant;

use super::behaviour::{MAX_PER_KEY, MAX_PROVIDED};

/// Announcements on their way at the same time: as many as Kademlia itself makes of its repeats.
const MOST_AT_ONCE: usize = 100;
/// After the first listener came; others come with it.
const DELAY: Duration = Duration::from_secs(1);

type Kad = kad::Behaviour<MemoryStore>;
type Key = [u8; 32];

/// Provider keys and their announcements.
#[derive(Default)]
pub(super) struct Announcements {
    provided: HashSet<Key>,
    /// Not announced yet, oldest first. What is no longer provided is passed over.
    waiting: VecDeque<Key>,
    running: HashSet<QueryId>,
    /// A node that keeps records has been connected since this one was last alone.
    heard: bool,
    again: Option<Instant>,
}

impl Announcements {
    /// Others find this node by `key` as soon as they have been told.
    ///
    /// Errors: there are [`MAX_PROVIDED`] keys.
    pub(super) fn provide(&mut self, kad: &mut Kad, local: PeerId, key: Key) -> Result<(), String> {
        if !self.provided.contains(&key) && self.provided.len() >= MAX_PROVIDED {
            return Err(format!("{MAX_PROVIDED} keys are announced already; take some back"));
        }
        let id = record_key(&key);
        let store = kad.store_mut();
        // The store would pass over one more, without a word.
        let held = store.providers(&id);
        if held.len() >= MAX_PER_KEY
            && held.iter().all(|record| record.provider != local)
            && let Some(last) = held.last()
        {
            store.remove_provider(&id, &last.provider);
        }
        let record = ProviderRecord::new(id, local, Vec::new());
        store.add_provider(record).map_err(|error| error.to_string())?;
        if self.provided.insert(key) {
            self.waiting.push_back(key);
        }
        self.announce(kad);
        Ok(())
    }

    pub(super) fn stop(&mut self, kad: &mut Kad, key: &Key) {
        self.provided.remove(key);
        kad.stop_providing(&record_key(key));
    }

    /// A node that keeps records is connected and known to Kademlia.
    pub(super) fn on_listener(&mut self) {
        if !self.heard {
            self.heard = true;
            self.again = Some(Instant::now() + DELAY);
        }
    }

    /// The last connection has closed: what is announced from now on may reach nobody.
    pub(super) fn on_alone(&mut self) {
        self.heard = false;
    }

    /// When [`Self::announce_again`] is due.
    pub(super) async fn due(&self) {
        match self.again {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    /// Announces all there is.
    pub(super) fn announce_again(&mut self, kad: &mut Kad) {
        self.again = None;
        self.waiting = self.provided.iter().copied().collect();
        self.announce(kad);
    }

    /// A search of Kademlia's has ended, of whatever kind.
    pub(super) fn on_ended(&mut self, kad: &mut Kad, query: QueryId) {
        if self.running.remove(&query) {
            self.announce(kad);
        }
    }

    fn announce(&mut self, kad: &mut Kad) {
        while self.running.len() < MOST_AT_ONCE
            && let Some(key) = self.waiting.pop_front()
        {
            if !self.provided.contains(&key) {
                continue;
            }
            match kad.start_providing(record_key(&key)) {
                Ok(query) => {
                    self.running.insert(query);
                }
                Err(error) => tracing::warn!(%error, "a provider key cannot be announced"),
            }
        }
    }
}

pub(super) fn record_key(key: &Key) -> RecordKey {
    RecordKey::new(key)
}

#[cfg(test)]
mod tests {
    use libp2p::identity::Keypair;
    use libp2p::kad::QueryInfo;

    use super::*;

    fn kad() -> (Kad, PeerId) {
        let key = Keypair::generate_ed25519();
        (super::super::behaviour::kademlia(&key), key.public().to_peer_id())
    }

    fn key(n: u16) -> Key {
        let mut key = [0; 32];
        key[..2].copy_from_slice(&n.to_le_bytes());
        key
    }

    /// Keys whose announcement is on its way.
    fn on_their_way(kad: &mut Kad) -> Vec<(QueryId, RecordKey)> {
        let announced = |query: kad::QueryRef<'_>| match query.info() {
            QueryInfo::AddProvider { key, .. } => Some((query.id(), key.clone())),
            _ => None,
        };
        kad.iter_queries().filter_map(announced).collect()
    }

    /// Ends everything on its way as Kademlia would; what that was.
    fn end_all(announcements: &mut Announcements, kad: &mut Kad) -> Vec<RecordKey> {
        let mut ended = Vec::new();
        for (query, key) in on_their_way(kad) {
            if !announcements.running.contains(&query) {
                continue;
            }
            announcements.on_ended(kad, query);
            ended.push(key);
        }
        ended
    }

    #[test]
    fn of_many_keys_some_are_announced_at_the_same_time_and_all_in_the_end() {
        let (mut kad, local) = kad();
        let mut announcements = Announcements::default();
        for n in 0..1000 {
            announcements.provide(&mut kad, local, key(n)).expect("provide");
        }
        assert_eq!(kad.store_mut().provided().count(), 1000, "who asks this node itself finds all at once");
        assert_eq!(on_their_way(&mut kad).len(), MOST_AT_ONCE);
        announcements.stop(&mut kad, &key(999));
        let mut told = HashSet::new();
        loop {
            let ended = end_all(&mut announcements, &mut kad);
            assert!(ended.len() <= MOST_AT_ONCE);
            if ended.is_empty() {
                break;
            }
            for key in ended {
                assert!(told.insert(key), "once");
            }
        }
        assert_eq!(told.len(), 999, "all but what is no longer provided");
    }

    /// Whoever announces the same first, or very much else, takes no place of it.
    #[test]
    fn others_keep_no_node_from_providing() {
        let (mut kad, local) = kad();
        let mut announcements = Announcements::default();
        for _ in 0..MAX_PER_KEY {
            let record = ProviderRecord::new(record_key(&key(1)), PeerId::random(), Vec::new());
            kad.store_mut().add_provider(record).expect("room");
        }
        announcements.provide(&mut kad, local, key(1)).expect("provide");
        let provided: Vec<RecordKey> = kad.store_mut().provided().map(|record| record.key.clone()).collect();
        assert_eq!(provided, [record_key(&key(1))], "and it is repeated");
        assert_eq!(kad.store_mut().providers(&record_key(&key(1))).len(), MAX_PER_KEY);
    }

    /// The first peer may be connected before it is known to keep records: what is announced then reaches nobody.
    #[test]
    fn what_nobody_heard_is_announced_again() {
        let (mut kad, local) = kad();
        let mut announcements = Announcements::default();
        announcements.provide(&mut kad, local, key(1)).expect("provide");
        assert_eq!(end_all(&mut announcements, &mut kad).len(), 1, "to nobody");
        announcements.on_listener();
        assert!(announcements.again.is_some(), "soon");
        announcements.announce_again(&mut kad);
        assert_eq!(end_all(&mut announcements, &mut kad), [record_key(&key(1))]);
        // Others that come while somebody is there find it with the first, or are told by Kademlia's repeats.
        announcements.on_listener();
        assert_eq!(announcements.again, None);
        announcements.on_alone();
        announcements.on_listener();
        assert!(announcements.again.is_some(), "soon");
        announcements.announce_again(&mut kad);
        assert_eq!(end_all(&mut announcements, &mut kad), [record_key(&key(1))]);
    }
}
