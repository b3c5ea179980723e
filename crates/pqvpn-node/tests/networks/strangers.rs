// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a node in a network tells those that are no members: nothing, not even that it is in it.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use pqvpn_crypto::{
    identity::{Identity, PublicIdentity},
    peer_id::PeerId,
    proofs::schnorr::JoinContext,
    tls::{Admission, LinkCrypto, Refusal, Side},
};
use pqvpn_node::{
    link::{Backend, Connection, Endpoint, LinkConfig, PlainSocket},
    membership::{InviteOptions, NetworkReport, NetworkState},
};
use pqvpn_wire::network::{
    Beat, Bundle, Code, JoinRefusal, JoinRequest, MAX_STRANGER_MESSAGE, MemberDraft, MemberRecord, NetRequest,
    NetResponse, NetworkId, REQUEST_TYPE, RESPONSE_TYPE, Statement, StatementId, SyncState, decode_response,
    encode_request, encode_response, frame,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

use crate::nodes::{PATIENCE, TestNode, eventually, free_port, until_equal};

#[derive(Debug)]
struct Everybody;

impl Admission for Everybody {
    fn admit(&self, _: &PeerId, _: &PublicIdentity, _: Side) -> Result<(), Refusal> {
        Ok(())
    }
}

/// Somebody with an identity and a socket and no good intentions.
struct Raw {
    identity: Arc<Identity>,
    endpoint: Box<dyn Endpoint>,
    at: SocketAddr,
}

impl Raw {
    fn new() -> Self {
        Self::of(Identity::generate().unwrap())
    }

    fn of(identity: Identity) -> Self {
        let identity = Arc::new(identity);
        let crypto = Arc::new(LinkCrypto::new(Arc::clone(&identity), Arc::new(Everybody)));
        let at = free_port();
        let socket = Arc::new(PlainSocket::bind(at).unwrap());
        let endpoint = Backend::Noq.endpoint(socket, LinkConfig::new(crypto)).unwrap();
        Self { identity, endpoint, at }
    }

    async fn link(&self, node: &TestNode) -> Box<dyn Connection> {
        self.endpoint.connect(node.plan.config.node.listen[0], node.id, None).await.unwrap()
    }
}

/// Sends bytes on a stream of their own; what comes back until its end, nothing if the stream is refused.
async fn exchange(link: &dyn Connection, bytes: &[u8]) -> Vec<u8> {
    let Ok((mut send, mut recv)) = link.open_control().await else { return Vec::new() };
    // Whoever stops listening half-way says so by an error here.
    let _refused = send.write_all(bytes).await;
    let _refused = send.shutdown().await;
    let mut answer = Vec::new();
    let _refused = timeout(PATIENCE, recv.read_to_end(&mut answer)).await.expect("an end comes");
    answer
}

async fn ask(link: &dyn Connection, network: &NetworkId, request: &NetRequest) -> Option<NetResponse> {
    let bytes = exchange(link, &frame(REQUEST_TYPE, &encode_request(network, request).unwrap())).await;
    let (of, response) = decode_response(bytes.get(8..)?).unwrap();
    assert_eq!(of, *network);
    Some(response)
}

/// What a node answers to `identity` that shows these rotations.
pub(crate) async fn introduce(
    identity: Identity,
    node: &TestNode,
    network: &NetworkId,
    line: Vec<Arc<Statement>>,
) -> Option<NetResponse> {
    let raw = Raw::of(identity);
    let link = raw.link(node).await;
    ask(&*link, network, &NetRequest::Introduce { line }).await
}

fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// A join made with the code's secret, but with an exporter and a verifier of choice.
fn join(raw: &Raw, code: &Code, verifier: &PeerId, exporter: &[u8; 32]) -> NetRequest {
    let (serial, joiner) = (code.serial(), raw.identity.peer_id());
    let context = JoinContext::new(code.network.as_bytes(), serial.as_bytes(), verifier, &joiner, exporter);
    let key = code.secret.key();
    let name = "mallory".to_owned();
    NetRequest::Join(Box::new(
        JoinRequest::make(&raw.identity, (serial, &key), &context, name, now_ms(), &[1; 32]).unwrap(),
    ))
}

fn exporter(link: &dyn Connection) -> [u8; 32] {
    let mut out = [0; 32];
    link.export(b"EXPORTER-pqvpn-zk-v1", b"", &mut out).unwrap();
    out
}

#[tokio::test]
async fn who_is_no_member_cannot_tell_a_network_from_one_that_is_not_there() {
    let (alice, raw) = (TestNode::new("alice").await, Raw::new());
    let network = alice.create("home").await;
    let link = raw.link(&alice).await;
    let statement = StatementId::from_bytes(*network.id.as_bytes());
    let requests = [
        NetRequest::Sync(SyncState::default()),
        NetRequest::Sync(SyncState { cursor: Some(0), held: Some(Vec::new()), ..SyncState::default() }),
        NetRequest::Pull { ids: vec![statement] },
        NetRequest::Push(Box::default()),
        NetRequest::Ping,
        NetRequest::Beat(Beat::default()),
        NetRequest::Introduce { line: Vec::new() },
    ];
    for request in &requests {
        for id in [network.id, NetworkId::from_bytes([7; 32])] {
            assert_eq!(ask(&*link, &id, request).await, Some(NetResponse::UnknownNetwork), "{request:?}");
        }
    }
    // A join without an invite: the same.
    let code = alice.invite(InviteOptions::default()).await.parse::<Code>().unwrap();
    let mut unknown = code.clone();
    unknown.secret = pqvpn_wire::network::InviteSecret::from_bytes([1; 16]);
    let exporter = exporter(&*link);
    for network in [code.network, NetworkId::from_bytes([7; 32])] {
        unknown.network = network;
        let request = join(&raw, &unknown, &alice.id, &exporter);
        assert_eq!(ask(&*link, &network, &request).await, Some(NetResponse::UnknownNetwork));
    }
    let report = alice.network().await;
    assert!(TestNode::counter(&report, "not-a-member") >= 5 && TestNode::counter(&report, "stranger") >= 10);
    assert_eq!(report.members, 1);
}

/// Answers the first request on each stream of a link.
async fn answer_all(link: Box<dyn Connection>, network: NetworkId, answer: impl Fn(usize) -> NetResponse) {
    for turn in 0.. {
        let Ok((mut send, mut recv)) = link.accept_control().await else { return };
        let mut request = Vec::new();
        let _cut = recv.read_to_end(&mut request).await;
        let bytes = encode_response(&network, &answer(turn)).unwrap();
        let _cut = send.write_all(&frame(RESPONSE_TYPE, &bytes)).await;
        let _cut = send.shutdown().await;
    }
}

#[tokio::test]
async fn a_member_that_says_without_a_proof_that_we_are_out_changes_nothing() {
    let (alice, bob, mallory) = (TestNode::new("alice").await, TestNode::new("bob").await, Raw::new());
    alice.create("home").await;
    let code = alice.invite(InviteOptions { uses: 2, ..InviteOptions::default() }).await;
    bob.join(&code).await.unwrap();
    let code = code.parse::<Code>().unwrap();
    let link = mallory.link(&alice).await;
    let request = join(&mallory, &code, &alice.id, &exporter(&*link));
    let Some(NetResponse::Joined(bundle)) = ask(&*link, &code.network, &request).await else { panic!("not let in") };
    let record = MemberDraft {
        network: code.network,
        seq: now_ms(),
        issued_ms: now_ms(),
        not_after_ms: now_ms() + 3_600_000,
        endpoints: vec![mallory.at],
        head: [0; 32],
        left: false,
    };
    let record = Arc::new(MemberRecord::sign(record, &mallory.identity).unwrap());
    let push = NetRequest::Push(Box::new(Bundle { records: vec![record], ..Bundle::default() }));
    assert_eq!(ask(&*link, &code.network, &push).await, Some(NetResponse::Done));
    let statements = bundle.statements;
    let dialed = timeout(PATIENCE, mallory.endpoint.accept()).await.unwrap().unwrap().unwrap();
    let lie = move |turn: usize| match turn % 3 {
        0 => NetResponse::NotAMember,
        1 => NetResponse::PutOut(Box::default()),
        _ => NetResponse::PutOut(Box::new(Bundle { statements: statements.clone(), more: true, ..Bundle::default() })),
    };
    let lying = tokio::spawn(answer_all(dialed, code.network, lie));
    let told = |node: &NetworkReport| TestNode::counter(node, "put-out-unproven") > 0;
    eventually("lied to", || async { told(&alice.network().await) || told(&bob.network().await) }).await;
    for node in [&alice, &bob] {
        let report = node.network().await;
        assert_eq!((report.state, report.members), (NetworkState::Up, 3), "{report:?}");
    }
    alice.ping(&bob).await.unwrap();
    assert!(!alice.has_health("network-revoked").await && !bob.has_health("network-revoked").await);
    lying.abort();
}

#[tokio::test]
async fn a_join_counts_on_its_own_link_only() {
    let (alice, raw) = (TestNode::new("alice").await, Raw::new());
    alice.create("home").await;
    let code = alice.invite(InviteOptions::default()).await.parse::<Code>().unwrap();
    let link = raw.link(&alice).await;
    let (here, bad) = (exporter(&*link), Some(NetResponse::Refused(JoinRefusal::BadProof)));
    let elsewhere = join(&raw, &code, &alice.id, &[3; 32]);
    assert_eq!(ask(&*link, &code.network, &elsewhere).await, bad, "the exporter of another link");
    let another = join(&raw, &code, &raw.identity.peer_id(), &here);
    assert_eq!(ask(&*link, &code.network, &another).await, bad, "for another verifier");
    let somebody = Raw::new();
    let relayed = join(&somebody, &code, &alice.id, &here);
    assert_eq!(ask(&*link, &code.network, &relayed).await, bad, "of another joiner");
    assert_eq!(alice.network().await.members, 1);
    let good = join(&raw, &code, &alice.id, &here);
    assert!(matches!(ask(&*link, &code.network, &good).await, Some(NetResponse::Joined(_))));
    assert_eq!(alice.network().await.members, 2);
}

#[tokio::test]
async fn a_stranger_sends_no_more_than_a_join_and_a_flood_is_bounded() {
    let (alice, raw) = (TestNode::new("alice").await, Raw::new());
    let network = alice.create("home").await;
    let code = alice.invite(InviteOptions { uses: 10, ..InviteOptions::default() }).await;
    let parsed = code.parse::<Code>().unwrap();
    let link = raw.link(&alice).await;
    let long = frame(REQUEST_TYPE, &vec![0; MAX_STRANGER_MESSAGE + 1]);
    assert_eq!(exchange(&*link, &long).await, Vec::<u8>::new());
    assert_eq!(exchange(&*link, &frame(REQUEST_TYPE, b"rubbish")).await, Vec::<u8>::new());
    let report = alice.network().await;
    assert_eq!(TestNode::counter(&report, "stream-oversize"), 1);
    assert_eq!(TestNode::counter(&report, "stream-malformed"), 1);
    // One link asks as often as it is allowed to.
    let request = join(&raw, &parsed, &alice.id, &[3; 32]);
    let mut answered = 0;
    for _ in 0..100 {
        answered += usize::from(ask(&*link, &network.id, &request).await.is_some());
    }
    assert!(answered < 100, "{answered}");
    assert!(TestNode::counter(&alice.network().await, "stream-hurried") > 0);
    // One peer has two places, whatever it does.
    let mut links = Vec::new();
    for _ in 0..4 {
        let link = raw.link(&alice).await;
        let _answer_or_refusal =
            exchange(&*link, &frame(REQUEST_TYPE, &encode_request(&network.id, &NetRequest::Ping).unwrap())).await;
        links.push(link);
    }
    let closed = links.iter().map(|link| timeout(Duration::from_secs(5), link.closed()));
    let ended = futures_util::future::join_all(closed).await.into_iter().filter(Result::is_ok).count();
    assert!(ended >= 2, "{ended} of 4 were closed");
    // Whoever is invited gets in all the same.
    let bob = TestNode::new("bob").await;
    bob.join(&code).await.unwrap();
    until_equal(&[&alice, &bob]).await;
}
