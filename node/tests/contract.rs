//! `por contract` against a local chain in this process.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use near_crypto::SecretKey;
use por_localnet::Localnet;
use por_node::config::NetworkConfig;
use por_node::keys::generate_near_key;
use por_types::interface::STATE_VERSION;
use por_types::{AccountId, CONTRACT_WASM, Hash, Yocto, sha256};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A chain without the contract, and the files of an operator.
struct World {
    chain: Localnet,
    dir: TempDir,
    network: PathBuf,
    config: NetworkConfig,
}

impl World {
    async fn start(chain_id: &str, contract: &str) -> World {
        let config = por_localnet::Config {
            chain_id: chain_id.to_owned(),
            block_time: Duration::from_millis(50),
            ..por_localnet::Config::default()
        };
        let chain = Localnet::start(config).await.expect("a chain");
        let dir = tempfile::tempdir().expect("directory");
        let config = NetworkConfig {
            chain_id: chain_id.to_owned(),
            contract: contract.parse().expect("account"),
            rpc_urls: vec![chain.rpc_url()],
            boot_peers: Vec::new(),
        };
        let network = dir.path().join("network.toml");
        std::fs::write(&network, config.to_toml().expect("text")).expect("written");
        World { chain, dir, network, config }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Credentials as near-cli writes them.
    fn credentials(&self, account: &AccountId, key: &SecretKey) -> PathBuf {
        let path = self.path(&format!("{account}.json"));
        let text = json!({
            "account_id": account,
            "public_key": key.public_key().to_string(),
            "private_key": key.to_string(),
        });
        std::fs::write(&path, text.to_string()).expect("written");
        path
    }

    /// An account from the faucet, and its credentials.
    async fn account(&self, name: &str) -> PathBuf {
        let (account, key) = (name.parse().expect("account"), generate_near_key());
        let urls = &self.config.rpc_urls;
        por_node::chain::faucet(urls, &account, &key.public_key(), Yocto::near(20)).await.expect("faucet");
        self.credentials(&account, &key)
    }

    fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_por"));
        command.env_clear().stdin(Stdio::null());
        command.arg("--home").arg(self.path("home")).args(["--json", "contract"]).args(args);
        command.arg("--network").arg(&self.network);
        command.output().expect("por runs")
    }

    /// Must succeed; gives what it printed.
    fn json(&self, args: &[&str]) -> Value {
        let output = self.run(args);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{args:?}: {errors}");
        serde_json::from_slice(&output.stdout).expect("JSON on standard output")
    }

