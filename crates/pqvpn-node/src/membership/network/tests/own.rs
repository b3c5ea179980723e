// SPDX-License-Identifier: MIT OR Apache-2.0
//! Our own record, and what is said of what is wrong or will be.

use super::*;

#[test]
fn our_record_is_renewed_in_time_when_it_changes_and_not_for_nothing() {
    let here: Vec<std::net::SocketAddr> = vec!["1.2.3.4:5".parse().unwrap()];
    let draft = record_at(0, NetworkId::OPEN, 1, "1.2.3.4:5", NOW).draft().clone();
    assert_eq!(renewal_due(None, NOW, &here, None), NOW, "none yet");
    assert_eq!(renewal_due(Some(&draft), NOW, &here, None), NOW + 6 * HOUR);
    assert_eq!(renewal_due(Some(&draft), NOW, &[], None), NOW + 2000, "moved");
    assert_eq!(renewal_due(Some(&draft), NOW - HOUR, &here, None), NOW - HOUR, "the clock was set back");
    assert_eq!(renewal_due(Some(&draft), NOW, &here, Some(60)), NOW + 20_000, "before it is forgotten");
    let left = MemberDraft { left: true, ..draft };
    assert_eq!(renewal_due(Some(&left), NOW, &here, None), NOW, "back again");
    let mut ours = home();
    ours.renew(who(0), NOW, &here, false);
    let first = ours.records[&ours.own].seq();
    ours.renew(who(0), NOW - HOUR, &here, false);
    assert!(ours.records[&ours.own].seq() > first, "numbers only grow, whatever the clock does");
}

#[test]
fn a_second_user_of_our_identity_is_told_of_and_not_fought() {
    let mut ours = home();
    ours.renew(who(0), NOW, &["1.2.3.4:5".parse().unwrap()], false);
    let seq = ours.records[&ours.own].seq();
    let has = |network: &Network, code: &str| network.health(moment(NOW)).iter().any(|item| item.code == code);
    // An earlier life of this node, whose store was lost: no twin, but its numbers are not used again.
    let earlier = record_at(0, ours.id, seq + 5, "5.5.5.5:5", NOW - HOUR);
    ours.absorb(NOW, None, records(vec![earlier]));
    assert!(!has(&ours, "identity-twice"));
    assert_eq!(ours.own_record_due(NOW, &[]), NOW, "said anew at once");
    ours.renew(who(0), NOW, &["1.2.3.4:5".parse().unwrap()], false);
    assert!(ours.records[&ours.own].seq() > seq + 5);
    // A record newer than this life that we did not make.
    let twin = record_at(0, ours.id, seq + 50, "6.6.6.6:6", NOW + 1000);
    assert!(ours.absorb(NOW + 1000, None, records(vec![twin])).news);
    assert!(has(&ours, "identity-twice"));
    // It may not know of us: it is answered once, and then neither corrects the other's addresses any more.
    let here = ["1.2.3.4:5".parse().unwrap()];
    let due = ours.own_record_due(NOW + 1000, &here);
    assert_eq!(due, NOW + 3000);
    ours.renew(who(0), due, &here, false);
    let again = record_at(0, ours.id, ours.head.seq + 1, "6.6.6.6:6", due + 1000);
    assert!(ours.absorb(due + 1000, None, records(vec![again])).news);
    let next = ours.own_record_due(due + 1000, &here);
    assert!(next > due + HOUR, "not contradicted: {}", next - due);
    assert!(!ours.health(moment(NOW + 48 * HOUR)).iter().any(|item| item.code == "identity-twice"), "long ago");
    assert_eq!(ours.next_change_ms(due + 1000), Some(due + 1000 + TWIN_MS), "and told no more in time");
}

