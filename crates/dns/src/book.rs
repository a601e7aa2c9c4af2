//! Who has which name and address, and who may know. No I/O.

use crate::record::{Place, Record};
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What a container is told about a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The addresses of all neighbours that have it.
    Addresses(Vec<Addresses>),
    /// It is no neighbour's.
    Unknown,
}

/// The addresses of one neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// Of IPv4.
    pub fourth: Ipv4Addr,
    /// Of IPv6, if it has one.
    pub sixth: Option<Ipv6Addr>,
}

/// All containers on user-defined networks.
#[derive(Debug, Default)]
pub struct Book {
    records: BTreeMap<String, Record>,
    /// By id of the network and name in lower case: container and addresses.
    names: HashMap<(String, String), Vec<(String, Addresses)>>,
    /// By id of the network and address: `NAME.NETWORK`.
    addresses: HashMap<(String, IpAddr), String>,
    /// How often a name with several addresses was told.
    turns: usize,
}

impl Book {
    /// Enters a container, in place of what was known of it.
    pub fn insert(&mut self, record: Record) {
        self.remove(&record.id);
        for place in &record.places {
            for name in &place.names {
                let key = (place.network_id.clone(), name.to_ascii_lowercase());
                let holders = self.names.entry(key).or_default();
                let addresses = Addresses {
                    fourth: place.address,
                    sixth: place.address6,
                };
                let entry = (record.id.clone(), addresses);
                if !holders.contains(&entry) {
                    holders.push(entry);
                }
            }
            if let Some(name) = place.names.first() {
                for address in all(place) {
                    let key = (place.network_id.clone(), address);
                    self.addresses
                        .insert(key, format!("{name}.{}", place.network));
                }
            }
        }
        self.records.insert(record.id.clone(), record);
    }

    /// Strikes a container out. Returns whether it was there.
    pub fn remove(&mut self, id: &str) -> bool {
        let Some(record) = self.records.remove(id) else {
            return false;
        };
        for place in &record.places {
            for name in &place.names {
                let key = (place.network_id.clone(), name.to_ascii_lowercase());
                if let Some(holders) = self.names.get_mut(&key) {
                    holders.retain(|(holder, _)| holder != id);
                    if holders.is_empty() {
                        self.names.remove(&key);
                    }
                }
            }
            for address in all(place) {
                self.addresses.remove(&(place.network_id.clone(), address));
            }
        }
        true
    }

    /// Whether nobody is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// What is known of a container.
    #[must_use]
    pub fn record(&self, id: &str) -> Option<&Record> {
        self.records.get(id)
    }

    /// Looks a name up for a container: its own links first, then the names on its networks in
    /// turn, also as `NAME.NETWORK`. Several addresses begin with another one each time.
    pub fn look_up(&mut self, id: &str, name: &str) -> Answer {
        let name = name.to_ascii_lowercase();
        let Some(record) = self.records.get(id) else {
            return Answer::Unknown;
        };
        let mut found = Vec::new();
        for place in &record.places {
            found = self.in_place(place, &name);
            if !found.is_empty() {
                break;
            }
        }
        if found.is_empty() {
            return Answer::Unknown;
        }
        self.turns = self.turns.wrapping_add(1);
        let count = found.len();
        found.rotate_left(self.turns % count);
        Answer::Addresses(found)
    }

    fn in_place(&self, place: &Place, name: &str) -> Vec<Addresses> {
        let suffix = format!(".{}", place.network.to_ascii_lowercase());
        let short = name.strip_suffix(&suffix);
        let link = place
            .links
            .iter()
            .find(|(alias, _)| alias.eq_ignore_ascii_case(name));
        let wanted = link.map(|(_, other)| other.to_ascii_lowercase());
        let candidates = [wanted.as_deref(), Some(name), short];
        for candidate in candidates.into_iter().flatten() {
            let key = (place.network_id.clone(), candidate.to_owned());
            if let Some(holders) = self.names.get(&key) {
                return holders.iter().map(|(_, addresses)| *addresses).collect();
            }
        }
        Vec::new()
    }

    /// The name of an address on one of a container's networks.
    #[must_use]
    pub fn name_of(&self, id: &str, address: IpAddr) -> Option<&str> {
        let record = self.records.get(id)?;
        record.places.iter().find_map(|place| {
            self.addresses
                .get(&(place.network_id.clone(), address))
                .map(String::as_str)
        })
    }
}

