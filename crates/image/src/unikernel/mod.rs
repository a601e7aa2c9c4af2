//! Images of unikernels: one layer with the file `/unikernel`, and the image of its read-only file
//! system beside it, if it has one.

mod package;

use std::io;

pub use package::{Package, fuzz_unikernel_package};

use gamut_spec::form::ImageForm;
use gamut_spec::reference::Reference;
use serde_json::json;

use crate::config::ExecutionConfig;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::layout::{self, Form};
use crate::progress::NoProgress;
use crate::store::ImageStore;
use crate::tar::{Entry, Kind, Writer};

/// Where the program is in an image.
pub const UNIKERNEL_PATH: &str = "/unikernel";

/// Where the image of the read-only file system is, of a program at [`UNIKERNEL_PATH`].
pub const UNIKERNEL_FILES_PATH: &str = "/unikernel.rofs";

/// Largest program that can be packed, with its files, in bytes.
pub const MAX_UNIKERNEL_BYTES: u64 = 256 << 20;

/// How a unikernel is run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnikernelOptions {
    /// Arguments that always follow the program's name.
    pub arguments: Vec<String>,
    /// Arguments that follow unless others are given.
    pub command: Vec<String>,
    /// Environment, as `NAME=value`.
    pub environment: Vec<String>,
    /// Labels: name and value.
    pub labels: Vec<(String, String)>,
    /// Ports offered, as `80/tcp`.
    pub exposed_ports: Vec<String>,
    /// Where the program expects block devices.
    pub volumes: Vec<String>,
}

impl ImageStore {
    /// Makes an image of a unikernel's ELF file, and of the image of its read-only file system, and
    /// gives it a name, or adds it under the name
    /// `beside` as the unikernel form of the image that has that name already. The same file and
    /// options make the same image, byte for byte. Returns its id.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`] or [`Error::Malformed`] if there is nothing of that name to be
    /// beside, or it is a unikernel itself; [`Error::Io`].
    pub fn pack_unikernel(
        &self,
        program: &[u8],
        files: Option<&[u8]>,
        options: &UnikernelOptions,
        name: Option<&Reference>,
        beside: Option<&Reference>,
    ) -> Result<String> {
        let name = name.map(crate::store::tag_name).transpose()?;
        let linux = beside.map(|beside| self.linux_form(beside)).transpose()?;
        let form = form(program, files, options, "packed by gamut").map_err(writing)?;
        let archive = layout::archive(None, &[form]).map_err(writing)?;
        // By its id at first: a name is not to lose what it means if anything fails.
        let loaded = self.load_from(&archive[..], &NoProgress, "pack")?;
        let id = loaded.into_iter().next().unwrap_or_default();
        let digest: Digest = id.parse()?;
        let now_ns = gamut_spec::time::now_ns();
        let mut state = self.shared.state();
        let needed = [Some(digest), linux.as_ref().map(|(_, linux)| *linux)];
        for id in needed.into_iter().flatten() {
            if !state.records.images.contains_key(&id) {
                return Err(Error::NoSuchImage(id.to_string()));
            }
        }
        self.edit(&mut state, |records| match (linux, name) {
            (Some((beside, linux)), name) => {
                records.set_name(name.unwrap_or(beside), linux, Some(digest), now_ns);
            }
            (None, Some(name)) => records.set_name(name, digest, None, now_ns),
            (None, None) => {}
        })?;
        self.sweep(&state)?;
        Ok(id)
    }

    /// The canonical name and id of an image to which a unikernel is added.
    fn linux_form(&self, reference: &Reference) -> Result<(String, Digest)> {
        let name = crate::store::tag_name(reference)?;
        let image = self.get(&name, None)?;
        if image.form() == ImageForm::Unikernel {
            return Err(Error::malformed(
                format!("image {}", reference.familiar()),
                "is a unikernel itself; give the new one that name with --tag instead",
            ));
        }
        Ok((name, image.digest))
    }
}

/// The unikernel form of an image.
pub(crate) fn form(
    program: &[u8],
    files: Option<&[u8]>,
    options: &UnikernelOptions,
    comment: &str,
) -> io::Result<Form> {
    let mut writer = Writer::new(Vec::new());
    let entry = Entry::new(&UNIKERNEL_PATH[1..], Kind::File, 0o555);
    writer.append(&entry, program)?;
    if let Some(files) = files {
        let entry = Entry::new(&UNIKERNEL_FILES_PATH[1..], Kind::File, 0o444);
        writer.append(&entry, files)?;
    }
    let mut entrypoint = vec![UNIKERNEL_PATH.to_owned()];
    entrypoint.extend(options.arguments.iter().cloned());
    let object = |names: &[String]| names.iter().map(|name| (name.clone(), json!({}))).collect();
    let config = ExecutionConfig {
        cmd: (!options.command.is_empty()).then(|| options.command.clone()),
        env: options.environment.clone(),
        exposed_ports: object(&options.exposed_ports),
        volumes: object(&options.volumes),
        labels: options.labels.iter().cloned().collect(),
        entrypoint: Some(entrypoint.clone()),
        ..ExecutionConfig::default()
    };
    let steps = [
        format!("COPY unikernel {UNIKERNEL_PATH}"),
        format!("ENTRYPOINT {}", json!(entrypoint)),
    ];
    Form::new(
        ImageForm::Unikernel,
        &config,
        writer.finish()?,
        &steps,
        comment,
    )
}

fn writing(source: io::Error) -> Error {
    Error::Read {
        what: "the image while making it".to_owned(),
        source,
    }
}
