//! `por contract check`: is what is deployed what it should be?

use por_types::interface::{ConfigView, STATE_VERSION};
use por_types::{AccountId, Hash};
use serde::Serialize;

use super::args::CheckArgs;
use super::{code, foreign, hash_of, target};
use crate::chain::{Admin, Governed};
use crate::cli::Context;
use crate::cli::output::table;
use crate::cli::tables::time;
use crate::config::NetworkConfig;
use crate::exit::{CliError, ExitCode};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Line {
    what: &'static str,
    verdict: Verdict,
    found: String,
    /// What to do about it; empty if all is well.
    fix: String,
    #[serde(skip)]
    exit: ExitCode,
}

#[derive(Debug, Serialize)]
struct Report {
    contract: AccountId,
    network: String,
    /// Nothing failed; there may be warnings.
    ok: bool,
    checks: Vec<Line>,
}

fn ok(what: &'static str, found: impl Into<String>) -> Line {
    Line { what, verdict: Verdict::Ok, found: found.into(), fix: String::new(), exit: ExitCode::Ok }
}

fn warn(what: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Line {
    Line { what, verdict: Verdict::Warn, found: found.into(), fix: fix.into(), exit: ExitCode::Ok }
}

fn fail(what: &'static str, found: impl Into<String>, fix: impl Into<String>, exit: ExitCode) -> Line {
    Line { what, verdict: Verdict::Fail, found: found.into(), fix: fix.into(), exit }
}

pub(super) async fn check(context: &Context, args: CheckArgs) -> Result<(), CliError> {
    let network = target(context, &args.target)?;
    let contract = &network.contract;
    let expected = hash_of(&code(args.code.as_deref())?);
    let admin = Admin::connect(&network, contract.clone()).await?;
    let account = admin.account(contract).await?.ok_or_else(|| {
        CliError::new(
            ExitCode::NotFound,
            format!("account {contract} does not exist on {}", network.chain_id),
            "name the right --contract and --network",
        )
    })?;
    let governed = admin.governed().await.map_err(|error| foreign(contract, error))?;
    let mut checks =
        vec![code_line(account.code_hash, expected), version(&governed), chain(&governed, &network)];
    checks.push(keys(&admin, &network).await?);
    if governed.state_version == STATE_VERSION {
        let config = admin.config().await?;
        checks.extend([test(&config, &network), bounds(&config), announcements(&config)]);
        checks.extend([books(&admin).await?, pending(&admin).await?]);
    }
    let first = checks.iter().find(|line| line.verdict == Verdict::Fail);
    let error = first
        .map(|line| CliError::new(line.exit, format!("{}: {}", line.what, line.found), line.fix.clone()));
    let report =
        Report { contract: contract.clone(), network: network.chain_id.clone(), ok: error.is_none(), checks };
    context.output.print(&report, human)?;
    error.map_or(Ok(()), Err)
}

fn human(report: &Report) -> String {
    let verdict = |verdict| match verdict {
        Verdict::Ok => "ok",
        Verdict::Warn => "warning",
        Verdict::Fail => "FAILED",
    };
    let rows: Vec<Vec<String>> = report
        .checks
        .iter()
        .map(|line| vec![line.what.to_owned(), verdict(line.verdict).to_owned(), line.found.clone()])
        .collect();
    let mut text = table(&["CHECK", "", "FOUND"], &rows);
    for line in report.checks.iter().filter(|line| !line.fix.is_empty()) {
        text += &format!("\n{}: {}", line.what, line.fix);
    }
    text
}

fn code_line(found: Option<Hash>, expected: Hash) -> Line {
    match found {
        Some(hash) if hash == expected => ok("code", format!("{hash}, byte for byte")),
        Some(hash) => fail(
            "code",
            format!("{hash}, expected {expected}"),
            "use the program that the contract was deployed with, or --code FILE; else do not trust it",
            ExitCode::ForeignVersion,
        ),
        None => fail("code", "none", "run `por contract init`", ExitCode::NotFound),
    }
}

fn version(governed: &Governed) -> Line {
    let found = governed.state_version;
    if found == STATE_VERSION {
        return ok("version", found.to_string());
    }
    let fix = if found < STATE_VERSION { "run `por contract upgrade`" } else { "update this program" };
    let found = format!("{found}, this program speaks {STATE_VERSION}");
    fail("version", found, fix, ExitCode::ForeignVersion)
}

fn chain(governed: &Governed, network: &NetworkConfig) -> Line {
    if governed.chain_id == network.chain_id {
        return ok("chain", governed.chain_id.clone());
    }
    let found = format!("made for {}, but on {}", governed.chain_id, network.chain_id);
    fail("chain", found, "do not use it: its signatures are of another chain", ExitCode::ForeignVersion)
}

fn test(config: &ConfigView, network: &NetworkConfig) -> Line {
    match (config.test, network.is_local()) {
        (false, _) => ok("test flag", "no"),
        (true, true) => ok("test flag", "yes, on a local chain"),
        (true, false) => fail(
            "test flag",
            "yes: its parameters have no bounds",
            "do not use it: nodes refuse it outside of a local chain",
            ExitCode::ForeignVersion,
        ),
    }
}

fn bounds(config: &ConfigView) -> Line {
    match config.params.out_of_bounds(config.test) {
        None => ok("parameters", "within bounds"),
        Some(why) => fail("parameters", why, "do not use it", ExitCode::ForeignVersion),
    }
}

fn announcements(config: &ConfigView) -> Line {
    let mut found = Vec::new();
    if let Some(next) = &config.next_params {
        found.push(format!("other parameters from {}", time(next.from_ms)));
    }
    if let Some(next) = &config.next_code {
        found.push(format!("code {} from {}", next.code_hash, time(next.from_ms)));
    }
    if found.is_empty() {
        return ok("announced", "nothing");
    }
    warn("announced", found.join(", "), "look at what comes, and leave before it if you do not agree")
}

async fn keys(admin: &Admin, network: &NetworkConfig) -> Result<Line, CliError> {
    let keys = admin.access_keys(&network.contract).await?;
    let full: Vec<&str> =
        keys.iter().filter(|key| key.full_access).map(|key| key.public_key.as_str()).collect();
    Ok(match (full.as_slice(), keys.as_slice()) {
        ([], []) => ok("keys", "none: code changes by notice only"),
        ([], _) => warn(
            "keys",
            format!("{} that can call other contracts", keys.len()),
            "delete them with `por contract lock`",
        ),
        (full, _) => warn(
            "keys",
            format!("{} with full access: {}", full.len(), full.join(" ")),
            "whoever holds such a key can replace the code at once, and with it take what it holds; delete \
             them with `por contract lock --key FILE`",
        ),
    })
}

async fn books(admin: &Admin) -> Result<Line, CliError> {
    let books = admin.books().await?;
    let held = books.owed().and_then(|owed| owed.checked_add(books.surplus)).ok();
    Ok(if held == Some(books.balance) {
        ok("books", format!("balance, {}", books.balance.to_near_string()))
    } else {
        let held = held.map_or("more than fits".to_owned(), |held| held.to_near_string());
        let found = format!("{} on the account, {held} accounted for", books.balance.to_near_string());
        fail("books", found, "do not use it, and report this as a defect", ExitCode::Fatal)
    })
}

async fn pending(admin: &Admin) -> Result<Line, CliError> {
    let checks = admin.checks().await?;
    if checks.waiting == 0 {
        return Ok(ok("partition checks", "none pending"));
    }
    let since =
        checks.head.map_or(String::new(), |head| format!(", the first since {}", time(head.closed_ms)));
    Ok(warn(
        "partition checks",
        format!("{} pending{since}, {} operations wait", checks.checks, checks.waiting),
        "run a node with checks = \"any\" in its [policy]: it is paid for continuing them",
    ))
}
