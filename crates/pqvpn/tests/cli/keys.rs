// SPDX-License-Identifier: MIT OR Apache-2.0
//! `keys`: passphrases, backups, restoring.

use std::{fs, process::Stdio};

use crate::sandbox::{Run, Sandbox, chmod, mode};

fn peer_id(sandbox: &Sandbox, more: &[&str]) -> String {
    let line = [&["keys", "show", "--json"], more].concat();
    sandbox.run(&line).succeeded().json()["peer_id"].as_str().unwrap().to_owned()
}

#[test]
fn show_says_whose_key_it_is_and_makes_none() {
    let sandbox = Sandbox::new();
    sandbox.run(&["keys", "show"]).failed(1, "does not exist");
    assert!(!sandbox.keystore().exists());
    let id = sandbox.run(&["id", "--json"]).succeeded().json();
    let shown = sandbox.run(&["keys", "show", "--json"]).succeeded().json();
    assert_eq!(shown["peer_id"], id["peer_id"]);
    assert_eq!(shown["fingerprint"], id["fingerprint"]);
    assert_eq!(shown["encrypted"], false);
}

#[test]
fn a_passphrase_is_set_asked_for_and_removed() {
    let sandbox = Sandbox::new();
    sandbox.run(&["id"]).succeeded();
    let id = peer_id(&sandbox, &[]);
    let right = sandbox.write("right", "correct horse\n");
    let wrong = sandbox.write("wrong", "battery staple\n");
    let (right, wrong) = (right.to_str().unwrap(), wrong.to_str().unwrap());

    sandbox.run(&["keys", "passphrase", "--new-passphrase-file", right]).succeeded();
    assert_eq!(mode(&sandbox.keystore()), 0o600);
    sandbox.run(&["keys", "show"]).failed(4, "takes one");
    sandbox.run(&["id"]).failed(4, "takes one");
    sandbox.run(&["daemon"]).failed(4, "takes one");
    sandbox.run(&["keys", "show", "--passphrase-file", wrong]).failed(4, "wrong passphrase");
    assert_eq!(peer_id(&sandbox, &["--passphrase-file", right]), id);

    sandbox.run(&["keys", "passphrase", "--remove", "--passphrase-file", wrong]).failed(4, "wrong passphrase");
    sandbox.run(&["keys", "passphrase", "--remove", "--passphrase-file", right]).succeeded();
    assert_eq!(peer_id(&sandbox, &[]), id);
}

#[test]
fn a_passphrase_comes_from_standard_input_or_a_credential() {
    let sandbox = Sandbox::new();
    let right = sandbox.write("pqvpn-passphrase", "correct horse");
    sandbox.run(&["id", "--passphrase-file", right.to_str().unwrap()]).succeeded();
    let mut piped = sandbox.command(&["id", "--passphrase-file", "-"]);
    Run::of(piped.stdin(Stdio::from(fs::File::open(&right).unwrap()))).succeeded();
    let mut credential = sandbox.command(&["id"]);
    Run::of(credential.env("CREDENTIALS_DIRECTORY", right.parent().unwrap())).succeeded();
}

#[test]
fn a_passphrase_file_others_can_read_is_refused() {
    let sandbox = Sandbox::new();
    sandbox.run(&["id"]).succeeded();
    let file = sandbox.write("phrase", "x");
    chmod(&file, 0o644);
    sandbox
        .run(&["keys", "passphrase", "--new-passphrase-file", file.to_str().unwrap()])
        .failed(4, "others can read it");
}

#[test]
fn an_empty_passphrase_is_refused() {
    let sandbox = Sandbox::new();
    sandbox.run(&["id"]).succeeded();
    let file = sandbox.write("phrase", "\n");
    sandbox.run(&["keys", "passphrase", "--new-passphrase-file", file.to_str().unwrap()]).failed(2, "protects nothing");
    let backup = sandbox.path("backup");
    let line = ["keys", "backup", backup.to_str().unwrap(), "--backup-passphrase-file", file.to_str().unwrap()];
    sandbox.run(&line).failed(2, "protects nothing");
    assert!(!backup.exists());
}

#[test]
fn a_backup_brings_the_identity_to_another_machine() {
    let sandbox = Sandbox::new();
    sandbox.run(&["id"]).succeeded();
    let phrase = sandbox.write("phrase", "backup phrase\n");
    let wrong = sandbox.write("wrong", "other\n");
    let file = sandbox.path("backup");
    let (file, phrase, wrong) = (file.to_str().unwrap(), phrase.to_str().unwrap(), wrong.to_str().unwrap());

    let run = sandbox.run(&["keys", "backup", file]).failed(4, "takes one");
    assert!(run.stderr.contains("`--backup-passphrase-file FILE`"), "{}", run.stderr);
    sandbox.run(&["keys", "backup", file, "--backup-passphrase-file", phrase]).succeeded();
    assert_eq!(mode(file.as_ref()), 0o600);
    sandbox.run(&["keys", "backup", file, "--backup-passphrase-file", phrase]).failed(1, "exists already");
    sandbox.run(&["keys", "restore", file, "--backup-passphrase-file", phrase]).failed(1, "exists already");

    let other = Sandbox::new();
    other.run(&["keys", "restore", file, "--backup-passphrase-file", wrong]).failed(4, "wrong passphrase");
    other.run(&["keys", "restore", file]).failed(4, "takes one");
    assert!(!other.keystore().exists());
    let restored =
        other.run(&["keys", "restore", file, "--backup-passphrase-file", phrase, "--json"]).succeeded().json();
    assert_eq!(restored["peer_id"], peer_id(&sandbox, &[]).as_str());
    assert_eq!(peer_id(&other, &[]), peer_id(&sandbox, &[]));
}

