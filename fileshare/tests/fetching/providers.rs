//! Providers with real stores, and routes with prices, in memory.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use por_fileshare::{
    answer::Answerer,
    budget::Budget,
    dir::{TreeOptions, put_tree},
    exit::{Exit, Failure},
    fetch::{Limits, Session, Stop},
    get::{self, Place, Want},
    id::ContentId,
    net::{Call, Network, Reply},
    proto::{GET_APP, Pricing},
    store::{AddOptions, Store},
};
use por_types::{NodeKey, Yocto};

pub const MIB: u64 = 1 << 20;
pub const ROUTE_PER_BYTE: u128 = 2;
pub const ROUTE_BASE: u128 = 1000;

/// How a provider treats a question for a window, `n` being how many came before.
pub type Fault = Arc<dyn Fn(u64, Vec<u8>) -> Result<Vec<u8>, Failure> + Send + Sync>;

pub struct Provider {
    pub answerer: Answerer,
    pub pricing: Pricing,
    pub fault: Option<Fault>,
    pub asked: AtomicU64,
}

/// Providers behind routes of a fixed price.
#[derive(Default)]
pub struct Net {
    pub providers: HashMap<NodeKey, Provider>,
    pub in_flight: AtomicUsize,
    pub most_in_flight: AtomicUsize,
    pub paid: Mutex<u128>,
    pub delay: Duration,
    /// A question waits until this says that it may be answered.
    pub gate: Option<fn(&Net, &Call) -> bool>,
    /// The own node is not there; how often it was asked nevertheless.
    pub away: AtomicBool,
    pub missed: AtomicU64,
    /// Is paid and never answers.
    pub stalls: Option<NodeKey>,
    /// Added to every route's price from some time on.
    pub surcharge: AtomicU64,
}

impl Net {
    pub fn price(&self, body_len: u64, limit: u64, server: Yocto) -> Yocto {
        let surcharge = u128::from(self.surcharge.load(Ordering::Relaxed));
        let bytes = u128::from(body_len + limit);
        Yocto(server.0 + ROUTE_BASE + ROUTE_PER_BYTE * bytes + surcharge)
    }

    pub fn paid(&self) -> Yocto {
        Yocto(*self.paid.lock().unwrap())
    }

    pub fn asked(&self, node: u8) -> u64 {
        self.providers[&key(node)].asked.load(Ordering::Relaxed)
    }
}

pub fn key(node: u8) -> NodeKey {
    NodeKey([node; 32])
}

pub fn failure(exit: Exit) -> Failure {
    Failure::new(exit, "made to fail", "")
}

impl Network for Net {
    async fn providers(&self, _: &[u8; 32], limit: usize, _: Duration) -> Result<Vec<NodeKey>, Failure> {
        let mut nodes: Vec<NodeKey> = self.providers.keys().copied().collect();
        nodes.sort();
        nodes.truncate(limit);
        Ok(nodes)
    }

    async fn quote(
        &self,
        to: NodeKey,
        _: &'static str,
        body_len: u64,
        limit: u64,
        server_price: Yocto,
    ) -> Result<Yocto, Failure> {
        assert!(self.providers.contains_key(&to));
        Ok(self.price(body_len, limit, server_price))
    }

    async fn is_there(&self) -> bool {
        !self.away.load(Ordering::SeqCst)
    }

    async fn request(&self, call: Call) -> Result<Reply, Failure> {
        if self.away.load(Ordering::SeqCst) {
            self.missed.fetch_add(1, Ordering::SeqCst);
            return Err(failure(Exit::Unreachable));
        }
        let provider = self.providers.get(&call.to).ok_or_else(|| failure(Exit::Unreachable))?;
        let body_len = call.body.len() as u64;
        let own = if call.app == GET_APP { provider.pricing } else { Pricing::default() };
        assert_eq!(call.server_price, own.price(body_len, call.limit).unwrap(), "pays what is asked");
        let price = self.price(body_len, call.limit, call.server_price);
        if price > call.max_price {
            return Err(failure(Exit::Budget));
        }
        let now = self.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_in_flight.fetch_max(now, Ordering::SeqCst);
        tokio::time::sleep(self.delay).await;
        if self.stalls == Some(call.to) {
            *self.paid.lock().unwrap() += price.0;
            std::future::pending::<()>().await;
        }
        while self.gate.is_some_and(|may_pass| !may_pass(self, &call)) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let (answerer, question, limit) = (provider.answerer.clone(), call.body.clone(), call.limit);
        let app = call.app;
        let answer = tokio::task::spawn_blocking(move || answerer.answer(app, &question, limit)).await;
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
        let mut answer = answer.unwrap();
        assert!(answer.len() as u64 <= call.limit);
        if app == GET_APP {
            let before = provider.asked.fetch_add(1, Ordering::SeqCst);
            if let Some(fault) = &provider.fault {
                answer = fault(before, answer)?;
            }
        }
        *self.paid.lock().unwrap() += price.0;
        Ok(Reply { body: answer.into(), price })
    }
}

