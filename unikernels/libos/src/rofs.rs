//! The read-only file system of the image, in place ([`gamut_abi::guest::rofs`]).

pub use gamut_abi::guest::rofs::{Rofs, RofsError};

use crate::boot;

/// The file system that the guest was started with. None if it has none.
///
/// # Errors
/// If its image is damaged.
pub fn open() -> Option<Result<Rofs<'static>, RofsError>> {
    let image = boot::rofs();
    (!image.is_empty()).then(|| Rofs::parse(image))
}