#[test]
fn force_replaces_a_key() {
    let (sandbox, other) = (Sandbox::new(), Sandbox::new());
    sandbox.run(&["id"]).succeeded();
    other.run(&["id"]).succeeded();
    let phrase = sandbox.write("phrase", "backup phrase\n");
    let file = sandbox.path("backup");
    let (file, phrase) = (file.to_str().unwrap(), phrase.to_str().unwrap());
    sandbox.run(&["keys", "backup", file, "--backup-passphrase-file", phrase]).succeeded();
    let restore = ["keys", "restore", "--force", file, "--backup-passphrase-file", phrase];
    let said = other.run(&restore).succeeded().stdout;
    assert!(said.contains("kept without a passphrase; `pqvpn keys passphrase` sets one"), "{said}");
    assert_eq!(other.run(&[&restore[..], &["--json"]].concat()).succeeded().json()["encrypted"], false);
    assert_eq!(peer_id(&other, &[]), peer_id(&sandbox, &[]));
    let said = other.run(&[&restore[..], &["--passphrase-file", phrase]].concat()).succeeded().stdout;
    assert!(!said.contains("without a passphrase"), "{said}");
}

#[test]
fn a_rotation_without_a_daemon_needs_somebody_who_means_it() {
    let sandbox = Sandbox::new();
    sandbox.run(&["id"]).succeeded();
    let old = peer_id(&sandbox, &[]);
    sandbox.run(&["keys", "rotate"]).failed(4, "nobody confirmed");
    assert_eq!(peer_id(&sandbox, &[]), old);
    sandbox.run(&["keys", "rotate", "--yes"]).succeeded();
    assert_ne!(peer_id(&sandbox, &[]), old);
}

#[test]
fn a_rotation_that_power_interrupted_is_finished_and_not_done_twice() {
    let sandbox = Sandbox::new();
    sandbox.run(&["id"]).succeeded();
    let old = peer_id(&sandbox, &[]);
    sandbox.run(&["keys", "rotate", "--yes"]).succeeded();
    let new = peer_id(&sandbox, &[]);
    // As it was when it was decided and no file had its name yet.
    let [next, before] = ["keystore.next", "keystore.old"].map(|name| sandbox.keystore().with_file_name(name));
    fs::rename(sandbox.keystore(), &next).unwrap();
    fs::rename(&before, sandbox.keystore()).unwrap();
    let kept = fs::read(sandbox.keystore()).unwrap();
    let told = sandbox.run(&["keys", "rotate", "--json", "--yes"]).succeeded().json();
    assert_eq!((&told["old_peer_id"], &told["peer_id"]), (&old.as_str().into(), &new.as_str().into()));
    assert_eq!(peer_id(&sandbox, &[]), new, "and not a third one");
    assert_eq!(fs::read(before).unwrap(), kept);
    assert!(!next.exists());
}

#[test]
fn an_interrupted_rotation_is_finished_without_a_confirmation_and_said() {
    let sandbox = Sandbox::new();
    sandbox.run(&["id"]).succeeded();
    sandbox.run(&["keys", "rotate", "--yes"]).succeeded();
    let new = peer_id(&sandbox, &[]);
    let [next, before] = ["keystore.next", "keystore.old"].map(|name| sandbox.keystore().with_file_name(name));
    fs::rename(sandbox.keystore(), &next).unwrap();
    fs::rename(&before, sandbox.keystore()).unwrap();
    let said = sandbox.run(&["keys", "rotate"]).succeeded().stdout;
    assert!(said.contains("was interrupted") && said.contains(&new), "{said}");
    assert_eq!(peer_id(&sandbox, &[]), new);
}

#[test]
fn while_a_rotation_is_not_ended_the_passphrase_stays_what_it_is() {
    let sandbox = Sandbox::new();
    sandbox.run(&["id"]).succeeded();
    let next = sandbox.keystore().with_file_name("keystore.next");
    fs::copy(sandbox.keystore(), &next).unwrap();
    let phrase = sandbox.write("phrase", "new phrase\n");
    let change = ["keys", "passphrase", "--new-passphrase-file", phrase.to_str().unwrap()];
    sandbox.run(&change).failed(1, "was interrupted");
    fs::remove_file(next).unwrap();
    sandbox.run(&change).succeeded();
}
