//! Which user namespace this process is in.

use gamut_spec::id_map::IdMap;
use std::sync::OnceLock;

/// Whether it is another than the machine's first: overlayfs then keeps its marks in `user.`
/// attributes, and no device can be made.
#[must_use]
pub fn is_nested() -> bool {
    static NESTED: OnceLock<bool> = OnceLock::new();
    *NESTED.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        let map = IdMap::parse(&text);
        !map.extents().is_empty() && !map.is_initial()
    })
}
