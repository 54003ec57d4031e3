//! `get` and `cat`: what it costs, whether that is agreed to, fetching, and the account
//! of it afterwards.

use std::{
    io::{BufRead, IsTerminal, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use por_types::{NodeKey, Yocto};
use serde::Serialize;

use super::{
    Context,
    args::{Ask, Cat, Get, Pay},
    local::interrupted,
    network::parent_gone,
};
use crate::{
    budget::{ASKING, Budget},
    dir::Address,
    exit::{Exit, Failure},
    fetch::{Limits, Plan, Session, Stop},
    get::{self, Goal, Place, Want},
    net::{Daemon, Local, Network, blocking},
    part::UNIT,
    pool::Tally,
    progress::{Watch, bytes},
};

/// Time for what is in flight to arrive after Ctrl-C; a second Ctrl-C ends it at once.
const LEAVE: Duration = Duration::from_secs(5);

/// Where a download goes.
enum Output {
    Stdout,
    Disk(Place),
}

struct Download {
    want: Want,
    output: Output,
    pay: Pay,
    dry_run: bool,
    name: String,
    /// Ends with stdin.
    with_parent: bool,
}

pub async fn get(context: &Context, args: Box<Get>) -> Result<(), Failure> {
    let name = default_name(&args.address);
    // A slash at the end would make it the name of a folder.
    let named = |output: &PathBuf| output.components().collect();
    let target = args.output.as_ref().map_or_else(|| PathBuf::from(&name), named);
    let stdout = args.output.as_deref() == Some(Path::new("-"));
    let output = if stdout {
        Output::Stdout
    } else {
        let share = if args.share { Some(context.store().await?) } else { None };
        Output::Disk(Place { target: target.clone(), overwrite: args.overwrite, share })
    };
    let want = Want {
        address: args.address.clone(),
        from: args.ask.from.clone(),
        range: args.range,
        include: args.include.clone(),
    };
    let shown = if stdout { name } else { target.display().to_string() };
    let (pay, dry_run, with_parent) = (args.pay.clone(), args.dry_run, args.with_parent);
    let download = Download { want, output, pay, dry_run, name: shown, with_parent };
    download.run(context, &args.ask).await
}

pub async fn cat(context: &Context, args: Cat) -> Result<(), Failure> {
    let name = default_name(&args.address);
    let want =
        Want { address: args.address, from: args.ask.from.clone(), range: args.range, include: Vec::new() };
    let download =
        Download { want, output: Output::Stdout, pay: args.pay, dry_run: false, name, with_parent: false };
    download.run(context, &args.ask).await
}

/// The last name of the path, or the id.
fn default_name(address: &Address) -> String {
    address.path.last().cloned().unwrap_or_else(|| address.id.to_string())
}

/// What to do if 64 hex digits were a directory's and nobody could know.
pub(super) fn note_kind<N: Network>(context: &Context, session: &Session<N>, address: &Address) {
    if session.may_be_directory() {
        let hex = hex::encode(address.id.hash());
        context.say(&format!(
            "a provider calls this a directory; it is taken for a file, {hex}/ for a directory"
        ));
    }
}

/// Limits of a command from its flags.
pub(super) fn limits(ask: &Ask, max_price: Option<Yocto>) -> Limits {
    Limits {
        max_price,
        // One that cannot be represented is as good as none.
        deadline: ask.deadline.and_then(|time| Instant::now().checked_add(time)),
        in_flight: ask.in_flight.into(),
        window: u64::from(ask.window) * UNIT,
        ..Limits::default()
    }
}

/// Whether the store of this machine can answer by itself.
pub(super) async fn is_local(context: &Context, address: &Address, from: &[NodeKey]) -> bool {
    if !from.is_empty() || !context.store_folder.exists() {
        return false;
    }
    let Ok(store) = context.store().await else {
        return false;
    };
    let id = address.id;
    let has = blocking(move || store.need(&id).and_then(|entry| store.item(&entry)).is_ok());
    has.await.unwrap_or(false)
}

/// What a download writes at the least: the state of what is there.
const LEAST_SPACE: u64 = 64 << 10;

/// Finds out before anything is paid whether a download can be written there. Whether all of it has room
/// is known when its size is.
fn writable(target: &Path) -> Result<(), Failure> {
    let folder = match target.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let named = folder.display().to_string();
    let metadata = std::fs::metadata(folder).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            let fix = "make it first, or choose another output with -o";
            Failure::new(Exit::NotFound, format!("there is no folder {named}"), fix)
        }
        _ => Failure::io(&named, &error),
    })?;
    if !metadata.is_dir() {
        let what = format!("{named} is not a folder");
        return Err(Failure::new(Exit::Usage, what, "choose another output with -o"));
    }
    let access = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
    rustix::fs::access(folder, access)
        .map_err(|error| Failure::io(format!("writing to {named}"), &error.into()))?;
    // Not every file system can tell; and what was begun before has its place.
    let begun = crate::part::with_suffix(target, ".part").exists();
    if let (Ok(disk), false) = (rustix::fs::statvfs(folder), begun)
        && disk.f_bavail.saturating_mul(disk.f_frsize) < LEAST_SPACE
    {
        return Err(Failure::io(format!("writing to {named}"), &std::io::ErrorKind::StorageFull.into()));
    }
    Ok(())
}

