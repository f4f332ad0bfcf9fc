use std::net::IpAddr;

use ipnet::IpNet;

use super::Jwt;

/// Whose word we take for who a client is.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    /// `server.trusted_proxies`
    pub proxies: TrustedProxies,
    /// `[jwt]`
    pub jwt: Option<Jwt>,
}

/// The networks of proxies in front of us that tell the truth in `X-Forwarded-For` and `X-Forwarded-Host`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    /// The proxies of these networks, and no others.
    pub const fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    /// Whether whoever has this address is one of them. `address` is canonical: an IPv4 address is not dressed up as an
    /// IPv6 one.
    pub fn contain(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }

    /// Whether nobody is.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether everybody with an address of some family is.
    pub fn contain_everybody(&self) -> bool {
        self.0.iter().any(|network| network.prefix_len() == 0)
    }

    /// Whether the peer of a connection is one of them. A peer without an address is on a Unix socket of this very
    /// machine: it is believed where any proxy is.
    pub fn contain_peer(&self, peer: Option<IpAddr>) -> bool {
        peer.map_or(!self.0.is_empty(), |address| self.contain(address.to_canonical()))
    }
}
