// SPDX-License-Identifier: MIT OR Apache-2.0
//! Parts of a network that were told more than each has room for become equal over pages that this fills.

use super::*;

/// A member's words about itself, each on the one before: as many as it may say, and more than one page holds.
fn leaves(network: &Network, at_ms: u64) -> Vec<Arc<Statement>> {
    let mut draft = network.constitution.draft(at_ms, Act::Leave { key: who(3).public().clone() });
    let mut all = Vec::new();
    for _ in 0..pqvpn_trust::MAX_OWN_ACTS {
        let mut statement = Statement::draft(draft.clone()).unwrap();
        statement.sign(who(3)).unwrap();
        (draft.parents, draft.seq) = (vec![statement.id()], draft.seq + 1);
        all.push(Arc::new(statement));
    }
    all
}

/// `network` asks `other` page by page as the driver does.
fn pull_as_the_driver_does(network: &mut Network, other: &Network) {
    let theirs = other.state();
    let lacks = network.lacks(moment(NOW).mono, &other.own, &theirs);
    let mut asked = BTreeSet::new();
    for _ in 0..200 {
        let state = network.pull(lacks, 0);
        asked.extend(state.want.clone());
        let Some(bundle) = other.answer(&state) else { break };
        let more = bundle.more;
        let news = network.absorb(NOW, Some(other.own), bundle).news;
        if more && !news {
            network.miss(&theirs.tips);
        }
        let unasked = !network.missing.is_subset(&asked);
        if !(more && news || unasked) {
            break;
        }
    }
    network.missing.clear();
}

#[test]
fn parts_that_a_member_filled_each_with_other_words_become_equal_and_stay_so_after_a_start() {
    let mut one = home();
    do_act(&mut one, member(1, "bob"));
    do_act(&mut one, member(3, "dave"));
    do_act(&mut one, Act::AddAdmin { key: who(1).public().clone() });
    let mut other = founded(1, Params::default());
    pull_all(&mut other, &one, moment(NOW));
    for (network, at_ms) in [(&mut one, NOW), (&mut other, NOW + 1)] {
        let statements = leaves(network, at_ms);
        network.absorb(NOW, None, Bundle { statements, ..Bundle::default() });
    }
    other.act(who(1), NOW, member(4, "erin")).unwrap();
    do_act(&mut one, member(5, "frank"));
    for _ in 0..2 {
        pull_as_the_driver_does(&mut one, &other);
        pull_as_the_driver_does(&mut other, &one);
    }
    assert_eq!(one.constitution.len(), 6 + 2 * pqvpn_trust::MAX_OWN_ACTS);
    assert_eq!(one.constitution.head(), other.constitution.head());
    assert_eq!(one.constitution.view(), other.constitution.view());
    let kept = one.changes.iter().filter_map(|change| {
        let Change::Statement(_, id, _) = change else { return None };
        Some(*id)
    });
    let kept: BTreeSet<[u8; 32]> = kept.collect();
    assert_eq!(kept.len() + 1, one.constitution.len(), "all but the genesis, which is written at the founding");
    // One more than there is room for, and nobody stands on it: what is on disk was let in once.
    let more = leaves(&one, NOW + 2).remove(0);
    let statements = one.constitution.after(&[], usize::MAX).statements.into_iter().chain([more]);
    let kept = Kept {
        statements: statements.map(|statement| statement.encode()).collect(),
        head: Some(one.head.clone()),
        ..Kept::default()
    };
    let again = Network::load(one.own, one.id, kept, moment(NOW)).unwrap();
    assert_eq!(again.constitution.len(), one.constitution.len() + 1);
    assert_eq!(again.constitution.tips().len(), 1);
}
