// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a peer is told of addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use pqvpn_crypto::schedule::Role;
use pqvpn_dataplane::way::WayId;
use pqvpn_wire::dht::Admission;
use tokio::io::duplex;

use super::*;
use crate::link::fake::{Fake, Nowhere, anybody};

const PUBLIC: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(93, 184, 216, 34)), 7);
const OF_OUR_SITE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 168, 1, 7)), 7);

/// What a peer that pings us from `remote` is told: where it is seen, and where we can be dialled.
async fn told(remote: SocketAddr) -> (SocketAddr, Vec<SocketAddr>) {
    let (events, mut asked) = mpsc::channel(1);
    let endpoints: [Arc<dyn Endpoint>; 2] = [Arc::new(Nowhere::default()), Arc::new(Nowhere::default())];
    let (network, own) = (NetworkId::from_bytes([1; 32]), Arc::new(Identity::generate().unwrap()));
    let shared = Shared::new(endpoints, Arc::clone(&own), network, events);
    shared.set_contact(Some(Arc::new(Contact::new(own.peer_id(), Admission::NONE, vec![PUBLIC, OF_OUR_SITE]))));
    let peer = anybody().peer_id();
    let header = Header {
        network,
        from: peer,
        to: own.peer_id(),
        ts_ms: clock::unix_millis(),
        nonce: entropy::bytes(),
        re: None,
    };
    let request = seal_request(anybody(), &header, &Request::Ping, None).unwrap();
    let (mut ours, theirs) = duplex(1 << 16);
    let (recv, send) = tokio::io::split(theirs);
    ours.write_all(&frame(REQUEST_TYPE, &request.bytes)).await.unwrap();
    ours.shutdown().await.unwrap();
    let link = Fake::new(peer, remote, Role::Responder);
    let answering = async {
        let Some(Event::Asked(asked)) = asked.recv().await else { panic!("nothing was asked") };
        // As the DHT answers.
        asked.answer.send(Response::Pong { observed: asked.observed }).unwrap();
    };
    let (served, ()) = tokio::join!(shared.serve_stream(&link, Box::pin(send), Box::pin(recv), None), answering);
    served.unwrap();
    let mut ours: ControlRecv = Box::pin(ours);
    let bytes = read_frame(&mut ours, None, parse_frame_header, RESPONSE_TYPE, MAX_MESSAGE).await.unwrap();
    let expect = Expect { network, me: peer, now_ms: clock::unix_millis(), re: Some(request.hash) };
    let (sender, Response::Pong { observed }) = open_response(&bytes, own.public(), &expect).unwrap().body else {
        panic!("no pong")
    };
    (observed, sender.map_or_else(Vec::new, |sender| sender.addresses().to_vec()))
}

#[tokio::test]
async fn at_the_end_of_a_way_nobody_learns_its_address_or_those_of_our_site() {
    assert_eq!(told(OF_OUR_SITE).await, (OF_OUR_SITE, vec![PUBLIC, OF_OUR_SITE]));
    assert_eq!(told(PUBLIC).await, (PUBLIC, vec![PUBLIC]));
    let nowhere = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
    assert_eq!(told(WayId(7).address()).await, (nowhere, vec![PUBLIC]));
}