impl Download {
    async fn run(self, context: &Context, ask: &Ask) -> Result<(), Failure> {
        if let Output::Disk(place) = &self.output
            && let Ok(there) = place.target.symlink_metadata()
        {
            use crate::part::{PartError, is_special};
            if is_special(&there) {
                return Err(PartError::Special(place.target.clone()).into());
            }
            if !place.overwrite {
                return Err(PartError::Exists(place.target.clone()).into());
            }
            if there.is_dir() && self.want.range.is_some() {
                return Err(PartError::Folder(place.target.clone()).into());
            }
        }
        if let Output::Disk(place) = &self.output
            && !self.dry_run
        {
            let target = place.target.clone();
            blocking(move || writable(&target)).await??;
        }
        let limits = limits(ask, self.pay.max_price);
        if is_local(context, &self.want.address, &self.want.from).await {
            context.say("it is in this machine's store; nothing is paid");
            return self.with(context, Local::new(context.store().await?), limits, ask).await;
        }
        self.with(context, Daemon::of_home(&context.home)?, limits, ask).await
    }

    async fn with<N: Network>(
        self,
        context: &Context,
        net: N,
        limits: Limits,
        ask: &Ask,
    ) -> Result<(), Failure> {
        let budget = Budget::asking(ask.max_ask.unwrap_or(ASKING), self.pay.max_spend);
        let session = Arc::new(Session::new(Arc::new(net), budget, limits, context.stop.clone()));
        let work = self.fetch(context, &session);
        let mut work = std::pin::pin!(work);
        let result = tokio::select! {
            result = &mut work => result,
            () = interrupted() => {
                session.stop.set();
                leave(work, interrupted(), LEAVE).await
            }
            () = parent_gone(), if self.with_parent => {
                session.stop.set();
                leave(work, interrupted(), LEAVE).await
            }
        };
        summary(context, &session, &self.name, &result);
        result
    }

    async fn fetch<N: Network>(&self, context: &Context, session: &Arc<Session<N>>) -> Result<(), Failure> {
        let goal = get::locate(session, &self.want).await?;
        note_kind(context, session, &self.want.address);
        let place = match &self.output {
            Output::Disk(place) => Some(place),
            Output::Stdout => None,
        };
        let plan = get::plan(session, &goal, place).await?;
        if self.dry_run {
            return show_plan(context, &goal, &plan);
        }
        agree(context, session, &self.pay, &goal, &plan).await?;
        let watch = Watch::start(Arc::clone(session), self.name.clone(), context.style);
        let result = match place {
            Some(place) => get::fetch_to(session, &goal, place).await,
            None => match raw_stdout() {
                Ok(mut out) => get::fetch_out(session, &goal, &mut out).await,
                Err(error) => Err(Failure::io("output", &error)),
            },
        };
        drop(watch);
        result
    }
}

/// Lets interrupted work come to its end, until `again` or for as long as `most`. Work that is done by then
/// is done: to say that it was interrupted would make its user get the file once more.
async fn leave(
    work: impl Future<Output = Result<(), Failure>>,
    again: impl Future<Output = ()>,
    most: Duration,
) -> Result<(), Failure> {
    let left = tokio::select! {
        left = tokio::time::timeout(most, work) => left,
        () = again => return Err(Stop::failure()),
    };
    match left {
        Ok(Ok(())) => Ok(()),
        _ => Err(Stop::failure()),
    }
}

/// stdout without std's line buffer: data is not text.
fn raw_stdout() -> std::io::Result<tokio::fs::File> {
    let owned = std::os::fd::AsFd::as_fd(&std::io::stdout()).try_clone_to_owned()?;
    Ok(tokio::fs::File::from_std(owned.into()))
}

