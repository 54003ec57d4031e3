//! `por news`: what happened to the guarantee at this node.

use std::time::Duration;

use super::{Context, tables};
use crate::client::{Client, ErrorCode, Happening};
use crate::exit::{CliError, tell};

/// How long one look waits at the daemon.
const WAIT: Duration = Duration::from_secs(20);
/// Between two looks while no daemon answers.
const PAUSE: Duration = Duration::from_secs(1);

pub(super) async fn news(context: &Context, since: u64) -> Result<(), CliError> {
    let news = context.client()?.news(since).await?;
    context.output.print(&news, |news| lines(&news.happenings))
}

/// Until it is interrupted, which is how it is meant to end. A daemon that is started again is waited for.
pub(super) async fn follow(context: &Context, since: u64) -> Result<(), CliError> {
    let client = context.client()?;
    tokio::select! {
        biased;
        _ = tokio::signal::ctrl_c() => Ok(()),
        result = follow_on(context, &client, since) => result,
    }
}

async fn follow_on(context: &Context, client: &Client, mut since: u64) -> Result<(), CliError> {
    let mut wait = Duration::ZERO;
    let mut away = false;
    loop {
        let news = match client.news_within(since, wait).await {
            // It was there when this began: the address of its home says where it comes back.
            Err(error) if error.code == ErrorCode::Unreachable && !wait.is_zero() => {
                if !std::mem::replace(&mut away, true) {
                    tell("the daemon has gone; waiting for it");
                }
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            news => news?,
        };
        (wait, away) = (WAIT, false);
        if news.next < since {
            // Started anew: its numbers begin at 0 again.
            since = 0;
            continue;
        }
        for happening in &news.happenings {
            if !context.output.print_on(happening, tables::happening)? {
                return Ok(());
            }
        }
        since = news.next;
    }
}

fn lines(happenings: &[Happening]) -> String {
    happenings.iter().map(tables::happening).collect::<Vec<_>>().join("\n")
}
