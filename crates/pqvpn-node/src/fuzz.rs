// SPDX-License-Identifier: MIT OR Apache-2.0
//! What must hold for any bytes in a file of ours and in a question to us. Built for the tests, which replay the corpus, and
//! for the fuzz targets.

use pqvpn_wire::dht::NetworkId;

use crate::{
    bootstrap::{SignedList, Trust, entries_from_text, entries_to_text},
    carrier,
    config::{self, Config},
    dht, host, membership, names,
};

/// A check and the name of its fuzz target.
pub type Target = (&'static str, fn(&[u8]));

/// Every check.
pub const TARGETS: [Target; 11] = [
    ("config_toml", config_toml),
    ("config_yaml", config_yaml),
    ("config_set", config_set),
    ("bootstrap_list", bootstrap_list),
    ("bootstrap_text", bootstrap_text),
    ("dht_files", dht::fuzz_files),
    ("host_journal", host::fuzz_journal),
    ("dns_journal", names::fuzz_journal),
    ("dns_query", names::fuzz_query),
    ("carrier_memory", carrier::fuzz_memory),
    ("network_store", membership::fuzz_store),
];

/// Runs the check of one target.
///
/// # Panics
/// When it fails.
pub fn run(target: &str, data: &[u8]) {
    let (_, check) = TARGETS.iter().find(|(name, _)| *name == target).expect("the target exists");
    check(data);
}

/// What is read is written, and read again as the same.
fn same_again(mut config: Config) {
    let _warnings = config.check();
    config.notes.clear();
    let written = config.to_toml();
    match Config::parse_toml(&written, "written") {
        Ok(again) => assert_eq!(again, config),
        Err(error) => panic!("{error}\n{written}"),
    }
}

fn config_toml(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    match Config::parse_toml(text, "x") {
        Ok(config) => same_again(config),
        Err(error) => drop(error.to_string()),
    }
}

fn config_yaml(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    match Config::parse_yaml(text, "x") {
        Ok(config) => same_again(config),
        Err(error) => drop(error.to_string()),
    }
    if let Ok(converted) = config::convert(text, "x") {
        Config::parse_toml(&converted, "x").expect("what is converted can be read");
    }
}

/// A key, a value and a file, in three lines and more.
fn config_set(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let mut lines = text.splitn(3, '\n');
    let (Some(key), Some(value)) = (lines.next(), lines.next()) else { return };
    if let Ok(changed) = config::set(lines.next().unwrap_or_default(), key, value) {
        same_again(Config::parse_toml(&changed, "x").expect("what is changed can be read"));
    }
}

fn bootstrap_list(data: &[u8]) {
    if let Ok(list) = SignedList::open(data, &NetworkId::OPEN, Trust::ThisOne) {
        assert_eq!(list.as_bytes(), data);
    }
}

fn bootstrap_text(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    match entries_from_text(text) {
        Ok(entries) => assert_eq!(entries_from_text(&entries_to_text(&entries)), Ok(entries)),
        Err(error) => drop(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::{env, fs, path::Path};

    use pqvpn_crypto::identity::{Identity, IdentitySeed};

    use super::*;
    use crate::bootstrap::ListDraft;

    /// The one valid input that nobody can type.
    fn write_seed() {
        let signer = Identity::from_seed(&IdentitySeed::from_bytes(&[1; 64])).unwrap();
        let entries = vec![format!("pqvpn://{}@198.51.100.1:41641", "ab".repeat(32)).parse().unwrap()];
        let draft = ListDraft { network: NetworkId::OPEN, issued_ms: 1, expires_ms: 2, entries };
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/bootstrap_list/valid");
        fs::write(file, draft.sign(&signer).unwrap().as_bytes()).unwrap();
    }

    #[test]
    fn the_corpus_is_harmless() {
        if env::var_os("PQVPN_WRITE_SEEDS").is_some() {
            write_seed();
        }
        for (target, check) in TARGETS {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
            let mut files = 0;
            for file in fs::read_dir(folder).expect("every target has a corpus") {
                check(&fs::read(file.unwrap().path()).unwrap());
                files += 1;
            }
            assert!(files > 0, "{target}");
            check(&[]);
        }
    }
}
