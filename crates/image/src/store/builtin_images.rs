//! Built-in images on demand.

use gamut_spec::reference::Reference;

use super::ImageStore;
use crate::builtin;
use crate::error::Result;
use crate::progress::NoProgress;

impl ImageStore {
    /// Makes sure that the built-in image `name` is in the store, loading it if it is not. False
    /// if there is no built-in image of that name.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn ensure_builtin(&self, name: &str) -> Result<bool> {
        let reference = Reference::parse(name)?;
        if self.get(&reference.to_string(), None).is_ok() {
            return Ok(true);
        }
        let Some(archive) = builtin::archive(name) else {
            return Ok(false);
        };
        let loaded = self.load_from(&archive[..], &NoProgress, "built-in")?;
        if let (Some(first), Err(_)) = (loaded.first(), self.get(&reference.to_string(), None)) {
            self.tag(first, &reference)?;
        }
        Ok(true)
    }
}
