//! A network's parameters, from flags and files.

use std::path::{Path, PathBuf};
use std::time::Duration;

use por_types::Yocto;
use por_types::interface::Params;
use serde::{Deserialize, Deserializer, de};

use crate::cli::args::{amount, duration};
use crate::cli::output::facts;
use crate::exit::CliError;

const HOUR_MS: u64 = 3_600_000;

/// Parameters to set; a file has the same names with underscores, and flags win over it.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ParamArgs {
    /// TOML file with parameters, e.g. `sever_penalty = "2 NEAR"`, `challenge = "24h"`.
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub params: Option<PathBuf>,
    /// Late payment per request and millisecond.
    #[arg(long, value_parser = amount)]
    #[serde(deserialize_with = "some_amount")]
    pub late_fee: Option<Yocto>,
    /// Forfeited with a severed channel, half by each side.
    #[arg(long, value_parser = amount)]
    #[serde(deserialize_with = "some_amount")]
    pub sever_penalty: Option<Yocto>,
    /// Window for evidence after a sever, and for bonds after a close, e.g. `24h`.
    #[arg(long, value_parser = duration)]
    #[serde(deserialize_with = "some_duration")]
    pub challenge: Option<Duration>,
    /// Notice of a cooperative close.
    #[arg(long, value_parser = duration)]
    #[serde(deserialize_with = "some_duration")]
    pub notice: Option<Duration>,
    /// Least stake of a node with channels.
    #[arg(long, value_parser = amount)]
    #[serde(deserialize_with = "some_amount")]
    pub min_stake: Option<Yocto>,
    /// Time until stake weighs.
    #[arg(long, value_parser = duration)]
    #[serde(deserialize_with = "some_duration")]
    pub activation: Option<Duration>,
    /// How long a penalty can be reimbursed and withdrawn stake charged.
    #[arg(long, value_parser = duration)]
    #[serde(deserialize_with = "some_duration")]
    pub reimbursement: Option<Duration>,
    /// Share of a cut-off node's stake that is slashed, in parts of 10,000.
    #[arg(long)]
    pub slash_bps: Option<u16>,
}

fn some_amount<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Yocto>, D::Error> {
    let text = String::deserialize(deserializer)?;
    amount(&text).map(Some).map_err(de::Error::custom)
}

fn some_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    duration(&text).map(Some).map_err(de::Error::custom)
}

/// For a network with real money: windows that a node's operator can keep.
pub(super) fn production() -> Params {
    Params {
        // A second of lateness costs a millionth of a NEAR.
        late_fee: Yocto(Yocto::ONE_NEAR.0 / 1_000_000_000),
        sever_penalty: Yocto::near(2),
        challenge_ms: 24 * HOUR_MS,
        notice_ms: HOUR_MS / 6,
        min_stake: Yocto::near(5),
        activation_ms: 24 * HOUR_MS,
        reimbursement_ms: 7 * 24 * HOUR_MS,
        slash_bps: 1_000,
    }
}

/// For a network without real money: windows of seconds.
pub(super) fn test() -> Params {
    Params {
        challenge_ms: 5_000,
        notice_ms: 2_000,
        min_stake: Yocto::near(1),
        activation_ms: 0,
        reimbursement_ms: 10_000,
        ..production()
    }
}

impl ParamArgs {
    /// `base` with what flags and file say.
    pub(super) fn over(&self, base: Params) -> Result<Params, CliError> {
        let file = match &self.params {
            Some(path) => read(path)?,
            None => ParamArgs::default(),
        };
        self.put(file.put(base)?)
    }

    /// True if anything is to be set.
    pub(super) fn any(&self) -> bool {
        *self != ParamArgs::default()
    }

    fn put(&self, base: Params) -> Result<Params, CliError> {
        let ms = |value: Option<Duration>, base: u64| match value.map(|value| value.as_millis().try_into()) {
            None => Ok(base),
            Some(ms) => ms.map_err(|_| CliError::usage("a duration is too long", "use at most 90 days")),
        };
        Ok(Params {
            late_fee: self.late_fee.unwrap_or(base.late_fee),
            sever_penalty: self.sever_penalty.unwrap_or(base.sever_penalty),
            challenge_ms: ms(self.challenge, base.challenge_ms)?,
            notice_ms: ms(self.notice, base.notice_ms)?,
            min_stake: self.min_stake.unwrap_or(base.min_stake),
            activation_ms: ms(self.activation, base.activation_ms)?,
            reimbursement_ms: ms(self.reimbursement, base.reimbursement_ms)?,
            slash_bps: self.slash_bps.unwrap_or(base.slash_bps),
        })
    }
}

fn read(path: &Path) -> Result<ParamArgs, CliError> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| CliError::io(format!("reading {}", path.display()), &error))?;
    toml::from_str(&text).map_err(|error| {
        CliError::usage(
            format!("{}: {}", path.display(), error.message()),
            "it may have late_fee, sever_penalty, challenge, notice, min_stake, activation, reimbursement, \
             slash_bps",
        )
    })
}

/// Refuses what the contract would refuse.
pub(super) fn check(params: &Params, test: bool) -> Result<(), CliError> {
    match params.out_of_bounds(test) {
        None => Ok(()),
        Some(why) => Err(CliError::usage(why, "see the bounds in docs/contract.md")),
    }
}

/// As people read them.
pub(super) fn table(params: &Params) -> String {
    let time = |ms: u64| humantime::format_duration(Duration::from_millis(ms)).to_string();
    facts(&[
        ("late fee", format!("{} a millisecond", params.late_fee.to_near_string())),
        ("sever penalty", params.sever_penalty.to_near_string()),
        ("challenge", time(params.challenge_ms)),
        ("notice", time(params.notice_ms)),
        ("least stake", params.min_stake.to_near_string()),
        ("activation", time(params.activation_ms)),
        ("reimbursement", time(params.reimbursement_ms)),
        ("slash", format!("{}.{:02} %", params.slash_bps / 100, params.slash_bps % 100)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_within_bounds() {
        assert_eq!(production().out_of_bounds(false), None);
        assert_eq!(test().out_of_bounds(true), None);
        assert!(test().out_of_bounds(false).is_some(), "seconds are for tests");
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("network.toml");
        std::fs::write(&path, "sever_penalty = \"4 NEAR\"\nchallenge = \"48h\"\nslash_bps = 7\n")
            .expect("written");
        let args = ParamArgs {
            params: Some(path.clone()),
            challenge: Some(Duration::from_secs(7_200)),
            ..ParamArgs::default()
        };
        let params = args.over(production()).expect("reads");
        let expected =
            Params { sever_penalty: Yocto::near(4), challenge_ms: 2 * HOUR_MS, slash_bps: 7, ..production() };
        assert_eq!(params, expected);
        std::fs::write(&path, "penalty = \"4 NEAR\"\n").expect("written");
        let error = args.over(production()).expect_err("an unknown name");
        assert!(error.message.contains("penalty"), "{error}");
    }
}
