//! The binary `por`: what goes wrong is one line, one fix and an exit code; and a daemon's life.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);

struct Por {
    home: PathBuf,
    password: Option<&'static str>,
}

impl Por {
    fn at(dir: &TempDir, name: &str) -> Por {
        Por { home: dir.path().join(name), password: None }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_por"));
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        if let Some(password) = self.password {
            command.env("POR_PASSWORD", password);
        }
        command.stdin(Stdio::null()).arg("--home").arg(&self.home).args(args);
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("por runs")
    }

    /// Runs a verb that must succeed and gives its JSON.
    fn json(&self, args: &[&str]) -> Value {
        let output = self.run(&[&["--json"], args].concat());
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{args:?}: {errors}");
        serde_json::from_slice(&output.stdout).expect("JSON on standard output")
    }

    /// Runs a verb that must fail: with this code, two lines on standard error, nothing on
    /// standard output. Returns the first line.
    fn fails(&self, args: &[&str], code: i32) -> String {
        let output = self.run(args);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {errors}");
        assert!(output.stdout.is_empty(), "{args:?}");
        // The daemon logs before the error.
        let lines: Vec<&str> = errors.lines().collect();
        let [.., error, fix] = lines.as_slice() else { panic!("{args:?}: {errors}") };
        assert!(error.starts_with("error: ") && fix.starts_with("fix: "), "{args:?}: {errors}");
        (*error).to_owned()
    }

    fn init(&self, network: &Path, more: &[&str]) -> Value {
        let network = network.to_str().expect("text");
        let fixed =
            ["init", "--network", network, "--listen", "/ip4/127.0.0.1/tcp/0", "--api", "127.0.0.1:0"];
        self.json(&[&fixed, more].concat())
    }
}

/// A running `por`, stopped when dropped.
struct Running(Child);

impl Running {
    fn spawn(mut command: Command) -> Running {
        Running(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("por runs"))
    }

    /// Asks it to stop and gives its exit code.
    fn terminate(&mut self) -> Option<i32> {
        let pid = self.0.id().to_string();
        assert!(Command::new("kill").arg(&pid).status().expect("kill").success());
        wait_for("the process to end", || self.0.try_wait().expect("wait").map(|status| status.code()))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wait_for<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = done() {
            return value;
        }
        assert!(start.elapsed() < PATIENCE, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn network_file(dir: &TempDir, rpc: &str) -> PathBuf {
    let path = dir.path().join("network.toml");
    let text = format!("chain_id = \"localnet\"\ncontract = \"por.localnet\"\nrpc_urls = [\"{rpc}\"]\n");
    std::fs::write(&path, text).expect("written");
    path
}

fn dead_endpoint() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("port");
    format!("http://{}", listener.local_addr().expect("addr"))
}

fn start(por: &Por) -> Running {
    let mut running = Running::spawn(por.command(&["run"]));
    wait_for("the daemon", || {
        assert!(running.0.try_wait().expect("wait").is_none(), "the daemon ended");
        por.run(&["status"]).status.success().then_some(())
    });
    running
}

#[test]
fn wrong_arguments_and_missing_homes() {
    let dir = tempfile::tempdir().expect("directory");
    let por = Por::at(&dir, "none");
    por.fails(&["frobnicate"], 2);
    por.fails(&[], 2);
    por.fails(&["stake", "many"], 2);
    por.fails(&["request", "alice", "app"], 2);
    por.fails(&["init", "--network", "testnet"], 2);
    por.fails(&["init", "--network", "/no/such/file"], 4);
    por.fails(&["run"], 4);
    let error = por.fails(&["status"], 6);
    assert!(error.contains("daemon"), "{error}");
    let help = por.run(&["--help"]);
    assert!(help.status.success() && !help.stdout.is_empty());
    let json = por.run(&["--json", "status"]);
    let error: Value = serde_json::from_slice(&json.stderr).expect("JSON on standard error");
    assert_eq!((error["exit"].as_u64(), error["code"].as_str()), (Some(6), Some("unreachable")));
}

#[test]
fn init_makes_a_home_once_and_keys_stay_secret() {
    let dir = tempfile::tempdir().expect("directory");
    let por = Por::at(&dir, "a");
    let network = network_file(&dir, &dead_endpoint());
    let path = network.to_str().expect("text");
    let error = por.fails(&["init", "--network", path], 6);
    assert!(error.contains("cannot connect"), "{error}");
    // A failed init leaves nothing in the way of the next, whatever it failed for.
    let wrong = ["init", "--network", path, "--faucet", "0", "--api", "0.0.0.0:7740"];
    assert!(por.fails(&wrong, 2).contains("must not listen"));
    let made = por.init(&network, &["--faucet", "0"]);
    assert_eq!(made["account"].as_str().map(str::len), Some(64), "an implicit account");
    por.fails(&["init", "--network", path, "--faucet", "0"], 13);
    let error = por.fails(&["run"], 6);
    assert!(error.contains("RPC"), "{error}");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let key = por.home.join("node.key");
        let mode = std::fs::metadata(&key).expect("metadata").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).expect("chmod");
        let error = por.fails(&["run"], 11);
        assert!(error.contains("others can read"), "{error}");
    }
}

