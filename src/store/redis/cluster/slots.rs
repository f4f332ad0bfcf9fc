//! The slots of a Redis Cluster: the slot of a name, and the owners of the slots as nodes report them. No I/O.

use std::collections::HashMap;

use redis::{RedisResult, Value};

use crate::config::StoreEndpoint;

/// The number of slots.
pub(in crate::store::redis) const SLOTS: usize = 16384;

/// The slot of a name without braces, given in parts. (If a name has braces, only the part between them counts.)
pub(in crate::store::redis) fn slot_of(parts: &[&[u8]]) -> u16 {
    let bytes = parts.iter().flat_map(|part| part.iter());
    let crc = bytes.fold(0_u16, |crc, &byte| (crc << 8) ^ CRC16[usize::from((crc >> 8) as u8 ^ byte)]);
    crc % SLOTS as u16
}

/// The table for CRC-16/XMODEM, one entry for each byte value.
const CRC16: [u16; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let (mut crc, mut bit) = ((byte as u16) << 8, 0);
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

/// A set of slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store::redis) struct SlotSet(Box<[u64; SLOTS / 64]>);

impl SlotSet {
    pub(in crate::store::redis) fn new(slots: impl Iterator<Item = u16>) -> Self {
        let mut set = Self(Box::new([0; SLOTS / 64]));
        for slot in slots {
            set.0[usize::from(slot) / 64] |= 1 << (slot % 64);
        }
        set
    }

    pub(super) fn has(&self, slot: u16) -> bool {
        self.0[usize::from(slot) / 64] >> (slot % 64) & 1 == 1
    }

    /// A name that begins with `base` and lies in one of these slots, after `skip` other such names.
    pub(in crate::store::redis) fn name(&self, base: &str, skip: usize) -> Option<String> {
        let candidates = (0..SLOTS * 16).map(|number| format!("{base}:{number}"));
        candidates.filter(|name| self.has(slot_of(&[name.as_bytes()]))).nth(skip)
    }
}

/// The owners of the slots, as one node reports them.
#[derive(Debug, Clone, Default)]
pub(super) struct NodeView {
    /// Each range has its first and last slot and its owner.
    ranges: Vec<(u16, u16, SlotPrimary)>,
}

/// A primary, as a node reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct SlotPrimary {
    endpoint: StoreEndpoint,
    /// The configuration epoch. If two nodes claim a slot, the one with the higher epoch owns it.
    epoch: u64,
}

/// The owner of each slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SlotOwners {
    pub(super) endpoints: Vec<StoreEndpoint>,
    /// The index in `endpoints` of the node that serves a slot.
    pub(super) of_slot: Box<[Option<u16>]>,
}

impl NodeView {
    /// Reads the replies to `CLUSTER SLOTS` and `CLUSTER NODES`. A node that does not know its own address omits it.
    /// The address is then the one that was asked.
    pub(super) fn of(slots: Value, nodes: RedisResult<Value>, asked: &StoreEndpoint) -> Option<Self> {
        let nodes = nodes.ok().and_then(|nodes| redis::from_redis_value::<String>(nodes).ok());
        let epochs = epochs(nodes.as_deref().unwrap_or_default());
        let Value::Array(ranges) = slots else { return None };
        let ranges = ranges.into_iter().filter_map(|range| read(range, &epochs, asked)).collect();
        Some(Self { ranges })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }
}

/// The configuration epoch of each node, by node ID. If this is empty, all nodes are believed equally.
fn epochs(nodes: &str) -> HashMap<&str, u64> {
    let epoch = |line: &str| line.split(' ').nth(6)?.parse().ok();
    nodes.lines().filter_map(|line| Some((line.split(' ').next()?, epoch(line)?))).collect()
}

