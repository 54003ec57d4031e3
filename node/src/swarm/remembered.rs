//! Where the counterparties of this node's channels were reached last, in a small file of the home.
//!
//! After a restart nobody else may be there to ask for their addresses. All of it is best effort: what
//! cannot be read or written costs a warning, and what is stale costs a dial.

use std::collections::{BTreeMap, HashSet};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use libp2p::{Multiaddr, PeerId};
use parking_lot::Mutex;

/// Most peers, and most addresses of one.
const MAX_PEERS: usize = 512;
const MAX_ADDRESSES: usize = 8;
/// Most bytes of the file that are read.
const MAX_FILE: u64 = 1 << 20;

type Addresses = BTreeMap<PeerId, Vec<Multiaddr>>;

/// The addresses, by peer; the best one of each first.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    path: Option<PathBuf>,
    addresses: Addresses,
    /// What is to be written next, and who writes: writes do not overtake each other.
    next: Arc<Mutex<Option<Addresses>>>,
    writer: Arc<Mutex<()>>,
}

impl Remembered {
    /// What the file says; nothing is kept without one.
    pub(super) fn load(path: Option<PathBuf>) -> Remembered {
        let mut text = String::new();
        if let Some(path) = &path {
            match std::fs::File::open(path).and_then(|file| file.take(MAX_FILE).read_to_string(&mut text)) {
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::warn!(%error, "addresses of counterparties cannot be read: {}", path.display());
                }
            }
        }
        let mut remembered = Remembered { path, ..Remembered::default() };
        for line in text.lines() {
            let Ok(address) = line.parse::<Multiaddr>() else { continue };
            let Ok((peer, address)) = super::boot_peer(&address) else { continue };
            let room = remembered.addresses.len() < MAX_PEERS || remembered.addresses.contains_key(&peer);
            if room {
                let known = remembered.addresses.entry(peer).or_default();
                known.push(address);
                known.truncate(MAX_ADDRESSES);
            }
        }
        remembered
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (&PeerId, &[Multiaddr])> {
        self.addresses.iter().map(|(peer, addresses)| (peer, addresses.as_slice()))
    }

    pub(super) fn of(&self, peer: &PeerId) -> Vec<Multiaddr> {
        self.addresses.get(peer).cloned().unwrap_or_default()
    }

    /// Remembers where a counterparty was reached. If there are too many, one that is none any more
    /// is forgotten for it.
    pub(super) fn put(
        &mut self,
        peer: PeerId,
        mut addresses: Vec<Multiaddr>,
        counterparties: &HashSet<PeerId>,
    ) {
        addresses.truncate(MAX_ADDRESSES);
        let known = self.addresses.get(&peer);
        if self.path.is_none() || addresses.is_empty() || known == Some(&addresses) {
            return;
        }
        if known.is_none() && self.addresses.len() >= MAX_PEERS {
            let Some(old) = self.addresses.keys().find(|old| !counterparties.contains(old)).copied() else {
                return;
            };
            self.addresses.remove(&old);
        }
        self.addresses.insert(peer, addresses);
        self.save();
    }

    /// Writes it off the loop of the network; a write that waits is replaced by a later one.
    fn save(&self) {
        let Some(path) = self.path.clone() else { return };
        if self.next.lock().replace(self.addresses.clone()).is_some() {
            // A task waits for its turn already.
            return;
        }
        let (next, writer) = (self.next.clone(), self.writer.clone());
        tokio::task::spawn_blocking(move || {
            let _writing = writer.lock();
            let Some(addresses) = next.lock().take() else { return };
            if let Err(error) = write(&path, &text(&addresses)) {
                tracing::warn!(%error, "addresses of counterparties cannot be kept: {}", path.display());
            }
        });
    }
}

fn text(addresses: &Addresses) -> String {
    let line = |peer: &PeerId, address: &Multiaddr| format!("{address}/p2p/{peer}\n");
    addresses.iter().flat_map(|(peer, of)| of.iter().map(move |address| line(peer, address))).collect()
}

fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(path).map(drop).map_err(|error| error.error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> Multiaddr {
        format!("/ip4/127.0.0.1/tcp/{port}").parse().expect("an address")
    }

    #[tokio::test]
    async fn what_was_put_is_there_after_a_restart() {
        let home = tempfile::tempdir().expect("a folder");
        let path = home.path().join("peers");
        let (one, two) = (PeerId::random(), PeerId::random());
        let counterparties = HashSet::from([one, two]);
        let mut remembered = Remembered::load(Some(path.clone()));
        remembered.put(one, vec![address(1)], &counterparties);
        remembered.put(two, vec![address(2), address(3)], &counterparties);
        remembered.put(one, vec![address(4)], &counterparties);
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        loop {
            let again = Remembered::load(Some(path.clone()));
            if again.of(&one) == [address(4)] && again.of(&two) == [address(2), address(3)] {
                assert_eq!(again.all().count(), 2);
                break;
            }
            assert!(std::time::Instant::now() < deadline, "it is written");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn nonsense_is_skipped_and_the_number_is_bounded() {
        let home = tempfile::tempdir().expect("a folder");
        let path = home.path().join("peers");
        let known = PeerId::random();
        std::fs::write(&path, format!("nonsense\n/ip4/1.2.3.4/tcp/1\n{}/p2p/{known}\n", address(1)))
            .expect("written");
        let mut remembered = Remembered::load(Some(path));
        assert_eq!(remembered.of(&known), [address(1)]);
        let counterparties: HashSet<PeerId> = (0..MAX_PEERS).map(|_| PeerId::random()).collect();
        for peer in &counterparties {
            remembered.put(*peer, vec![address(2); 99], &counterparties);
        }
        assert_eq!(remembered.all().count(), MAX_PEERS);
        assert!(remembered.of(&known).is_empty(), "no counterparty any more");
        assert!(remembered.all().all(|(_, addresses)| addresses.len() == MAX_ADDRESSES));
        let late = PeerId::random();
        remembered.put(late, vec![address(3)], &counterparties);
        assert!(remembered.of(&late).is_empty());
    }
}
