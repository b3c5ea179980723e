// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every limit of the wire: the largest legal value decodes, one more does not.

use std::sync::Arc;

use ipnet::Ipv4Net;
use pqvpn_crypto::identity::{CompositeSignature, SIGNATURE_LEN};
use pqvpn_wire::{
    WireError,
    network::{
        Act, BodyError, Bundle, Genesis, Invite, InviteUse, JoinRefusal, JoinRequest, MAX_LEVEL, MAX_LINE,
        MAX_NET_MESSAGE, MAX_PARENTS, MAX_STRANGER_MESSAGE, MemberDraft, MemberRecord, NetRequest, NetResponse,
        NetworkId, NewMember, Params, SignedInvite, Statement, StatementBody, StatementId, SyncState, decode_request,
        decode_response, encode_request, encode_response,
        invite::InviteError,
        is_label, label_of,
        member::MemberRecordError,
        message::{MAX_BUNDLE, MAX_BUNDLE_SMALL, MAX_IDS},
        name::{are_tags, is_tag},
        statement::{MAX_BODY_LEN, MAX_STATEMENT_LEN},
    },
};

use crate::samples::{
    NETWORK, admin, body, cover, door, genesis, identity, invite, join_request, later_acts, member, member_draft,
    new_member, pending, signed_invite, statement, statements, sync_state, v6,
};

fn refused(act: Act) -> Option<BodyError> {
    Statement::draft(body(act)).err()
}

fn ids(count: usize) -> Vec<StatementId> {
    (0..count)
        .map(|at| {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&u64::try_from(at).unwrap().to_be_bytes());
            StatementId::from_bytes(id)
        })
        .collect()
}

/// The bytes of `valid` with `from` replaced by `to`, once; both of one length.
fn patched(mut valid: Vec<u8>, from: &[u8], to: &[u8]) -> Vec<u8> {
    let at = valid.windows(from.len()).position(|window| window == from).unwrap();
    valid[at..at + from.len()].copy_from_slice(to);
    valid
}

#[test]
fn a_genesis_stands_first_and_nothing_else_does() {
    let first = || body(Act::Genesis(Box::new(genesis())));
    let later = || body(Act::Checkpoint { seal: [1; 32] });
    let zero = NetworkId::from_bytes([0; 32]);
    let misplaced = [
        StatementBody { network: NETWORK, ..first() },
        StatementBody { seq: 1, ..first() },
        StatementBody { parents: ids(1), ..first() },
        StatementBody { network: zero, ..later() },
        StatementBody { seq: 0, ..later() },
        StatementBody { parents: vec![], ..later() },
    ];
    for body in misplaced {
        assert_eq!(Statement::draft(body.clone()).err(), Some(BodyError::Place), "{body:?}");
    }
    // The reader holds to it too.
    let zeroed = patched(statement(later().act).encode(), NETWORK.as_bytes(), &[0; 32]);
    assert_eq!(Statement::decode(&zeroed), Err(WireError::Malformed("statement")));
}

#[test]
fn a_statement_stands_on_sixteen_at_most_in_order_and_once_each() {
    let with = |parents| Statement::draft(StatementBody { parents, ..body(Act::Checkpoint { seal: [1; 32] }) });
    let most = with(ids(MAX_PARENTS)).unwrap();
    assert_eq!(Statement::decode(&most.encode()).as_ref(), Ok(&most));
    assert_eq!(with(ids(MAX_PARENTS + 1)).err(), Some(BodyError::Parents));
    let twice = with(vec![ids(2)[1], ids(2)[0], ids(2)[1]]).unwrap();
    assert_eq!(twice.body().parents, ids(2));
    let (low, high) = (ids(2)[0], ids(2)[1]);
    let swapped = patched(
        patched(patched(twice.encode(), low.as_bytes(), &[0x77; 32]), high.as_bytes(), low.as_bytes()),
        &[0x77; 32],
        high.as_bytes(),
    );
    assert_eq!(Statement::decode(&swapped), Err(WireError::Malformed("statement")), "order");
    let same = patched(twice.encode(), high.as_bytes(), low.as_bytes());
    assert_eq!(Statement::decode(&same), Err(WireError::Malformed("statement")), "twice");
}

#[test]
fn signers_come_in_order_and_once_each() {
    let mut two = statement(Act::Checkpoint { seal: [1; 32] });
    two.sign(member()).unwrap();
    let [low, high] = <[_; 2]>::try_from(two.signers().copied().collect::<Vec<_>>()).unwrap();
    let same = patched(two.encode(), high.as_bytes(), low.as_bytes());
    assert_eq!(Statement::decode(&same), Err(WireError::Malformed("statement")), "twice");
    let swapped = patched(
        patched(patched(two.encode(), low.as_bytes(), &[0x77; 32]), high.as_bytes(), low.as_bytes()),
        &[0x77; 32],
        high.as_bytes(),
    );
    assert_eq!(Statement::decode(&swapped), Err(WireError::Malformed("statement")), "order");
}