/// What becomes of an answer on its way.
pub type Change = Box<dyn Fn(&Call, Reply) -> Result<Reply, Failure> + Send + Sync>;

/// A network that changes answers.
pub struct Changed {
    pub net: Net,
    pub change: Change,
}

impl Network for Changed {
    async fn providers(
        &self,
        hash: &[u8; 32],
        limit: usize,
        wait: Duration,
    ) -> Result<Vec<NodeKey>, Failure> {
        self.net.providers(hash, limit, wait).await
    }

    async fn quote(
        &self,
        to: NodeKey,
        app: &'static str,
        body_len: u64,
        limit: u64,
        price: Yocto,
    ) -> Result<Yocto, Failure> {
        self.net.quote(to, app, body_len, limit, price).await
    }

    async fn request(&self, call: Call) -> Result<Reply, Failure> {
        let reply = self.net.request(call.clone()).await?;
        (self.change)(&call, reply)
    }
}

/// A folder with a store that holds `content`, and providers that serve from it.
pub struct World {
    pub folder: tempfile::TempDir,
    pub store: Store,
    pub net: Net,
}

impl World {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        World { folder, store, net: Net::default() }
    }

    pub fn provider(mut self, node: u8, per_byte: u128, fault: Option<Fault>) -> Self {
        let pricing = Pricing { base: Yocto(7), per_byte: Yocto(per_byte) };
        let answerer = Answerer::new(self.store.clone(), pricing);
        self.net.providers.insert(key(node), Provider { answerer, pricing, fault, asked: AtomicU64::new(0) });
        self
    }

    pub fn put(&self, size: u64) -> (ContentId, Vec<u8>) {
        let mut data = vec![0; size as usize];
        blake3::Hasher::new().update(&size.to_le_bytes()).finalize_xof().fill(&mut data);
        let added = self.store.add_reader(&data[..], AddOptions::default(), &mut |_| ()).unwrap();
        (added.id, data)
    }

    pub fn target(&self) -> PathBuf {
        self.folder.path().join("target")
    }

    pub fn session(self, limits: Limits, max: Option<Yocto>) -> Running {
        let session = Session::new(Arc::new(self.net), Budget::new(max), limits, Stop::default());
        Running { session: Arc::new(session), folder: self.folder, store: self.store }
    }
}

pub struct Running {
    pub session: Arc<Session<Net>>,
    pub folder: tempfile::TempDir,
    pub store: Store,
}

impl Running {
    pub async fn get(&self, id: ContentId) -> Result<PathBuf, Failure> {
        self.want(want(id)).await
    }

    pub async fn want(&self, want: Want) -> Result<PathBuf, Failure> {
        let target = self.folder.path().join("target");
        let place = Place { target: target.clone(), overwrite: false, share: None };
        let goal = get::locate(&self.session, &want).await?;
        get::plan(&self.session, &goal, Some(&place)).await?;
        get::fetch_to(&self.session, &goal, &place).await?;
        Ok(target)
    }
}

pub fn want(id: ContentId) -> Want {
    Want { address: id.to_string().parse().unwrap(), from: vec![], range: None, include: vec![] }
}

pub fn quick() -> Limits {
    Limits {
        window: MIB,
        question_time: Duration::from_secs(20),
        patience: Duration::from_millis(300),
        ..Limits::default()
    }
}

pub fn fault(
    fault: impl Fn(u64, Vec<u8>) -> Result<Vec<u8>, Failure> + Send + Sync + 'static,
) -> Option<Fault> {
    Some(Arc::new(fault))
}

pub fn flips_a_bit() -> Option<Fault> {
    fault(|n, mut answer| {
        let at = (n as usize * 7919 + 100) % answer.len();
        answer[at] ^= 1;
        Ok(answer)
    })
}

impl Running {
    pub fn session_net(&self) -> &Net {
        self.session.network()
    }
}

pub fn make_tree(world: &World) -> (PathBuf, ContentId) {
    let top = world.folder.path().join("tree");
    fs::create_dir_all(top.join("sub/deep")).unwrap();
    fs::write(top.join("empty"), b"").unwrap();
    fs::write(top.join("a.txt"), b"text").unwrap();
    fs::write(top.join("sub/big"), vec![9; 5 * MIB as usize + 3]).unwrap();
    fs::write(top.join("sub/deep/b.txt"), vec![8; 40_000]).unwrap();
    std::os::unix::fs::symlink("../a.txt", top.join("sub/link")).unwrap();
    let added = put_tree(&world.store, &top, TreeOptions::default(), &mut |_| ()).unwrap();
    (top, added.id)
}