#[derive(Serialize)]
struct Price<'a> {
    size: u64,
    plan: &'a Plan,
}

fn show_plan(context: &Context, goal: &Goal, plan: &Plan) -> Result<(), Failure> {
    let mut text = format!(
        "{} to fetch of {}, at most {}",
        bytes(plan.bytes),
        bytes(goal.len()),
        plan.at_most.to_near_string()
    );
    for cost in &plan.costs {
        text.push_str(&format!(
            "\n{}  {} (server {}, route {})",
            cost.node,
            cost.total.to_near_string(),
            cost.server.to_near_string(),
            cost.route.to_near_string()
        ));
    }
    if context.json {
        return context.print("", &Price { size: goal.len(), plan });
    }
    // stdout is for data and ids.
    context.say(&text);
    Ok(())
}

/// Money is spent only if somebody said so: by a limit, by --yes, or when asked. What costs nothing may
/// still not cost more than asking may.
async fn agree<N: Network>(
    context: &Context,
    session: &Session<N>,
    pay: &Pay,
    goal: &Goal,
    plan: &Plan,
) -> Result<(), Failure> {
    if plan.at_most.is_zero() {
        return Ok(());
    }
    if pay.max_spend.is_some() {
        session.budget.agree();
        return Ok(());
    }
    if !pay.yes {
        let question = format!(
            "{} for {}, at most {}. Continue? [y/N] ",
            bytes(plan.bytes),
            bytes(goal.len()),
            plan.at_most.to_near_string()
        );
        if !ask(context, question).await? {
            let what = format!("it costs up to {}, which nobody agreed to", plan.at_most.to_near_string());
            return Err(Failure::new(Exit::Budget, what, "pass --yes, or a limit with --max-spend"));
        }
    }
    // Windows that a provider spoils are paid for again: leave room, but not without end.
    let twice = plan.at_most.checked_mul(2).and_then(|twice| twice.checked_add(session.budget.spent()));
    session.budget.limit_to(twice.unwrap_or(plan.at_most));
    session.budget.agree();
    Ok(())
}

/// Waits for the answer off the async threads, so that Ctrl-C still works.
async fn ask(context: &Context, question: String) -> Result<bool, Failure> {
    if context.json || !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Ok(false);
    }
    blocking(move || {
        // Who cannot be asked does not answer either.
        let _ = std::io::stderr().lock().write_all(question.as_bytes());
        let mut answer = String::new();
        let read = std::io::stdin().lock().read_line(&mut answer);
        read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
    })
    .await
}

#[derive(Serialize)]
struct Summary<'a> {
    event: &'static str,
    name: &'a str,
    complete: bool,
    done: u64,
    total: u64,
    spent: Yocto,
    providers: Vec<Tally>,
}

fn summary<N: Network>(context: &Context, session: &Session<N>, name: &str, result: &Result<(), Failure>) {
    let (done, total) = session.meter.get();
    let spent = session.budget.spent();
    let providers: Vec<Tally> =
        session.pool.tallies().into_iter().filter(|tally| tally.answers + tally.failures > 0).collect();
    if context.json {
        let complete = result.is_ok() && done >= total;
        let event = "summary";
        return crate::progress::event(&Summary { event, name, complete, done, total, spent, providers });
    }
    if spent.is_zero() && result.is_ok() && providers.iter().all(|tally| tally.node == Local::KEY) {
        return;
    }
    for tally in providers.iter().filter(|tally| tally.node != Local::KEY) {
        let failures =
            if tally.failures == 0 { String::new() } else { format!(", {} failed", tally.failures) };
        let spent = tally.spent.to_near_string();
        context.say(&format!("{}  {}, {spent}{failures}", tally.node, bytes(tally.bytes)));
    }
    context.say(&format!("{name}: {} of {}, paid {}", bytes(done), bytes(total), spent.to_near_string()));
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[tokio::test]
    async fn what_is_done_when_it_is_interrupted_is_done() {
        let told = |result: Result<(), Failure>| result.err().map(|failure| failure.exit);
        let failed = || Err(Failure::new(Exit::Fatal, "stopped on the way", ""));
        let interrupted = Some(Exit::Interrupted);
        assert_eq!(told(leave(ready(Ok(())), pending(), LEAVE).await), None);
        assert_eq!(told(leave(ready(failed()), pending(), LEAVE).await), interrupted);
        assert_eq!(told(leave(pending(), ready(()), LEAVE).await), interrupted);
        assert_eq!(told(leave(pending(), pending(), Duration::ZERO).await), interrupted);
    }
}
