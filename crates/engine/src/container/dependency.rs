//! What a container needs before it is started with the engine. No I/O.
//!
//! Sources: Docker's `--network container:`, `--pid container:`, `--ipc container:` and `--volumes-from`; the label
//! `com.docker.compose.depends_on` as Docker Compose writes it (`SERVICE:CONDITION:RESTART,...`);
//! and our own label `gamut.depends-on` (`CONTAINER[:CONDITION],...`).

use super::record::ContainerRecord;
use super::spec::{IpcMode, NamespaceMode, NetworkMode};
use gamut_spec::id;

const OWN_LABEL: &str = "gamut.depends-on";
const COMPOSE_LABEL: &str = "com.docker.compose.depends_on";
const COMPOSE_PROJECT: &str = "com.docker.compose.project";
const COMPOSE_SERVICE: &str = "com.docker.compose.service";
const COMPOSE_ONE_OFF: &str = "com.docker.compose.oneoff";

/// What is awaited of another container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    /// It has been started.
    Started,
    /// Its health check says that it is well.
    Healthy,
    /// It has run to its end.
    Completed,
}

impl Condition {
    /// `started`, `service_started`, and so on; what is unknown asks for a start.
    fn parse(text: &str) -> Self {
        match text.strip_prefix("service_").unwrap_or(text) {
            "healthy" => Self::Healthy,
            "completed" | "completed_successfully" => Self::Completed,
            _ => Self::Started,
        }
    }
}

/// Indices into `all` of what `record` depends on, each once, with the strongest condition. What
/// does not exist (any more) is not waited for.
#[must_use]
pub fn dependencies(record: &ContainerRecord, all: &[ContainerRecord]) -> Vec<(usize, Condition)> {
    let mut found: Vec<(usize, Condition)> = Vec::new();
    let mut add = |index: usize, condition: Condition| {
        if all[index].id == record.id {
            return;
        }
        match found.iter_mut().find(|(known, _)| *known == index) {
            Some((_, known)) => *known = condition.max(*known),
            None => found.push((index, condition)),
        }
    };
    let joined = [
        match &record.spec.network {
            NetworkMode::Container(name) => Some(name),
            _ => None,
        },
        match &record.spec.pid_mode {
            NamespaceMode::Container(name) => Some(name),
            _ => None,
        },
        match &record.spec.ipc_mode {
            IpcMode::Container(name) => Some(name),
            _ => None,
        },
    ];
    for name in joined.into_iter().flatten() {
        if let Some(index) = named(name, all) {
            add(index, Condition::Started);
        }
    }
    for text in &record.spec.volumes_from {
        let name = text.split(':').next().unwrap_or_default();
        if let Some(index) = named(name, all) {
            add(index, Condition::Started);
        }
    }
    for (name, condition) in entries(record, OWN_LABEL) {
        if let Some(index) = named(name, all) {
            add(index, condition);
        }
    }
    for (service, condition) in entries(record, COMPOSE_LABEL) {
        for index in of_service(record, service, all) {
            add(index, condition);
        }
    }
    found
}

/// `NAME[:CONDITION[:...]],...` of a label.
fn entries<'a>(
    record: &'a ContainerRecord,
    label: &str,
) -> impl Iterator<Item = (&'a str, Condition)> {
    let text = record.spec.labels.get(label).map_or("", String::as_str);
    text.split(',').filter_map(|entry| {
        let mut parts = entry.trim().split(':');
        let name = parts.next().filter(|name| !name.is_empty())?;
        Some((name, Condition::parse(parts.next().unwrap_or_default())))
    })
}

/// The container of a name, an id or the beginning of one.
fn named(name: &str, all: &[ContainerRecord]) -> Option<usize> {
    let bare = name.strip_prefix('/').unwrap_or(name);
    let by_name = all
        .iter()
        .position(|other| other.name == bare || other.id == bare);
    by_name.or_else(|| {
        let is_prefix = id::is_id_prefix(bare);
        let begins = |other: &ContainerRecord| is_prefix && other.id.starts_with(bare);
        all.iter().position(begins)
    })
}

/// The containers of a service of the record's own project.
fn of_service<'a>(
    record: &'a ContainerRecord,
    service: &'a str,
    all: &'a [ContainerRecord],
) -> impl Iterator<Item = usize> {
    let project = record.spec.labels.get(COMPOSE_PROJECT);
    all.iter()
        .enumerate()
        .filter(move |(_, other)| {
            let labels = &other.spec.labels;
            project.is_some()
                && labels.get(COMPOSE_PROJECT) == project
                && labels
                    .get(COMPOSE_SERVICE)
                    .is_some_and(|name| name == service)
                && labels
                    .get(COMPOSE_ONE_OFF)
                    .is_none_or(|value| value != "True")
        })
        .map(|(index, _)| index)
}

