//! No token appears or disappears, whatever is sent.

use near_crypto::{KeyType, SecretKey};
use near_jsonrpc_client::methods;
use near_primitives::action::Action;
use near_primitives::types::{AccountId, Balance, BlockId, BlockReference};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::client::*;

/// Everything the chain holds, added up from its accounts.
async fn held(chain: &Chain, accounts: &[AccountId]) -> u128 {
    let mut sum = 0;
    for id in accounts {
        if let Some(account) = chain.find_account(id).await {
            sum += account.amount.as_yoctonear() + account.locked.as_yoctonear();
        }
    }
    sum
}

/// The supply that the latest block states, and all that was burnt up to it.
async fn stated(chain: &Chain) -> (u128, u128) {
    let (head, _) = chain.head().await;
    let (mut supply, mut burnt) = (0, 0);
    for height in 0..=head {
        let block_reference = BlockReference::BlockId(BlockId::Height(height));
        let block = chain.rpc.call(methods::block::RpcBlockRequest { block_reference }).await;
        let block = block.expect("no height was skipped");
        supply = block.header.total_supply.as_yoctonear();
        burnt += block.chunks[0].balance_burnt.as_yoctonear();
    }
    (supply, burnt)
}

fn random_actions(rng: &mut StdRng, accounts: &[AccountId], nth: usize) -> (AccountId, Vec<Action>) {
    let to = accounts.choose(rng).expect("there are accounts").clone();
    let other = accounts.choose(rng).expect("there are accounts").clone();
    let deposit = Balance::from_yoctonear(rng.random_range(0..near(3).as_yoctonear()));
    let gas = rng.random_range(1..120);
    let target = other.as_bytes();
    match rng.random_range(0..10) {
        0 => (to, vec![transfer(deposit)]),
        1 => (id("missing.near"), vec![transfer(deposit)]),
        2 => (to, vec![call("add", b"", gas, deposit)]),
        3 => (to, vec![call("fail", b"", gas, deposit)]),
        4 => (to, vec![call("relay", target, gas, deposit)]),
        5 => (to, vec![call("relay_fail", target, gas, deposit)]),
        6 => (to, vec![call("pay", target, gas, deposit)]),
        7 => (to, vec![call("deep", &[rng.random_range(0..8)], gas, deposit)]),
        8 => {
            let key = SecretKey::from_seed(KeyType::ED25519, "child").public_key();
            (id(&format!("child{nth}.near")), vec![create(), full_key(&key), transfer(deposit)])
        }
        _ => (to, vec![call("add", b"", gas, deposit), call("share", b"", gas, Balance::ZERO)]),
    }
}

#[tokio::test]
async fn supply_is_conserved() {
    let seed: u64 = match std::env::var("SEED") {
        Ok(seed) => seed.parse().expect("SEED is a number"),
        Err(_) => rand::random(),
    };
    println!("SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let chain = Chain::start().await;
    let genesis = held(&chain, &[id("test.near")]).await;

    let near_account = chain.user_called("near").await;
    let mut users = vec![near_account, chain.user().await, chain.user().await];
    users.push(chain.deploy("one.near", crate::contracts::counter()).await);
    users.push(chain.deploy("two.near", crate::contracts::counter()).await);
    let minted = near(100).as_yoctonear() * users.len() as u128;
    let mut accounts: Vec<AccountId> = users.iter().map(|user| user.id.clone()).collect();

    for nth in 0..60 {
        let user = users.choose(&mut rng).expect("there are users");
        let (to, actions) = random_actions(&mut rng, &accounts, nth);
        let transaction = chain.sign(user, &to, actions).await;
        // Some are invalid, some fail: what counts is that nothing is lost.
        if chain.send(transaction).await.is_ok() && !accounts.contains(&to) {
            accounts.push(to);
        }
    }
    accounts.push(id("test.near"));
    let held = held(&chain, &accounts).await;
    let (supply, burnt) = stated(&chain).await;
    assert!(burnt > 0);
    assert_eq!(held, supply, "SEED={seed}");
    assert_eq!(held + burnt, genesis + minted, "SEED={seed}");
}
