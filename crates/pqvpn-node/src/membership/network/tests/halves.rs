// SPDX-License-Identifier: MIT OR Apache-2.0
//! Parts of a network that were told more than each has room for become equal over pages that this fills.

use super::*;
use crate::membership::join::{Copied, Gathered};

/// A member's words about itself, each on the one before: as many as it may say, and more than one page holds.
fn words(network: &Network, at_ms: u64, act: Act) -> Vec<Arc<Statement>> {
    let mut draft = network.constitution.draft(at_ms, act);
    let mut all = Vec::new();
    for _ in 0..pqvpn_trust::MAX_OWN_ACTS {
        let mut statement = Statement::draft(draft.clone()).unwrap();
        statement.sign(who(3)).unwrap();
        (draft.parents, draft.seq) = (vec![statement.id()], draft.seq + 1);
        all.push(Arc::new(statement));
    }
    all
}

fn leave(_: &Network) -> Act {
    Act::Leave { key: who(3).public().clone() }
}

/// These are twice as long.
fn rotate(network: &Network) -> Act {
    Act::rotate(&network.id, who(3).public().clone(), who(6)).unwrap()
}

const ACTS: [fn(&Network) -> Act; 2] = [leave, rotate];

/// `network` asks `other` page by page as the driver does; gives how often.
fn pull_as_the_driver_does(network: &mut Network, other: &Network) -> usize {
    let theirs = other.state();
    let lacks = network.lacks(moment(NOW).mono, &other.own, &theirs);
    let (mut asked, mut onward, mut pages) = (BTreeSet::new(), Onward::default(), 0);
    for _ in 0..200 {
        let state = network.pull_on(lacks, 0, &onward);
        asked.extend(state.want.clone());
        let Some(bundle) = other.answer(&state) else { break };
        pages += 1;
        let (more, sent) = (bundle.more, ids(&bundle));
        let news = network.absorb(NOW, Some(other.own), bundle).news;
        let progress = onward.note(&network.constitution, &sent, news);
        if more && !progress {
            network.miss(&theirs.tips);
        }
        let unasked = !network.missing.is_subset(&asked);
        if !(more && progress || unasked) {
            break;
        }
    }
    network.missing.clear();
    pages
}

fn ids(bundle: &Bundle) -> Vec<StatementId> {
    bundle.statements.iter().map(|statement| statement.id()).collect()
}

/// Two admins' parts, each with other words of one member, that have heard each other.
fn healed(act: fn(&Network) -> Act) -> (Network, Network) {
    let mut one = home();
    do_act(&mut one, member(1, "bob"));
    do_act(&mut one, member(3, "dave"));
    do_act(&mut one, Act::AddAdmin { key: who(1).public().clone() });
    let mut other = founded(1, Params::default());
    pull_all(&mut other, &one, moment(NOW));
    for (network, at_ms) in [(&mut one, NOW), (&mut other, NOW + 1)] {
        let statements = words(network, at_ms, act(network));
        network.absorb(NOW, None, Bundle { statements, ..Bundle::default() });
    }
    other.act(who(1), NOW, member(4, "erin")).unwrap();
    do_act(&mut one, member(5, "frank"));
    for _ in 0..2 {
        assert!(pull_as_the_driver_does(&mut one, &other) <= 4);
        assert!(pull_as_the_driver_does(&mut other, &one) <= 4);
    }
    (one, other)
}

#[test]
fn parts_become_equal_over_pages_however_long_the_words_that_keep_them_apart() {
    for act in ACTS {
        let (one, other) = healed(act);
        assert_eq!(one.constitution.len(), 6 + 2 * pqvpn_trust::MAX_OWN_ACTS);
        assert_eq!(one.constitution.head(), other.constitution.head());
        assert_eq!(one.constitution.view(), other.constitution.view());
        assert_eq!((one.constitution.waiting(), other.constitution.waiting()), (0, 0));
    }
}

