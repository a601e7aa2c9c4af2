//! docs/isolation.md tells what each level cannot do, in the levels' own words.

use gamut_isolation::{ContainerLevel, Isolation, Levels, ProcessLevel, UnikernelLevel};

const DOCUMENT: &str = include_str!("../../../docs/isolation.md");

#[test]
fn the_table_of_refusals_is_up_to_date() {
    let mut table = String::new();
    let refusals = [ContainerLevel::REFUSALS, UnikernelLevel::REFUSALS];
    for refusal in refusals.into_iter().flatten() {
        table.push_str(&format!(
            "| {} | {} | {} | {} |\n",
            refusal.level, refusal.capability, refusal.reason, refusal.alternative
        ));
    }
    assert!(
        DOCUMENT.contains(&table),
        "docs/isolation.md must contain:\n{table}"
    );
}

#[test]
fn the_table_is_made_of_refusals() {
    let mut levels = Levels::new();
    let process = ProcessLevel::new();
    let count = process.refusals().len();
    levels.insert(std::sync::Arc::new(process));
    assert_eq!(levels.refusal_table().lines().count(), count + 2);
}
