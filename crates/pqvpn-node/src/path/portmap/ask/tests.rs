// SPDX-License-Identifier: MIT OR Apache-2.0
//! What routers may claim, and one that lies.

use tokio::net::UdpSocket;

use super::*;

const GATEWAY: Gateway = Gateway { router: Ipv4Addr::new(192, 168, 1, 1), own: Ipv4Addr::new(192, 168, 1, 10) };

fn judged(external: &str) -> Result<bool, Lie> {
    judge(GATEWAY, external.parse().expect("an address"))
}

#[test]
fn an_outside_address_that_no_router_has_is_a_lie() {
    for at in ["127.0.0.1:7", "224.0.0.1:7", "0.0.0.0:7", "169.254.3.4:7", "255.255.255.255:7", "20.1.2.3:0"] {
        assert!(matches!(judged(at), Err(Lie::Nowhere(_))), "{at}");
    }
    for at in ["240.0.0.1:7", "[::ffff:127.0.0.1]:7", "198.18.0.1:7"] {
        assert!(matches!(judged(at), Err(Lie::Nowhere(_))), "{at}");
    }
    assert_eq!(judged("192.168.1.1:7"), Err(Lie::Inside));
    assert_eq!(judged("192.168.1.10:7"), Err(Lie::Inside));
    assert_eq!(judged("[2600::1]:7"), Err(Lie::Family));
}

#[test]
fn private_outside_addresses_are_for_neighbours_only() {
    assert_eq!(judged("20.1.2.3:41641"), Ok(true));
    assert_eq!(judged("[::ffff:20.1.2.3]:41641"), Ok(true));
    assert_eq!(judged("100.64.7.2:41641"), Ok(false));
    assert_eq!(judged("10.0.0.5:41641"), Ok(false));
}

#[test]
fn only_the_router_opens_ports() {
    assert!(is_router(GATEWAY, SocketAddr::from((GATEWAY.router, 5000))));
    assert!(!is_router(GATEWAY, "192.168.1.77:5000".parse().expect("an address")));
}

/// A router that knows NAT-PMP (RFC 6886) and nothing newer, and says that its outside is `outside`. Ends with the
/// lifetimes it was asked for once it has been asked to forget.
async fn router(socket: UdpSocket, outside: Ipv4Addr) -> Vec<u32> {
    let (mut lifetimes, mut packet) = (Vec::new(), [0; 128]);
    loop {
        let (length, from) = socket.recv_from(&mut packet).await.expect("a question");
        let mut answer = vec![0, 128 + packet[1], 0, 0, 0, 0, 0, 9];
        match (packet[0], packet[1], length) {
            (0, 0, 2) => answer.extend(outside.octets()),
            (0, 1, 12) => {
                lifetimes.push(u32::from_be_bytes(packet[8..12].try_into().expect("four bytes")));
                answer.extend_from_slice(&packet[4..12]);
            }
            (2, ..) => answer = vec![0, 128 + packet[1], 0, 1, 0, 0, 0, 9],
            other => panic!("not asked that way: {other:?}"),
        }
        socket.send_to(&answer, from).await.expect("sent");
        if lifetimes.last() == Some(&0) {
            return lifetimes;
        }
    }
}

async fn asked(last: u8, outside: [u8; 4]) -> (Result<Granted, AskError>, Gateway, tokio::task::JoinHandle<Vec<u32>>) {
    let gateway = Gateway { router: Ipv4Addr::new(127, 53, 51, last), own: Ipv4Addr::LOCALHOST };
    let socket = UdpSocket::bind((gateway.router, crab_nat::GATEWAY_PORT)).await.expect("an address of our own");
    let router = tokio::spawn(router(socket, outside.into()));
    let port = NonZeroU16::new(41641).expect("a port");
    assert!(matches!(by_pcp(gateway, port).await, Err(AskError::Failed { protocol: MappingProtocol::Pcp, .. })));
    (by_nat_pmp(gateway, port).await, gateway, router)
}

#[tokio::test]
async fn a_router_that_lies_is_not_believed_and_has_to_forget_the_port() {
    let (answer, _, router) = asked(7, [127, 0, 0, 1]).await;
    assert!(matches!(answer, Err(AskError::Lied { lie: Lie::Inside, .. })), "{answer:?}");
    assert_eq!(router.await.expect("the router ends"), [1200, 0]);
    let (answer, _, router) = asked(8, [239, 1, 2, 3]).await;
    assert!(matches!(answer, Err(AskError::Lied { lie: Lie::Nowhere(_), .. })), "{answer:?}");
    assert_eq!(router.await.expect("the router ends"), [1200, 0]);
}

#[tokio::test]
async fn a_mapping_is_asked_for_again_and_given_back() {
    let (answer, gateway, router) = asked(9, [20, 1, 2, 3]).await;
    let granted = answer.expect("granted");
    assert_eq!((granted.external, granted.public), ("20.1.2.3:41641".parse().expect("it"), true));
    let port = NonZeroU16::new(41641).expect("a port");
    let again = renew(gateway, port, granted).await.expect("granted again");
    assert_eq!(again.protocol(), MappingProtocol::NatPmp);
    again.give_back(gateway).await;
    assert_eq!(router.await.expect("the router ends"), [1200, 1200, 0]);
}
