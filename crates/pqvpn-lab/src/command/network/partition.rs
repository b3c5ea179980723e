// SPDX-License-Identifier: MIT OR Apache-2.0
//! `pqvpn-lab partition`: a network cut in two, an admin on each side who goes on; then the cut heals.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use ipnet::Ipv4Net;
use pqvpn_lab::impair;
use pqvpn_lab::netns::Namespace;
use pqvpn_lab::report::{Op, Report};
use pqvpn_packet::addr::ipv4_candidate;
use serde_json::Value;

use super::{Member, Mesh, SETTLE, look, rounded, say};

/// The network's IPv4 addresses: so few that two nodes which want the same one are soon found.
const POOL: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 77, 5, 0), 24);
/// Most identities made for each side until two want the same address, one in 254.
const TRIES: usize = 254;
/// How long the halves may take to be one again before the run gives up.
const HEAL: Duration = Duration::from_secs(60);
/// The name two newcomers ask for, one on each side.
const GUEST: &str = "guest";

/// How many.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Members before the cut, half of them on each side.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u8).range(6..=60))]
    nodes: u8,
    /// How long the cut lasts after both sides have gone on; links end by themselves meanwhile.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u16).range(0..=3600))]
    cut_seconds: u16,
}

/// Who does what, by index.
struct Roles {
    /// Admin on the first side: the founder.
    left: usize,
    /// Admin on the second side.
    right: usize,
    /// Member on the first side, whom the second revokes.
    revoked_left: usize,
    /// Member on the second side, whom the first revokes.
    revoked_right: usize,
    /// Newcomers, one on each side, with one name and one address.
    guests: [usize; 2],
}

impl Roles {
    fn is_revoked(&self, index: usize) -> bool {
        [self.revoked_left, self.revoked_right].contains(&index)
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Report> {
    let mut report = Report::new("partition");
    let count = usize::from(args.nodes);
    report.figure("nodes", args.nodes);
    let right = count / 2;
    let guests = [count, count + 1];
    let roles = Roles { left: 0, right, revoked_left: 2, revoked_right: right + 1, guests };
    let name = |index| if index < count { format!("n{index:02}") } else { GUEST.to_owned() };
    let mut mesh = Mesh::build(args.nodes + 2, name)?;
    mesh.found(count, &["--pool", &POOL.to_string()])?;
    let second = mesh.members[right].name.clone();
    mesh.members[0].json(&["lock", "add", &second])?;
    Mesh::settle(&mesh.running().collect::<Vec<_>>(), SETTLE)?;
    collide(&mut mesh, &roles)?;

    say("the network is cut in two");
    let sides: [Vec<usize>; 2] = [(0..right).chain([guests[0]]).collect(), (right..count).chain([guests[1]]).collect()];
    let cut = Cut::make(&mesh.internet.router, &sides)?;
    let shared = both_sides_go_on(&mut mesh, &roles, &mut report)?;
    // The scenario itself: a cut that lasts. A short one heals as a connection does, a long one as a network.
    say(&format!("the cut lasts for {} s", args.cut_seconds));
    thread::sleep(Duration::from_secs(args.cut_seconds.into()));
    report.figure("cut_s", args.cut_seconds);
    cut.heal()?;
    heals(&mesh, &roles, shared, &mut report)?;
    mesh.stop()?;
    Ok(report)
}

/// Gives the guests identities that want the same address, which nobody else has.
fn collide(mesh: &mut Mesh, roles: &Roles) -> anyhow::Result<()> {
    say("looking for two identities that want the same address");
    let mut taken = BTreeSet::new();
    for member in mesh.running() {
        taken.extend(member.addresses()?);
    }
    let program = mesh.program.clone();
    let more = mesh.members[roles.guests[0]].more.clone();
    let hosts = roles.guests.map(|guest| mesh.members[guest].node.host.clone());
    // One of each kind more in each turn: of twenty by twenty, two fit more often than not.
    let mut made: [BTreeMap<Ipv4Addr, Member>; 2] = [BTreeMap::new(), BTreeMap::new()];
    for _ in 0..TRIES {
        for (side, other) in [(0, 1), (1, 0)] {
            let member = Member::make(&program, &hosts[side], GUEST, &more)?;
            let wanted = wants(&member)?;
            if taken.contains(&IpAddr::V4(wanted)) {
                continue;
            }
            if let Some(rival) = made[other].remove(&wanted) {
                mesh.members[roles.guests[side]] = member;
                mesh.members[roles.guests[other]] = rival;
                return Ok(());
            }
            made[side].insert(wanted, member);
        }
    }
    anyhow::bail!("no two identities that want the same address in {TRIES} tries")
}

/// The address a node takes where nobody has it yet.
fn wants(member: &Member) -> anyhow::Result<Ipv4Addr> {
    let id = member.peer_id()?;
    let mut bytes = [0; 32];
    for (byte, digits) in bytes.iter_mut().zip(id.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits)?, 16)?;
    }
    Ok(ipv4_candidate(POOL, &bytes, 0))
}

