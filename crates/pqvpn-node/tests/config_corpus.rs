// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every bad configuration has one known error, every good one a known meaning.
//!
//! `PQVPN_BLESS=1` rewrites the expected texts; read the difference before keeping it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use pqvpn_node::config::{self, Config, ConfigError};

fn corpus(kind: &str) -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/config").join(kind);
    let mut files: Vec<PathBuf> = fs::read_dir(dir)
        .expect("corpus")
        .map(|entry| entry.expect("entry").path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "toml" || ext == "yaml"))
        .collect();
    files.sort();
    files
}

fn parse(path: &Path) -> Result<Config, ConfigError> {
    let text = fs::read_to_string(path).expect("text");
    let origin = path.file_name().expect("name").to_string_lossy().into_owned();
    if config::is_yaml(path) { Config::parse_yaml(&text, &origin) } else { Config::parse_toml(&text, &origin) }
}

/// `name.toml` has `name.toml.expected` beside it.
fn compare(path: &Path, found: &str) -> Option<String> {
    let expected_path = PathBuf::from(format!("{}.expected", path.display()));
    if std::env::var_os("PQVPN_BLESS").is_some() {
        fs::write(&expected_path, found).expect("bless");
        return None;
    }
    let expected = fs::read_to_string(&expected_path).unwrap_or_default();
    (expected != found).then(|| format!("{}\n  expected: {expected}\n  found:    {found}", path.display()))
}

