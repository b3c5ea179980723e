// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which of this host's addresses packets do not leave by any more, though it still has them: the Wi-Fi's once a cable is in.
//!
//! Peers are answered from the address they spoke to, as behind a NAT they must be (RFC 8085 §5.3.1). Once the way out is
//! by another interface, packets with that source go where nobody lets them pass.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::{Arc, PoisonError, RwLock},
};

use nix::sys::socket::{setsockopt, sockopt};
use pqvpn_dataplane::MARK;

use super::{HostError, kernel::Kernel};

/// Somebody far away of each kind (a root server of the DNS), to whom nothing is sent.
const FAR: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(198, 41, 0, 4)), IpAddr::V6(Ipv6Addr::new(0x2001, 0x503, 0xba3e, 0, 0, 0, 2, 0x30))];
/// Addresses remembered: a host that moves meets many.
const MOST: usize = 64;

/// What was found at the last look; shared between who looks and who asks.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sources(Arc<RwLock<Known>>);

#[derive(Debug, Default)]
struct Known {
    /// Those the kernel chose for the world at some time.
    once: BTreeSet<IpAddr>,
    stale: Vec<IpAddr>,
}

impl Sources {
    /// Notes what the kernel chooses before anything changes.
    pub(super) fn begin(&self) {
        let chosen = FAR.map(|far| chosen_towards(far).ok());
        self.0.write().unwrap_or_else(PoisonError::into_inner).take(&chosen, &[]);
    }

    /// Looks at what the kernel does now.
    pub(super) async fn look(&self) {
        let chosen = FAR.map(|far| chosen_towards(far).ok());
        let doubtful = self.0.read().unwrap_or_else(PoisonError::into_inner).doubtful(&chosen);
        let astray = if doubtful.is_empty() { Ok(Vec::new()) } else { astray(doubtful).await };
        let astray =
            astray.inspect_err(|error| tracing::debug!(%error, "which source addresses are stale is not known"));
        self.0.write().unwrap_or_else(PoisonError::into_inner).take(&chosen, &astray.unwrap_or_default());
    }

    /// The addresses found.
    pub(crate) fn stale(&self) -> Vec<IpAddr> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).stale.clone()
    }
}

impl Known {
    /// Those that were chosen and are no more. What never was chosen is answered from for a reason of its own.
    fn doubtful(&self, chosen: &[Option<IpAddr>]) -> Vec<IpAddr> {
        self.once.iter().filter(|&&ip| !chosen.contains(&Some(ip))).copied().collect()
    }

    fn take(&mut self, chosen: &[Option<IpAddr>], astray: &[IpAddr]) {
        self.stale = self.doubtful(chosen).into_iter().filter(|ip| astray.contains(ip)).collect();
        if self.once.len() > MOST {
            let stale = &self.stale;
            self.once.retain(|ip| stale.contains(ip));
        }
        self.once.extend(chosen.iter().flatten());
    }
}

/// Those of `sources` whose packets leave into another network than theirs. Where a rule routes by source they leave by
/// their own interface; one of two interfaces in the same network may speak for the other; and an address on no interface
/// that leads anywhere is routed to this host by whoever is outside. Those that the host has lost are refused when used.
async fn astray(sources: Vec<IpAddr>) -> Result<Vec<IpAddr>, HostError> {
    let kernel = Kernel::open()?;
    let (owned, links) = (kernel.addresses().await?, kernel.links().await?);
    let leads_nowhere = |index| links.iter().any(|link| link.index == index && (link.loopback || link.dummy));
    let mut astray = Vec::new();
    for source in sources {
        let far = if source.is_ipv4() { FAR[0] } else { FAR[1] };
        let Ok(Some(out)) = kernel.way_out(source, far).await else { continue };
        let is_there = owned.iter().any(|own| own.index == out && own.subnet.contains(&source));
        let mut owners = owned.iter().filter(|own| own.address == source);
        if !is_there && owners.next().is_some_and(|own| !leads_nowhere(own.index)) {
            astray.push(source);
        }
    }
    Ok(astray)
}

/// The address that packets to `far` leave from.
fn chosen_towards(far: IpAddr) -> io::Result<IpAddr> {
    let unspecified: IpAddr = if far.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(unspecified, 0))?;
    // As our sockets' packets are; without the right to it no rule asks for the mark either.
    let _unmarked = setsockopt(&socket, sockopt::Mark, &MARK);
    socket.connect(SocketAddr::new(far, 53))?;
    Ok(socket.local_addr()?.ip())
}

#[cfg(test)]
mod tests {
    use futures_util::TryStreamExt as _;
    use rtnetlink::{
        RouteMessageBuilder,
        packet_route::{address::AddressAttribute, rule::RuleAction},
    };

