//! One test body for every level: each verb, each of them twice. Where a level cannot do
//! something, it must refuse with exactly what it lists.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "this is how a test fails"
)]

mod body;
mod faults;
mod support;
mod users;

use support::{ContainerRig, Rig};

#[test]
fn the_process_level_keeps_the_contract() {
    let rig = support::process_rig();
    body::run(&rig);
    faults::run(&rig);
}

#[test]
fn the_container_level_keeps_the_contract() {
    let Some(ContainerRig { rig, checks }) = support::container_rig() else {
        return;
    };
    body::run(&rig);
    faults::run(&rig);
    faults::of_containers(&rig, &checks);
    drop(rig);
    checks.nothing_is_left();
}

#[test]
fn images_are_shared_by_users() {
    let Some(ContainerRig { rig, checks }) = support::container_rig() else {
        return;
    };
    users::layers_are_shared_by_users(&rig);
    drop(rig);
    checks.nothing_is_left();
}

#[test]
fn the_table_in_the_documentation_can_be_generated() {
    let mut levels = gamut_isolation::Levels::new();
    levels.insert(std::sync::Arc::new(gamut_isolation::ProcessLevel::new()));
    let table = levels.refusal_table();
    assert!(table.contains("| process | stats | "), "{table}");
    assert!(
        levels
            .get(gamut_spec::isolation::IsolationLevel::MicroVm)
            .is_err()
    );
    let Rig { level, .. } = support::process_rig();
    assert_eq!(table.lines().count(), 2 + level.refusals().len());
}