#[test]
fn a_body_has_one_encoding_so_that_an_act_has_one_id() {
    let signed = statement(Act::Checkpoint { seal: [1; 32] });
    let body = signed.body_bytes();
    // Version, network, then seq 5: `18 05` says the same.
    assert_eq!(body[36], 0x05);
    let long = [&body[..36], &[0x18], &body[36..]].concat();
    let wrapped = [&[0x82, 0x58, u8::try_from(long.len()).unwrap()], long.as_slice(), &[0x80]].concat();
    assert_eq!(Statement::decode(&wrapped), Err(WireError::Malformed("statement")));
    let same = [&[0x82, 0x58, u8::try_from(body.len()).unwrap()], body, &[0x80]].concat();
    assert_eq!(Statement::decode(&same).map(|statement| statement.id()), Ok(signed.id()));
    let trailing = [&[0x82, 0x58, u8::try_from(body.len() + 1).unwrap()], body, &[0xf6, 0x80]].concat();
    assert_eq!(Statement::decode(&trailing), Err(WireError::Malformed("statement")));
}

#[test]
fn seventeen_signers_are_one_too_many() {
    let mut most = Statement::draft(body(Act::Checkpoint { seal: [1; 32] })).unwrap();
    for byte in 0..16 {
        most.add_signature([byte; 32].into(), CompositeSignature::from_bytes(&[byte; SIGNATURE_LEN]).unwrap());
    }
    let pair = [&[0x82, 0x58, 0x20][..], &[16; 32], &[0x59, 0x12, 0x53], &[16; SIGNATURE_LEN]].concat();
    let mut bytes = [most.encode(), pair].concat();
    let head = bytes.windows(4).position(|window| window == [0x90, 0x82, 0x58, 0x20]).unwrap();
    bytes[head] = 0x91;
    assert!(bytes.len() <= MAX_STATEMENT_LEN);
    assert_eq!(Statement::decode(&bytes), Err(WireError::Malformed("statement")));
}

#[test]
fn names_are_labels() {
    for good in ["a", "0", "a-b", "x1", &"n".repeat(63)] {
        assert!(is_label(good), "{good}");
        assert_eq!(refused(Act::AddMember(NewMember { name: good.to_owned(), ..new_member() })), None);
    }
    for bad in ["", "-", "-a", "a-", "A", "a.b", "a b", "a_b", "\u{e4}", "a\n", &"n".repeat(64)] {
        assert!(!is_label(bad), "{bad}");
        let act = Act::AddMember(NewMember { name: bad.to_owned(), ..new_member() });
        assert_eq!(refused(act), Some(BodyError::Name), "{bad}");
        for genesis in
            [Genesis { name: bad.to_owned(), ..genesis() }, Genesis { founder_name: bad.to_owned(), ..genesis() }]
        {
            assert_eq!(refused(Act::Genesis(Box::new(genesis))), Some(BodyError::Name), "{bad}");
        }
    }
    let bent = patched(statement(Act::AddMember(new_member())).encode(), b"phone", b"Phone");
    assert_eq!(Statement::decode(&bent), Err(WireError::Malformed("statement")));
    let join = NetRequest::Join(Box::new(join_request()));
    let bent = patched(encode_request(&NETWORK, &join).unwrap(), b"phone", b"pho\nn");
    assert_eq!(decode_request(&bent), Err(WireError::Malformed("network request")));
    let taken = NetResponse::Refused(JoinRefusal::NameTaken { suggestion: "phone-2".to_owned() });
    let bent = patched(encode_response(&NETWORK, &taken).unwrap(), b"phone-2", b"\x1b[2Jx-2");
    assert_eq!(decode_response(&bent), Err(WireError::Malformed("network response")), "a suggested name is printed");
    let waiting = Bundle { pending: vec![pending()], ..Bundle::default() };
    assert!(Bundle::decode(&patched(waiting.encode(), b"phone", b"-hone")).is_err());
}