/// The other end of a pipe that nobody reads.
fn unread() -> std::io::PipeWriter {
    let (reader, writer) = std::io::pipe().expect("pipe");
    drop(reader);
    writer
}

#[test]
fn nobody_has_to_read_what_is_told() {
    let dir = tempfile::tempdir().expect("directory");
    let por = Por::at(&dir, "none");
    let help = por.command(&["--help"]).stdout(unread()).output().expect("por runs");
    assert_eq!(help.status.code(), Some(0), "{}", String::from_utf8_lossy(&help.stderr));
    let status = por.command(&["status"]).stderr(unread()).status().expect("por runs");
    assert_eq!(status.code(), Some(6));
}

#[cfg(unix)]
#[test]
fn an_interrupted_init_leaves_the_home_as_before() {
    let dir = tempfile::tempdir().expect("directory");
    // Takes connections, and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("port");
    let network = network_file(&dir, &format!("http://{}", silent.local_addr().expect("addr")));
    let por = Por::at(&dir, "a");
    let args = ["init", "--network", network.to_str().expect("text"), "--account", "alice.localnet"];
    let mut init = Running::spawn(por.command(&args));
    wait_for("the settings", || por.home.join("config.toml").exists().then_some(()));
    let pid = init.0.id().to_string();
    // Until it listens to signals one ends it at once.
    let (_held, _) = silent.accept().expect("asks the chain");
    assert!(Command::new("kill").args(["-INT", &pid]).status().expect("kill").success());
    let code = wait_for("its end", || init.0.try_wait().expect("wait").map(|status| status.code()));
    assert_eq!(code, Some(130));
    let left: Vec<_> = std::fs::read_dir(&por.home).expect("home").collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_wrong_password_is_named() {
    let dir = tempfile::tempdir().expect("directory");
    let network = network_file(&dir, &dead_endpoint());
    let right = Por { password: Some("right"), ..Por::at(&dir, "a") };
    right.init(&network, &["--faucet", "0", "--encrypt"]);
    let wrong = Por { password: Some("wrong"), ..Por::at(&dir, "a") };
    let error = wrong.fails(&["run"], 11);
    assert!(error.contains("wrong password"), "{error}");
    Por::at(&dir, "a").fails(&["run"], 11);
    // With the right one it gets as far as the chain.
    right.fails(&["run"], 6);
}

#[cfg(unix)]
#[test]
fn a_home_need_not_be_text() {
    use std::os::unix::ffi::OsStrExt as _;
    let dir = tempfile::tempdir().expect("directory");
    let network = network_file(&dir, &dead_endpoint());
    let home = dir.path().join(std::ffi::OsStr::from_bytes(b"h\xff"));
    let por = Por { home, password: None };
    let made = por.init(&network, &["--faucet", "0"]);
    assert!(made["config"].as_str().is_some_and(|path| path.ends_with("config.toml")), "{made}");
    por.fails(&["run"], 6);
}

#[test]
fn credentials_of_near_cli_are_imported() {
    let dir = tempfile::tempdir().expect("directory");
    let network = network_file(&dir, &dead_endpoint());
    let key = por_node::keys::generate_near_key();
    let file = dir.path().join("carol.testnet.json");
    let public = key.public_key();
    let json = format!(r#"{{"account_id":"carol.testnet","public_key":"{public}","private_key":"{key}"}}"#);
    std::fs::write(&file, json).expect("written");
    let path = file.to_str().expect("text");
    let por = Por::at(&dir, "a");
    let made = por.init(&network, &["--import-near", path]);
    assert_eq!(made["account"], "carol.testnet");
    assert_eq!(made["near_key"], public.to_string());
    let network = network.to_str().expect("text");
    let other = ["init", "--network", network, "--import-near", path, "--account", "dave.testnet"];
    Por::at(&dir, "b").fails(&other, 11);
}

#[test]
fn a_daemon_lives_on_a_local_chain() {
    let dir = tempfile::tempdir().expect("directory");
    let network = dir.path().join("net.toml");
    let chain_home = Por::at(&dir, "chain");
    let file = network.to_str().expect("text");
    let args = ["--json", "localnet", "--port", "0", "--network-file", file, "--block-time", "100ms"];
    let mut chain = Running::spawn(chain_home.command(&args));
    let mut line = String::new();
    BufReader::new(chain.0.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
    let running: Value = serde_json::from_str(&line).expect("JSON");

    let por = Por::at(&dir, "a");
    por.init(&network, &["--account", "alice.localnet"]);
    let mut daemon = start(&por);
    assert_eq!(por.json(&["status"])["registered"], false);
    por.json(&["register", "--stake", "3 NEAR"]);
    let status = wait_for("the registration", || {
        Some(por.json(&["status"])).filter(|status| status["registered"] == true)
    });
    assert_eq!(status["stake"], por_types::Yocto::near(3).to_string());
    bad_requests(&por, &status);
    ports_and_locks(&dir, &por, &network, running["rpc_url"].as_str().expect("url"));

    assert_eq!(daemon.terminate(), Some(0));
    assert!(!por.home.join("api-addr").exists());
    por.fails(&["status"], 6);
    outlives_its_log(&por);
    std::fs::write(por.home.join("por.redb"), b"not a database").expect("written");
    let error = por.fails(&["run"], 14);
    assert!(error.contains("por.redb"), "{error}");
    assert_eq!(chain.terminate(), Some(0));
}

#[test]
fn two_daemons_open_a_channel_and_one_pays_the_other() {
    let dir = tempfile::tempdir().expect("directory");
    let network = dir.path().join("net.toml");
    let file = network.to_str().expect("text");
    let chain_home = Por::at(&dir, "chain");
    let args = ["--json", "localnet", "--port", "0", "--network-file", file, "--block-time", "100ms"];
    let mut chain = Running::spawn(chain_home.command(&args));
    let mut line = String::new();
    BufReader::new(chain.0.stdout.take().expect("piped")).read_line(&mut line).expect("a line");

    let (alice, bob) = (Por::at(&dir, "a"), Por::at(&dir, "b"));
    bob.init(&network, &["--account", "bob.localnet"]);
    let _bob = start(&bob);
    bob.json(&["register", "--stake", "5 NEAR"]);
    let status = bob.json(&["status"]);
    let (address, peer) = (status["listening"][0].as_str(), status["peer_id"].as_str().expect("peer id"));
    let boot = format!("{}/p2p/{peer}", address.expect("address"));
    alice.init(&network, &["--account", "alice.localnet", "--boot", &boot]);
    let _alice = start(&alice);
    alice.json(&["register", "--stake", "5 NEAR"]);
    let promise = ["channel", "propose", "bob.localnet", "--deposit", "1 NEAR", "--rtt-ms", "2000"];
    let id = alice.json(&promise)["channel"].to_string();
    // The daemon learns of the proposal from the chain.
    wait_for("the proposal", || (!bob.json(&["channel", "list"])[0].is_null()).then_some(()));
    bob.json(&["channel", "confirm", &id]);

    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    let client = por_node::client::Client::from_home(&bob.home).expect("the daemon runs");
    let server = runtime.block_on(client.serve("echo", Default::default(), 4)).expect("serves");
    runtime.spawn(async move {
        while let Ok(incoming) = server.next().await {
            server.respond(incoming.request, incoming.body).await.expect("answers");
        }
    });
    wait_for("the channel", || {
        let channel = &alice.json(&["channel", "list"])[0];
        (channel["status"]["state"] == "open" && channel["connected"] == true).then_some(())
    });
    let body = dir.path().join("body");
    std::fs::write(&body, b"hello \xff\x00 bob").expect("written");
    let answer = wait_for("the first route", || {
        let output = alice.run(&["request", peer, "echo", body.to_str().expect("text"), "--deadline", "30s"]);
        output.status.success().then_some(output)
    });
    assert_eq!(answer.stdout, b"hello \xff\x00 bob");
    let quote = alice.json(&["route", peer, "--body-len", "12"]);
    assert_eq!(quote["routes"][0]["hops"].as_array().map(Vec::len), Some(1));
    let request = ["request", peer, "echo", body.to_str().expect("text"), "--max-price", "1"];
    alice.fails(&request, 8);
    alice.fails(&["request", peer, "nothing", "--deadline", "5s"], 4);
    let error = alice.fails(&["request", peer, ""], 2);
    assert!(error.contains("app names"), "{error}");
    let error = alice.fails(&["request", peer, "echo", "--response-limit", "99999999999"], 2);
    assert!(error.contains("response limit"), "{error}");
    alice.fails(&["request", peer, "echo", "--deadline", "0s"], 10);
    let forever = Duration::MAX;
    let found = runtime.block_on(client.providers(&[7; 32], 1, forever)).expect("a search without an end");
    assert!(found.is_empty());
    responses_go_into_files(dir.path(), &alice, peer);
    news_are_told(&alice, peer);
    // Nothing was paid for what was refused or could not be written.
    let answers = price(&alice, peer, "12") + 3 * price(&alice, peer, "0");
    wait_for("the refunds", || {
        let totals = &alice.json(&["channel", "list"])[0]["totals"];
        (amount(&totals["sent_a"]) - amount(&totals["sent_b"]) == answers).then_some(())
    });
    let table = String::from_utf8(alice.run(&["channel", "list"]).stdout).expect("text");
    assert!(table.contains("bob.localnet") && table.contains("open"), "{table}");
}

fn amount(json: &Value) -> u128 {
    json.as_str().and_then(|text| text.parse().ok()).expect("amount")
}

/// Price of a request with a body of this length.
fn price(por: &Por, peer: &str, body_len: &str) -> u128 {
    let quote = por.json(&["route", peer, "--body-len", body_len, "--response-limit", "65536"]);
    amount(&quote["routes"][0]["price"])
}

fn responses_go_into_files(dir: &Path, por: &Por, peer: &str) {
    let (kept, new, nowhere) = (dir.join("kept"), dir.join("new"), dir.join("no such folder").join("file"));
    std::fs::write(&kept, b"longer than the response").expect("written");
    let ask = |app: &str, file: &Path| {
        let file = file.to_str().expect("text").to_owned();
        ["request", peer, app, "-o", &file, "--deadline", "30s"].map(str::to_owned)
    };
    let fails = |app: &str, file: &Path, code| {
        let args = ask(app, file);
        por.fails(&args.each_ref().map(String::as_str), code);
    };
    fails("echo", &nowhere, 4);
    fails("nothing", &kept, 4);
    fails("nothing", &new, 4);
    assert_eq!(std::fs::read(&kept).expect("read"), b"longer than the response");
    assert!(!new.exists(), "there is no response");
    let output = por.run(&ask("echo", &kept).each_ref().map(String::as_str));
    assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
    assert_eq!(std::fs::read(&kept).expect("read"), b"");
}

/// As they come, until nobody reads them or an interrupt.
fn news_are_told(por: &Por, peer: &str) {
    let lines = |args: &[&str]| {
        let mut follows = Running::spawn(por.command(args));
        let lines = BufReader::new(follows.0.stdout.take().expect("piped")).lines();
        (follows, lines.map(|line| line.expect("text")))
    };
    let ended = |mut follows: Running| wait_for("its end", || follows.0.try_wait().expect("wait"));
    let (unread, seen) = lines(&["news", "--follow"]);
    let mut seen = Some(seen);
    let (interrupted, mut json) = lines(&["--json", "news", "--follow"]);
    for label in ["one", "two"] {
        let asked = por.json(&["request", peer, "echo", "--deadline", "30s", "--label", label]);
        let line: Value = serde_json::from_str(&json.next().expect("a line")).expect("JSON");
        assert_eq!((line["event"].as_str(), line["label"].as_str()), (Some("sent"), Some(label)), "{line}");
        assert_eq!(line["request"], asked["request"]);
        // Nobody reads the second one.
        if let Some(mut seen) = seen.take() {
            let line = seen.next().expect("a line");
            assert!(
                line.contains("(one)") && line.contains(asked["request"].as_str().expect("id")),
                "{line}"
            );
        }
    }
    assert_eq!(ended(unread).code(), Some(0));
    let pid = interrupted.0.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().expect("kill").success());
    assert_eq!(ended(interrupted).code(), Some(0));
    let all = por.json(&["news"]);
    assert_eq!(all["next"], 2, "{all}");
    assert_eq!(all["happenings"].as_array().map(Vec::len), Some(2));
    let rest = por.json(&["news", "--since", "1"]);
    assert_eq!(rest["happenings"][0]["label"], "two");
}

/// Whoever reads the log may go, or its disk be full: the node must not go with it.
fn outlives_its_log(por: &Por) {
    let mut command = por.command(&["--log", "debug", "run"]);
    let mut daemon = Running(command.stdout(Stdio::null()).stderr(unread()).spawn().expect("por runs"));
    wait_for("the daemon", || {
        assert!(daemon.0.try_wait().expect("wait").is_none(), "the daemon ended");
        por.run(&["status"]).status.success().then_some(())
    });
    // It follows the chain, and logs that.
    let up = |status: Value| status["uptime_ms"].as_u64().filter(|up| *up > 1_000);
    wait_for("some of its life", || up(por.json(&["status"])));
    assert_eq!(daemon.terminate(), Some(0));
}

/// Unknown ids, no route, not enough money.
fn bad_requests(por: &Por, status: &Value) {
    let nobody = por_node::keys::generate_node_key().public().to_string();
    por.fails(&["channel", "top-up", "99", "1 NEAR"], 4);
    por.fails(&["channel", "propose", "bob.localnet", "--deposit", "1 NEAR"], 4);
    por.fails(&["channel", "propose", "bob.localnet", "--deposit", "1", "--rtt-ms", "0"], 2);
    por.fails(&["stake", "100000 NEAR"], 8);
    por.fails(&["unstake", "100 NEAR"], 8);
    por.fails(&["withdraw", "5 NEAR"], 8);
    por.fails(&["route", &nobody], 3);
    por.fails(&["request", &nobody, "app", "--deadline", "2s"], 3);
    let own = status["node_key"].as_str().expect("key");
    let output = por.run(&["route", own]);
    assert!(!output.status.success(), "a node has no route to itself");
}

/// One daemon per home; ports that are taken; contracts that are not there.
fn ports_and_locks(dir: &TempDir, por: &Por, network: &Path, rpc: &str) {
    let error = por.fails(&["run"], 13);
    assert!(error.contains("another daemon"), "{error}");
    let second = Por::at(dir, "b");
    second.init(network, &["--account", "bob.localnet"]);
    let taken = std::fs::read_to_string(por.home.join("api-addr")).expect("the daemon runs");
    second.fails(&["run", "--api", taken.trim()], 12);
    let holder = std::net::TcpListener::bind("127.0.0.1:0").expect("port");
    let port = holder.local_addr().expect("addr").port();
    second.fails(&["run", "--listen", &format!("/ip4/127.0.0.1/tcp/{port}")], 12);
    let port = rpc.rsplit(':').next().expect("port");
    second.fails(&["localnet", "--port", port], 12);
    let taken = Por::at(dir, "taken");
    let file = network.to_str().expect("text");
    let error = taken.fails(&["init", "--network", file, "--account", "alice.localnet"], 13);
    assert!(error.contains("alice.localnet exists"), "{error}");
    assert!(!taken.home.join("config.toml").exists(), "the home is as before");
    let empty = Por::at(dir, "c");
    empty.init(network, &["--contract", "nobody.localnet", "--account", "carol.localnet"]);
    let error = empty.fails(&["run"], 4);
    assert!(error.contains("no contract"), "{error}");
}