    /// Must fail with this code, what happened and what to do; gives the message.
    fn fails(&self, args: &[&str], code: i64) -> String {
        let output = self.run(args);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code().map(i64::from), Some(code), "{args:?}: {errors}");
        let error: Value = serde_json::from_str(&errors).expect("JSON on standard error");
        assert_eq!(error["exit"], code);
        assert!(!error["fix"].as_str().expect("text").is_empty(), "{errors}");
        error["error"].as_str().expect("text").to_owned()
    }

    /// The line of `check` about `what`: verdict and what was found.
    fn line(report: &Value, what: &str) -> (String, String) {
        let lines = report["checks"].as_array().expect("lines");
        let line = lines.iter().find(|line| line["what"] == what).expect(what);
        let text = |key: &str| line[key].as_str().expect("text").to_owned();
        (text("verdict"), text("found"))
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

/// The contract with a custom section: other bytes, the same behaviour.
fn other_code(world: &World) -> PathBuf {
    let path = world.path("other.wasm");
    let code = [CONTRACT_WASM, &[0, 6, 4, b'n', b'o', b't', b'e', 1]].concat();
    std::fs::write(&path, code).expect("written");
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn a_contract_is_deployed_initialised_and_checked() {
    let world = World::start("localnet", "net.localnet").await;
    let key = world.path("net.json");
    let key = text(&key);
    let hash = Hash(sha256(CONTRACT_WASM)).to_string();
    world.fails(&["check"], 4);
    let deployed = world.json(&["deploy", "--key", key, "--new-key"]);
    assert_eq!((&deployed["code_hash"], &deployed["changed"]), (&json!(hash), &json!(true)));
    assert_ne!(deployed["funded"], "0");
    assert_eq!(world.json(&["deploy", "--key", key])["changed"], false, "it is there");
    world.fails(&["deploy", "--key", key, "--new-key"], 13);
    world.fails(&["check"], 15);
    let other = other_code(&world);
    world.fails(&["deploy", "--key", key, "--code", text(&other)], 13);

    let owner = world.account("owner.localnet").await;
    world.fails(&["init", "--key", text(&owner)], 11);
    world.fails(&["init", "--key", key, "--slash-bps", "5001"], 2);
    world.fails(&["init", "--key", key, "--owner", "nobody.localnet"], 4);
    let done = world.json(&["init", "--key", key, "--owner", "owner.localnet", "--challenge", "2h"]);
    assert_eq!(done["params"]["challenge_ms"], 7_200_000);
    assert_eq!((&done["anchor"], &done["test"]), (&json!("owner.localnet"), &json!(false)));
    world.fails(&["init", "--key", key, "--owner", "owner.localnet"], 13);

    let report = world.json(&["check"]);
    assert_eq!(report["ok"], true, "{report}");
    for what in ["code", "version", "chain", "test flag", "parameters", "announced", "books"] {
        assert_eq!(World::line(&report, what).0, "ok", "{report}");
    }
    assert_eq!(World::line(&report, "partition checks").0, "ok");
    assert_eq!(World::line(&report, "keys").0, "warn", "{report}");
    let differs = world.fails(&["check", "--code", text(&other)], 15);
    assert!(differs.contains(&hash), "{differs}");

    world.fails(&["lock", "--key", key], 2);
    let locked = world.json(&["lock", "--key", key, "--yes"]);
    assert_eq!(locked["deleted"].as_array().map(Vec::len), Some(1));
    assert_eq!(World::line(&world.json(&["check"]), "keys").0, "ok");
    assert!(world.chain.rpc_url().starts_with("http"));
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_and_code_change_by_the_owner_with_notice() {
    let world = World::start("localnet", "net.localnet").await;
    let key = world.path("net.json");
    let owner = world.account("owner.localnet").await;
    let stranger = world.account("stranger.localnet").await;
    let (owner, stranger) = (text(&owner), text(&stranger));
    let init = ["init", "--key", text(&key), "--new-key", "--test", "--owner", "owner.localnet"];
    world.json(&[&init[..], &["--notice", "2m"]].concat());

    let shown = world.json(&["params"]);
    assert_eq!((&shown["params"]["slash_bps"], &shown["next_params"]), (&json!(1_000), &Value::Null));
    world.fails(&["params", "--slash-bps", "7"], 2);
    world.fails(&["params", "--slash-bps", "7", "--key", stranger], 11);
    let set = world.json(&["params", "--slash-bps", "7", "--key", owner]);
    assert_eq!(
        (&set["params"]["slash_bps"], &set["next_params"]["params"]["slash_bps"]),
        (&json!(1_000), &json!(7))
    );
    // A second change builds on the one that waits.
    let set = world.json(&["params", "--notice", "1s", "--key", owner]);
    assert_eq!(set["next_params"]["params"]["slash_bps"], 7);
    let (verdict, found) = World::line(&world.json(&["check"]), "announced");
    assert!(verdict == "warn" && found.contains("parameters"), "{found}");

    let other = other_code(&world);
    let upgrade = ["upgrade", "--code", text(&other), "--key"];
    world.fails(&[&upgrade[..], &[stranger]].concat(), 11);
    let announced = world.json(&[&upgrade[..], &[owner]].concat());
    assert_eq!(announced["state"], "announced", "two minutes are not waited for");
    assert_eq!(World::line(&world.json(&["check"]), "code").0, "ok", "not yet");
    let cancelled = world.json(&[&upgrade[..], &[owner, "--cancel"]].concat());
    assert_eq!(cancelled["state"], "cancelled");
    world.fails(&[&upgrade[..], &[owner, "--cancel"]].concat(), 4);

    let treasury = world.json(&["params", "--treasury", "stranger.localnet", "--key", owner]);
    assert_eq!(treasury["treasury"], "stranger.localnet");
    world.fails(&["params", "--owner", "nobody.localnet", "--key", owner], 4);
    let handed = world.json(&["params", "--owner", "stranger.localnet", "--key", owner]);
    assert_eq!(handed["owner"], "stranger.localnet");
    world.fails(&["params", "--slash-bps", "8", "--key", owner], 11);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_notice_is_waited_for_and_the_state_stays() {
    let world = World::start("localnet", "net.localnet").await;
    let key = world.path("net.json");
    let owner = world.account("owner.localnet").await;
    world.json(&["init", "--key", text(&key), "--new-key", "--test", "--owner", "owner.localnet"]);
    let other = other_code(&world);
    let upgrade = ["upgrade", "--code", text(&other), "--key", text(&owner)];
    let done = world.json(&upgrade);
    assert_eq!(done["state"], "deployed", "{done}");
    assert_eq!(world.json(&upgrade)["state"], "unchanged");
    let report = world.json(&["check", "--code", text(&other)]);
    assert_eq!((&report["ok"], World::line(&report, "code").0.as_str()), (&json!(true), "ok"), "{report}");
    world.fails(&["check"], 15);
    assert_eq!(world.json(&["params"])["owner"], "owner.localnet");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_contract_of_the_first_version_is_brought_up_to_date() {
    let world = World::start("localnet", "net.localnet").await;
    let key = world.path("net.json");
    let key = text(&key);
    let owner = world.account("owner.localnet").await;
    let first = concat!(env!("CARGO_MANIFEST_DIR"), "/../interop-tests/fixtures/contract-v1.wasm");
    let init = ["init", "--key", key, "--new-key", "--test", "--owner", "owner.localnet", "--code", first];
    world.json(&init);
    world.fails(&["check"], 15);
    let version = world.fails(&["params"], 15);
    assert!(version.contains("version 1"), "{version}");
    // It has no upgrades by notice: the owner's key cannot.
    world.fails(&["upgrade", "--key", text(&owner)], 11);
    assert_eq!(world.json(&["upgrade", "--key", key])["state"], "deployed");
    let report = world.json(&["check"]);
    assert_eq!(report["ok"], true, "{report}");
    assert_eq!(World::line(&report, "version"), ("ok".to_owned(), STATE_VERSION.to_string()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_funder_pays_where_there_is_no_faucet() {
    // The name says that it is no local chain.
    let world = World::start("private", "placeholder").await;
    let (root, root_key) = world.chain.root_account();
    let funder = world.credentials(&root, &root_key);
    let contract = format!("por.{root}");
    let key = world.path("por.json");
    let fixed = ["--contract", &contract, "--key", text(&key)];
    let missing = world.fails(&[&["init", "--new-key"], &fixed[..]].concat(), 4);
    assert!(missing.contains("does not exist"), "{missing}");
    assert!(!key.exists(), "a key for nothing");
    world.fails(&[&["init", "--new-key", "--test"], &fixed[..]].concat(), 2);
    let init = ["init", "--new-key", "--funder", text(&funder)];
    let done = world.json(&[&init[..], &fixed[..]].concat());
    assert_eq!((&done["owner"], &done["test"]), (&json!(contract), &json!(false)));
    let report = world.json(&["check", "--contract", &contract]);
    assert_eq!(World::line(&report, "test flag"), ("ok".to_owned(), "no".to_owned()));
    world.fails(&["lock", "--yes", "--contract", &contract, "--key", text(&key)], 2);
    world.fails(&["check", "--contract", "nobody.near"], 4);
    world.fails(&["check", "--rpc", "http://127.0.0.1:9"], 6);
}
