//! Random calls, valid and invalid.

use por_interop::sandbox::with_sandbox;
use por_types::interface::{ChannelView, method};
use por_types::{ChannelId, Draw, Totals, Yocto};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;

use crate::NEAR;
use crate::net::{self, Net, draw_args, order, state, totals};

/// Random calls; [`Net::call`] checks after every one that the books hold what came in.
#[test]
fn random_sequences_conserve_money() {
    with_sandbox("random::random_sequences_conserve_money", || async {
        let seed: u64 = match std::env::var("POR_SEED") {
            Ok(seed) => seed.parse().expect("POR_SEED is a number"),
            Err(_) => rand::random(),
        };
        println!("seed {seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        const NAMES: [&str; 4] = [net::ANCHOR, "alice", "bob", "carol"];
        let mut net = Net::with_nodes(&NAMES).await;
        let (mut ends, mut accepted) = (Vec::new(), 0);
        for pair in NAMES.windows(2) {
            net.open(pair[0], pair[1], Yocto::near(2), Yocto::near(1)).await;
            ends.push((pair[0], pair[1]));
        }
        for _ in 0..60 {
            accepted += usize::from(random_call(&mut net, &mut rng, &NAMES, &mut ends).await);
        }
        println!("{accepted} calls accepted");
        assert!(accepted >= 8, "only {accepted} calls were accepted");
    });
}

/// A draw that both sides sign, of more than there is or not.
async fn random_draw(net: &Net, rng: &mut StdRng, channel: ChannelId, totals: Totals) -> Draw {
    let known: Option<ChannelView> = net.view(method::CHANNEL, json!({ "channel": channel })).await;
    let known = known.map_or((0, totals), |known| (known.sequence, known.totals));
    Draw {
        channel,
        sequence: known.0 + 1,
        expires_ms: net.now_ms().await + 3_600_000,
        totals: if rng.random() { totals } else { known.1 },
        draw_a: Yocto(rng.random_range(0..NEAR)),
        draw_b: Yocto(rng.random_range(0..NEAR)),
    }
}

async fn random_call(
    net: &mut Net,
    rng: &mut StdRng,
    names: &[&'static str],
    ends: &mut Vec<(&'static str, &'static str)>,
) -> bool {
    let a = names[rng.random_range(0..names.len())];
    let b = names[rng.random_range(0..names.len())];
    let amount = Yocto(rng.random_range(0..2 * NEAR));
    let id = ChannelId(rng.random_range(0..=ends.len() as u64));
    let of = ends.get(id.0 as usize).copied().unwrap_or((a, b));
    let total = totals(rng.random_range(0..2 * NEAR), rng.random_range(0..2 * NEAR));
    let channel = json!({ "channel": id });
    let done = match rng.random_range(0..16) {
        0 | 1 => {
            let proposed = net.propose(a, b, amount).await;
            if proposed.is_ok() {
                ends.push((a, b));
            }
            return proposed.is_ok();
        }
        2 | 3 => net.confirm(of.1, id, amount).await,
        4 => {
            let close = json!({ "channel": id, "totals": total });
            let _ = net.act(of.0, method::REQUEST_CLOSE, close.clone()).await;
            net.act(of.1, method::CONFIRM_CLOSE, close).await
        }
        5 => net.act(a, method::SEVER, json!({ "order": order(net, of.1, id) })).await,
        6 => {
            let args = json!({ "state": state(net, of.0, id, total), "signer": "a" });
            net.act(b, method::SUBMIT_STATE, args).await
        }
        7 => {
            net.pass(net::NOTICE_MS).await;
            net.act(a, method::FINALIZE, channel).await
        }
        8 => net.call(a, method::STAKE, json!({}), amount).await,
        10 => {
            let through = net.account(b);
            net.act(a, method::PING, json!({ "through": through })).await
        }
        11 => {
            let args = json!({ "order": order(net, of.0, id) });
            let deposit = net.config().await.check_deposit;
            net.call_with_gas(a, method::SEVER, args, deposit, net::LITTLE_GAS).await
        }
        12 => net.act(a, method::CHECK, json!({})).await,
        13 | 14 => {
            let draw = random_draw(net, rng, id, total).await;
            net.act(a, method::DRAW, draw_args(net, of.0, of.1, draw)).await
        }
        9 => net.act(a, method::UNSTAKE, json!({ "amount": amount })).await,
        _ => {
            let owed = net.withdrawable(a).await;
            if owed.is_zero() {
                net.act(a, method::WITHDRAW, json!({})).await
            } else {
                net.withdraw(a, owed).await;
                return true;
            }
        }
    };
    done.is_ok()
}
