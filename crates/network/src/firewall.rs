//! Our own nftables tables, one per family of addresses: running `nft`, and what it answers.
//! The rules themselves are in [`crate::rules`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

use crate::error::{Error, Result};
use crate::inet::Family;
use crate::rules::{OBJECTS, OTHERS, OTHERS_HOOK, OTHERS_RULE, PUBLISHED_MAPS, RULES, spell};

/// What a table has to know of one network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    /// Interface name of the bridge.
    pub bridge: String,
    /// Addresses of its workloads.
    pub subnet: String,
    /// Nothing is forwarded to it or from it.
    pub internal: bool,
    /// Its workloads speak to the outside with the host's address.
    pub masquerade: bool,
    /// Its workloads reach each other.
    pub linked: bool,
}

impl Member {
    /// Set and element, as [`TableState`] spells elements.
    pub fn elements(&self) -> Vec<(&'static str, String)> {
        let bridge = &self.bridge;
        let mut elements = vec![
            ("bridges", bridge.clone()),
            ("subnets", self.subnet.clone()),
        ];
        if self.linked {
            elements.push(("linked_bridges", format!("{bridge} . {bridge}")));
        }
        if self.internal {
            elements.push(("internal_bridges", bridge.clone()));
        } else if self.masquerade {
            elements.push(("masqueraded", self.subnet.clone()));
        }
        elements
    }

    /// Whether the table knows all of it.
    pub fn is_in(&self, state: &TableState) -> bool {
        let known = |(set, element): &(&str, String)| state.elements_of(set).contains(element);
        self.elements().iter().all(known)
    }
}

/// What is in the table, in the words of a script.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct TableState {
    /// Number of rules by chain.
    pub rules: BTreeMap<String, usize>,
    /// Elements by set or map, such as `8080 : 172.29.0.2 . 80`.
    pub elements: BTreeMap<String, BTreeSet<String>>,
}

impl TableState {
    /// Whether every chain has as many rules as [`Firewall::ensure`] put there.
    pub fn has_all_rules(&self, forward_for_us_only: bool) -> bool {
        let others = forward_for_us_only.then_some(OTHERS);
        let mut expected: BTreeMap<String, usize> = BTreeMap::new();
        for chain in RULES.iter().map(|(chain, _)| *chain).chain(others) {
            *expected.entry(chain.to_owned()).or_default() += 1;
        }
        self.rules == expected
    }

    /// Whether the extra chain is there.
    pub fn forwards_for_us_only(&self) -> bool {
        self.rules.contains_key(OTHERS)
    }

    /// The elements of one set or map.
    pub fn elements_of(&self, set: &str) -> BTreeSet<String> {
        self.elements.get(set).cloned().unwrap_or_default()
    }
}

/// Processes of ours that change the firewall, so that their changes are told from others'.
pub(crate) static OWN_CHANGES: OwnChanges = OwnChanges(Mutex::new(VecDeque::new()));
/// The kernel tells of a change at once: the last few processes are enough.
const OWN_CHANGES_KEPT: usize = 64;

/// The process ids of the last `nft` that we ran.
pub(crate) struct OwnChanges(Mutex<VecDeque<u32>>);

impl OwnChanges {
    fn note(&self, pid: u32) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if last.len() >= OWN_CHANGES_KEPT {
            last.pop_front();
        }
        last.push_back(pid);
    }

    /// Whether a process with this id, by which the kernel names who changed something, is ours.
    pub fn contains(&self, pid: u32) -> bool {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.contains(&pid)
    }
}

/// An nftables table of the network namespace that the calling thread is in.
#[derive(Debug, Clone)]
pub(crate) struct Firewall {
    family: Family,
    /// Family and name, as nft has it.
    table: String,
}

impl Firewall {
    /// # Errors
    /// `InvalidArgument` for a name that nft would not take as one word.
    pub fn new(family: Family, table: &str) -> Result<Self> {
        let is_word = table
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !is_word
            || !table.starts_with(|first: char| first.is_ascii_alphabetic())
            || table.len() > 31
        {
            return Err(Error::InvalidArgument(format!(
                "invalid nftables table name {table:?}: expected a letter and up to 30 letters, digits or '_'"
            )));
        }
        Ok(Self {
            family,
            table: spell(&format!("{{ip}} {table}"), family),
        })
    }

    /// The family of its addresses.
    pub fn family(&self) -> Family {
        self.family
    }

    /// Family and name.
    pub fn table(&self) -> &str {
        &self.table
    }

    /// Makes or renews the table and enters a network into it. Published ports stay as they are.
    pub fn ensure(&self, member: &Member, forward_for_us_only: bool) -> Result<()> {
        let mut script = self.ensure_script(member);
        if forward_for_us_only {
            let table = &self.table;
            let _ = write!(
                script,
                "add chain {table} {OTHERS} {OTHERS_HOOK}\n\
                 flush chain {table} {OTHERS}\n\
                 add rule {table} {OTHERS} {OTHERS_RULE}\n"
            );
        }
        self.run("set up the table", &script)
    }

