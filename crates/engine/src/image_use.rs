//! Images as the engine sees them: who uses them, and what happens to them.

use crate::engine::{Caller, Engine};
use crate::error::{Error, Result};
use gamut_abi::guest::{elf, rofs, solo5};
use gamut_image::{
    Image, ImportOptions, Package, Progress, PruneFilter, PullOptions, Removal, UnikernelOptions,
};
use gamut_spec::error::ErrorKind;
use gamut_spec::reference::Reference;
use std::collections::BTreeMap;
use std::io::Read;

pub(crate) fn failed(error: &gamut_image::Error) -> Error {
    Error::new(error.kind(), gamut_spec::error::chain(error))
}

impl Engine {
    /// Whether a container uses the image.
    #[must_use]
    pub fn image_in_use(&self, image_id: &str) -> bool {
        self.index
            .all()
            .iter()
            .any(|container| container.read(|record| record.image_id == image_id))
    }

    pub(crate) fn image_event(&self, action: &str, id: &str, name: &str) {
        let attributes = BTreeMap::from([("name".to_owned(), name.to_owned())]);
        self.events.emit("image", action, id, attributes);
    }

    /// An image by name or id.
    ///
    /// # Errors
    /// `NotFound`, or `InvalidArgument` for an ambiguous id.
    pub fn image(&self, name_or_id: &str) -> Result<Image> {
        self.images
            .get(name_or_id, None)
            .map_err(|error| failed(&error))
    }

    /// Brings an image from its registry or a mirror of it.
    ///
    /// # Errors
    /// What the registry or the network said; nothing is kept then.
    pub fn pull_image(
        &self,
        _caller: &Caller,
        reference: &Reference,
        options: &PullOptions,
        progress: &dyn Progress,
    ) -> Result<Image> {
        self.pull_with(reference, &self.with_settings(options)?, progress)
    }

    /// The options, with what the engine is told of registries now.
    fn with_settings(&self, options: &PullOptions) -> Result<PullOptions> {
        Ok(PullOptions {
            settings: self.registry_settings()?,
            ..options.clone()
        })
    }

    fn pull_with(
        &self,
        reference: &Reference,
        options: &PullOptions,
        progress: &dyn Progress,
    ) -> Result<Image> {
        let image = self
            .images
            .pull(reference, options, progress)
            .map_err(|error| failed(&error))?;
        self.image_event("pull", &reference.familiar(), &reference.familiar_name());
        Ok(image)
    }

