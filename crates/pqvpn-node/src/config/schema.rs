// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every key there is: what is not here is an error with a suggestion.

use super::value::did_you_mean;

/// What a key holds, as far as a command line needs to know to write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Integer,
    Bool,
    /// `"auto"` or a number.
    AutoOrInteger,
    TextList,
}

/// A section and its keys.
#[derive(Debug)]
pub(super) struct Section {
    pub(super) name: &'static str,
    /// Whether it is a list of tables, `[[name]]`.
    pub(super) repeated: bool,
    pub(super) keys: &'static [(&'static str, Kind)],
}

/// The whole configuration, in the order it is written.
pub(super) const SECTIONS: &[Section] = &[
    section(
        "node",
        &[
            ("name", Kind::Text),
            ("listen", Kind::TextList),
            ("state_dir", Kind::Text),
            ("port_guessing", Kind::Bool),
            ("port_mapping", Kind::Bool),
            ("proxy", Kind::Text),
        ],
    ),
    section(
        "interface",
        &[
            ("name", Kind::Text),
            ("mtu", Kind::AutoOrInteger),
            ("ipv4", Kind::Bool),
            ("ipv6", Kind::Bool),
            ("ipv4_pool", Kind::Text),
            ("queues", Kind::AutoOrInteger),
        ],
    ),
    section("crypto", &[("cipher", Kind::Text), ("rekey_seconds", Kind::Integer)]),
    Section {
        name: "peers",
        repeated: true,
        keys: &[
            ("id", Kind::Text),
            ("name", Kind::Text),
            ("endpoints", Kind::TextList),
            ("keepalive_seconds", Kind::Integer),
            ("routes", Kind::TextList),
        ],
    },
    section(
        "bootstrap",
        &[("nodes", Kind::TextList), ("lists", Kind::TextList), ("signers", Kind::TextList), ("lan", Kind::Bool)],
    ),
    section(
        "dht",
        &[("enabled", Kind::Bool), ("mode", Kind::Text), ("difficulty", Kind::Integer), ("network", Kind::Text)],
    ),
    section("dns", &[("mode", Kind::Text)]),
    section("relay", &[("enabled", Kind::Bool), ("limit", Kind::Text), ("listen", Kind::TextList)]),
    section("metrics", &[("listen", Kind::Text)]),
    section("logging", &[("level", Kind::Text), ("format", Kind::Text), ("file", Kind::Text)]),
];

/// Words people put secrets under.
const SECRET_WORDS: &[&str] = &["private", "secret", "psk", "preshared", "password", "passphrase", "token", "_sk"];

const fn section(name: &'static str, keys: &'static [(&'static str, Kind)]) -> Section {
    Section { name, repeated: false, keys }
}

/// The section called `name`.
pub(super) fn find(name: &str) -> Option<&'static Section> {
    SECTIONS.iter().find(|section| section.name == name)
}

impl Section {
    pub(super) fn kind(&self, key: &str) -> Option<Kind> {
        self.keys.iter().find(|(name, _)| *name == key).map(|(_, kind)| *kind)
    }

    /// Its heading, for messages.
    pub(super) fn heading(&self) -> String {
        if self.repeated { format!("[[{}]]", self.name) } else { format!("[{}]", self.name) }
    }
}

/// Why there is no section `name`, and what may be meant.
pub(super) fn unknown_section(name: &str) -> String {
    if let Some(moved) = super::legacy::moved(name, None) {
        return moved;
    }
    let hint = did_you_mean(name, SECTIONS.iter().map(|section| section.name));
    if hint.is_empty() {
        let homes = homes_of(name);
        if homes.is_empty() {
            format!("unknown section{}", secret_hint(name))
        } else {
            format!("unknown section; the key belongs in {homes}")
        }
    } else {
        format!("unknown section{hint}")
    }
}

/// Why `section` has no key `key`, and what may be meant.
pub(super) fn unknown_key(section: &Section, key: &str) -> String {
    if let Some(moved) = super::legacy::moved(section.name, Some(key)) {
        return moved;
    }
    let secret = secret_hint(key);
    if !secret.is_empty() {
        return format!("unknown key{secret}");
    }
    let homes = homes_of(key);
    if !homes.is_empty() {
        return format!("unknown key in {}; it belongs in {homes}", section.heading());
    }
    let hint = did_you_mean(key, section.keys.iter().map(|(name, _)| *name));
    if hint.is_empty() {
        let known = section.keys.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        format!("unknown key; {} has {known}", section.heading())
    } else {
        format!("unknown key{hint}")
    }
}

fn homes_of(key: &str) -> String {
    let homes = SECTIONS.iter().filter(|section| section.kind(key).is_some());
    homes.map(Section::heading).collect::<Vec<_>>().join(" or ")
}

fn secret_hint(key: &str) -> &'static str {
    let key = key.to_lowercase();
    if SECRET_WORDS.iter().any(|word| key.contains(word)) {
        "; secrets do not belong in this file: the identity lives in the keystore, see `pqvpn keys`"
    } else {
        ""
    }
}
