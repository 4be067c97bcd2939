//! What one network's name server knows.

use hashbrown::HashMap;

use crate::wire::addr::Addr;

/// Names and addresses of one network. Names are kept in lower case: RFC 4343 has them compared so.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Zone {
    names: HashMap<String, Vec<Addr>>,
    addrs: HashMap<Addr, String>,
    subnets: Vec<(Addr, u8)>,
}

impl Zone {
    /// A zone of a network with these subnets, without a name yet.
    pub fn new(subnets: Vec<(Addr, u8)>) -> Self {
        Self { subnets, ..Self::default() }
    }

    /// Adds an address to a name; several containers may share an alias.
    pub fn add(&mut self, name: &str, addr: Addr) {
        let addrs = self.names.entry(name.to_ascii_lowercase()).or_default();
        if !addrs.contains(&addr) {
            addrs.push(addr);
        }
    }

    /// Says what an address is called. The first one counts.
    pub fn add_reverse(&mut self, addr: Addr, name: &str) {
        self.addrs.entry(addr).or_insert_with(|| name.to_ascii_lowercase());
    }

    /// The addresses of a name in lower case.
    pub fn addrs(&self, name: &str) -> Option<&[Addr]> {
        self.names.get(name).map(Vec::as_slice)
    }

    /// The name of an address.
    pub fn name(&self, addr: Addr) -> Option<&str> {
        self.addrs.get(&addr).map(String::as_str)
    }

    /// Whether an address lies in the network, so that nobody else can know its name.
    pub fn contains(&self, addr: Addr) -> bool {
        let bits = |addr: Addr| u128::from_be_bytes(addr.bytes());
        self.subnets.iter().any(|&(prefix, len)| {
            let len = if prefix.is_v4() { 96 + u32::from(len) } else { len.into() };
            let mask = u128::MAX.checked_shl(128 - len.min(128)).unwrap_or(0);
            prefix.is_v4() == addr.is_v4() && (bits(prefix) ^ bits(addr)) & mask == 0
        })
    }
}
