//! The binary itself: exit codes, what goes to which stream, and being killed.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use rand::Rng;

struct World {
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        World { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, size: usize) -> Vec<u8> {
        let mut data = vec![0; size];
        blake3::Hasher::new().update(name.as_bytes()).finalize_xof().fill(&mut data);
        fs::write(self.path(name), &data).unwrap();
        data
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fileshare"));
        command
            .args(args)
            .current_dir(self.folder.path())
            .env("POR_HOME", self.path("home"))
            .env_remove("FILESHARE_STORE")
            .stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// stdout of a command that succeeds.
    fn ok(&self, args: &[&str]) -> Vec<u8> {
        let output = self.run(args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {stderr}");
        output.stdout
    }

    fn id(&self, args: &[&str]) -> String {
        let text = String::from_utf8(self.ok(args)).unwrap();
        assert_eq!(text.lines().count(), 1, "the id and nothing else: {text:?}");
        text.trim().to_owned()
    }

    /// Runs a command that fails; checks the code and that there are two lines at most.
    fn fails(&self, args: &[&str], code: i32) -> String {
        let output = self.run(args);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
        assert!(output.stdout.is_empty(), "data on stdout of a failure");
        stderr
    }
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|found| found.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn put_get_cat_and_friends() {
    let world = World::new();
    let data = world.write("file", 5_000_000);
    let id = world.id(&["put", "file"]);
    assert_eq!(world.id(&["put", "-n", "file"]), id);
    world.ok(&["get", &id, "-o", "copy"]);
    assert!(fs::read(world.path("copy")).unwrap() == data);
    assert!(world.ok(&["cat", &id]) == data);
    assert!(world.ok(&["get", &id, "-o", "-"]) == data);
    assert_eq!(world.ok(&["cat", "--range", "70000-70010", &id]), data[70_000..70_010]);
    world.ok(&["get", &id, "--range", "4999990-", "--deadline", "500000000000y", "-o", "tail"]);
    assert_eq!(fs::read(world.path("tail")).unwrap(), data[4_999_990..]);
    let stat = String::from_utf8(world.ok(&["stat", &id])).unwrap();
    assert!(stat.contains("5000000"), "{stat}");
    let json: serde_json::Value = serde_json::from_slice(&world.ok(&["--json", "stat", &id])).unwrap();
    assert_eq!((json["size"].as_u64(), json["id"].as_str()), (Some(5_000_000), Some(&id[..])));
    assert_eq!(world.id(&["pin", "ls"]), id);
    world.ok(&["rm", &id]);
    assert!(world.ok(&["pin", "ls"]).is_empty());
    assert!(world.path("file").exists());
}

/// Neither a daemon nor a provider is asked, which would cost something.
#[test]
fn a_place_that_cannot_be_written_is_told_first() {
    let world = World::new();
    world.write("file", 100_000);
    let id = world.id(&["put", "-n", "file"]);
    let told = world.fails(&["get", &id, "-o", "nowhere/out"], 4);
    assert!(told.contains("nowhere") && told.contains("fix: "), "{told}");
    assert!(world.fails(&["get", &id, "-o", "file/out"], 2).contains("fix: "));
    // A folder without its permission to be written does not keep root out.
    let folder = world.path("sealed");
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o500)).unwrap();
    if File::create(folder.join("probe")).is_err() {
        assert!(world.fails(&["get", &id, "-o", "sealed/out"], 1).contains("fix: "));
    }
}

/// Who takes a full disk for a corrupt store throws away what is in it.
#[test]
fn a_full_disk_is_no_corrupt_store() {
    let world = World::new();
    world.write("file", 100_000);
    for args in [&["put", "file"][..], &["put", "--copy", "file"], &["pin", "ls"]] {
        // What would become longer is refused, as on a full disk; the signal for it would end the process.
        let limited = "trap '' XFSZ; ulimit -f 64; exec \"$0\" \"$@\"";
        let mut command = Command::new("sh");
        command.args(["-c", limited, env!("CARGO_BIN_EXE_fileshare")]).args(args);
        let output =
            command.current_dir(world.folder.path()).env("POR_HOME", world.path("home")).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(9), "{args:?}: {told}");
        assert!(told.contains("\nfix: free some space") && told.lines().count() == 2, "{args:?}: {told}");
    }
    world.ok(&["put", "file"]);
}

#[test]
fn wrong_arguments_are_reported_like_everything_else() {
    let world = World::new();
    for args in [&["--bogus"][..], &["get", "no id"], &["serve", "--price", "cheap"], &[]] {
        let told = world.fails(args, 2);
        assert!(told.contains("\nfix: ") && told.lines().count() == 2, "{told}");
        let mut json = vec!["--json"];
        json.extend(args);
        let told: serde_json::Value = serde_json::from_str(&world.fails(&json, 2)).unwrap();
        assert_eq!((told["event"].as_str(), told["exit"].as_u64()), (Some("error"), Some(2)), "{told}");
    }
}