/// A cut between two sets of hosts, at their router.
struct Cut {
    router: Namespace,
}

impl Cut {
    fn make(router: &Namespace, sides: &[Vec<usize>; 2]) -> anyhow::Result<Self> {
        let [left, right] = sides.each_ref().map(|side| {
            let ports: Vec<String> = side.iter().map(|number| format!("\"port{number}\"")).collect();
            ports.join(", ")
        });
        impair::nft(
            router,
            &format!(
                "table inet cut {{\n chain c {{\n  type filter hook forward priority -300; policy accept;\n  \
                 iifname {{ {left} }} oifname {{ {right} }} drop\n  iifname {{ {right} }} oifname {{ {left} }} drop\n }}\n}}\n"
            ),
        )?;
        Ok(Self { router: router.clone() })
    }

    fn heal(self) -> anyhow::Result<()> {
        Ok(impair::nft(&self.router, "delete table inet cut\n")?)
    }
}

/// Each side revokes a member of the other and lets a newcomer in; gives the address both newcomers have then.
fn both_sides_go_on(mesh: &mut Mesh, roles: &Roles, report: &mut Report) -> anyhow::Result<IpAddr> {
    for (admin, victim, guest) in
        [(roles.left, roles.revoked_right, roles.guests[0]), (roles.right, roles.revoked_left, roles.guests[1])]
    {
        mesh.members[guest].start()?;
        let victim = mesh.members[victim].name.clone();
        let admin = &mesh.members[admin];
        admin.json(&["revoke", &victim, "--reason", "during the cut"])?;
        let code = admin.invite(1)?;
        mesh.members[guest].join(&code).with_context(|| format!("a guest joins at {}", admin.name))?;
    }
    let address = |guest: usize| {
        let addresses = mesh.members[guest].addresses()?;
        addresses.into_iter().find(IpAddr::is_ipv4).context("an IPv4 address")
    };
    let [first, second] = [address(roles.guests[0])?, address(roles.guests[1])?];
    report.figure("address_left", first.to_string());
    report.figure("address_right", second.to_string());
    report.figure("collision", u8::from(first == second));
    report.bar("collision", Op::Equal, 1.0);
    let heads = [roles.left, roles.right].map(|index| mesh.members[index].head());
    let [left, right] = heads;
    report.figure("heads_differ", u8::from(left? != right?));
    report.bar("heads_differ", Op::Equal, 1.0);
    Ok(first)
}