#[test]
fn what_runs_out_is_said_in_time() {
    let mut ours = founded(1, Params::default());
    let mut alices = home();
    let Act::AddMember(mut bob) = member(1, "bob") else { unreachable!() };
    bob.expires_ms = Some(NOW + 40 * 24 * HOUR);
    do_act(&mut alices, Act::AddMember(bob));
    pull_all(&mut ours, &alices, moment(NOW));
    let level = |days: u64| {
        let items = ours.health(moment(NOW + days * 24 * HOUR));
        items.iter().find(|item| item.code == "membership-expires").map(|item| item.level)
    };
    use crate::snapshot::HealthLevel::{Error, Info, Warn};
    assert_eq!([0, 9, 10, 32, 33, 39].map(level), [None, None, Some(Info), Some(Info), Some(Warn), Some(Error)]);
    // Each warning begins in time, though nothing else happens.
    let day = |days: u64| NOW + days * 24 * HOUR;
    let mut wakes = vec![NOW];
    while let Some(next) = ours.next_change_ms(*wakes.last().unwrap()) {
        wakes.push(next);
    }
    assert!([10, 33, 39, 40].map(day).iter().all(|begin| wakes.contains(begin)), "{wakes:?}");
    let after = moment(day(40));
    assert!(!ours.am_member(after.unix_ms));
    assert!(ours.health(after).iter().any(|item| item.code == "network-expired"));
}

#[test]
fn an_admin_is_told_of_memberships_and_invites_that_end() {
    let mut ours = home();
    for (n, name, days) in [(1, "bob", 3), (2, "carol", 20), (3, "dave", 60)] {
        let Act::AddMember(mut new) = member(n, name) else { unreachable!() };
        new.expires_ms = Some(NOW + days * 24 * HOUR);
        do_act(&mut ours, Act::AddMember(new));
    }
    let text = |network: &Network, code: &str, at: u64| {
        network.health(moment(at)).into_iter().find(|item| item.code == code).map(|item| item.text)
    };
    let said = text(&ours, "members-expire", NOW).unwrap();
    assert!(said.contains("bob (in 3 days), carol (in 20 days)") && !said.contains("dave"), "{said}");
    let mut bobs = founded(1, Params::default());
    pull_all(&mut bobs, &ours, moment(NOW));
    assert_eq!(text(&bobs, "members-expire", NOW), None, "who is no admin can do nothing about it");
    invite(&mut ours, &SECRET, |invite| {
        (invite.max_uses, invite.not_after_ms) = (1, NOW + 24 * HOUR);
    });
    assert_eq!(text(&ours, "invites-expire", NOW), None, "one machine, one person");
    invite(&mut ours, &InviteSecret::from_bytes([3; 16]), |invite| {
        (invite.max_uses, invite.not_after_ms) = (10, NOW + 30 * 24 * HOUR + 1);
    });
    assert_eq!(text(&ours, "invites-expire", NOW), None);
    let begins = ours.next_change_ms(NOW).unwrap();
    assert_eq!(begins, NOW + 1);
    assert!(text(&ours, "invites-expire", begins).unwrap().contains("(in 30 days)"));
    ours.made.insert(InviteSecret::from_bytes([3; 16]).serial(), NOW);
    assert_eq!(text(&ours, "invites-expire", begins), None, "made just now");
    assert!(text(&ours, "invites-expire", NOW + 16 * 24 * HOUR).is_some());
}

#[test]
fn what_nobody_has_confirmed_for_a_day_is_said_over_restarts_too() {
    let mut ours = home();
    do_act(&mut ours, member(1, "bob"));
    let has = |network: &Network, at: u64| network.health(moment(at)).iter().any(|item| item.code == "head-old");
    ours.note_synced(moment(NOW).mono);
    assert!(!has(&ours, NOW + 24 * HOUR) && has(&ours, NOW + 25 * HOUR));
    assert_eq!(ours.next_change_ms(NOW), Some(NOW + 24 * HOUR + 1), "and said in time");
    (ours.dirty, ours.next_change) = (false, None);
    ours.note_synced(moment(NOW + 25 * HOUR).mono);
    assert!(ours.dirty && !has(&ours, NOW + 25 * HOUR), "and no longer than it is true");
    // After a restart the newest record tells when somebody was heard last; the first seconds are for hearing anew.
    let record = record_at(1, ours.id, 1, "1.1.1.1:1", NOW);
    ours.absorb(NOW, None, records(vec![record]));
    let later = NOW + 40 * HOUR;
    (ours.synced, ours.confirmed, ours.started, ours.started_ms) = (None, false, moment(later).mono, later);
    assert!(!has(&ours, later) && has(&ours, later + 6000));
    // Alone there is nobody to be heard.
    assert!(!has(&home(), NOW + 1000 * HOUR));
}

