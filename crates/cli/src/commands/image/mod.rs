//! Verbs on images.

pub mod archive;
pub mod history;
pub mod ls;
pub mod pull;
pub mod push;
pub mod simple;

use crate::client::query::segment;

/// Path of an image's resource: `/images/NAME/WHAT`.
#[must_use]
pub fn path(name: &str, what: &str) -> String {
    if what.is_empty() {
        format!("/images/{}", segment(name))
    } else {
        format!("/images/{}/{what}", segment(name))
    }
}
