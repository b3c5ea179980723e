// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why packets take a relay, and what would change that, in words for people.

use crate::netcheck::MappingState;

/// What is known when a path goes through somebody else.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Relayed {
    /// Whether a try for a direct way has come to nothing yet.
    pub(crate) tried: bool,
    /// Whether our NAT gives every peer another port.
    pub(crate) ours_varies: bool,
    /// Whether the peer's NAT does, as far as it said anything.
    pub(crate) theirs_varies: Option<bool>,
    /// How the mapping of our port stands.
    pub(crate) mapping: MappingState,
    /// The port that would have to be forwarded.
    pub(crate) port: Option<u16>,
}

impl Relayed {
    /// One line: what is in the way, and what would help.
    pub(crate) fn text(self) -> String {
        if !self.tried {
            return "the direct way is being tried".to_owned();
        }
        let obstacle = match (self.ours_varies, self.theirs_varies) {
            (true, Some(true)) => "the NATs of both ends give every peer another port",
            (true, _) => "the NAT here gives every peer another port",
            (false, Some(true)) => "the NAT of the peer gives every peer another port",
            (false, None) => "the peer has not told where it may be reached directly",
            (false, Some(false)) => "no address that either end told answers: a firewall is in the way",
        };
        format!("{obstacle}: {}", self.remedy())
    }

    fn remedy(self) -> String {
        let forward = self.port.map_or_else(|| "forward its UDP port".to_owned(), |port| format!("forward UDP {port}"));
        match self.mapping {
            MappingState::Mapped => {
                "the router here does forward a port, so look at firewalls, and at the router of the peer".to_owned()
            }
            MappingState::Off => format!("set node.port_mapping = true, or {forward} to this host"),
            MappingState::NotNeeded => "a firewall between here and the peer lets no UDP through".to_owned(),
            MappingState::Refused | MappingState::NoRouter | MappingState::Asking | MappingState::Paused => {
                format!(
                    "enable UPnP, NAT-PMP or PCP on the router here, or {forward} to this host; at the peer helps as well"
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FACTS: Relayed = Relayed {
        tried: true,
        ours_varies: true,
        theirs_varies: Some(false),
        mapping: MappingState::Refused,
        port: Some(41641),
    };

    #[test]
    fn the_obstacle_and_what_would_help_are_named() {
        let text = FACTS.text();
        assert!(text.starts_with("the NAT here gives every peer another port: enable UPnP"), "{text}");
        assert!(text.contains("UDP 41641"), "{text}");
        let both = Relayed { theirs_varies: Some(true), ..FACTS }.text();
        assert!(both.contains("both ends"), "{both}");
        let off = Relayed { mapping: MappingState::Off, ..FACTS }.text();
        assert!(off.contains("node.port_mapping = true"), "{off}");
        let firewall = Relayed { ours_varies: false, ..FACTS }.text();
        assert!(firewall.contains("firewall"), "{firewall}");
    }

    #[test]
    fn nothing_is_blamed_before_anything_was_tried() {
        assert_eq!(Relayed { tried: false, ..FACTS }.text(), "the direct way is being tried");
    }
}