#[test]
fn a_quorum_that_may_be_lost_is_said() {
    let text = |network: &Network, at: u64| {
        network.health(moment(at)).into_iter().find(|item| item.code == "quorum-lost").map(|item| item.text)
    };
    let mut ours = founded(0, Params { quorum: 2, ..Params::default() });
    assert!(text(&ours, NOW).unwrap().contains("one admin, and 2 are meant"));
    do_act(&mut ours, member(1, "bob"));
    do_act(&mut ours, Act::AddAdmin { key: who(1).public().clone() });
    ours.absorb(NOW, None, records(vec![record_at(1, ours.id, 1, "1.1.1.1:1", NOW)]));
    assert_eq!(text(&ours, NOW + 7 * 24 * HOUR), None);
    let said = text(&ours, NOW + 8 * 24 * HOUR).unwrap();
    assert!(said.contains("2 of 2 admins must sign together, and 1 of them has not been heard"), "{said}");
    assert!(said.contains("pqvpn net create"), "and what is left to do");
    assert_eq!(text(&home(), NOW + 8 * 24 * HOUR), None, "one is enough by itself");
}

#[test]
fn a_clock_that_is_off_is_said() {
    let mut ours = home();
    do_act(&mut ours, member(1, "bob"));
    do_act(&mut ours, member(2, "carol"));
    let mut theirs = ours.state();
    theirs.sent_ms = NOW + HOUR;
    ours.hear(moment(NOW), who(1).peer_id(), &theirs);
    ours.hear(moment(NOW), who(2).peer_id(), &theirs);
    let item = ours.health(moment(NOW)).into_iter().find(|item| item.code == "clock-off").unwrap();
    assert!(item.text.contains("60 min behind"), "{}", item.text);
    // Half of the others are not most of them; and of two clocks nobody knows which is right.
    let right = SyncState { sent_ms: NOW + 1000, ..theirs.clone() };
    ours.hear(moment(NOW), who(2).peer_id(), &right);
    assert!(!ours.health(moment(NOW)).iter().any(|item| item.code == "clock-off"));
    ours.heard.remove(&who(2).peer_id());
    let item = ours.health(moment(NOW)).into_iter().find(|item| item.code == "clock-off").unwrap();
    assert!(item.text.contains("60 min apart"), "{}", item.text);
    theirs.sent_ms = NOW + 1000;
    ours.hear(moment(NOW), who(1).peer_id(), &theirs);
    ours.hear(moment(NOW), who(2).peer_id(), &theirs);
    assert!(!ours.health(moment(NOW)).iter().any(|item| item.code == "clock-off"));
}

#[test]
fn sessions_wait_for_a_word_of_another_or_for_the_grace() {
    let mut ours = home();
    assert!(ours.is_ready(moment(NOW)), "alone");
    do_act(&mut ours, member(1, "bob"));
    assert!(!ours.is_ready(moment(NOW)));
    assert!(ours.is_ready(moment(NOW + 5000)));
    ours.hear(
        moment(NOW),
        who(1).peer_id(),
        &SyncState { tips: vec![StatementId::from_bytes([1; 32])], ..ours.state() },
    );
    assert!(!ours.is_ready(moment(NOW)), "it knows more");
    ours.hear(moment(NOW), who(1).peer_id(), &ours.state());
    assert!(ours.is_ready(moment(NOW)));
}

#[test]
fn where_members_were_is_forgotten_with_them() {
    let mut ours = home();
    for n in [1, 2] {
        do_act(&mut ours, member(n, &format!("m{n}")));
        ours.reached_at(NOW, who(n).peer_id(), "1.2.3.4:5".parse().unwrap());
    }
    let bob = who(1).peer_id();
    do_act(&mut ours, Act::Revoke { peer: bob, reason: String::new() });
    ours.changes.clear();
    ours.prune(NOW);
    assert_eq!(ours.seen.keys().collect::<Vec<_>>(), [&who(2).peer_id()]);
    assert!(ours.changes.iter().any(|change| matches!(change, Change::Seen(_, peer, None) if *peer == bob)));
}
