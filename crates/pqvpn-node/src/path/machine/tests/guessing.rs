// SPDX-License-Identifier: MIT OR Apache-2.0
//! Port guessing between two ends, and what nobody can make of it.

use std::net::Ipv4Addr;

use super::*;

#[test]
fn a_symmetric_router_is_met_by_guessing_whoever_knows_of_it() {
    let pairs = [Router::Restricted, Router::Masquerade]
        .into_iter()
        .flat_map(|easy| [[Router::Symmetric, easy], [easy, Router::Symmetric]]);
    for (routers, knows) in pairs.flat_map(|pair| [false, true].map(|knows| (pair, knows))) {
        let mut world = World::new(routers);
        for end in &mut world.ends {
            end.varies = knows && end.router == Router::Symmetric;
        }
        world.run(Duration::from_secs(6));
        assert_eq!(world.direct(), [true, true], "knows: {knows}");
        assert!(world.ends.iter().all(|end| end.guesses.len() <= 1));
        assert!(world.ends.iter().all(|end| end.uses.iter().all(|(after, _)| *after < Duration::from_secs(4))));
        // One way only: the end that cannot guess did not.
        let sprayed = world.ends.iter().filter(|end| end.checks > 100).count();
        assert!(sprayed <= if knows { 1 } else { 2 });
    }
}

#[test]
fn two_that_know_their_routers_to_be_symmetric_guess_nothing() {
    let mut world = World::new([Router::Symmetric; 2]);
    world.ends.iter_mut().for_each(|end| end.varies = true);
    world.run(Duration::from_secs(600));
    assert_eq!(world.direct(), [false, false]);
    assert!(world.ends.iter().all(|end| end.guesses.is_empty()));
}

#[test]
fn whatever_a_peer_says_it_is_guessed_once_a_minute_and_then_ever_more_rarely() {
    let (now, victim) = (Instant::now(), SocketAddr::from(([203, 0, 113, 9], 9)));
    let mut paths = Paths::new(true, &[7; 32]);
    paths.on_session(now, way());
    let (mut guesses, mut sent) = (0, BTreeMap::<u64, u32>::new());
    for second in 0..3600u64 {
        let time = now + Duration::from_secs(second);
        paths.on_told(time, told(second % 2 == 0), &[victim]);
        paths.handle_timeout(time);
        while let Some(action) = paths.poll_action() {
            if action == Action::Guess {
                guesses += usize::from(paths.guess(time, false, second));
            } else if let Action::Check { to, .. } = action {
                assert_eq!(to.ip(), victim.ip());
                *sent.entry(second / 60).or_default() += 1;
            }
        }
        if second % 600 == 599 {
            // Ending the session does not begin it anew.
            paths.on_gone();
            paths.on_session(time, way());
        }
    }
    assert!((3..=6).contains(&guesses), "{guesses}");
    assert!(sent.values().all(|count| *count < u32::from(guess::PORTS) + 400), "{sent:?}");
}

#[test]
fn nobody_is_made_to_guess_inside_a_network() {
    let now = Instant::now();
    let mut paths = Paths::new(true, &[7; 32]);
    paths.on_session(now, way());
    let inside = ["10.0.0.1:7", "192.168.1.5:7", "172.16.0.1:7", "100.64.0.9:7", "127.0.0.1:7", "[2001:db8::1]:7"];
    let later = now + Duration::from_secs(5);
    paths.on_told(later, told(false), &inside.map(|at| at.parse().unwrap()));
    assert!(!std::iter::from_fn(|| paths.poll_action()).any(|action| action == Action::Guess));
    assert!(!paths.guess(later, false, 1), "there is nowhere to guess");
}

/// What the peer names: the address of a router that gives each destination another port.
const NAMED: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)), 9);

/// A relayed session with a guess begun, and when.
fn guessing() -> (Paths, Instant) {
    let now = Instant::now();
    let mut paths = Paths::new(true, &[7; 32]);
    paths.on_session(now, way());
    let later = now + Duration::from_secs(5);
    paths.on_told(later, told(true), &[NAMED]);
    assert!(paths.guess(later, false, 7));
    (paths, later)
}

/// The checks of guessed ports that are due.
fn guessed(paths: &mut Paths) -> Vec<(u64, SocketAddr)> {
    let check = |action| if let Action::Check { id, to } = action { (to != NAMED).then_some((id, to)) } else { None };
    std::iter::from_fn(|| paths.poll_action()).filter_map(check).collect()
}

#[test]
fn an_answer_to_a_guess_from_a_port_that_was_not_guessed_moves_no_path() {
    let (mut paths, later) = guessing();
    let (id, to) = guessed(&mut paths)[0];
    let elsewhere = SocketAddr::new(to.ip(), to.port() ^ 1);
    assert_eq!(paths.on_ack(later, id, elsewhere, later), None);
    assert_eq!(paths.on_ack(later, id ^ 1, to, later), None);
    assert_eq!(paths.current, Some(way()));
    assert!(paths.on_ack(later, id, to, later).is_some());
    assert_eq!(paths.current, Some(to));
}

#[test]
fn however_many_guesses_a_peer_answers_few_addresses_are_known() {
    let (mut paths, later) = guessing();
    paths.handle_timeout(later + Duration::from_millis(1400));
    let all = guessed(&mut paths);
    assert_eq!(all.len(), usize::from(guess::PORTS));
    // The guess ends with the first that moves the path: the answers that come in the same moment are all of one guess.
    let guess = paths.guess.take();
    let mut hits = 0;
    for (_, to) in all {
        paths.guess =
            guess.as_ref().map(|_| Guess::new(later, guess::Part::of(false, true).unwrap(), NAMED, 7).unwrap());
        hits += usize::from(paths.on_hit(later, to, Duration::from_millis(9)).is_some());
    }
    assert_eq!(hits, usize::from(guess::PORTS));
    assert!(paths.tried.len() <= MAX_TRIED, "{}", paths.tried.len());
}
