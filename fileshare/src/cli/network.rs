//! `ls`, `stat`, `quote`, `serve` and `node`.

use std::sync::{Arc, atomic::Ordering};

use por_node::{
    client::Client,
    config::Overrides,
    home::Home,
    keys::{NodeSetup, PasswordSource},
};
use por_types::{NodeKey, Yocto};
use serde::Serialize;

use super::{
    Context,
    args::{Node, Serve, What},
    get::{is_local, limits, note_kind},
    local::{interrupted, print_lines},
};
use crate::{
    budget::{ASKING, Budget},
    dir::DirEntry,
    exit::{Failure, shown},
    fetch::{Found, Plan, Session, Stop},
    get::{self, Goal, Want},
    id::ContentId,
    net::{Daemon, Local, Network, blocking},
    node::Files,
    progress::bytes,
    proto::Pricing,
    serve::{Served, ServerLock, per_byte},
};

/// Runs `$work(session)` with the local store or the daemon behind it.
macro_rules! with_network {
    ($context:expr, $what:expr, $work:expr) => {{
        let (context, what): (&Context, &What) = ($context, $what);
        let limits = limits(&what.ask, None);
        let budget = Budget::asking(what.ask.max_ask.unwrap_or(ASKING), None);
        let work = async {
            if is_local(context, &what.address, &what.ask.from).await {
                let net = Arc::new(Local::new(context.store().await?));
                let session = Session::new(net, budget, limits, context.stop.clone());
                $work(context, what, session).await
            } else {
                let net = Arc::new(Daemon::of_home(&context.home)?);
                let session = Session::new(net, budget, limits, context.stop.clone());
                $work(context, what, session).await
            }
        };
        tokio::select! {
            result = work => result,
            () = interrupted() => Err(Stop::failure()),
        }
    }};
}

pub async fn ls(context: &Context, what: What) -> Result<(), Failure> {
    with_network!(context, &what, list)
}

pub async fn stat(context: &Context, what: What) -> Result<(), Failure> {
    with_network!(context, &what, show_stat)
}

pub async fn quote(context: &Context, what: What) -> Result<(), Failure> {
    with_network!(context, &what, show_quote)
}

fn want(what: &What) -> Want {
    let address = what.address.clone();
    Want { address, from: what.ask.from.clone(), range: None, include: Vec::new() }
}

async fn list<N: Network>(context: &Context, what: &What, session: Session<N>) -> Result<(), Failure> {
    let (found, entry) = get::resolve(&session, &want(what)).await?;
    note_kind(context, &session, &what.address);
    let entries = if found.id.is_directory() {
        get::listing(&session, &found).await?.entries().to_vec()
    } else {
        entry.into_iter().collect()
    };
    if context.json {
        return entries.iter().try_for_each(|entry| context.print("", entry));
    }
    print_lines(entries.iter().map(line))
}

/// One entry as a line: id, size and name.
fn line(entry: &DirEntry) -> String {
    let mark = match (&entry.symlink, entry.hash.is_directory(), entry.executable) {
        (Some(target), ..) => format!(" -> {}", shown(target)),
        (None, true, _) => "/".into(),
        (None, false, true) => "*".into(),
        (None, false, false) => String::new(),
    };
    format!("{} {:>12} {}{mark}", entry.hash, entry.size, shown(&entry.name))
}

#[derive(Serialize)]
struct StatReport {
    id: ContentId,
    directory: bool,
    /// Bytes of the content itself; for a directory, of its listing.
    size: u64,
    /// Entries of a directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    entries: Option<usize>,
    /// Bytes below a directory, as its maker says.
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<u64>,
    providers: Vec<ProviderReport>,
}

#[derive(Serialize)]
struct ProviderReport {
    node: NodeKey,
    pricing: Pricing,
}

async fn show_stat<N: Network>(context: &Context, what: &What, session: Session<N>) -> Result<(), Failure> {
    let (found, _) = get::resolve(&session, &want(what)).await?;
    note_kind(context, &session, &what.address);
    let report = stat_report(&session, &found).await?;
    if context.json {
        return context.print("", &report);
    }
    let mut lines = vec![
        format!("id        {}", report.id),
        format!("kind      {}", if report.directory { "directory" } else { "file" }),
        format!("size      {} ({})", report.size, bytes(report.size)),
    ];
    if let (Some(entries), Some(total)) = (report.entries, report.total) {
        lines.push(format!("entries   {entries}, {} below", bytes(total)));
    }
    for provider in report.providers.iter().filter(|provider| provider.node != Local::KEY) {
        let gib = provider.pricing.per_byte.checked_mul(crate::fetch::GIB.into());
        let price = gib.map(Yocto::to_near_string).unwrap_or_else(|error| error.to_string());
        lines.push(format!("provider  {} {price}/GiB", provider.node));
    }
    print_lines(lines)
}