/// The addresses of a place.
fn all(place: &Place) -> impl Iterator<Item = IpAddr> {
    let sixth = place.address6.map(IpAddr::V6);
    std::iter::once(IpAddr::V4(place.address)).chain(sixth)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn place(network: &str, last: u8, names: &[&str]) -> Place {
        Place {
            network_id: format!("id-{network}"),
            network: network.to_owned(),
            address: Ipv4Addr::new(10, 0, 0, last),
            address6: None,
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            links: Vec::new(),
        }
    }

    fn record(id: &str, places: Vec<Place>) -> Record {
        Record {
            places,
            ..Record::new(id)
        }
    }

    fn last(answer: Answer) -> Vec<u8> {
        match answer {
            Answer::Addresses(addresses) => {
                addresses.iter().map(|one| one.fourth.octets()[3]).collect()
            }
            Answer::Unknown => Vec::new(),
        }
    }

    #[test]
    fn names_are_known_on_shared_networks_only() {
        let mut book = Book::default();
        book.insert(record("a", vec![place("front", 1, &["Web"])]));
        book.insert(record(
            "b",
            vec![place("front", 2, &["api"]), place("back", 3, &["api"])],
        ));
        book.insert(record("c", vec![place("back", 4, &["db"])]));
        assert_eq!(last(book.look_up("b", "wEB")), [1]);
        assert_eq!(last(book.look_up("b", "web.front")), [1]);
        assert_eq!(last(book.look_up("b", "db")), [4]);
        assert_eq!(last(book.look_up("a", "api")), [2]);
        assert_eq!(last(book.look_up("c", "api")), [3]);
        assert_eq!(book.look_up("a", "db"), Answer::Unknown);
        assert_eq!(book.look_up("a", "web.back"), Answer::Unknown);
        assert_eq!(book.look_up("stranger", "web"), Answer::Unknown);
        assert_eq!(
            book.name_of("b", IpAddr::from([10, 0, 0, 4])),
            Some("db.back")
        );
        assert_eq!(book.name_of("a", IpAddr::from([10, 0, 0, 4])), None);
    }

    #[test]
    fn addresses_of_both_families_belong_to_a_name() {
        let mut book = Book::default();
        let sixth: Ipv6Addr = "fd00::2".parse().unwrap();
        let mut both = place("n", 2, &["db"]);
        both.address6 = Some(sixth);
        book.insert(record("b", vec![both]));
        book.insert(record("a", vec![place("n", 1, &["web"])]));
        let answer = Answer::Addresses(vec![Addresses {
            fourth: Ipv4Addr::new(10, 0, 0, 2),
            sixth: Some(sixth),
        }]);
        assert_eq!(book.look_up("a", "db"), answer);
        assert_eq!(book.name_of("a", sixth.into()), Some("db.n"));
        book.remove("b");
        assert_eq!(book.name_of("a", sixth.into()), None);
    }

    #[test]
    fn one_alias_of_several_goes_round() {
        let mut book = Book::default();
        for number in 1..=3 {
            let names = ["one", "svc"];
            book.insert(record(
                &number.to_string(),
                vec![place("n", number, &names)],
            ));
        }
        let firsts: std::collections::BTreeSet<_> =
            (0..3).map(|_| last(book.look_up("1", "svc"))[0]).collect();
        assert_eq!(firsts.len(), 3);
        book.remove("2");
        let mut left = last(book.look_up("1", "svc"));
        left.sort_unstable();
        assert_eq!(left, [1, 3]);
    }

    #[test]
    fn a_link_is_known_to_its_owner_only() {
        let mut book = Book::default();
        let mut linked = place("n", 1, &["a"]);
        linked.links.push(("database".to_owned(), "db".to_owned()));
        book.insert(record("a", vec![linked]));
        book.insert(record("b", vec![place("n", 2, &["db"])]));
        assert_eq!(last(book.look_up("a", "database")), [2]);
        assert_eq!(book.look_up("b", "database"), Answer::Unknown);
    }

    proptest! {
        /// Whoever comes and goes, the index is what the records say.
        #[test]
        fn the_index_follows_the_records(
            steps in prop::collection::vec((0_u8..6, 0_u8..3, 0_u8..4, any::<bool>()), 0..60)
        ) {
            let mut book = Book::default();
            let mut model: BTreeMap<u8, (u8, u8)> = BTreeMap::new();
            for (id, network, name, stays) in steps {
                let key = id.to_string();
                if stays {
                    let network_name = network.to_string();
                    let names = name.to_string();
                    book.insert(record(&key, vec![place(&network_name, id, &[&names])]));
                    model.insert(id, (network, name));
                } else {
                    book.remove(&key);
                    model.remove(&id);
                }
                for (id, (network, _)) in &model {
                    for wanted in 0_u8..4 {
                        let mut found = last(book.look_up(&id.to_string(), &wanted.to_string()));
                        found.sort_unstable();
                        let expected: Vec<u8> = model
                            .iter()
                            .filter(|(_, (other, name))| other == network && *name == wanted)
                            .map(|(other, _)| *other)
                            .collect();
                        prop_assert_eq!(found, expected);
                    }
                }
            }
            prop_assert_eq!(book.is_empty(), model.is_empty());
        }
    }
}
