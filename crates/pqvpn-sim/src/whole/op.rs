// SPDX-License-Identifier: MIT OR Apache-2.0
//! What happens in a world: one operation at a time, drawn from its seed; a list of them is all that a run needs again.

use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

/// One thing that happens; nodes are named by their number. What makes no sense at its time does nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the fields are numbers of nodes and amounts, as the variants say")]
pub enum Op {
    /// Packets from one node to another.
    Send {
        from: usize,
        to: usize,
        count: u8,
    },
    /// A packet from every node to every other.
    SendAll,
    /// A person pings.
    Ping {
        from: usize,
        to: usize,
    },
    /// A link ends as if its packets were lost for ever.
    Break {
        pick: u32,
    },
    /// The network loses, doubles and mixes up datagrams.
    Weather {
        loss_percent: u8,
        twice_percent: u8,
        jitter_ms: u16,
    },
    /// Nothing passes between two nodes, or it does again.
    Cut {
        a: usize,
        b: usize,
    },
    Mend {
        a: usize,
        b: usize,
    },
    /// Those whose bit is set and the others do not reach each other.
    Partition {
        side: u16,
    },
    /// Everything passes.
    Heal,
    /// A node is somewhere else; it is told, or finds out.
    Roam {
        node: usize,
        told: bool,
    },
    /// The router of a node gives it another port.
    Rebind {
        node: usize,
    },
    /// A node dies in the middle of what it does.
    Kill {
        node: usize,
    },
    /// A node stops as its operator wants.
    Stop {
        node: usize,
    },
    /// A node starts with what it kept.
    Start {
        node: usize,
    },
    /// The clock of a node stands so far ahead, or behind.
    Clock {
        node: usize,
        ahead_s: i32,
    },
    /// An admin revokes a member.
    Revoke {
        by: usize,
        who: usize,
    },
    /// An admin makes a member an admin, or takes that away.
    AdminAdd {
        by: usize,
        who: usize,
    },
    AdminRemove {
        by: usize,
        who: usize,
    },
    /// A node that is no member joins by the code of an admin.
    Join {
        node: usize,
        by: usize,
    },
    /// A person has a session stepped or ended.
    Rekey {
        from: usize,
        to: usize,
    },
    Disconnect {
        from: usize,
        to: usize,
    },
    /// A node goes down and up without ending.
    Down {
        node: usize,
    },
    Up {
        node: usize,
    },
    /// Somebody on the path sends datagrams again, to where they went or to somebody else, from elsewhere.
    Replay {
        pick: u32,
        to: Option<usize>,
    },
    /// The same with a bit turned.
    Forge {
        pick: u32,
        bit: u16,
    },
    /// Datagrams of bytes that mean nothing.
    Garbage {
        to: usize,
        dice: u64,
    },
    /// Time passes.
    Wait {
        ms: u32,
    },
    /// Everything is mended, and what must then be true is looked at.
    Settle,
}

impl Op {
    /// Draws one for a world of so many nodes.
    pub fn draw(dice: &mut impl Rng, nodes: usize) -> Self {
        let mut node = || dice.random_range(0..nodes);
        let (a, b) = (node(), node());
        let pick = dice.random();
        match dice.random_range(0..1000) {
            0..330 => Self::Send { from: a, to: b, count: dice.random_range(1..6) },
            330..380 => Self::SendAll,
            380..420 => Self::Ping { from: a, to: b },
            420..450 => Self::Break { pick },
            450..490 => Self::Weather {
                loss_percent: *[0, 0, 1, 5, 20, 50].get(dice.random_range(0..6)).unwrap_or(&0),
                twice_percent: *[0, 0, 5, 30].get(dice.random_range(0..4)).unwrap_or(&0),
                jitter_ms: *[0, 5, 50, 400].get(dice.random_range(0..4)).unwrap_or(&0),
            },
            490..520 => Self::Cut { a, b },
            520..560 => Self::Mend { a, b },
            560..575 => Self::Partition { side: dice.random() },
            575..605 => Self::Heal,
            605..640 => Self::Roam { node: a, told: dice.random_bool(0.7) },
            640..660 => Self::Rebind { node: a },
            660..680 => Self::Kill { node: a },
            680..690 => Self::Stop { node: a },
            690..740 => Self::Start { node: a },
            740..755 => Self::Clock {
                node: a,
                ahead_s: *[-90_000, -3600, -70, -1, 0, 1, 70, 3600, 90_000].get(dice.random_range(0..9)).unwrap_or(&0),
            },
            755..758 => Self::Revoke { by: a, who: b },
            758..764 => Self::AdminAdd { by: a, who: b },
            764..766 => Self::AdminRemove { by: a, who: b },
            766..776 => Self::Join { node: a, by: b },
            776..796 => Self::Rekey { from: a, to: b },
            796..806 => Self::Disconnect { from: a, to: b },
            806..811 => Self::Down { node: a },
            811..826 => Self::Up { node: a },
            826..866 => Self::Replay { pick, to: dice.random_bool(0.3).then_some(b) },
            866..896 => Self::Forge { pick, bit: dice.random() },
            896..911 => Self::Garbage { to: a, dice: dice.random() },
            _ => Self::Wait { ms: *[10, 100, 500, 2000, 20_000].get(dice.random_range(0..5)).unwrap_or(&10) },
        }
    }

    /// Operations of a whole run, which settles now and then and at its end.
    pub fn plan(dice: &mut impl Rng, nodes: usize, count: usize) -> Vec<Self> {
        let settle = |number: usize| number % 500 == 499 || number + 1 == count;
        (0..count).map(|number| if settle(number) { Self::Settle } else { Self::draw(dice, nodes) }).collect()
    }
}
