//! Which chain the endpoints are on, before an answer of theirs counts.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::super::error::ChainError;
use super::super::http::{Endpoint, Unproven};
use super::{Rpc, RpcLimits};

/// How long an endpoint that has not said yet which chain it is on keeps others waiting that have answered.
const GRACE: Duration = Duration::from_secs(1);

/// How long an endpoint is waited for where all are asked: less if it has not answered anything so far.
pub(super) fn patience(endpoint: &Endpoint, timeout: Duration) -> Duration {
    if endpoint.is_proven() { timeout } else { timeout.min(GRACE) }
}

impl Rpc {
    /// Asks every endpoint for its chain, all at the same time: one has to answer, and those that do soon must be
    /// on `expected`. The others have to say it before any answer of theirs counts.
    ///
    /// Errors: [`ChainError::Foreign`]; [`ChainError::Unreachable`] if none has answered within the time for one
    /// try, whatever their number.
    pub(in crate::chain) async fn check_chain_id(&self, expected: &str) -> Result<(), ChainError> {
        let mut asked = JoinSet::new();
        for (at, endpoint) in self.endpoints.iter().enumerate() {
            endpoint.expect_chain(expected);
            let (endpoint, limits) = (endpoint.clone(), self.limits);
            asked.spawn(async move { (at, prove(&endpoint, limits).await) });
        }
        let mut proven: Option<usize> = None;
        let mut reasons = vec![String::new(); self.endpoints.len()];
        // Each of them ends by itself.
        let mut until = None;
        loop {
            let next = async {
                match until {
                    Some(until) => tokio::time::timeout_at(until, asked.join_next()).await.ok().flatten(),
                    None => asked.join_next().await,
                }
            };
            let Some(answer) = next.await else { break };
            match answer {
                Ok((at, Ok(()))) => {
                    until.get_or_insert_with(|| Instant::now() + GRACE);
                    proven = Some(proven.map_or(at, |first| first.min(at)));
                }
                Ok((_, Err(Unproven::Foreign(reason)))) => return Err(ChainError::Foreign { reason }),
                Ok((at, Err(Unproven::Silent(reason)))) => reasons[at] = reason,
                Err(error) => reasons.push(error.to_string()),
            }
        }
        // Who is late proves itself meanwhile.
        asked.detach_all();
        let Some(first) = proven else {
            reasons.retain(|reason| !reason.is_empty());
            return Err(ChainError::Unreachable { reasons: reasons.join("; ") });
        };
        self.preferred.store(first, std::sync::atomic::Ordering::Relaxed);
        Ok(())
    }
}

/// Has an endpoint say which chain it is on, within the time for one try; tried again if it fails at once.
async fn prove(endpoint: &Endpoint, limits: RpcLimits) -> Result<(), Unproven> {
    let mut last = None;
    let tries = async {
        for round in 0..limits.rounds.max(1) {
            if round > 0 {
                tokio::time::sleep(limits.pause(round)).await;
            }
            match endpoint.prove().await {
                Err(Unproven::Silent(reason)) => last = Some(reason),
                said => return Some(said),
            }
        }
        None
    };
    let said = tokio::time::timeout(limits.try_timeout, tries).await;
    let reason = match said {
        Ok(Some(Err(Unproven::Foreign(reason)))) => {
            tracing::warn!("{reason}");
            return Err(Unproven::Foreign(reason));
        }
        Ok(Some(said)) => return said,
        Ok(None) => last,
        Err(_) => last.or_else(|| Some(format!("no answer within {} s", limits.try_timeout.as_secs_f32()))),
    };
    Err(Unproven::Silent(format!("{}: {}", endpoint.url, reason.unwrap_or_default())))
}