#[test]
fn whoever_joins_later_is_sent_all_that_was_healed() {
    for act in ACTS {
        let (mut one, _) = healed(act);
        do_act(&mut one, member(2, "carol"));
        let first = one.answer(&SyncState::default()).unwrap();
        let (mut copied, mut more) = (Copied::begin(&one.id, first.statements).unwrap(), first.more);
        for _ in 0..20 {
            if !more {
                break;
            }
            let page = one.answer(&copied.lack(&Gathered::default())).unwrap();
            more = page.more;
            if !copied.add(page.statements) {
                break;
            }
        }
        assert!(!more && copied.built.view().members.contains_key(&who(2).peer_id()));
        assert_eq!(copied.built.head(), one.constitution.head());
    }
}

#[test]
fn what_waits_is_not_asked_for_by_name_but_what_it_waits_for() {
    let mut one = home();
    do_act(&mut one, member(3, "dave"));
    let all = words(&one, NOW, leave(&one));
    let take = |network: &mut Network, at: usize| {
        network.absorb(NOW, None, Bundle { statements: vec![Arc::clone(&all[at])], ..Bundle::default() });
    };
    let names = |network: &Network| network.missing.iter().copied().collect::<Vec<_>>();
    take(&mut one, 2);
    assert_eq!(names(&one), [all[1].id()]);
    take(&mut one, 1);
    assert_eq!(names(&one), [all[0].id()]);
    // Nothing was heard, and it is asked for once more when something else comes that needs it.
    one.missing.clear();
    take(&mut one, 3);
    assert_eq!(names(&one), [all[0].id()]);
    take(&mut one, 0);
    assert_eq!((names(&one), one.constitution.waiting()), (Vec::new(), 0));
}

#[test]
fn whoever_sends_only_what_waits_is_not_listened_to_for_ever() {
    let mut one = home();
    do_act(&mut one, member(3, "dave"));
    let (all, mut onward) = (words(&one, NOW, leave(&one)), Onward::default());
    let pages = all.iter().skip(1).take_while(|statement| {
        let bundle = Bundle { statements: vec![Arc::clone(statement)], ..Bundle::default() };
        let (sent, news) = (ids(&bundle), one.absorb(NOW, None, bundle).news);
        onward.note(&one.constitution, &sent, news)
    });
    assert_eq!(pages.count(), 8);
    assert!(!Onward::default().note(&one.constitution, &[all[0].id()], false), "what does not even wait is nothing");
    // They stand on what was not sent.
    assert!(one.constitution.waiting_tops(&all.iter().map(|statement| statement.id()).collect()).is_empty());
}

#[test]
fn what_was_healed_is_there_after_a_start() {
    let (one, _) = healed(leave);
    let kept = one.changes.iter().filter_map(|change| {
        let Change::Statement(_, id, _) = change else { return None };
        Some(*id)
    });
    let kept: BTreeSet<[u8; 32]> = kept.collect();
    assert_eq!(kept.len() + 1, one.constitution.len(), "all but the genesis, which is written at the founding");
    // One more than there is room for, and nobody stands on it: what is on disk was let in once.
    let more = words(&one, NOW + 2, leave(&one)).remove(0);
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

#[test]
fn records_are_sent_without_what_is_not_wanted() {
    let (mut one, mut other) = (home(), founded(1, Params::default()));
    do_act(&mut one, member(1, "bob"));
    let theirs = one.state();
    let lacks = Lacks { records: true, ..Lacks::default() };
    let pull = other.pull_on(lacks, 0, &Onward::beside(&theirs.tips));
    assert_eq!(one.answer(&pull).unwrap().statements, []);
    assert_eq!(one.answer(&other.pull(lacks, 0)).unwrap().statements.len(), 1);
    other.absorb(NOW, None, one.answer(&other.pull(lacks, 0)).unwrap());
    assert_eq!(other.constitution.head(), one.constitution.head());
}
