//! Downloads against providers that fail, lie and charge, each with a real store behind
//! it: what arrives is right or does not arrive, and money stays within its limits.

use std::{
    collections::HashMap,
    fs,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use por_fileshare::{
    answer::Answerer,
    budget::Budget,
    dir::{DirEntry, Directory, TreeOptions, put_tree},
    exit::{Exit, Failure},
    fetch::{Limits, Session, Stop},
    get::{self, Goal, Place, Want},
    id::{ContentId, Kind},
    net::{Call, Network, Reply},
    proto::{Answer, GET_APP, Pricing, STAT_APP, Stat},
    store::{AddOptions, Store},
    tree::GROUP,
};
use por_types::{NodeKey, Yocto};
use proptest::prelude::*;

const MIB: u64 = 1 << 20;
const ROUTE_PER_BYTE: u128 = 2;
const ROUTE_BASE: u128 = 1000;

/// How a provider treats a question for a window, `n` being how many came before.
type Fault = Arc<dyn Fn(u64, Vec<u8>) -> Result<Vec<u8>, Failure> + Send + Sync>;

struct Provider {
    answerer: Answerer,
    pricing: Pricing,
    fault: Option<Fault>,
    asked: AtomicU64,
}

/// Providers behind routes of a fixed price.
#[derive(Default)]
struct Net {
    providers: HashMap<NodeKey, Provider>,
    in_flight: AtomicUsize,
    most_in_flight: AtomicUsize,
    paid: Mutex<u128>,
    delay: Duration,
    /// Added to every route's price from some time on.
    surcharge: AtomicU64,
}

impl Net {
    fn price(&self, body_len: u64, limit: u64, server: Yocto) -> Yocto {
        let surcharge = u128::from(self.surcharge.load(Ordering::Relaxed));
        let bytes = u128::from(body_len + limit);
        Yocto(server.0 + ROUTE_BASE + ROUTE_PER_BYTE * bytes + surcharge)
    }

    fn paid(&self) -> Yocto {
        Yocto(*self.paid.lock().unwrap())
    }

    fn asked(&self, node: u8) -> u64 {
        self.providers[&key(node)].asked.load(Ordering::Relaxed)
    }
}

fn key(node: u8) -> NodeKey {
    NodeKey([node; 32])
}

fn failure(exit: Exit) -> Failure {
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

    async fn request(&self, call: Call) -> Result<Reply, Failure> {
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

/// A folder with a store that holds `content`, and providers that serve from it.
struct World {
    folder: tempfile::TempDir,
    store: Store,
    net: Net,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        World { folder, store, net: Net::default() }
    }

    fn provider(mut self, node: u8, per_byte: u128, fault: Option<Fault>) -> Self {
        let pricing = Pricing { base: Yocto(7), per_byte: Yocto(per_byte) };
        let answerer = Answerer::new(self.store.clone(), pricing);
        self.net.providers.insert(key(node), Provider { answerer, pricing, fault, asked: AtomicU64::new(0) });
        self
    }

    fn put(&self, size: u64) -> (ContentId, Vec<u8>) {
        let mut data = vec![0; size as usize];
        blake3::Hasher::new().update(&size.to_le_bytes()).finalize_xof().fill(&mut data);
        let added = self.store.add_reader(&data[..], AddOptions::default(), &mut |_| ()).unwrap();
        (added.id, data)
    }

    fn target(&self) -> PathBuf {
        self.folder.path().join("target")
    }

    fn session(self, limits: Limits, max: Option<Yocto>) -> Running {
        let session = Session::new(Arc::new(self.net), Budget::new(max), limits, Stop::default());
        Running { session: Arc::new(session), folder: self.folder }
    }
}

struct Running {
    session: Arc<Session<Net>>,
    folder: tempfile::TempDir,
}

impl Running {
    async fn get(&self, id: ContentId) -> Result<PathBuf, Failure> {
        self.want(want(id)).await
    }

    async fn want(&self, want: Want) -> Result<PathBuf, Failure> {
        let target = self.folder.path().join("target");
        let place = Place { target: target.clone(), overwrite: false, share: None };
        let goal = get::locate(&self.session, &want).await?;
        get::plan(&self.session, &goal, Some(&place)).await?;
        get::fetch_to(&self.session, &goal, &place).await?;
        Ok(target)
    }
}

fn want(id: ContentId) -> Want {
    Want { address: id.to_string().parse().unwrap(), from: vec![], range: None, include: vec![] }
}

fn quick() -> Limits {
    Limits {
        window: MIB,
        question_time: Duration::from_secs(20),
        patience: Duration::from_millis(300),
        ..Limits::default()
    }
}

fn fault(fault: impl Fn(u64, Vec<u8>) -> Result<Vec<u8>, Failure> + Send + Sync + 'static) -> Option<Fault> {
    Some(Arc::new(fault))
}

fn flips_a_bit() -> Option<Fault> {
    fault(|n, mut answer| {
        let at = (n as usize * 7919 + 100) % answer.len();
        answer[at] ^= 1;
        Ok(answer)
    })
}

#[tokio::test]
async fn several_providers_share_the_work_and_the_price_is_exact() {
    let mut world = World::new().provider(1, 3, None).provider(2, 3, None).provider(3, 3, None);
    world.net.delay = Duration::from_millis(5);
    let (id, data) = world.put(30 * MIB + 5);
    let running = world.session(quick(), None);
    let goal = get::locate(&running.session, &want(id)).await.unwrap();
    let asking = running.session.budget.spent();
    assert_eq!(asking, running.session_net().paid());
    let plan = get::plan(&running.session, &goal, None).await.unwrap();
    assert_eq!((plan.windows, plan.bytes, plan.costs.len()), (31, 30 * MIB + 5, 3));
    let place = Place { target: running.folder.path().join("target"), overwrite: false, share: None };
    get::fetch_to(&running.session, &goal, &place).await.unwrap();
    assert!(fs::read(&place.target).unwrap() == data);
    let spent = running.session.budget.spent();
    assert_eq!(spent.checked_sub(asking).unwrap(), plan.at_most, "exactly what was quoted");
    assert_eq!(spent, running.session_net().paid());
    let tallies = running.session.pool.tallies();
    assert!(tallies.iter().all(|tally| tally.bytes > 0), "{tallies:?}");
    assert_eq!(tallies.iter().map(|tally| tally.bytes).sum::<u64>(), 30 * MIB + 5);
    assert_eq!(Yocto::checked_sum(tallies.iter().map(|tally| tally.spent)).unwrap(), spent);
    let most = running.session_net().most_in_flight.load(Ordering::SeqCst);
    assert!((2..=8).contains(&most), "{most} in flight");
}

impl Running {
    fn session_net(&self) -> &Net {
        self.session.network()
    }
}

#[tokio::test]
async fn a_lying_provider_is_found_out_and_the_others_deliver() {
    let world = World::new().provider(1, 0, flips_a_bit()).provider(2, 9, None);
    let (id, data) = world.put(10 * MIB);
    let running = world.session(quick(), None);
    let target = running.get(id).await.unwrap();
    assert!(fs::read(target).unwrap() == data);
    let tallies = running.session.pool.tallies();
    let liar = tallies.iter().find(|tally| tally.node == key(1)).unwrap();
    assert!(liar.banned.is_some() && liar.bytes == 0, "{liar:?}");
    assert!(running.session_net().asked(1) <= 8, "asked no more than what was in flight");
}

#[tokio::test]
async fn a_flipped_byte_from_the_only_provider_fails_the_get() {
    for corrupt in [
        flips_a_bit(),
        fault(|_, answer| Ok(answer[..answer.len() - 1].to_vec())),
        fault(|_, mut answer| {
            answer.push(0);
            Ok(answer)
        }),
        fault(|_, _| Ok(Vec::new())),
        fault(|_, _| Ok(vec![0xff; 64])),
        fault(|_, _| Ok(Answer::Slice(serde_bytes::Bytes::new(b"")).encode().unwrap())),
    ] {
        let world = World::new().provider(1, 0, corrupt);
        let (id, _) = world.put(3 * MIB);
        let target = world.target();
        let running = world.session(quick(), None);
        let failed = running.get(id).await.unwrap_err();
        assert_eq!(failed.exit, Exit::VerificationFailed, "{failed}");
        assert!(!target.exists());
    }
}

#[tokio::test]
async fn passing_failures_are_tried_again() {
    let flaky = fault(|n, answer| if n % 3 == 0 { Err(failure(Exit::Unreachable)) } else { Ok(answer) });
    let world = World::new().provider(1, 0, flaky);
    let (id, data) = world.put(6 * MIB);
    let mut limits = quick();
    limits.patience = Duration::from_secs(30);
    let running = world.session(limits, None);
    let target = running.get(id).await.unwrap();
    assert!(fs::read(target).unwrap() == data);
}

#[tokio::test]
async fn giving_up_takes_bounded_time_keeps_what_is_there_and_resumes() {
    // Ten windows arrive, then the provider is gone.
    let dies = fault(|n, answer| if n < 10 { Ok(answer) } else { Err(failure(Exit::Unreachable)) });
    let world = World::new().provider(1, 5, dies);
    let (id, data) = world.put(25 * MIB);
    let store = world.store.clone();
    let running = world.session(quick(), None);
    let started = Instant::now();
    let failed = running.get(id).await.unwrap_err();
    assert_eq!(failed.exit, Exit::Unreachable);
    assert!(started.elapsed() < Duration::from_secs(30));
    assert!(!running.folder.path().join("target").exists());
    // The second try pays for the rest only.
    let mut world = World::new().provider(1, 5, None);
    world.store = store.clone();
    let pricing = world.net.providers[&key(1)].pricing;
    world.net.providers.get_mut(&key(1)).unwrap().answerer = Answerer::new(store, pricing);
    world.folder = running.folder;
    drop(running.session);
    let again = world.session(quick(), None);
    let goal = get::locate(&again.session, &want(id)).await.unwrap();
    let place = Place { target: again.folder.path().join("target"), overwrite: false, share: None };
    let plan = get::plan(&again.session, &goal, Some(&place)).await.unwrap();
    assert_eq!((plan.windows, plan.bytes), (15, 15 * MIB));
    get::fetch_to(&again.session, &goal, &place).await.unwrap();
    assert!(fs::read(&place.target).unwrap() == data);
    assert_eq!(again.session_net().asked(1), 15);
}

#[tokio::test]
async fn who_never_answers_does_not_hold_anything_up() {
    let world = World::new().provider(1, 0, None);
    let (id, _) = world.put(2 * MIB);
    let mut world = world;
    world.net.delay = Duration::from_secs(3600);
    let mut limits = quick();
    limits.deadline = Some(Instant::now() + Duration::from_millis(300));
    let running = world.session(limits, None);
    let bounded = tokio::time::timeout(Duration::from_secs(20), running.get(id));
    let failed = bounded.await.expect("ends by itself").unwrap_err();
    assert!(matches!(failed.exit, Exit::Deadline | Exit::NotFound), "{failed}");
}

#[tokio::test]
async fn money_stays_within_its_limit() {
    let world = World::new().provider(1, 5, None);
    let (id, _) = world.put(10 * MIB);
    let running = world.session(quick(), Some(Yocto(1_000_000)));
    let failed = running.get(id).await.unwrap_err();
    assert_eq!(failed.exit, Exit::Budget, "{failed}");
    assert_eq!(running.session_net().asked(1), 0, "refused before anything was bought");
    assert!(running.session_net().paid() <= Yocto(1_000_000));
}

#[tokio::test]
async fn a_limit_holds_while_windows_are_spoiled() {
    // Spoiled windows are paid for; the budget is that of a clean download and a bit.
    let spoils = fault(|n, answer| {
        if n % 2 == 0 {
            Ok(Answer::refused(por_fileshare::proto::Fault::Busy, "x").encode().unwrap())
        } else {
            Ok(answer)
        }
    });
    let world = World::new().provider(1, 5, spoils);
    let (id, _) = world.put(10 * MIB);
    let max = Yocto(85_000_000);
    let mut limits = quick();
    limits.patience = Duration::from_secs(20);
    let running = world.session(limits, Some(max));
    let failed = running.get(id).await.unwrap_err();
    assert_eq!(failed.exit, Exit::Budget, "{failed}");
    assert!(running.session_net().paid() <= max);
    assert_eq!(running.session_net().paid(), running.session.budget.spent());
}

#[tokio::test]
async fn too_dear_providers_are_not_asked() {
    let world = World::new().provider(1, 1_000_000, None).provider(2, 1, None);
    let (id, data) = world.put(5 * MIB);
    let mut limits = quick();
    limits.max_price = Some(Yocto(10 << 30));
    let running = world.session(limits, None);
    let target = running.get(id).await.unwrap();
    assert!(fs::read(target).unwrap() == data);
    assert_eq!(running.session_net().asked(1), 0);
    assert!(running.session_net().asked(2) >= 5);
}

#[tokio::test]
async fn a_route_that_became_dearer_is_priced_anew() {
    let world = World::new().provider(1, 1, None);
    let (id, data) = world.put(4 * MIB);
    let running = world.session(quick(), None);
    let goal = get::locate(&running.session, &want(id)).await.unwrap();
    get::plan(&running.session, &goal, None).await.unwrap();
    running.session_net().surcharge.store(5_000, Ordering::Relaxed);
    let place = Place { target: running.folder.path().join("target"), overwrite: false, share: None };
    get::fetch_to(&running.session, &goal, &place).await.unwrap();
    assert!(fs::read(&place.target).unwrap() == data);
    assert_eq!(running.session.budget.spent(), running.session_net().paid());
}

#[tokio::test]
async fn stopping_keeps_a_resumable_rest() {
    let mut world = World::new().provider(1, 0, None);
    world.net.delay = Duration::from_millis(2);
    let (id, _) = world.put(40 * MIB);
    let running = world.session(quick(), None);
    let (session, stop) = (Arc::clone(&running.session), running.session.stop.clone());
    let watch = tokio::spawn(async move {
        while session.meter.get().0 < 5 * MIB {
            tokio::task::yield_now().await;
        }
        stop.set();
    });
    let failed = running.get(id).await.unwrap_err();
    watch.await.unwrap();
    assert_eq!(failed.exit, Exit::Interrupted);
    let span = por_fileshare::part::Span::whole(id, 40 * MIB);
    let part = por_fileshare::part::Part::open(&running.folder.path().join("target"), span, false).unwrap();
    assert!(part.done() >= 5 * MIB && part.done() < 40 * MIB, "{}", part.done());
}

#[tokio::test]
async fn a_stream_is_in_order_and_bounded() {
    let mut world = World::new().provider(1, 0, None).provider(2, 0, None);
    world.net.delay = Duration::from_millis(1);
    let (id, data) = world.put(20 * MIB + 77);
    let running = world.session(quick(), None);
    let mut asked = want(id);
    asked.range = Some((3 * MIB + 5, Some(17 * MIB + 1)));
    let goal = get::locate(&running.session, &asked).await.unwrap();
    let mut out = Vec::new();
    get::fetch_out(&running.session, &goal, &mut out).await.unwrap();
    assert!(out == data[(3 * MIB + 5) as usize..(17 * MIB + 1) as usize]);
    assert!(running.session_net().most_in_flight.load(Ordering::SeqCst) <= 8);
}

#[tokio::test]
async fn a_slow_reader_keeps_memory_bounded() {
    let world = World::new().provider(1, 0, None);
    let (id, data) = world.put(40 * MIB);
    let running = world.session(quick(), None);
    let goal = get::locate(&running.session, &want(id)).await.unwrap();
    let (mut writer, reader) = tokio::io::duplex(1024);
    let fetch = get::fetch_out(&running.session, &goal, &mut writer);
    // Nobody reads: only what is in flight is ever asked for.
    assert!(tokio::time::timeout(Duration::from_millis(500), fetch).await.is_err());
    assert!(running.session_net().asked(1) <= 9, "{}", running.session_net().asked(1));
    drop((reader, data));
}

#[tokio::test]
async fn absent_content_is_not_found() {
    let world = World::new().provider(1, 0, None);
    let id = ContentId::file(blake3::hash(b"nobody has this"));
    let failed = world.session(quick(), None).get(id).await.unwrap_err();
    assert_eq!(failed.exit, Exit::NotFound);
    let nobody = World::new().session(quick(), None);
    assert_eq!(nobody.get(id).await.unwrap_err().exit, Exit::NotFound);
}

#[tokio::test]
async fn hex_ids_find_files_and_directories() {
    let world = World::new().provider(1, 0, None);
    let (id, data) = world.put(100);
    let folder = world.folder.path().join("tree");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("a"), b"a").unwrap();
    let tree = put_tree(&world.store, &folder, TreeOptions::default(), &mut |_| ()).unwrap();
    let running = world.session(quick(), None);
    let hex = |id: ContentId| {
        let mut want = want(id);
        want.address = hex::encode(id.hash()).parse().unwrap();
        want
    };
    let target = running.want(hex(id)).await.unwrap();
    assert_eq!(fs::read(&target).unwrap(), data);
    fs::remove_file(&target).unwrap();
    let target = running.want(hex(tree.id)).await.unwrap();
    assert_eq!(fs::read(target.join("a")).unwrap(), b"a");
}

/// Rewrites a stat on its way.
struct Liar(Net, u64);

impl Network for Liar {
    async fn providers(
        &self,
        hash: &[u8; 32],
        limit: usize,
        wait: Duration,
    ) -> Result<Vec<NodeKey>, Failure> {
        self.0.providers(hash, limit, wait).await
    }

    async fn quote(
        &self,
        to: NodeKey,
        app: &'static str,
        body_len: u64,
        limit: u64,
        price: Yocto,
    ) -> Result<Yocto, Failure> {
        self.0.quote(to, app, body_len, limit, price).await
    }

    async fn request(&self, call: Call) -> Result<Reply, Failure> {
        let is_stat = call.app == STAT_APP;
        let mut reply = self.0.request(call).await?;
        if is_stat {
            let stat = Answer::decode(&reply.body).unwrap().into_stat().unwrap();
            let lie = Answer::Stat(Stat { size: self.1, ..stat });
            reply.body = lie.encode().unwrap().into();
        }
        Ok(reply)
    }
}

#[tokio::test]
async fn a_lie_about_the_size_is_caught_before_anything_is_bought() {
    for lie in [0, 1, GROUP, 3 * MIB - 1, 3 * MIB + 1, 4 * MIB, u64::MAX] {
        let world = World::new().provider(1, 5, None);
        let (id, _) = world.put(3 * MIB);
        let net = Arc::new(Liar(world.net, lie));
        let session = Session::new(Arc::clone(&net), Budget::new(None), quick(), Stop::default());
        let failed = get::locate(&session, &want(id)).await.unwrap_err();
        assert_eq!(failed.exit, Exit::VerificationFailed, "size {lie}: {failed}");
        assert_eq!(net.0.asked(1), 0);
    }
}

fn make_tree(world: &World) -> (PathBuf, ContentId) {
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

#[tokio::test]
async fn directories_arrive_as_they_were() {
    let world = World::new().provider(1, 1, None).provider(2, 1, flips_a_bit());
    let (top, id) = make_tree(&world);
    let store = world.store.clone();
    let running = world.session(quick(), None);
    let target = running.get(id).await.unwrap();
    let again = put_tree(&store, &target, TreeOptions { only_hash: true, copy: false }, &mut |_| ()).unwrap();
    assert_eq!(again.id, id);
    let names: Vec<_> =
        fs::read_dir(running.folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 3, "store, tree and target, no litter: {names:?}");
    drop(top);
}

#[tokio::test]
async fn parts_of_directories() {
    let world = World::new().provider(1, 1, None);
    let (_, id) = make_tree(&world);
    let running = world.session(quick(), None);
    let mut some = want(id);
    some.include = vec!["*.txt".into()];
    let target = running.want(some).await.unwrap();
    assert!(target.join("a.txt").exists() && target.join("sub/deep/b.txt").exists());
    assert!(!target.join("sub/big").exists() && !target.join("empty").exists());
    fs::remove_dir_all(&target).unwrap();
    let mut one = want(id);
    one.address = format!("{id}/sub/deep/b.txt").parse().unwrap();
    let target = running.want(one).await.unwrap();
    assert_eq!(fs::read(&target).unwrap(), vec![8; 40_000]);
    fs::remove_file(&target).unwrap();
    for (path, exit) in [("nothing", Exit::NotFound), ("a.txt/x", Exit::NotFound), ("sub/link", Exit::Usage)]
    {
        let mut wrong = want(id);
        wrong.address = format!("{id}/{path}").parse().unwrap();
        assert_eq!(running.want(wrong).await.unwrap_err().exit, exit, "{path}");
    }
}

#[tokio::test]
async fn an_interrupted_directory_continues() {
    let dies = fault(|n, answer| if n < 3 { Ok(answer) } else { Err(failure(Exit::Unreachable)) });
    let world = World::new().provider(1, 1, dies);
    let (_, id) = make_tree(&world);
    let store = world.store.clone();
    let running = world.session(quick(), None);
    assert_eq!(running.get(id).await.unwrap_err().exit, Exit::Unreachable);
    let target = running.folder.path().join("target");
    assert!(!target.exists());
    let mut world = World::new();
    world.store = store;
    let mut world = world.provider(1, 1, None);
    world.folder = running.folder;
    drop(running.session);
    let again = world.session(quick(), None);
    again.get(id).await.unwrap();
    // Nine windows in all: the empty file, two small ones and six of the big one.
    assert_eq!(again.session_net().asked(1), 9 - 3);
    assert!(target.join("sub/big").exists());
}

#[tokio::test]
async fn hostile_directories_make_nothing_outside() {
    let world = World::new().provider(1, 1, None);
    let (file, _) = world.put(10);
    // Listings that our own encoder refuses, as an attacker would write them.
    let listing = |name: &str, extra: &[u8], keys: u8| {
        let mut bytes = vec![0x81, 0xa0 | keys];
        bytes.extend_from_slice(b"\x64hash\xd8\x2a\x58\x25\x00");
        bytes.extend_from_slice(&file.to_bytes());
        bytes.extend_from_slice(b"\x64name");
        bytes.push(0x60 | name.len() as u8);
        bytes.extend_from_slice(name.as_bytes());
        bytes.extend_from_slice(b"\x64size\x0a");
        bytes.extend_from_slice(extra);
        bytes
    };
    let mut hostile = vec![listing("../evil", b"", 3), listing("/tmp/evil", b"", 3), listing("..", b"", 3)];
    let link = Directory::new(vec![DirEntry::symlink("l".into(), "../../etc".into())]).unwrap();
    hostile.push(link.encode().unwrap());
    assert!(Directory::decode(&listing("fine", b"", 3)).is_ok(), "the bytes are right but for the name");
    let mut ids = Vec::new();
    for bytes in hostile {
        let staged = world.store.stage_bytes(Kind::Directory, bytes).unwrap();
        ids.push(staged.id());
        world.store.commit(vec![staged], &[]).unwrap();
    }
    let running = world.session(quick(), None);
    for id in ids {
        let failed = running.get(id).await.unwrap_err();
        assert_eq!(failed.exit, Exit::VerificationFailed, "{failed}");
    }
    let names: Vec<_> =
        fs::read_dir(running.folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["store"]);
}

#[tokio::test]
async fn a_listing_that_lies_about_a_size_is_found_out() {
    let world = World::new().provider(1, 1, None);
    let (file, _) = world.put(10 * MIB);
    let lie = DirEntry { name: "x".into(), size: 9 * MIB, hash: file, executable: false, symlink: None };
    let bytes = Directory::new(vec![lie]).unwrap().encode().unwrap();
    let staged = world.store.stage_bytes(Kind::Directory, bytes).unwrap();
    let id = staged.id();
    world.store.commit(vec![staged], &[]).unwrap();
    let running = world.session(quick(), None);
    assert_eq!(running.get(id).await.unwrap_err().exit, Exit::VerificationFailed);
    assert_eq!(running.session_net().asked(1), 0, "before anything was bought");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn whatever_some_providers_do_the_result_is_right_or_absent(
        size in 0..6 * MIB,
        behaviours in prop::collection::vec(0..5u8, 1..4),
        window in 1..4u64,
        in_flight in 1..9usize,
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let mut world = World::new();
        for (node, behaviour) in behaviours.iter().enumerate() {
            let fault = match behaviour {
                0 => None,
                1 => flips_a_bit(),
                2 => fault(|n, answer| if n % 2 == 0 { Err(failure(Exit::Retryable)) } else { Ok(answer) }),
                3 => fault(|_, _| Err(failure(Exit::Unreachable))),
                _ => fault(|n, answer| Ok(if n == 1 { vec![] } else { answer })),
            };
            world = world.provider(node as u8, 1, fault);
        }
        let (id, data) = world.put(size);
        let limits = Limits { window: window * MIB, in_flight, ..quick() };
        let running = world.session(limits, None);
        let result = runtime.block_on(running.get(id));
        let target = running.folder.path().join("target");
        match result {
            Ok(target) => prop_assert!(fs::read(target).unwrap() == data),
            Err(failed) => {
                prop_assert!(!target.exists());
                prop_assert!(!behaviours.contains(&0), "an honest provider was there: {failed}");
            }
        }
        prop_assert_eq!(running.session.budget.spent(), running.session_net().paid());
    }
}

#[tokio::test]
async fn goals_tell_their_length() {
    let world = World::new().provider(1, 1, None);
    let (id, _) = world.put(10);
    let running = world.session(quick(), None);
    let goal = get::locate(&running.session, &want(id)).await.unwrap();
    assert_eq!(goal.len(), 10);
    assert!(matches!(goal, Goal::File { executable: false, .. }));
}
