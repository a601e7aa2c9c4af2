//! What the helper is told of a container.

use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Version of [`Record`] on disk and of what daemon and helper say to each other.
pub(crate) const VERSION: u32 = 1;

/// A container on user-defined networks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Version of this record.
    pub version: u32,
    /// Id of the container.
    pub id: String,
    /// Its places, in the order in which its names are looked up.
    pub places: Vec<Place>,
    /// Resolvers for names that are no container's.
    pub servers: Vec<IpAddr>,
    /// Resolvers on a loopback address are the container's own, not the host's.
    pub servers_inside: bool,
    /// Other names are asked for at all: not from networks without a way out.
    pub forwards: bool,
}

/// A container's place in a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Id of the network.
    pub network_id: String,
    /// Name of the network.
    pub network: String,
    /// Its address there.
    pub address: Ipv4Addr,
    /// Its IPv6 address there, if the network has such.
    #[serde(default)]
    pub address6: Option<Ipv6Addr>,
    /// Its names there, the first of which is told for its address.
    pub names: Vec<String>,
    /// Names under which it knows others there: (its name for it, the other's).
    pub links: Vec<(String, String)>,
}

impl Record {
    /// A record of the current version.
    #[must_use]
    pub fn new(id: &str) -> Self {
        Self {
            version: VERSION,
            id: id.to_owned(),
            places: Vec::new(),
            servers: Vec::new(),
            servers_inside: false,
            forwards: true,
        }
    }

    /// Parses what [`Record::encode`] wrote; `None` if it is none of this version. No I/O.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes)
            .ok()
            .filter(|record: &Self| record.version == VERSION)
    }

    /// As it lies on disk.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// Entry for fuzzing: any bytes are a record or none, and what is one is read as it was written.
pub fn fuzz_record(data: &[u8]) {
    if let Some(record) = Record::parse(data) {
        assert_eq!(Record::parse(&record.encode()).as_ref(), Some(&record));
        let mut book = crate::Book::default();
        let id = record.id.clone();
        book.insert(record);
        let _ = book.look_up(&id, "web");
        assert!(book.remove(&id) && book.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn other_versions_are_none() {
        let record = Record::new("a");
        assert_eq!(Record::parse(&record.encode()), Some(record.clone()));
        let later = Record {
            version: 2,
            ..record
        };
        assert_eq!(Record::parse(&later.encode()), None);
    }

    proptest! {
        #[test]
        fn any_bytes(data: Vec<u8>) {
            fuzz_record(&data);
        }
    }
}