    fn ensure_script(&self, member: &Member) -> String {
        let table = &self.table;
        let mut script = format!("add table {table}\n");
        for (kind, definition) in OBJECTS {
            let _ = writeln!(
                script,
                "add {kind} {table} {}",
                spell(definition, self.family)
            );
        }
        // Old rules go and new ones come in one transaction: no packet sees a gap.
        for (kind, definition) in OBJECTS {
            if let (&"chain", Some((name, _))) = (kind, definition.split_once(' ')) {
                let _ = writeln!(script, "flush chain {table} {name}");
            }
        }
        for (chain, rule) in RULES {
            let _ = writeln!(
                script,
                "add rule {table} {chain} {}",
                spell(rule, self.family)
            );
        }
        script + &self.member_script("add", &member.elements())
    }

    fn member_script(&self, verb: &str, elements: &[(&str, String)]) -> String {
        let mut script = String::new();
        for (set, element) in elements {
            // A subnet is no string; the name of a bridge is.
            let element = if element.contains('/') {
                element.clone()
            } else {
                let words: Vec<String> = element
                    .split(" . ")
                    .map(|word| format!("\"{word}\""))
                    .collect();
                words.join(" . ")
            };
            let _ = writeln!(
                script,
                "{verb} element {} {set} {{ {element} }}",
                self.table
            );
        }
        script
    }

    /// Takes a network out of the table; the last one takes the table with it, which is then
    /// what is returned.
    pub fn remove(&self, member: &Member) -> Result<bool> {
        let Some(state) = self.state()? else {
            return Ok(true);
        };
        let bridges = state.elements_of("bridges");
        if bridges.iter().all(|name| *name == member.bridge) {
            self.run(
                "remove the table",
                &format!("delete table {}\n", self.table),
            )?;
            return Ok(true);
        }
        let mut elements = member.elements();
        elements.retain(|(set, element)| state.elements_of(set).contains(element));
        if !elements.is_empty() {
            self.run("remove a bridge", &self.member_script("delete", &elements))?;
        }
        Ok(false)
    }

    /// Adds or deletes (`verb`) elements, given by map and text, all or none.
    pub fn change_elements<'a>(
        &self,
        verb: &str,
        elements: impl IntoIterator<Item = (&'a str, String)>,
    ) -> Result<()> {
        let script = self.element_script(verb, elements);
        if script.is_empty() {
            Ok(())
        } else {
            self.run(&format!("{verb} published ports"), &script)
        }
    }

    /// Makes the maps of published ports hold exactly `elements`.
    pub fn replace_published<'a>(
        &self,
        elements: impl IntoIterator<Item = (&'a str, String)>,
    ) -> Result<()> {
        let mut script = String::new();
        for map in PUBLISHED_MAPS {
            let _ = writeln!(script, "flush map {} {map}", self.table);
        }
        script += &self.element_script("add", elements);
        self.run("replace the published ports", &script)
    }

    fn element_script<'a>(
        &self,
        verb: &str,
        elements: impl IntoIterator<Item = (&'a str, String)>,
    ) -> String {
        let mut script = String::new();
        for (map, element) in elements {
            let _ = writeln!(
                script,
                "{verb} element {} {map} {{ {element} }}",
                self.table
            );
        }
        script
    }

    /// What the table holds; `None` if there is none.
    pub fn state(&self) -> Result<Option<TableState>> {
        let mut command = nft();
        command
            .args(["-j", "list", "table"])
            .args(self.table.split(' '))
            .stdin(Stdio::null());
        let output = command.output().map_err(Error::NftMissing)?;
        if output.status.success() {
            let text = String::from_utf8_lossy(&output.stdout);
            return parse_state(&text).map(Some).ok_or_else(|| Error::Nft {
                operation: format!("list table {}", self.table),
                output: "its answer is not the JSON that was expected".to_owned(),
            });
        }
        let error = failure(&format!("list table {}", self.table), &output);
        match &error {
            Error::Nft { output, .. } if output.contains("No such file or directory") => Ok(None),
            _ => Err(error),
        }
    }

    /// Runs a script as one transaction.
    fn run(&self, operation: &str, script: &str) -> Result<()> {
        let mut child = nft()
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(Error::NftMissing)?;
        OWN_CHANGES.note(child.id());
        // nft reads its whole input before it writes. Should it die early, its exit status and
        // error output say more than the broken pipe.
        let written = child
            .stdin
            .take()
            .map_or(Ok(()), |mut stdin| stdin.write_all(script.as_bytes()));
        let output = child
            .wait_with_output()
            .map_err(|source| Error::system("wait for nft", source))?;
        if !output.status.success() {
            return Err(failure(&format!("{operation} ({})", self.table), &output));
        }
        written.map_err(|source| Error::system("hand nft its script", source))
    }
}