#[test]
fn labels_are_made_from_what_people_write() {
    for (text, label) in [
        ("Ann's Laptop", "ann-s-laptop"),
        ("srv01.example.org", "srv01-example-org"),
        ("  ", ""),
        ("---x---", "x"),
        ("M\u{fc}ller", "m-ller"),
        ("\u{130}x", "i-x"),
    ] {
        assert_eq!(label_of(text), label, "{text}");
        assert!(label.is_empty() || is_label(label));
    }
    for text in ["x".repeat(100), format!("{}-y", "x".repeat(62)), "\u{fc}a".repeat(99)] {
        assert!(is_label(&label_of(&text)), "{text}");
    }
}

#[test]
fn eight_tags_at_most_in_order() {
    let tags = |count: usize| (0..count).map(|at| format!("tag{at}")).collect::<Vec<_>>();
    assert!(are_tags(&tags(8)) && !are_tags(&tags(9)));
    assert!(is_tag("a-b_c.9") && is_tag(&"t".repeat(32)));
    for bad in ["", "A", "a b", &"t".repeat(33)] {
        assert!(!is_tag(bad), "{bad}");
        let member = NewMember { tags: vec![bad.to_owned()], ..new_member() };
        assert_eq!(refused(Act::AddMember(member)), Some(BodyError::Tags), "{bad}");
        let invite = Invite { tags: vec![bad.to_owned()], ..invite() };
        assert_eq!(SignedInvite::sign(invite, admin()), Err(InviteError::Body(BodyError::Tags)));
    }
    let member = |tags| Act::AddMember(NewMember { tags, ..new_member() });
    assert_eq!(refused(member(tags(9))), Some(BodyError::Tags));
    let most = statement(member(tags(8)));
    assert_eq!(Statement::decode(&most.encode()).as_ref(), Ok(&most));
    // Drafts put tags into order; readers demand it.
    let loose = statement(member(vec!["b".to_owned(), "a".to_owned(), "b".to_owned()]));
    assert_eq!(Statement::decode(&loose.encode()).as_ref(), Ok(&loose));
    let swapped = patched(loose.encode(), &[0x61, b'a', 0x61, b'b'], &[0x61, b'b', 0x61, b'a']);
    assert_eq!(Statement::decode(&swapped), Err(WireError::Malformed("statement")));
}

#[test]
fn numbers_keep_to_their_ranges() {
    let params = |change: &dyn Fn(&mut Params)| {
        let mut params = Params::default();
        change(&mut params);
        refused(Act::SetParams(params))
    };
    let pool = |text: &str| text.parse::<Ipv4Net>().unwrap();
    assert_eq!(params(&|params| params.quorum = 16), None);
    assert_eq!(params(&|params| params.quorum = 0), Some(BodyError::Quorum));
    assert_eq!(params(&|params| params.quorum = 17), Some(BodyError::Quorum));
    for good in ["10.0.0.0/8", "100.64.0.0/10", "192.168.7.4/30"] {
        assert_eq!(params(&|params| params.ipv4_pool = pool(good)), None, "{good}");
    }
    for bad in ["0.0.0.0/0", "10.0.0.0/7", "10.0.0.0/31", "10.0.0.1/24", "8.8.8.0/24", "127.0.0.0/8", "192.0.0.0/8"] {
        assert_eq!(params(&|params| params.ipv4_pool = pool(bad)), Some(BodyError::Pool), "{bad}");
    }
    assert_eq!(params(&|params| params.max_head_age_s = 59), Some(BodyError::HeadAge));
    let member = |change: &dyn Fn(&mut NewMember)| {
        let mut member = new_member();
        change(&mut member);
        refused(Act::AddMember(member))
    };
    assert_eq!(member(&|member| member.level_cap = MAX_LEVEL), None);
    assert_eq!(member(&|member| member.level_cap = MAX_LEVEL + 1), Some(BodyError::Level));
    let serial = invite().serial;
    let unusable = member(&|member| member.invite = Some(InviteUse { serial, max_uses: 0 }));
    assert_eq!(unusable, Some(BodyError::Uses));
    let invites = [Invite { max_uses: 0, ..invite() }, Invite { level_cap: MAX_LEVEL + 1, ..invite() }];
    assert!(invites.into_iter().all(|invite| SignedInvite::sign(invite, admin()).is_err()));
    let worthless = patched(signed_invite().encode(), &[0x05, 0x19], &[0x00, 0x19]);
    assert_eq!(SignedInvite::decode(&worthless), Err(WireError::Malformed("invite")));
}

#[test]
fn reasons_are_short_and_printable() {
    let revoke = |reason: String| refused(Act::Revoke { peer: member().peer_id(), reason });
    assert_eq!(revoke("r".repeat(128)), None);
    assert_eq!(revoke(String::new()), None);
    assert_eq!(revoke("r".repeat(129)), Some(BodyError::Reason));
    assert_eq!(revoke("\u{1b}[2J".to_owned()), Some(BodyError::Reason));
    let stolen = Act::Revoke { peer: member().peer_id(), reason: "stolen".to_owned() };
    let bent = patched(statement(stolen).encode(), b"stolen", b"st\x1blen");
    assert_eq!(Statement::decode(&bent), Err(WireError::Malformed("statement")));
}