    use super::{super::tests::netns::*, *};

    const OLD: &str = "192.168.7.2";
    const NEW: &str = "192.168.8.2";

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn taken(known: &mut Known, chosen: &[&str], astray: &[&str]) -> Vec<IpAddr> {
        let chosen: Vec<_> = ips(chosen).into_iter().map(Some).collect();
        known.take(&chosen, &ips(astray));
        known.stale.clone()
    }

    #[test]
    fn stale_is_what_was_chosen_and_leads_astray_now() {
        let mut known = Known::default();
        assert_eq!(taken(&mut known, &[OLD], &[]), ips(&[]));
        assert_eq!(taken(&mut known, &[OLD], &[OLD, NEW]), ips(&[]), "chosen, or never chosen");
        assert_eq!(taken(&mut known, &[NEW], &[]), ips(&[]), "it leaves by its own interface");
        assert_eq!(taken(&mut known, &[NEW], &[OLD]), ips(&[OLD]));
        assert_eq!(taken(&mut known, &[OLD], &[NEW]), ips(&[NEW]), "back again");
        assert_eq!(taken(&mut known, &[], &[OLD]), ips(&[OLD]), "no way out at all");
    }

    #[test]
    fn what_is_remembered_of_moves_has_an_end() {
        let mut known = Known::default();
        for number in 0..1000_u32 {
            known.take(&[Some(Ipv4Addr::from_bits(number).into())], &[]);
            assert!(known.once.len() <= MOST + 1);
        }
    }

    async fn remove(net: &Net, ip: &str) {
        let local = AddressAttribute::Local(ip.parse().unwrap());
        let all: Vec<_> = net.handle.address().get().execute().try_collect().await.unwrap();
        let found = all.into_iter().find(|one| one.attributes.contains(&local));
        net.handle.address().del(found.unwrap()).execute().await.unwrap();
    }

    #[test]
    fn the_old_address_is_stale_once_the_way_out_moves_unless_a_rule_leads_it_out() {
        in_namespace(async |net| {
            net.add_pair("lan1", "far2").await;
            for link in ["lan1", "far2"] {
                net.up(link).await;
            }
            net.address("lan1", "192.168.8.2/24").await;
            let way = async |link: &str, router: [u8; 4]| {
                let index = net.index(link).await.unwrap();
                RouteMessageBuilder::<Ipv4Addr>::new().gateway(router.into()).output_interface(index)
            };
            let (old, new) = (way(LAN, [192, 168, 7, 1]).await, way("lan1", [192, 168, 8, 1]).await);
            net.handle.route().add(old.clone().build()).execute().await.unwrap();
            let sources = Sources::default();
            sources.begin();
            sources.look().await;
            assert_eq!(sources.stale(), ips(&[]));
            net.handle.route().del(old.clone().build()).execute().await.unwrap();
            net.handle.route().add(new.build()).execute().await.unwrap();
            sources.look().await;
            assert_eq!(sources.stale(), ips(&[OLD]));
            net.address("lan1", "192.168.7.9/24").await;
            sources.look().await;
            assert_eq!(sources.stale(), ips(&[]), "the other one is in that network too");
            remove(&net, "192.168.7.9").await;
            sources.look().await;
            assert_eq!(sources.stale(), ips(&[OLD]));
            net.handle.route().add(old.table_id(100).build()).execute().await.unwrap();
            let by_source = net.handle.rule().add().v4().source_prefix(OLD.parse().unwrap(), 32).table_id(100);
            by_source.action(RuleAction::ToTable).execute().await.unwrap();
            sources.look().await;
            assert_eq!(sources.stale(), ips(&[]), "routed by source");
        });
    }

    #[test]
    fn an_address_that_is_routed_to_this_host_from_outside_is_never_stale() {
        in_namespace(async |net| {
            const PUBLIC: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
            net.address("lo", "203.0.113.1/32").await;
            let index = net.index(LAN).await.unwrap();
            let router = Ipv4Addr::new(192, 168, 7, 1);
            let way = RouteMessageBuilder::<Ipv4Addr>::new().gateway(router).output_interface(index);
            let with_source = way.clone().pref_source(PUBLIC).build();
            net.handle.route().add(with_source.clone()).execute().await.unwrap();
            let sources = Sources::default();
            sources.begin();
            assert_eq!(chosen_towards(FAR[0]).unwrap(), PUBLIC);
            net.handle.route().del(with_source).execute().await.unwrap();
            net.handle.route().add(way.build()).execute().await.unwrap();
            sources.look().await;
            assert_eq!((chosen_towards(FAR[0]).unwrap(), sources.stale()), (OLD.parse::<IpAddr>().unwrap(), ips(&[])));
        });
    }
}
