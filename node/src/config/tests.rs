use super::*;

fn write(dir: &Path, text: &str) -> Home {
    let home = Home::at(dir);
    crate::home::write_secret(&home.config_file(), text.as_bytes()).expect("written");
    home
}

const FILE: &str = r#"
account = "alice.testnet"
[network]
chain_id = "testnet"
contract = "por.testnet"
rpc_urls = ["http://a:1", "http://b:2"]
[policy]
auto_confirm = true
confirm_deposit = "0.5 NEAR"
"#;

fn load(home: &Home, env: &[(&str, &str)], overrides: Overrides) -> Result<Config, CliError> {
    // The process environment is shared by all tests: layers are put in by hand.
    let mut figment = Figment::new().merge(Toml::file_exact(home.config_file()));
    for (name, value) in env {
        let key = env_key(name).expect("a setting");
        let value: figment::value::Value = value.parse().expect("parses");
        figment = figment.merge((key, value));
    }
    let mut config: Config = figment.extract().map_err(|error| CliError::usage(error.to_string(), "x"))?;
    overrides.apply(&mut config);
    config.check()?;
    Ok(config)
}

/// Each of them in a short time, and with a short error.
#[cfg(unix)]
#[test]
fn what_is_no_file_of_settings_is_refused() {
    let dir = tempfile::tempdir().expect("tempdir");
    let home = Home::at(dir.path());
    let path = home.config_file();
    let refused = |what: &str| {
        let error = Config::load(&home, Overrides::default()).expect_err(what);
        assert_eq!(error.code, ExitCode::Usage, "{what}: {error}");
        assert!(error.message.len() < 1_000 && !error.message.contains('\n'), "{what}: {error}");
        std::fs::remove_file(&path).expect("removed");
    };
    std::os::unix::fs::symlink("/dev/zero", &path).expect("linked");
    refused("a device");
    std::fs::write(&path, vec![b'x'; 100_000]).expect("written");
    refused("one long line");
    let sparse = std::fs::File::create(&path).expect("made");
    sparse.set_len(1 << 40).expect("sparse");
    refused("a giant");
    let made = std::process::Command::new("mkfifo").arg(&path).status().expect("runs");
    assert!(made.success());
    refused("a pipe");
}

#[test]
fn each_layer_wins_over_the_one_below() {
    let dir = tempfile::tempdir().expect("tempdir");
    let home = write(dir.path(), FILE);
    let config = load(&home, &[], Overrides::default()).expect("file");
    assert_eq!(config.api.listen.port(), DEFAULT_API_PORT, "default");
    assert_eq!(config.policy.confirm_deposit, Yocto::millinear(500));
    assert_eq!(config.p2p.listen[0].to_string(), "/ip4/0.0.0.0/tcp/7741");

    let env = [("API_LISTEN", "127.0.0.1:0"), ("NETWORK_RPC_URLS", r#"["http://c:3"]"#)];
    let config = load(&home, &env, Overrides::default()).expect("env");
    assert_eq!((config.api.listen.port(), config.network.rpc_urls.len()), (0, 1));

    let flags = Overrides {
        api: Some(SocketAddr::from(([127, 0, 0, 1], 9))),
        account: Some("bob.testnet".parse().expect("account")),
        ..Overrides::default()
    };
    let config = load(&home, &env, flags).expect("flags");
    assert_eq!((config.api.listen.port(), config.account.as_str()), (9, "bob.testnet"));
    assert_eq!(config.network.rpc_urls, ["http://c:3"]);
}

#[test]
fn who_has_no_budget_pursues_nobody() {
    let dir = tempfile::tempdir().expect("tempdir");
    let home = write(dir.path(), FILE);
    let config = load(&home, &[], Overrides::default()).expect("file");
    assert_eq!(config.policy.core().pursuit, None);
    let env = [("POLICY_PURSUIT_BUDGET", "\"0.25 NEAR\""), ("POLICY_PURSUIT_WINDOW_S", "60")];
    let config = load(&home, &env, Overrides::default()).expect("env");
    let pursuit = config.policy.core().pursuit.expect("on");
    let expected = por_core::Pursue { budget: Yocto::millinear(250), max_requests: 16, window_ms: 60_000 };
    assert_eq!(pursuit, expected);
}

#[test]
fn what_is_saved_is_what_is_loaded() {
    let dir = tempfile::tempdir().expect("tempdir");
    let home = write(dir.path(), FILE);
    let config = load(&home, &[], Overrides::default()).expect("loads");
    config.save(&home).expect("saved");
    assert_eq!(load(&home, &[], Overrides::default()).expect("loads again"), config);
    let text = config.network.to_toml().expect("toml");
    let file = dir.path().join("net.toml");
    std::fs::write(&file, text).expect("written");
    assert_eq!(NetworkConfig::read(&file).expect("read"), config.network);
}

#[test]
fn wrong_settings_are_refused() {
    let dir = tempfile::tempdir().expect("tempdir");
    for (text, what) in [
        (FILE.replace("auto_confirm", "auto_confrim"), "typo"),
        (FILE.replace("\"http://a:1\", \"http://b:2\"", ""), "no endpoint"),
        (FILE.replace("http://a:1", "ftp://a"), "no http"),
        (FILE.replace("0.5 NEAR", "half"), "no amount"),
        (format!("{FILE}\n[api]\nlisten = \"0.0.0.0:1\""), "open to the world"),
        (format!("{FILE}\n[p2p]\nlisten = [\"/dns4/localhost/tcp/1\"]"), "a name to listen on"),
        (format!("{FILE}\n[p2p]\nlisten = [\"/ip4/127.0.0.1/udp/1/quic-v1\"]"), "no TCP"),
        (
            FILE.replace("[network]", "[network]\nboot_peers = [\"/ip4/127.0.0.1/tcp/1\"]"),
            "a boot peer without a key",
        ),
    ] {
        let home = write(dir.path(), &text);
        let error = Config::load(&home, Overrides::default()).expect_err(what);
        assert_eq!(error.code, ExitCode::Usage, "{what}");
        assert!(!error.fix.is_empty(), "{what}");
    }
    let none = Home::at(dir.path().join("none"));
    let error = Config::load(&none, Overrides::default()).expect_err("no init");
    assert_eq!(error.code, ExitCode::NotFound);
}

#[test]
fn variables_name_table_and_key() {
    assert_eq!(env_key("NETWORK_RPC_URLS").as_deref(), Some("network.rpc_urls"));
    assert_eq!(env_key("ACCOUNT").as_deref(), Some("account"));
    assert_eq!(env_key("PASSWORD"), None);
    assert_eq!(env_key("CONTRACT_WASM"), None);
}

#[test]
fn a_named_network_needs_a_contract() {
    assert_eq!(NetworkConfig::resolve("testnet", None).expect_err("none").code, ExitCode::Usage);
    assert_eq!(NetworkConfig::resolve("/no/such", None).expect_err("none").code, ExitCode::NotFound);
    let contract: AccountId = "por.testnet".parse().expect("account");
    let testnet = NetworkConfig::resolve("testnet", Some(contract)).expect("named");
    assert!(!testnet.is_local() && testnet.rpc_urls.len() > 1);
}
