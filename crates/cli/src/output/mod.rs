//! What the user sees: tables, templates, units, progress.

pub mod json;
pub mod list;
pub mod print;
pub mod progress;
pub mod table;
pub mod template;
pub mod units;
pub mod visible;