    /// Brings the images of all tags of a repository, one after the other. The reference's own tag
    /// is not looked at.
    ///
    /// # Errors
    /// Those of [`Self::pull_image`]; what has come until then is kept.
    pub fn pull_all_tags(
        &self,
        _caller: &Caller,
        reference: &Reference,
        options: &PullOptions,
        progress: &dyn Progress,
    ) -> Result<()> {
        let options = self.with_settings(options)?;
        let tags = gamut_image::tags(reference, &options).map_err(|error| failed(&error))?;
        if tags.is_empty() {
            let name = reference.familiar_name();
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("{name} has no tags in its registry"),
            ));
        }
        for tag in tags {
            let tagged = reference.with_tag(&tag).map_err(|error| {
                Error::new(
                    ErrorKind::Unavailable,
                    format!("the registry names a tag that is none: {error}"),
                )
            })?;
            self.pull_with(&tagged, &options, progress)?;
        }
        Ok(())
    }

    /// Loads an archive; returns the names (or ids) of what it held.
    ///
    /// # Errors
    /// If the archive is no image archive or is damaged; nothing is kept then.
    pub fn load_image(
        &self,
        _caller: &Caller,
        input: impl Read + Send,
        progress: &dyn Progress,
    ) -> Result<Vec<String>> {
        let loaded = self
            .images
            .load(input, progress)
            .map_err(|error| failed(&error))?;
        for name in &loaded {
            self.image_event("load", name, name);
        }
        Ok(loaded)
    }

    /// Makes an image of one layer from a tar; returns its id.
    ///
    /// # Errors
    /// If the tar is damaged or an option makes no sense; nothing is kept then.
    pub fn import_image(
        &self,
        _caller: &Caller,
        input: impl Read + Send,
        reference: Option<&Reference>,
        options: &ImportOptions,
    ) -> Result<String> {
        let id = self
            .images
            .import(input, reference, options)
            .map_err(|error| failed(&error))?;
        let name = reference.map_or_else(|| id.clone(), Reference::familiar);
        self.image_event("import", &id, &name);
        Ok(id)
    }

    /// Makes an image of a unikernel's ELF file, or (`beside`) makes it the unikernel form of an
    /// image that is there. With `memory_bytes` that is what it gets when nobody says otherwise.
    /// Returns its id.
    ///
    /// # Errors
    /// `InvalidArgument` if the file is no unikernel, naming the field by which; `NotFound` if
    /// there is nothing to be beside.
    pub fn pack_unikernel(
        &self,
        _caller: &Caller,
        package: Package,
        memory_bytes: Option<u64>,
        options: &UnikernelOptions,
        name: Option<&Reference>,
        beside: Option<&Reference>,
    ) -> Result<String> {
        let Package { mut program, files } = package;
        let refused = |error| Error::invalid(format!("the file is no unikernel: {error}"));
        let note = elf::unikernel_note(&program).map_err(refused)?;
        note.check_version()
            .map_err(|error| Error::invalid(format!("the unikernel's {error}")))?;
        let files = pack_files(&program, &files)?;
        if let Some(memory_bytes) = memory_bytes {
            let least_bytes = note.least_memory_bytes();
            if memory_bytes < least_bytes {
                return Err(Error::invalid(format!(
                    "memory: {memory_bytes} bytes are less than the {least_bytes} that the unikernel needs"
                )));
            }
            elf::set_default_memory(&mut program, memory_bytes).map_err(refused)?;
        }
        let id = self
            .images
            .pack_unikernel(&program, files.as_deref(), options, name, beside)
            .map_err(|error| failed(&error))?;
        let shown = name
            .or(beside)
            .map_or_else(|| id.clone(), Reference::familiar);
        self.image_event("import", &id, &shown);
        Ok(id)
    }

    /// Reads the archive that a unikernel is packed from.
    ///
    /// # Errors
    /// As [`Package::read`].
    pub fn read_unikernel_package(&self, archive: impl Read) -> Result<Package> {
        Package::read(archive).map_err(|error| failed(&error))
    }

    /// Gives an image a further name.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn tag_image(&self, _caller: &Caller, source: &str, target: &Reference) -> Result<()> {
        self.images
            .tag(source, target)
            .map_err(|error| failed(&error))?;
        self.image_event("tag", source, &target.familiar());
        Ok(())
    }

    /// Removes a name of an image, and the image with its last name.
    ///
    /// # Errors
    /// `NotFound`, or `Conflict` if a container uses it.
    pub fn remove_image(
        &self,
        _caller: &Caller,
        name_or_id: &str,
        force: bool,
    ) -> Result<Vec<Removal>> {
        let removals = self
            .images
            .remove(name_or_id, force, &|id| self.image_in_use(id))
            .map_err(|error| failed(&error))?;
        self.emit_removals(&removals);
        Ok(removals)
    }

    fn emit_removals(&self, removals: &[Removal]) {
        for removal in removals {
            match removal {
                Removal::Untagged(name) => self.image_event("untag", name, name),
                Removal::Deleted(id) => self.image_event("delete", id, id),
            }
        }
    }

    /// Removes images that no container uses: those without a name, or `all`.
    ///
    /// # Errors
    /// If the system does not allow it.
    pub fn prune_images(
        &self,
        _caller: &Caller,
        all: bool,
        filter: &PruneFilter,
    ) -> Result<gamut_image::Pruned> {
        let pruned = self
            .images
            .prune(all, &|id| self.image_in_use(id), filter)
            .map_err(|error| failed(&error))?;
        self.emit_removals(&pruned.removals);
        Ok(pruned)
    }
}

/// The image of a unikernel's read-only file system; none without files.
fn pack_files(program: &[u8], files: &[(String, Vec<u8>)]) -> Result<Option<Vec<u8>>> {
    if files.is_empty() {
        return Ok(None);
    }
    if matches!(solo5::manifest(program), Ok(Some(_))) {
        return Err(Error::invalid(
            "images of Solo5 have no read-only file system; build the files into the program, or \
             give them to it on a block device",
        ));
    }
    let files: Vec<(&str, &[u8])> = files
        .iter()
        .map(|(path, content)| (path.as_str(), content.as_slice()))
        .collect();
    rofs::build(&files)
        .map(Some)
        .map_err(|error| Error::invalid(format!("the files of the unikernel: {error}")))
}