#[test]
fn a_member_record_names_eight_endpoints_at_most() {
    let with = |count| MemberDraft { endpoints: (0..count).map(v6).collect(), ..member_draft() };
    let most = MemberRecord::sign(with(8), member()).unwrap();
    assert_eq!(MemberRecord::decode(&most.encode()).as_ref(), Ok(&most));
    assert_eq!(MemberRecord::sign(with(9), member()), Err(MemberRecordError::Endpoints));
}

#[test]
fn the_longest_statement_fits() {
    let mut longest = later_acts()
        .into_iter()
        .map(|act| {
            Statement::draft(StatementBody { parents: ids(16), seq: u64::MAX, at_ms: u64::MAX, ..body(act) }).unwrap()
        })
        .max_by_key(Statement::encoded_len)
        .unwrap();
    assert_eq!(longest.body().act.name(), "rotate");
    assert!(longest.body_bytes().len() <= MAX_BODY_LEN, "{}", longest.body_bytes().len());
    for byte in 0..16 {
        longest.add_signature([byte; 32].into(), CompositeSignature::from_bytes(&[byte; SIGNATURE_LEN]).unwrap());
    }
    let bytes = longest.encode();
    assert!(bytes.len() <= MAX_STATEMENT_LEN, "{}", bytes.len());
    assert_eq!(Statement::decode(&bytes).as_ref(), Ok(&longest));
}

#[test]
fn sizes_of_what_travels() {
    let len = |act: &str| {
        statements().iter().find(|statement| statement.body().act.name() == act).map(Statement::encoded_len).unwrap()
    };
    let join = |join| encode_request(&NETWORK, &NetRequest::Join(Box::new(join))).unwrap().len();
    let longest = JoinRequest { name: "n".repeat(63), sent_ms: u64::MAX, ..join_request() };
    assert_eq!([len("genesis"), len("add-member"), len("checkpoint")], [7538, 4936, 4884]);
    assert_eq!([len("rotate"), len("leave")], [14_865, 7511]);
    assert_eq!(crate::samples::member_record().encoded_len(), 7508);
    assert_eq!(signed_invite().encode().len(), 4841);
    assert!(join(longest) <= MAX_STRANGER_MESSAGE);
    assert_eq!(join(join_request()), 7490);
}

#[test]
fn too_long_is_refused_before_it_is_read() {
    let long = |len: usize| vec![0x82; len];
    let short = WireError::Malformed;
    assert_eq!(Statement::decode(&long(MAX_STATEMENT_LEN + 1)), Err(WireError::TooLong(98_305)));
    assert_eq!(Statement::decode(&long(MAX_STATEMENT_LEN)), Err(short("statement")));
    assert_eq!(MemberRecord::decode(&long(8193)), Err(WireError::TooLong(8193)));
    assert_eq!(SignedInvite::decode(&long(6145)), Err(WireError::TooLong(6145)));
    assert_eq!(Bundle::decode(&long(MAX_NET_MESSAGE + 1)), Err(WireError::TooLong(524_289)));
    assert_eq!(decode_request(&long(MAX_NET_MESSAGE + 1)), Err(WireError::TooLong(524_289)));
    assert_eq!(decode_response(&long(MAX_NET_MESSAGE + 1)), Err(WireError::TooLong(524_289)));
}

#[test]
fn what_no_receiver_takes_is_not_sent() {
    let one = Arc::new(statement(Act::Checkpoint { seal: [1; 32] }));
    let bundle =
        |count| NetRequest::Push(Box::new(Bundle { statements: vec![one.clone(); count], ..Bundle::default() }));
    assert!(encode_request(&NETWORK, &bundle(107)).is_ok_and(|bytes| decode_request(&bytes).is_ok()));
    let refused = encode_request(&NETWORK, &bundle(108)).unwrap_err();
    assert!(refused.0 > MAX_NET_MESSAGE, "{refused}");
    let response = NetResponse::Bundle(Box::new(Bundle { statements: vec![one; 108], ..Bundle::default() }));
    assert!(encode_response(&NETWORK, &response).is_err());
}