/// One network again: the same statements everywhere, no revoked member back, and one owner to each address.
fn heals(mesh: &Mesh, roles: &Roles, shared: IpAddr, report: &mut Report) -> anyhow::Result<()> {
    say("the cut heals");
    let start = Instant::now();
    let here: Vec<&Member> =
        mesh.members.iter().enumerate().filter(|(index, _)| !roles.is_revoked(*index)).map(|(_, one)| one).collect();
    let [first, second] = roles.guests.map(|guest| &mesh.members[guest]);
    // Looked at on a thread of its own: the nodes may be equal before or after.
    let apart = thread::scope(|scope| {
        let apart = scope.spawn(|| {
            let owns = |guest: &Member| guest.addresses().is_ok_and(|addresses| addresses.contains(&shared));
            let moved =
                look("one owner of the address", HEAL, || (!(owns(first) && owns(second))).then(|| start.elapsed()));
            moved.map_or(HEAL, |after| after)
        });
        let settled = Mesh::settle(&here, HEAL);
        let equal = start.elapsed();
        let apart = apart.join().unwrap_or(HEAL);
        settled.map(|names| (names, equal, apart))
    });
    let (names, equal, apart) = apart?;
    report.figure("equal_s", rounded(equal.as_secs_f64()));
    report.bar("equal_s", Op::AtMost, 10.0);
    report.figure("address_shared_s", rounded(apart.as_secs_f64()));
    report.bar("address_shared_s", Op::AtMost, 10.0);
    report.figure("members", names.len());
    let back =
        mesh.members.iter().enumerate().filter(|(index, one)| roles.is_revoked(*index) && names.contains(&one.name));
    report.figure("revoked_back", back.count());
    report.bar("revoked_back", Op::Equal, 0.0);
    report.figure("guests", names.iter().filter(|name| name.starts_with(GUEST)).count());
    report.bar("guests", Op::Equal, 2.0);
    report.figure("shared_addresses", duplicates(&here)?);
    report.bar("shared_addresses", Op::Equal, 0.0);
    says_so(&[first, second], shared, report)?;
    meet(first, second, report)
}

/// IPv4 addresses that more than one member has, as any of the nodes sees it.
fn duplicates(members: &[&Member]) -> anyhow::Result<usize> {
    let mut worst = 0;
    for member in members {
        let list = member.json(&["members"])?;
        let mut seen = BTreeSet::new();
        let all = list["members"].as_array().context("members")?.iter().flat_map(|one| one["addresses"].as_array());
        let all = all.flatten().filter_map(Value::as_str).filter(|text| !text.contains(':'));
        worst = worst.max(all.filter(|text| !seen.insert((*text).to_owned())).count());
    }
    Ok(worst)
}

/// Exactly the loser of the address tells its user.
fn says_so(guests: &[&Member; 2], shared: IpAddr, report: &mut Report) -> anyhow::Result<()> {
    let mut said = 0;
    for guest in guests {
        let network = guest.network()?;
        let lost = !guest.addresses()?.contains(&shared);
        let health = network["health"].as_array().context("health")?;
        let item =
            health.iter().find(|item| item["text"].as_str().is_some_and(|text| text.contains(&shared.to_string())));
        if let Some(item) = item {
            said += i32::from(lost);
            let who = network["own_name"].clone();
            report.row([("who", who), ("code", item["code"].clone()), ("says", item["text"].clone())]);
        }
    }
    report.figure("loser_said_so", said);
    report.bar("loser_said_so", Op::Equal, 1.0);
    Ok(())
}

/// The newcomers of both sides reach each other under the names they ended with.
fn meet(first: &Member, second: &Member, report: &mut Report) -> anyhow::Result<()> {
    let name = |of: &Member| Ok::<_, anyhow::Error>(of.network()?["own_name"].as_str().unwrap_or_default().to_owned());
    let names = [name(first)?, name(second)?];
    report.figure("names", names.join(" "));
    let met = look("the newcomers to meet", HEAL, || first.ping(&names[1], Duration::from_secs(5)).ok());
    report.figure("guests_met", u8::from(met.is_ok()));
    report.bar("guests_met", Op::Equal, 1.0);
    Ok(())
}