#[test]
fn stdin_and_empty_files() {
    let world = World::new();
    File::create(world.path("empty")).unwrap();
    let id = world.id(&["put", "empty"]);
    assert_eq!(world.id(&["put", "-"]), id, "nothing from stdin is the same content");
    world.ok(&["get", &id, "-o", "out"]);
    assert_eq!(fs::metadata(world.path("out")).unwrap().len(), 0);
    let data = world.write("big", 3_000_000);
    let mut put = world.command(&["put", "-"]);
    put.stdin(File::open(world.path("big")).unwrap());
    let id = String::from_utf8(put.output().unwrap().stdout).unwrap();
    fs::remove_file(world.path("big")).unwrap();
    assert!(world.ok(&["cat", id.trim()]) == data, "stdin is copied");
}

#[test]
fn directories() {
    let world = World::new();
    fs::create_dir_all(world.path("top/sub")).unwrap();
    world.write("top/a.txt", 10);
    world.write("top/sub/b", 100_000);
    let stderr = world.fails(&["put", "top"], 2);
    assert!(stderr.contains("-r"), "{stderr}");
    let id = world.id(&["put", "-r", "top"]);
    let listing = String::from_utf8(world.ok(&["ls", &id])).unwrap();
    assert!(listing.contains("a.txt") && listing.contains("sub/"), "{listing}");
    assert_eq!(world.ok(&["cat", &format!("{id}/sub/b")]).len(), 100_000);
    world.ok(&["get", &id, "-o", "out", "--include", "*.txt"]);
    assert_eq!(names(&world.path("out")), ["a.txt"]);
    world.fails(&["get", &id, "-o", "out"], 13);
    world.ok(&["get", &id, "-o", "out", "--overwrite"]);
    assert_eq!(names(&world.path("out")), ["a.txt", "sub"]);
    world.fails(&["cat", &id], 2);
    world.fails(&["cat", &format!("{id}/nothing")], 4);
    assert_eq!(names(world.folder.path()), ["home", "out", "top"]);
}

#[test]
fn bad_input_has_one_clear_line_and_its_code() {
    let world = World::new();
    world.write("file", 100_000);
    let id = world.id(&["put", "file"]);
    let unknown = "bafkr4ifpcne3t5pzugtkaqcn5i3nzskjtpfslsnnyejlpte2spfoihzsmi";
    let stderr = world.fails(&["get", unknown], 6);
    assert!(stderr.lines().count() == 2 && stderr.contains("por run"), "{stderr}");
    assert!(!stderr.contains("panicked"));
    world.fails(&["get", "nonsense"], 2);
    world.fails(&["get", &id, "--range", "9-5"], 2);
    world.fails(&["get", &id, "--range", "0-100001"], 2);
    world.fails(&["get", &id, "--from", "nobody"], 2);
    world.fails(&["put", "absent"], 4);
    world.fails(&["rm", unknown], 4);
    world.fails(&["pin", "add", unknown], 4);
    world.fails(&["pin", "rm", unknown], 4);
    world.fails(&["serve"], 6);
    world.fails(&["get", &id, "-o", "file"], 13);
    world.fails(&["frobnicate"], 2);
    let json = world.fails(&["--json", "get", &id, "-o", "file"], 13);
    let event: serde_json::Value = serde_json::from_str(json.lines().last().unwrap()).unwrap();
    assert_eq!((event["exit"].as_u64(), event["code"].as_str()), (Some(13), Some("exists")));
    assert_eq!(names(world.folder.path()), ["file", "home"], "no litter");
}

#[test]
fn a_file_that_changed_is_not_served() {
    let world = World::new();
    let mut data = world.write("file", 3_000_000);
    let id = world.id(&["put", "file"]);
    data[1_500_000] ^= 1;
    fs::write(world.path("file"), &data).unwrap();
    // This machine's copy is gone and there is no daemon to ask others.
    world.fails(&["get", &id, "-o", "out"], 6);
    assert!(!world.path("out").exists());
    // A copy that rots in the store is noticed by its hash alone.
    let id = world.id(&["put", "--copy", "file"]);
    fs::remove_file(world.path("file")).unwrap();
    let blob = fs::read_dir(world.path("home/fileshare/blob")).unwrap().next().unwrap().unwrap().path();
    data[2_500_000] ^= 1;
    fs::write(&blob, &data).unwrap();
    world.fails(&["get", &id, "-o", "out"], 32);
    assert!(!world.path("out").exists());
    fs::write(&blob, &data[..100]).unwrap();
    world.fails(&["get", &id, "-o", "out"], 6);
}

#[test]
fn a_corrupt_store_says_so() {
    let world = World::new();
    world.write("file", 10);
    world.id(&["put", "file"]);
    fs::write(world.path("home/fileshare/meta.redb"), vec![0x5a; 20_000]).unwrap();
    for args in [&["put", "file"][..], &["pin", "ls"], &["gc"]] {
        let stderr = world.fails(args, 14);
        assert!(stderr.contains("corrupt") && stderr.contains("fix:"), "{stderr}");
    }
}