fn read(range: Value, epochs: &HashMap<&str, u64>, asked: &StoreEndpoint) -> Option<(u16, u16, SlotPrimary)> {
    let Value::Array(range) = range else { return None };
    let mut range = range.into_iter();
    let mut number = || redis::from_redis_value::<u16>(range.next()?).ok();
    let (first, last) = (number()?, number()?);
    let Value::Array(node) = range.next()? else { return None };
    let mut node = node.into_iter();
    let host: Option<String> = redis::from_redis_value(node.next()?).ok()?;
    let port: u16 = redis::from_redis_value(node.next()?).ok()?;
    let id: Option<String> = node.next().and_then(|id| redis::from_redis_value(id).ok());
    let epoch = id.and_then(|id| epochs.get(id.as_str()).copied()).unwrap_or(0);
    let endpoint = endpoint(host.as_deref(), port, asked)?;
    (first <= last && usize::from(last) < SLOTS).then_some((first, last, SlotPrimary { endpoint, epoch }))
}

/// The endpoint of a node, as the node `asked` reports it.
fn endpoint(host: Option<&str>, port: u16, asked: &StoreEndpoint) -> Option<StoreEndpoint> {
    match host {
        // The node has no name that clients can use.
        Some("?") => None,
        Some(host) if !host.is_empty() => Some(StoreEndpoint::Tcp(host.to_owned(), port)),
        Some(_) | None => match asked {
            StoreEndpoint::Tcp(host, _) => Some(StoreEndpoint::Tcp(host.clone(), port)),
            StoreEndpoint::Unix(_) => None,
        },
    }
}

impl SlotOwners {
    /// Merges the reports of several nodes. A node that was cut off may not know of a change.
    pub(super) fn of(views: &[NodeView]) -> Self {
        let mut endpoints: Vec<StoreEndpoint> = Vec::new();
        let mut best: Vec<Option<(u64, u16)>> = vec![None; SLOTS];
        for (first, last, SlotPrimary { endpoint, epoch }) in views.iter().flat_map(|view| &view.ranges) {
            let index = endpoints.iter().position(|known| known == endpoint).unwrap_or_else(|| {
                endpoints.push(endpoint.clone());
                endpoints.len() - 1
            });
            let Ok(index) = u16::try_from(index) else { continue };
            for slot in &mut best[usize::from(*first)..=usize::from(*last)] {
                if slot.is_none_or(|(other, _)| other < *epoch) {
                    *slot = Some((*epoch, index));
                }
            }
        }
        Self { endpoints, of_slot: best.into_iter().map(|best| best.map(|(_, index)| index)).collect() }
    }
}

/// A redirect to another node. The node that sent it has not executed the command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store::redis) enum Redirect {
    /// For this slot, from now on.
    Moved(u16, StoreEndpoint),
    /// For this command only: the slot is being moved to that node.
    Ask(StoreEndpoint),
}

impl Redirect {
    /// The redirect in an error of the node `asked`, if the error is one.
    pub(in crate::store::redis) fn of(error: &redis::RedisError, asked: &StoreEndpoint) -> Option<Self> {
        let (address, slot) = error.redirect_node()?;
        let (host, port) = address.rsplit_once(':')?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let endpoint = endpoint(Some(host), port.parse().ok()?, asked)?;
        match error.code() {
            Some("MOVED") if usize::from(slot) < SLOTS => Some(Self::Moved(slot, endpoint)),
            Some("ASK") => Some(Self::Ask(endpoint)),
            Some(_) | None => None,
        }
    }

    /// Whether the chunks of a body that were written before the redirect lie where the record goes. During a move, new
    /// names follow `ASK` to the node that gets the slot. After `MOVED`, the new owner may lack them: it may be a replica
    /// that took over before it had them.
    pub(in crate::store::redis) fn keeps_body(&self) -> bool {
        matches!(self, Self::Ask(_))
    }