#[test]
fn the_longest_introduction_is_short_enough_for_a_stranger_and_a_longer_one_is_not_read() {
    let (old, new) = (identity(1), identity(2));
    let act = Act::rotate(&NETWORK, old.public().clone(), &new).unwrap();
    let mut body = statement(act).body().clone();
    body.parents = (0..16).map(|at| StatementId::from_bytes([at; 32])).collect();
    let mut rotation = Statement::draft(body).unwrap();
    rotation.sign(&old).unwrap();
    let rotation = Arc::new(rotation);
    let line =
        |count| encode_request(&NETWORK, &NetRequest::Introduce { line: vec![rotation.clone(); count] }).unwrap();
    assert!(line(MAX_LINE).len() <= MAX_STRANGER_MESSAGE, "{}", line(MAX_LINE).len());
    assert!(decode_request(&line(MAX_LINE)).is_ok());
    assert!(decode_request(&line(MAX_LINE + 1)).is_err());
}

#[test]
fn lists_keep_to_their_lengths() {
    let request =
        |request: NetRequest| encode_request(&NETWORK, &request).is_ok_and(|bytes| decode_request(&bytes).is_ok());
    assert!(request(NetRequest::Pull { ids: ids(MAX_IDS) }));
    assert!(!request(NetRequest::Pull { ids: ids(MAX_IDS + 1) }));
    assert!(!request(NetRequest::Sync(SyncState { tips: ids(MAX_IDS + 1), ..sync_state() })));
    assert!(!request(NetRequest::Sync(SyncState { want: ids(MAX_IDS + 1), ..sync_state() })));
    let held = |count: u16| {
        let peer = |at: u16| {
            let mut bytes = [0; 32];
            bytes[..2].copy_from_slice(&at.to_be_bytes());
            (bytes.into(), 1)
        };
        NetRequest::Sync(SyncState { held: Some((0..count).map(peer).collect()), ..sync_state() })
    };
    assert!(request(held(4096)) && !request(held(4097)));
    let unordered = SyncState { held: Some(vec![([2; 32].into(), 1), ([1; 32].into(), 1)]), ..sync_state() };
    assert!(!request(NetRequest::Sync(unordered)));
    let alive = |count| request(NetRequest::Sync(SyncState { alive: vec![0; count], ..sync_state() }));
    assert!(alive(0) && alive(4096) && !alive(4097));
    let twice = SyncState { held: Some(vec![([2; 32].into(), 1), ([2; 32].into(), 2)]), ..sync_state() };
    assert!(!request(NetRequest::Sync(twice)));
    let response = |response| encode_response(&NETWORK, &response).is_ok_and(|bytes| decode_response(&bytes).is_ok());
    let doors = |count| NetResponse::Elsewhere { admins: (0..count).map(door).collect() };
    assert!(response(doors(4)) && !response(doors(5)));
    let bundle = |bundle: Bundle| Bundle::decode(&bundle.encode()).is_ok();
    let invites = |count| Bundle { invites: vec![signed_invite(); count], ..Bundle::default() };
    assert!(bundle(invites(MAX_BUNDLE_SMALL)) && !bundle(invites(MAX_BUNDLE_SMALL + 1)));
    let one = Arc::new(cover());
    let covers = |count| Bundle { covers: vec![Arc::clone(&one); count], ..Bundle::default() };
    assert!(bundle(covers(4)) && !bundle(covers(5)));
    let pending = |count| Bundle { pending: vec![pending(); count], ..Bundle::default() };
    assert!(bundle(pending(MAX_BUNDLE_SMALL)) && !bundle(pending(MAX_BUNDLE_SMALL + 1)));
    // 512 statements never fit 512 KiB; the bound is for what is short and malformed.
    let mut bytes = vec![0x85, 0x99, 2, 1];
    bytes.extend(vec![0x40; MAX_BUNDLE + 1]);
    bytes.extend([0x80, 0x80, 0x80, 0xf4]);
    assert!(Bundle::decode(&bytes).is_err());
}

#[test]
fn deep_nesting_and_huge_lengths_are_refused() {
    for depth in [9, 1000, 30_000] {
        let bytes = [vec![0x81; depth], vec![0]].concat();
        assert!(decode_request(&bytes).is_err() && decode_response(&bytes).is_err());
        assert!(Statement::decode(&bytes).is_err() && Bundle::decode(&bytes).is_err());
        assert!(MemberRecord::decode(&bytes[bytes.len().saturating_sub(8000)..]).is_err());
    }
    for head in [0x5b, 0x7b, 0x9b, 0xbb] {
        let bytes = [&[0x82, head][..], &[0x7f; 8], &[0; 40]].concat();
        assert!(decode_request(&bytes).is_err() && Statement::decode(&bytes).is_err(), "{head:x}");
    }
}
