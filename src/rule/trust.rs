use std::net::IpAddr;

use ipnet::IpNet;

use super::Jwt;

/// Who is trusted to identify clients.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    /// `server.trusted_proxies`
    pub proxies: TrustedProxies,
    /// `[jwt]`
    pub jwt: Option<Jwt>,
}

/// The networks of proxies whose `X-Forwarded-For` and `X-Forwarded-Host` are trusted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    /// The proxies of these networks, and no others.
    pub const fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    /// Whether this address belongs to one of them. `address` is canonical: no IPv4-mapped IPv6 address.
    pub fn contain(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether they include all addresses of IPv4 or of IPv6.
    pub fn contain_everybody(&self) -> bool {
        self.0.iter().any(|network| network.prefix_len() == 0)
    }

    /// Whether the peer of a connection is one of them. A peer without an address is on a Unix socket of this machine, and
    /// is trusted if any proxy is.
    pub fn contain_peer(&self, peer: Option<IpAddr>) -> bool {
        peer.map_or(!self.0.is_empty(), |address| self.contain(address.to_canonical()))
    }
}
