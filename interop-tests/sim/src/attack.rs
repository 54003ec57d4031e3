//! What an adversary gets: the rows of protocol section 9, played against the real code.
//!
//! Each attack has a host or an account that does what no honest one does, and is judged by what
//! it has at the end beyond what it would have had without the attack.

mod contract;
mod network;
mod silence;

use serde::Serialize;

#[derive(clap::Args)]
pub struct Attack {
    /// Name of an attack, or `all`; `list` names them.
    name: String,
    /// Seed of the networks in virtual time.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// One JSON line for each attack instead of text.
    #[arg(long)]
    json: bool,
}

/// What came of an attack.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    pub attack: &'static str,
    /// What the attacker has beyond what honesty would have left it.
    pub profit_yocto: i128,
    /// Whether the attack ended as protocol section 9 says.
    pub ok: bool,
    pub outcome: String,
}

/// An attack's result before it has a name: profit, whether the rest is as it should be, and in words.
pub type Played = (i128, bool, String);

struct Known {
    name: &'static str,
    play: fn(u64) -> Played,
}

const fn known(name: &'static str, play: fn(u64) -> Played) -> Known {
    Known { name, play }
}

const ATTACKS: &[Known] = &[
    known("old-state", contract::old_state),
    known("replay", contract::replay),
    known("withheld-order", contract::withheld_order),
    known("refused-close", contract::refused_close),
    known("sock-puppets", contract::sock_puppets),
    known("private-component", contract::private_component),
    known("stake-up", contract::stake_up),
    known("withdraw-before-isolation", contract::withdraw_before_isolation),
    known("sever-for-profit", contract::sever_for_profit),
    known("cut-off-leaves", contract::cut_off_leaves),
    known("frame-a-server", contract::frame_a_server),
    known("many-checks", contract::many_checks),
    known("storage-litter", contract::storage_litter),
    known("never-acknowledge", network::never_acknowledge),
    known("silent-after-ack", network::silent_after_ack),
    known("silence-pursued", silence::pursued),
    known("abscond", network::abscond),
    known("pay-no-lateness", network::pay_no_lateness),
    known("forge-response", network::forge_response),
    known("truncate-response", network::truncate_response),
    known("one-id-twice", network::one_id_twice),
    known("replay-payment", network::replay_payment),
    known("underpaid-hop", network::underpaid_hop),
    known("farm-late-fees", network::farm_late_fees),
    known("flood", network::flood),
    known("crash", network::crash),
    known("restored-backup", network::restored_backup),
];

pub fn run(args: &Attack) -> anyhow::Result<bool> {
    if args.name == "list" {
        ATTACKS.iter().for_each(|attack| println!("{}", attack.name));
        return Ok(true);
    }
    let chosen: Vec<&Known> =
        ATTACKS.iter().filter(|attack| args.name == "all" || attack.name == args.name).collect();
    anyhow::ensure!(!chosen.is_empty(), "no attack is called {:?}; `attack list` names them", args.name);
    let mut sound = true;
    for attack in chosen {
        let verdict = verdict(attack, args.seed);
        sound &= verdict.ok;
        if args.json {
            println!("{}", serde_json::to_string(&verdict)?);
        } else {
            let mark = if verdict.ok { "as it should" } else { "WRONG" };
            println!(
                "{:26} {mark:13} profit {:>26}  {}",
                verdict.attack, verdict.profit_yocto, verdict.outcome
            );
        }
    }
    Ok(sound)
}

fn verdict(attack: &Known, seed: u64) -> Verdict {
    let (profit_yocto, rest, outcome) = (attack.play)(seed);
    Verdict { attack: attack.name, profit_yocto, ok: rest && profit_yocto <= 0, outcome }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_attack_pays() {
        for attack in ATTACKS {
            let verdict = verdict(attack, 1);
            assert!(verdict.ok, "{verdict:?}");
        }
    }
}
