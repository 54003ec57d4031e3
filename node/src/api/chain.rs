//! Calls of the contract.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use por_types::ChannelId;

use super::params::{json, parse};
use super::{Api, Result, unknown};
use crate::client::{ActionResult, AmountBody, WithdrawBody};

type Body = std::result::Result<Bytes, BytesRejection>;

pub(super) async fn account_action(
    State(api): State<Api>,
    Path(action): Path<String>,
    body: Body,
) -> Result<Json<ActionResult>> {
    let body = body?;
    let amount = |body: &Bytes| json::<AmountBody>(body).map(|body| body.amount);
    let daemon = &api.daemon;
    let result = match action.as_str() {
        "register" => daemon.register(amount(&body)?).await,
        "stake" => daemon.stake(amount(&body)?).await,
        "unstake" => daemon.unstake(amount(&body)?).await,
        "withdraw" => daemon.withdraw(json::<WithdrawBody>(&body)?.amount).await,
        _ => return Err(unknown("")),
    };
    Ok(Json(result?))
}

pub(super) async fn propose(State(api): State<Api>, body: Body) -> Result<Json<ActionResult>> {
    Ok(Json(api.daemon.propose(json(&body?)?).await?))
}

pub(super) async fn channel_action(
    State(api): State<Api>,
    Path((channel, action)): Path<(String, String)>,
    body: Body,
) -> Result<Json<ActionResult>> {
    let body = body?;
    let channel: ChannelId = parse("channel", &channel)?;
    let daemon = &api.daemon;
    let result = match action.as_str() {
        "confirm" => daemon.confirm(channel, json(&body)?).await,
        "cancel" => daemon.cancel(channel).await,
        "top-up" => daemon.top_up(channel, json::<AmountBody>(&body)?.amount).await,
        "close" => daemon.close(channel).await,
        "sever" => daemon.sever(channel).await,
        _ => return Err(unknown("")),
    };
    Ok(Json(result?))
}
