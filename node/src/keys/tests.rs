use super::*;
use crate::home::write_secret;

fn keys() -> Keys {
    Keys {
        node: generate_node_key(),
        near: generate_near_key(),
        near_account: Some("alice.testnet".parse().expect("account")),
    }
}

fn password_file(dir: &Path, password: &str) -> PasswordSource {
    let path = dir.join("password");
    write_secret(&path, password.as_bytes()).expect("written");
    PasswordSource { file: Some(path) }
}

fn same(a: &Keys, b: &Keys) -> bool {
    a.node.seed() == b.node.seed() && a.near == b.near && a.near_account == b.near_account
}

#[test]
fn keys_come_back_with_and_without_password() {
    let dir = tempfile::tempdir().expect("tempdir");
    let plain = Home::at(dir.path().join("plain"));
    let keys = keys();
    keys.save(&plain, None).expect("saved");
    assert!(same(&Keys::load(&plain, &PasswordSource::default()).expect("loaded"), &keys));
    assert_eq!(keys.save(&plain, None).expect_err("replaced").code, ExitCode::Exists);

    let sealed = Home::at(dir.path().join("sealed"));
    keys.save(&sealed, Some("right")).expect("saved");
    let right = password_file(dir.path(), "right\n");
    assert!(same(&Keys::load(&sealed, &right).expect("loaded"), &keys));
    let wrong = password_file(dir.path(), "wrong");
    let error = Keys::load(&sealed, &wrong).expect_err("wrong password");
    assert_eq!(error.code, ExitCode::WrongKey);
    assert!(error.message.contains("wrong password"), "{error}");
}

/// A key that is lost while an account was made for it takes the account with it.
#[test]
fn of_two_who_save_keys_at_once_one_is_refused() {
    for _ in 0..20 {
        let dir = tempfile::tempdir().expect("tempdir");
        let home = Home::at(dir.path());
        let both = [keys(), keys()];
        let start = std::sync::Barrier::new(2);
        let saved = std::thread::scope(|scope| {
            let (home, start) = (&home, &start);
            let save = move |keys: &Keys| {
                start.wait();
                keys.save(home, None)
            };
            let threads = both.each_ref().map(|keys| scope.spawn(move || save(keys)));
            threads.map(|thread| thread.join().expect("no panic"))
        });
        let loaded = Keys::load(&home, &PasswordSource::default()).expect("loaded");
        let refused = saved.iter().filter_map(|saved| saved.as_ref().err());
        assert_eq!(refused.map(|error| error.code).collect::<Vec<_>>(), [ExitCode::Exists]);
        let kept = if saved[0].is_ok() { &both[0] } else { &both[1] };
        assert!(same(&loaded, kept), "the keys of who was told that they are saved");
    }
}

#[test]
fn damaged_key_files_are_refused() {
    let dir = tempfile::tempdir().expect("tempdir");
    let home = Home::at(dir.path());
    let none = Keys::load(&home, &PasswordSource::default()).expect_err("no keys");
    assert_eq!(none.code, ExitCode::NotFound);
    let (one, other) = (keys(), keys());
    one.save(&home, None).expect("saved");
    let good = std::fs::read_to_string(home.node_key_file()).expect("read");
    let other_key = other.node.public().to_string();
    for bad in [
        String::new(),
        good.replace(&one.node.public().to_string(), &other_key),
        good.replace("ed25519:", "secp256k1:"),
        good[..good.len() / 2].to_owned(),
    ] {
        write_secret(&home.node_key_file(), bad.as_bytes()).expect("written");
        let error = Keys::load(&home, &PasswordSource::default()).expect_err("damaged");
        assert_eq!(error.code, ExitCode::WrongKey, "{error}");
    }
}

#[test]
fn near_cli_credentials_are_read_in_both_spellings() {
    let dir = tempfile::tempdir().expect("tempdir");
    let near = generate_near_key();
    let public = near.public_key();
    let path = dir.path().join("carol.testnet.json");
    for (field, account) in [("private_key", r#""account_id":"dave.testnet","#), ("secret_key", "")] {
        let json = format!(r#"{{{account}"public_key":"{public}","{field}":"{near}"}}"#);
        write_secret(&path, json.as_bytes()).expect("written");
        let (found, key) = import_near_cli(&path).expect("imported");
        assert_eq!(key, near);
        let expected = if account.is_empty() { "carol.testnet" } else { "dave.testnet" };
        assert_eq!(found.as_str(), expected);
    }
}

#[test]
fn an_implicit_account_is_the_key_in_hex() {
    let key = generate_near_key();
    let account = implicit_account(&key.public_key()).expect("ed25519");
    assert_eq!(account.len(), 64);
    assert_eq!(account, implicit_account(&key.public_key()).expect("same"));
}