async fn stat_report<N: Network>(session: &Session<N>, found: &Found) -> Result<StatReport, Failure> {
    let directory = if found.id.is_directory() { Some(get::listing(session, found).await?) } else { None };
    let providers = session
        .pool
        .offers()
        .into_iter()
        .map(|offer| ProviderReport { node: offer.node, pricing: offer.pricing })
        .collect();
    Ok(StatReport {
        id: found.id,
        directory: directory.is_some(),
        size: found.size,
        entries: directory.as_ref().map(|directory| directory.entries().len()),
        total: directory.as_ref().map(crate::dir::Directory::total),
        providers,
    })
}

#[derive(Serialize)]
struct QuoteReport {
    id: ContentId,
    size: u64,
    plan: Plan,
    /// What asking cost.
    spent: Yocto,
}

async fn show_quote<N: Network>(context: &Context, what: &What, session: Session<N>) -> Result<(), Failure> {
    let goal = get::locate(&session, &want(what)).await?;
    note_kind(context, &session, &what.address);
    let plan = get::plan(&session, &goal, None).await?;
    let id = match &goal {
        Goal::File { span, .. } => span.id,
        Goal::Tree(tree) => tree.id,
    };
    let report = QuoteReport { id, size: goal.len(), plan, spent: session.budget.spent() };
    if context.json {
        return context.print("", &report);
    }
    let lines = report.plan.costs.iter().map(|cost| {
        format!(
            "{}  {}  server {}  route {}  ({}/GiB)",
            cost.node,
            cost.total.to_near_string(),
            cost.server.to_near_string(),
            cost.route.to_near_string(),
            cost.per_gib.to_near_string()
        )
    });
    print_lines(lines)
}

pub async fn serve(context: &Context, args: Serve) -> Result<(), Failure> {
    let client = Client::from_home(&context.home)?;
    let _server = ServerLock::take(&context.home)?;
    let store = context.store().await?;
    let pricing = Pricing { base: Yocto::ZERO, per_byte: per_byte(args.price) };
    let served = Arc::new(Served::default());
    let price = args.price.to_near_string();
    let ready = || {
        let announced = served.announced.load(Ordering::Relaxed);
        if context.json {
            crate::progress::event(&serde_json::json!({ "event": "serving", "announced": announced }));
        } else {
            context.say(&format!("serving {announced} items at {price}/GiB; Ctrl-C to stop"));
        }
    };
    let stop = context.stop.clone();
    let serving = crate::serve::serve(client, store, pricing, stop.clone(), Arc::clone(&served), ready);
    let mut serving = std::pin::pin!(serving);
    let result = tokio::select! {
        result = &mut serving => result,
        () = ended() => {
            stop.set();
            serving.await
        }
        () = parent_gone(), if args.with_parent => {
            stop.set();
            serving.await
        }
    };
    let (answers, sent) = (served.answers.load(Ordering::Relaxed), served.bytes.load(Ordering::Relaxed));
    context.say(&format!("answered {answers} questions, {}", bytes(sent)));
    result
}

pub async fn node(context: &Context, args: Node) -> Result<(), Failure> {
    let password = PasswordSource { file: args.password_file };
    run_node(context, &password, args.node.overrides(), args.price, ended()).await
}

/// Runs a node with files in it until `end`.
pub(crate) async fn run_node(
    context: &Context,
    password: &PasswordSource,
    overrides: Overrides,
    price: Yocto,
    end: impl Future<Output = ()>,
) -> Result<(), Failure> {
    let (home, password) = (Home::locate(context.home_flag.as_deref())?, password.clone());
    // Deriving the key from a password takes a second of work.
    let setup = blocking(move || NodeSetup::load(home, overrides, &password)).await??;
    let pricing = Pricing { base: Yocto::ZERO, per_byte: per_byte(price) };
    let files = Files { store: context.store().await?, pricing };
    let ready = |announced| {
        if context.json {
            crate::progress::event(&serde_json::json!({ "event": "serving", "announced": announced }));
        } else {
            let price = price.to_near_string();
            context
                .say(&format!("the node runs and serves {announced} items at {price}/GiB; Ctrl-C to stop"));
        }
    };
    let stop = context.stop.clone();
    let mut running = std::pin::pin!(crate::node::run(setup, files, stop.clone(), ready));
    let served = tokio::select! {
        ended = &mut running => ended,
        () = end => {
            stop.set();
            running.await
        }
    }?;
    let (answers, sent) = (served.answers.load(Ordering::Relaxed), served.bytes.load(Ordering::Relaxed));
    context.say(&format!("answered {answers} questions, {}", bytes(sent)));
    Ok(())
}

/// Returns when the other end of stdin is closed: whoever started this process holds it and never
/// writes, and the system closes it however that process ends.
pub(crate) async fn parent_gone() {
    let (gone, parent_gone) = tokio::sync::oneshot::channel::<()>();
    // Not a task: a read of stdin cannot be given up, and would keep the process alive.
    std::thread::spawn(move || {
        let _ = std::io::Read::read(&mut std::io::stdin(), &mut [0]);
        drop(gone);
    });
    let _ = parent_gone.await;
}

/// Returns when the process is told to end: Ctrl-C, or SIGTERM from a service manager.
pub(crate) async fn ended() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return interrupted().await;
    };
    tokio::select! {
        () = interrupted() => (),
        _ = terminate.recv() => (),
    }
}