/// Takes away edges until no circle is left, and returns those as (from, to). `edges[n]` lists what
/// `n` waits for; what comes first keeps its edges.
#[must_use]
pub fn break_circles(edges: &mut [Vec<(usize, Condition)>]) -> Vec<(usize, usize)> {
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        Unseen,
        OnPath,
        Done,
    }
    let mut marks = vec![Mark::Unseen; edges.len()];
    let mut broken = Vec::new();
    for root in 0..edges.len() {
        if marks[root] != Mark::Unseen {
            continue;
        }
        marks[root] = Mark::OnPath;
        // A path down the graph, with the next edge to look at on each step.
        let mut path = vec![(root, 0)];
        while let Some((node, next)) = path.last_mut() {
            let node = *node;
            let Some((to, _)) = edges[node].get(*next).copied() else {
                marks[node] = Mark::Done;
                path.pop();
                continue;
            };
            match marks[to] {
                Mark::OnPath => {
                    edges[node].remove(*next);
                    broken.push((node, to));
                }
                Mark::Done => *next += 1,
                Mark::Unseen => {
                    *next += 1;
                    marks[to] = Mark::OnPath;
                    path.push((to, 0));
                }
            }
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::record::{Provenance, RecordedState, ResolvedProcess};
    use crate::container::spec::ContainerSpec;
    use proptest::prelude::*;

    fn record(name: &str, labels: &[(&str, &str)]) -> ContainerRecord {
        let spec = ContainerSpec {
            labels: labels
                .iter()
                .map(|(label, value)| ((*label).to_owned(), (*value).to_owned()))
                .collect(),
            ..ContainerSpec::default()
        };
        ContainerRecord {
            level: gamut_spec::isolation::IsolationLevel::Container,
            ids: None,
            id: format!("{name:0>64}"),
            name: name.to_owned(),
            created_ns: 1,
            provenance: Provenance::default(),
            spec,
            image_id: String::new(),
            process: ResolvedProcess::default(),
            mounts: Vec::new(),
            should_run: true,
            removing: false,
            removing_volumes: false,
            endpoints: None,
            leases: Vec::new(),
            state: RecordedState::default(),
        }
    }

    fn service<'a>(project: &'a str, name: &'a str, needs: &'a str) -> [(&'a str, &'a str); 3] {
        [
            (COMPOSE_PROJECT, project),
            (COMPOSE_SERVICE, name),
            (COMPOSE_LABEL, needs),
        ]
    }

    #[test]
    fn every_way_to_say_it() {
        let mut joined = record("joined", &[]);
        joined.spec.network = NetworkMode::Container("db".to_owned());
        joined.spec.pid_mode = NamespaceMode::Container("own".to_owned());
        joined.spec.ipc_mode = IpcMode::Container("cache-2".to_owned());
        joined.spec.volumes_from = vec!["job:ro".to_owned()];
        let all = [
            record("db", &service("shop", "db", "")),
            record(
                "web",
                &service(
                    "shop",
                    "web",
                    "db:service_healthy:true,cache:service_started:false",
                ),
            ),
            record("cache-1", &service("shop", "cache", "")),
            record("cache-2", &service("shop", "cache", "")),
            record("foreign", &service("other", "db", "")),
            record(
                "own",
                &[(OWN_LABEL, "db:healthy, db , job:completed,gone,own")],
            ),
            record("job", &service("shop", "job", "db")),
            joined,
        ];
        let needs = |name: &str| {
            let record = all.iter().find(|record| record.name == name).unwrap();
            let found = dependencies(record, &all);
            found
                .into_iter()
                .map(|(index, condition)| (all[index].name.clone(), condition))
                .collect::<Vec<_>>()
        };
        let one = |name: &str, condition| (name.to_owned(), condition);
        assert_eq!(needs("db"), []);
        assert_eq!(
            needs("web"),
            [
                one("db", Condition::Healthy),
                one("cache-1", Condition::Started),
                one("cache-2", Condition::Started)
            ]
        );
        assert_eq!(
            needs("own"),
            [
                one("db", Condition::Healthy),
                one("job", Condition::Completed)
            ]
        );
        assert_eq!(needs("job"), [one("db", Condition::Started)]);
        assert_eq!(
            needs("joined"),
            [
                one("db", Condition::Started),
                one("own", Condition::Started),
                one("cache-2", Condition::Started),
                one("job", Condition::Started)
            ]
        );
    }

    fn has_circle(edges: &[Vec<(usize, Condition)>]) -> bool {
        // Whoever has nothing left to wait for goes; in a circle nobody does.
        let mut left: Vec<usize> = (0..edges.len()).collect();
        loop {
            let before = left.len();
            let waits = |node: &usize| edges[*node].iter().any(|(to, _)| left.contains(to));
            left = left.iter().copied().filter(waits).collect();
            if left.len() == before {
                return !left.is_empty();
            }
        }
    }

    proptest! {
        #[test]
        fn circles_are_broken_and_nothing_else(pairs in proptest::collection::vec((0usize..8, 0usize..8), 0..30)) {
            let mut edges = vec![Vec::new(); 8];
            for (from, to) in pairs {
                if from != to && !edges[from].contains(&(to, Condition::Started)) {
                    edges[from].push((to, Condition::Started));
                }
            }
            let before = edges.clone();
            let broken = break_circles(&mut edges);
            prop_assert!(!has_circle(&edges));
            prop_assert_eq!(broken.is_empty(), !has_circle(&before));
            let count = |edges: &[Vec<(usize, Condition)>]| edges.iter().map(Vec::len).sum::<usize>();
            prop_assert_eq!(count(&before), count(&edges) + broken.len());
        }

        #[test]
        fn any_label(text in "\\PC*") {
            let all = [record("a", &[(OWN_LABEL, &text), (COMPOSE_LABEL, &text), (COMPOSE_PROJECT, "p")]), record("b", &[])];
            let _ = dependencies(&all[0], &all);
        }
    }
}