fn nft() -> Command {
    let mut command = Command::new("nft");
    if let Some(path) = std::env::var_os("PATH") {
        let mut path = path;
        path.push(":/usr/sbin:/sbin");
        command.env("PATH", path);
    }
    command.env("LC_ALL", "C");
    command
}

fn failure(operation: &str, output: &Output) -> Error {
    let text = String::from_utf8_lossy(&output.stderr);
    let text = text.trim();
    let output = if text.is_empty() {
        output.status.to_string()
    } else {
        text.to_owned()
    };
    Error::Nft {
        operation: operation.to_owned(),
        output,
    }
}

/// Parses the answer of `nft -j list table` (libnftables-json(5)).
fn parse_state(text: &str) -> Option<TableState> {
    let answer: Value = serde_json::from_str(text).ok()?;
    let mut state = TableState::default();
    for object in answer.get("nftables")?.as_array()? {
        if let Some(rule) = object.get("rule") {
            *state
                .rules
                .entry(rule.get("chain")?.as_str()?.to_owned())
                .or_default() += 1;
        }
        let Some(set) = object.get("set").or_else(|| object.get("map")) else {
            continue;
        };
        let elements = set.get("elem").and_then(Value::as_array);
        let elements = elements.into_iter().flatten().map(element_text).collect();
        state
            .elements
            .insert(set.get("name")?.as_str()?.to_owned(), elements);
    }
    Some(state)
}

fn element_text(element: &Value) -> String {
    match element {
        Value::String(text) => text.clone(),
        Value::Array(pair) => pair
            .iter()
            .map(element_text)
            .collect::<Vec<_>>()
            .join(" : "),
        Value::Object(fields) => match (fields.get("concat"), fields.get("prefix")) {
            (Some(Value::Array(parts)), _) => parts
                .iter()
                .map(element_text)
                .collect::<Vec<_>>()
                .join(" . "),
            (_, Some(prefix)) => format!(
                "{}/{}",
                prefix.get("addr").map(element_text).unwrap_or_default(),
                prefix.get("len").map(element_text).unwrap_or_default()
            ),
            _ => element.to_string(),
        },
        other => other.to_string(),
    }
}

/// Feeds arbitrary bytes to the parser of nft's answers; a target for fuzzing.
pub fn fuzz_table_state(data: &[u8]) {
    let _ = parse_state(&String::from_utf8_lossy(data));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn table_names_are_single_words() {
        for bad in ["", "1a", "a b", "a;b", "a-b", &"a".repeat(32)] {
            assert!(Firewall::new(Family::V4, bad).is_err(), "{bad}");
        }
        assert!(Firewall::new(Family::V6, "gamut_2").is_ok());
    }

    #[test]
    fn parses_nft_json() {
        let text = r#"{"nftables": [{"metainfo": {"version": "1.0.6"}},
            {"table": {"family": "ip", "name": "gamut"}},
            {"set": {"name": "subnets", "elem": [{"prefix": {"addr": "172.29.0.0", "len": 16}}]}},
            {"set": {"name": "bridges", "elem": ["gamut0"]}},
            {"map": {"name": "published_tcp_any", "elem": [[8080, {"concat": ["172.29.0.2", 80]}]]}},
            {"map": {"name": "published_tcp", "elem": [[{"concat": ["127.0.0.1", 81]}, {"concat": ["172.29.0.2", 80]}]]}},
            {"rule": {"chain": "guard"}}, {"rule": {"chain": "guard"}}]}"#;
        let state = parse_state(text).unwrap();
        assert_eq!(state.rules["guard"], 2);
        assert!(state.elements_of("subnets").contains("172.29.0.0/16"));
        assert!(state.elements_of("bridges").contains("gamut0"));
        assert!(
            state
                .elements_of("published_tcp_any")
                .contains("8080 : 172.29.0.2 . 80")
        );
        assert!(
            state
                .elements_of("published_tcp")
                .contains("127.0.0.1 . 81 : 172.29.0.2 . 80")
        );
        assert!(!state.has_all_rules(false));
    }

    proptest! {
        #[test]
        fn any_answer_is_safe(data: Vec<u8>, text in r#"[\[\]{}":,a-z0-9]{0,80}"#) {
            fuzz_table_state(&data);
            fuzz_table_state(text.as_bytes());
            fuzz_table_state(format!(r#"{{"nftables":[{{"set":{{"name":"a","elem":[{text}]}}}}]}}"#).as_bytes());
        }
    }
}
