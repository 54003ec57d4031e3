//! Parameters and code change only after their notice, and no call of the owner moves money.

use near_workspaces::types::Gas;
use por_interop::sandbox::with_sandbox;
use por_types::interface::{CHECK_GAS, NextCode, NextParams, Params, code, method};
use por_types::{Hash, Yocto};
use serde_json::json;

use crate::net::{self, Net, OWNER, refused};

const ONE: Yocto = Yocto::near(1);

#[test]
fn parameters_change_after_their_notice() {
    with_sandbox("governance::parameters_change_after_their_notice", || async {
        let mut net = Net::with_nodes(&["alice", "bob"]).await;
        let old = net.open("alice", "bob", ONE, ONE).await;
        let params = net.config().await.params;
        let dearer = Params { sever_penalty: Yocto::near(4), ..params.clone() };
        let args = json!({ "params": dearer });
        refused(net.act("alice", method::SET_PARAMS, args.clone()).await, code::NOT_ALLOWED);
        let odd = Params { sever_penalty: Yocto(3), ..params.clone() };
        refused(net.act(OWNER, method::SET_PARAMS, json!({ "params": odd })).await, code::PARAMS);

        net.act(OWNER, method::SET_PARAMS, args).await.expect("announced");
        let config = net.config().await;
        assert_eq!(config.params, params, "not yet in force");
        let Some(NextParams { params: next, from_ms }) = config.next_params else { panic!("announced") };
        assert_eq!(next, dearer);
        assert!(from_ms >= net.now_ms().await + net::NOTICE_MS / 2, "there is time to leave");
        net.pass_until(from_ms).await;
        let config = net.config().await;
        assert_eq!((config.params, config.next_params), (dearer, None));

        let new = net.open("alice", "bob", ONE, ONE).await;
        assert_eq!(net.channel(new).await.bond, Yocto::near(2));
        assert_eq!(net.channel(old).await.bond, ONE, "an open channel keeps what it was opened with");
    });
}

#[test]
fn code_changes_after_its_notice_and_the_state_stays() {
    with_sandbox("governance::code_changes_after_its_notice_and_the_state_stays", || async {
        let mut net = Net::with_nodes(&["alice", "bob"]).await;
        let id = net.open("alice", "bob", ONE, ONE).await;
        let wasm = net::wasm();
        let code_hash = Hash(por_types::sha256(&wasm));
        let upgrade = async |net: &Net, wasm: Vec<u8>| {
            let call = net.accounts["bob"].call(net.contract.id(), method::UPGRADE).args(wasm);
            let outcome = call.gas(Gas::from_gas(CHECK_GAS)).transact().await.expect("sent");
            outcome.into_result().map(|_| ()).map_err(|failure| format!("{failure:?}"))
        };
        refused(upgrade(&net, wasm.clone()).await, code::NOT_ANNOUNCED);
        let announce = json!({ "code_hash": code_hash });
        refused(net.act("alice", method::ANNOUNCE_UPGRADE, announce.clone()).await, code::NOT_ALLOWED);
        net.act(OWNER, method::ANNOUNCE_UPGRADE, announce.clone()).await.expect("announced");
        refused(upgrade(&net, wasm.clone()).await, code::TOO_EARLY);
        refused(upgrade(&net, wasm[1..].to_vec()).await, code::NOT_ANNOUNCED);
        net.act(OWNER, method::CANCEL_UPGRADE, json!({})).await.expect("cancelled");
        refused(upgrade(&net, wasm.clone()).await, code::NOT_ANNOUNCED);

        net.act(OWNER, method::ANNOUNCE_UPGRADE, announce).await.expect("announced");
        let Some(NextCode { from_ms, .. }) = net.config().await.next_code else { panic!("announced") };
        net.pass_until(from_ms).await;
        let before = (net.channel(id).await, net.node("alice").await, net.books().await.deposits);
        upgrade(&net, wasm).await.expect("deployed and migrated, by anyone");
        net.check_books().await;
        let after = (net.channel(id).await, net.node("alice").await, net.books().await.deposits);
        assert_eq!(before, after);
        assert_eq!(net.config().await.next_code, None);
        net.open("bob", "alice", ONE, ONE).await;
    });
}

#[test]
fn the_owner_gets_no_money_of_others() {
    with_sandbox("governance::the_owner_gets_no_money_of_others", || async {
        let mut net = Net::with_nodes(&["alice", "bob"]).await;
        net.open("alice", "bob", ONE, ONE).await;
        let mallory = json!({ "account": net.account("clock") });
        for method in [method::SET_TREASURY, method::SET_OWNER] {
            refused(net.act("alice", method, mallory.clone()).await, code::NOT_ALLOWED);
            net.act(OWNER, method, mallory.clone()).await.expect("by the owner");
        }
        refused(net.act(OWNER, method::SET_OWNER, mallory.clone()).await, code::NOT_ALLOWED);
        for name in ["clock", OWNER, "treasury"] {
            refused(net.act(name, method::WITHDRAW, json!({})).await, code::WITHDRAWABLE);
        }
        refused(net.act("alice", method::UNREGISTER, json!({})).await, code::IN_USE);
    });
}