#[test]
fn a_full_disk_has_its_own_code() {
    let world = World::new();
    world.write("file", 5_000_000);
    let id = world.id(&["put", "file"]);
    let mut cat = world.command(&["cat", &id]);
    cat.stdout(File::options().write(true).open("/dev/full").unwrap());
    let output = cat.stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(9), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_get_that_is_killed_resumes() {
    let world = World::new();
    let data = world.write("file", 60_000_000);
    let id = world.id(&["put", "file"]);
    let seed: u64 = rand::rng().random();
    eprintln!("seed {seed}");
    let mut rng = <rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(seed);
    for round in 0..6 {
        let mut get = world.command(&["get", &id, "-o", "out", "--window", "1", "--in-flight", "2"]);
        let mut child = get.stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(rng.random_range(5..150)));
        child.kill().unwrap();
        child.wait().unwrap();
        // It may have been killed after its last act; before that there is no name.
        if let Ok(found) = fs::read(world.path("out")) {
            assert!(found == data, "round {round}: a name before it is whole");
            fs::remove_file(world.path("out")).unwrap();
        }
    }
    world.ok(&["get", &id, "-o", "out"]);
    assert!(fs::read(world.path("out")).unwrap() == data);
    assert_eq!(names(world.folder.path()), ["file", "home", "out"]);
}

#[test]
fn an_interrupted_get_says_130_and_resumes() {
    let world = World::new();
    let data = world.write("file", 120_000_000);
    let id = world.id(&["put", "file"]);
    let mut get = world.command(&["get", &id, "-o", "out", "--window", "1", "--in-flight", "1"]);
    let child = get.stderr(Stdio::piped()).spawn().unwrap();
    let until = Instant::now() + Duration::from_secs(30);
    while !world.path("out.part").exists() && Instant::now() < until {
        std::thread::yield_now();
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{stderr}");
    assert!(!world.path("out").exists() && world.path("out.part").exists());
    world.ok(&["get", &id, "-o", "out"]);
    assert!(fs::read(world.path("out")).unwrap() == data);
}

#[test]
fn an_interrupted_put_of_what_never_comes_puts_nothing() {
    let world = World::new();
    let mut put = world.command(&["put", "-"]);
    let mut child = put.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // More than a pipe holds: it reads.
    stdin.write_all(&vec![7; 1 << 20]).unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{stderr}");
    assert!(stderr.contains("nothing was put") && output.stdout.is_empty(), "{stderr}");
    drop(stdin);
    assert!(world.ok(&["pin", "ls"]).is_empty());
}

/// Of what the own store says nothing is in doubt, and nothing is paid.
#[test]
fn a_long_directory_of_the_own_store_is_one_by_its_hex_id() {
    let world = World::new();
    fs::create_dir(world.path("top")).unwrap();
    for n in 0..800 {
        fs::write(world.path(&format!("top/{n:0>60}")), b"").unwrap();
    }
    let id: por_fileshare::id::ContentId = world.id(&["put", "-r", "top"]).parse().unwrap();
    let hex = hex::encode(id.hash());
    let listed = String::from_utf8(world.ok(&["ls", &hex])).unwrap();
    assert_eq!(listed.lines().count(), 800);
    world.ok(&["get", &hex, "-o", "out"]);
    assert_eq!(names(&world.path("out")).len(), 800);
}

/// Whoever runs as root would lose a device by following the advice to overwrite it.
#[test]
fn a_pipe_or_a_device_is_not_replaced() {
    use std::os::unix::fs::FileTypeExt;
    let world = World::new();
    world.write("file", 100);
    let id = world.id(&["put", "file"]);
    let pipe = world.path("pipe");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    for args in [&["get", &id, "-o", "pipe"][..], &["get", &id, "-o", "pipe", "--overwrite"]] {
        let error = world.fails(args, 13);
        assert!(error.contains("a pipe") && !error.contains("--overwrite"), "{error}");
        assert!(pipe.symlink_metadata().unwrap().file_type().is_fifo());
    }
    assert_eq!(names(world.folder.path()), ["file", "home", "pipe"]);
}

#[test]
fn puts_that_are_killed_leave_a_working_store() {
    let world = World::new();
    fs::create_dir(world.path("top")).unwrap();
    for n in 0..400 {
        world.write(&format!("top/{n}"), 1000 + n * 100);
    }
    let seed: u64 = rand::rng().random();
    eprintln!("seed {seed}");
    let mut rng = <rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(seed);
    for _ in 0..8 {
        let mut put = world.command(&["put", "-r", "--copy", "top"]);
        let mut child = put.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(rng.random_range(1..250)));
        child.kill().unwrap();
        child.wait().unwrap();
        world.ok(&["pin", "ls"]);
    }
    let id = world.id(&["put", "-r", "--copy", "top"]);
    world.ok(&["gc"]);
    fs::rename(world.path("top"), world.path("away")).unwrap();
    world.ok(&["get", &id, "-o", "out"]);
    assert_eq!(world.id(&["put", "-rn", "out"]), id);
}