    pub(super) fn endpoint(&self) -> &StoreEndpoint {
        match self {
            Self::Moved(_, endpoint) | Self::Ask(endpoint) => endpoint,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> StoreEndpoint {
        StoreEndpoint::Tcp("10.0.0.1".to_owned(), port)
    }

    fn text(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn range(first: i64, last: i64, host: Value, port: i64, id: &str) -> Value {
        let node = Value::Array(vec![host, Value::Int(port), text(id), Value::Array(Vec::new())]);
        Value::Array(vec![Value::Int(first), Value::Int(last), node])
    }

    fn view(ranges: Vec<Value>, nodes: &str) -> NodeView {
        NodeView::of(Value::Array(ranges), Ok(text(nodes)), &at(7000)).expect("ranges")
    }

    fn moved(line: &str) -> Option<Redirect> {
        let Ok(Value::ServerError(error)) = redis::parse_redis_value(line.as_bytes()) else { panic!("an error") };
        Redirect::of(&error.into(), &at(7000))
    }

    #[test]
    fn names_lie_where_redis_has_them() {
        // The expected values are replies of `CLUSTER KEYSLOT`.
        assert_eq!(slot_of(&[b"123456789"]), 12739);
        assert_eq!(slot_of(&[b"123", b"", b"456789"]), 12739);
        assert_eq!(slot_of(&[b"foo"]), 12182);
        assert_eq!(slot_of(&[b""]), 0);
    }

    #[test]
    fn a_name_is_found_in_any_slot() {
        for slot in [0, 1, 8191, 16383] {
            let slots = SlotSet::new([slot].into_iter());
            for skip in 0..2 {
                let name = slots.name("onlyonce:canary:00", skip).expect("a name");
                assert_eq!(slot_of(&[name.as_bytes()]), slot, "{name}");
            }
            assert_ne!(slots.name("a", 0), slots.name("a", 1));
        }
        assert_eq!(SlotSet::new(std::iter::empty()).name("a", 0), None);
    }

    #[test]
    fn of_two_nodes_that_claim_a_slot_the_one_with_the_higher_epoch_has_it() {
        let old = "a 10.0.0.1:1@11 master - 0 0 1 connected 0-9\nb 10.0.0.1:2@12 master - 0 0 2 connected 10-16383";
        let new = "a 10.0.0.1:1@11 slave c 0 0 1 connected\nc 10.0.0.1:3@13 myself,master - 0 0 3 connected 0-9\n\
                   b 10.0.0.1:2@12 master - 0 0 2 connected 10-16383";
        let host = || text("10.0.0.1");
        let before = view(vec![range(0, 9, host(), 1, "a"), range(10, 16383, host(), 2, "b")], old);
        let after = view(vec![range(0, 9, host(), 3, "c"), range(10, 16383, host(), 2, "b")], new);
        for views in [[before.clone(), after.clone()], [after, before]] {
            let owners = SlotOwners::of(&views);
            let owner = |slot: usize| owners.of_slot[slot].map(|index| owners.endpoints[usize::from(index)].clone());
            assert_eq!([owner(0), owner(9), owner(10), owner(16383)].map(Option::unwrap), [at(3), at(3), at(2), at(2)]);
        }
    }

    #[test]
    fn a_node_that_names_no_address_is_the_one_that_was_asked() {
        for host in [text(""), Value::Nil] {
            let owners = SlotOwners::of(&[view(vec![range(0, 1, host, 7001, "a")], "")]);
            assert_eq!(owners.endpoints, [at(7001)]);
            assert_eq!(owners.of_slot[..3], [Some(0), Some(0), None]);
        }
        let nowhere = view(vec![range(0, 1, text("?"), 7001, "a"), Value::Nil, range(9, 16384, text("h"), 1, "b")], "");
        assert!(nowhere.is_empty());
        assert!(NodeView::of(Value::Okay, Ok(Value::Nil), &at(1)).is_none());
    }

    #[test]
    fn redirects_are_read_with_and_without_a_host() {
        assert_eq!(moved("-MOVED 3999 10.0.0.1:6381\r\n"), Some(Redirect::Moved(3999, at(6381))));
        assert_eq!(moved("-MOVED 3999 :6381\r\n"), Some(Redirect::Moved(3999, at(6381))));
        assert_eq!(moved("-ASK 1 10.0.0.1:6381\r\n"), Some(Redirect::Ask(at(6381))));
        let six = StoreEndpoint::Tcp("2001:db8::1".to_owned(), 7);
        assert_eq!(moved("-MOVED 1 2001:db8::1:7\r\n"), Some(Redirect::Moved(1, six)));
        for other in
            ["-MOVED\r\n", "-MOVED 16384 a:1\r\n", "-MOVED 1 ?:1\r\n", "-ERR MOVED 1 a:1\r\n", "-ASK 1 a:x\r\n"]
        {
            assert_eq!(moved(other), None, "{other}");
        }
    }
}