#[test]
fn every_bad_file_has_its_one_line_error() {
    let files = corpus("bad");
    assert!(files.len() >= 25, "only {} files", files.len());
    let mut wrong = Vec::new();
    for path in files {
        let error = match parse(&path) {
            Ok(_) => "accepted".to_owned(),
            Err(error) => error.to_string(),
        };
        if error == "accepted" || error.lines().count() != 1 || error.contains("hunter2") {
            wrong.push(format!("{}: {error}", path.display()));
        }
        wrong.extend(compare(&path, &format!("{error}\n")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_good_file_means_what_is_written_beside_it() {
    let mut wrong = Vec::new();
    for path in corpus("good") {
        let config = parse(&path).unwrap_or_else(|error| panic!("{error}"));
        let mut found = config.to_toml();
        for warning in config.check() {
            found.push_str(&format!("# {}: {warning}\n", warning.code));
        }
        wrong.extend(compare(&path, &found));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn written_configs_read_back_the_same() {
    for path in corpus("good") {
        let mut config = parse(&path).expect("good");
        config.notes.clear();
        let again = Config::parse_toml(&config.to_toml(), "written").unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(again, config, "{}", path.display());
    }
}

#[test]
fn the_sample_is_the_default_and_shows_every_key() {
    let sample = config::sample();
    assert_eq!(Config::parse_toml(&sample, "sample").expect("sample"), Config::default());
    let full = parse(&corpus("good").into_iter().find(|path| path.ends_with("everything.toml")).expect("file"));
    for line in full.expect("good").to_toml().lines() {
        let Some((key, _)) = line.split_once(" = ") else {
            continue;
        };
        let shown = sample.lines().any(|line| line.trim_start_matches('#').starts_with(&format!("{key} = ")));
        assert!(shown, "the sample does not show {key}");
    }
}

#[test]
fn the_samples_comments_can_be_uncommented() {
    let id = "ab".repeat(32);
    let keys = config::sample().replace("<64 hex digits>", &id).replace("#[[", "[[");
    let lines = keys.lines().map(|line| {
        let bare = line.trim_start_matches('#');
        if line.starts_with('#') && !line.starts_with("# ") && bare.contains(" = ") { bare } else { line }
    });
    let text = lines.collect::<Vec<_>>().join("\n");
    let config = Config::parse_toml(&text, "sample").unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((config.peers.len(), config.node.name.as_deref()), (1, Some("laptop")));
}

#[test]
fn the_prototypes_sample_converts_key_by_key() {
    let path = corpus("good").into_iter().find(|path| path.ends_with("prototype-sample.yaml")).expect("file");
    let text = fs::read_to_string(&path).expect("text");
    let converted = config::convert(&text, "x").unwrap_or_else(|error| panic!("{error}"));
    let loaded = Config::parse_yaml(&text, "x").expect("loads as it is");
    let mut again = Config::parse_toml(&converted, "x").expect("converted text loads");
    again.notes = loaded.notes.clone();
    assert_eq!(again, loaded);
    for section in text.split("\n\n") {
        let Some((head, body)) = section.trim_end().split_once(":\n") else {
            continue;
        };
        for line in body.lines().filter(|line| !line.trim_start().starts_with(['#', '-'])) {
            let key = line.trim().split(':').next().expect("key");
            let named = converted.contains(&format!("{head}.{key}")) || converted.contains(&format!(", .{key}"));
            let kept = converted.contains(&format!("[{head}]\n")) && converted.contains(&format!("{key} = "));
            assert!(named || kept, "{head}.{key} has no trace in\n{converted}");
        }
    }
    let wrong = compare(&path.with_extension("converted.toml-text"), &converted);
    assert!(wrong.is_none(), "{}", wrong.unwrap_or_default());
}

#[test]
fn converting_toml_changes_nothing() {
    let text = "[node]\nname = \"a\" # mine\n";
    assert_eq!(config::convert(text, "x").expect("toml"), text);
}

#[test]
fn all_problems_are_reported_together_in_order() {
    let text = "[node]\nnmae = \"a\"\n[crypto]\nrekey_seconds = 1\ncipher = \"rot13\"\n";
    let error = Config::parse_toml(text, "c").expect_err("bad").to_string();
    let starts: Vec<&str> = error.lines().map(|line| line.split(": ").next().expect("place")).collect();
    assert_eq!(starts, ["c:2", "c:4", "c:5"]);
}

#[test]
fn values_under_unknown_keys_are_never_shown() {
    for text in
        ["[node]\ntoken = \"hunter2\"\n", "[wallet]\nseed = \"hunter2\"\n", "hunter = \"hunter2\"\n", "x = hunter2\n"]
    {
        let error = format!("{0}\n{0:?}", Config::parse_toml(text, "c").expect_err("bad"));
        assert!(!error.contains("hunter2"), "{error}");
    }
    let error = Config::parse_yaml("wallet:\n  seed: hunter2\n", "c").expect_err("bad");
    assert!(!format!("{error}\n{error:?}").contains("hunter2"));
}

#[test]
fn a_node_is_not_its_own_peer() {
    let id = "ab".repeat(32);
    let config = Config::parse_toml(&format!("[[peers]]\nid = \"{id}\"\n"), "c").expect("good");
    let error = config.check_identity(&id.parse().expect("id"), "c").expect_err("own id").to_string();
    assert!(error.starts_with("c: peers[0].id: abababab is this node itself"), "{error}");
    assert!(config.check_identity(&"cd".repeat(32).parse().expect("id"), "c").is_ok());
}

#[test]
fn files_that_cannot_be_read_say_so() {
    let dir = tempfile::tempdir().expect("dir");
    let missing = Config::load(&dir.path().join("none.toml")).expect_err("missing");
    assert!(missing.is_not_found() && missing.to_string().ends_with("none.toml: no such file"), "{missing}");
    let error = Config::load(dir.path()).expect_err("a directory").to_string();
    assert!(error.contains("cannot be read"), "{error}");
    let path = dir.path().join("big.toml");
    fs::write(&path, "#".repeat((1 << 20) + 1)).expect("write");
    assert!(matches!(Config::load(&path), Err(ConfigError::TooLarge { .. })));
    fs::write(&path, b"[node]\nname = \"\xff\"\n").expect("write");
    let error = Config::load(&path).expect_err("not text").to_string();
    assert!(error.ends_with("big.toml:2: this is not UTF-8 text"), "{error}");
}

#[test]
fn yaml_files_load_by_extension() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("config.yml");
    fs::write(&path, "node:\n  name: a\n").expect("write");
    assert_eq!(Config::load(&path).expect("yaml").node.name.as_deref(), Some("a"));
}

mod random {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,200}") {
            let _ = Config::parse_toml(&text, "x");
            let _ = Config::parse_yaml(&text, "x");
            let _ = config::convert(&text, "x");
            let _ = config::set(&text, "node.name", &text);
        }

        #[test]
        fn no_value_panics(key in 0usize..24, value in "[-a-z0-9.:/\"\\[\\]@% ]{0,40}") {
            let keys = ["node.name", "node.listen", "node.state_dir", "interface.name", "interface.mtu", "interface.ipv4",
                "interface.ipv4_pool", "interface.queues", "crypto.cipher", "crypto.rekey_seconds", "peers.a.routes",
                "peers.a.endpoints", "peers.a.id", "peers.a.name", "bootstrap.nodes", "relay.enabled", "metrics.listen",
                "logging.level", "logging.format", "logging.file", "peers", "x", "", "."];
            let base = format!("[[peers]]\nid = \"{}\"\nname = \"a\"\n", "ab".repeat(32));
            if let Ok(text) = config::set(&base, keys[key], &value) {
                prop_assert!(Config::parse_toml(&text, "x").is_ok());
            }
        }
    }
}
