//! The levels of isolation that this build has.

use crate::contract::Isolation;
use crate::error::Error;
use gamut_spec::isolation::IsolationLevel;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

/// Levels by name.
#[derive(Clone, Default)]
pub struct Levels(BTreeMap<IsolationLevel, Arc<dyn Isolation>>);

impl Levels {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a level, in place of one of the same name.
    pub fn insert(&mut self, level: Arc<dyn Isolation>) {
        self.0.insert(level.level(), level);
    }

    /// The implementation of a level.
    ///
    /// # Errors
    /// [`Error::NoSuchLevel`] if this build has none; it names those that it has.
    pub fn get(&self, level: IsolationLevel) -> Result<&Arc<dyn Isolation>, Error> {
        self.0.get(&level).ok_or_else(|| {
            let known: Vec<&str> = self.0.keys().map(|level| level.as_str()).collect();
            Error::NoSuchLevel {
                level,
                known: known.join(", "),
            }
        })
    }

    /// Every level, in the order of isolation.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<dyn Isolation>> {
        self.0.values()
    }

    /// What each level refuses, as a table in Markdown for the documentation.
    #[must_use]
    pub fn refusal_table(&self) -> String {
        let mut table =
            "| level | cannot | because | instead |\n| --- | --- | --- | --- |\n".to_owned();
        for level in self.iter() {
            for refusal in level.refusals() {
                // Writing to a string cannot fail.
                let _ = writeln!(
                    table,
                    "| {} | {} | {} | {} |",
                    refusal.level, refusal.capability, refusal.reason, refusal.alternative
                );
            }
        }
        table
    }
}

impl std::fmt::Debug for Levels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
