//! Images inside the engine's own binary: nothing needs to be pulled to see it work.
//!
//! Their programs are in `builtin-src/`, without any library, and in `unikernels/`; all are built
//! with this crate. The
//! archives are made in memory, the same bytes each time: an OCI image layout that is also a
//! docker-archive, as `docker save` writes them.

#[cfg(test)]
mod tests;

use crate::config::ExecutionConfig;
use crate::layout::{self, Form};
use crate::tar::{Entry, Kind, Writer};
use crate::unikernel::{self, UnikernelOptions};
use gamut_spec::form::ImageForm;
use serde_json::json;
use std::io;

/// An image inside the binary.
#[derive(Debug, Clone, Copy)]
pub struct BuiltinImage {
    /// Name, to which the tag `latest` belongs.
    pub name: &'static str,
    /// One line about it.
    pub description: &'static str,
    /// Its forms, the first of which those see that know no forms.
    forms: &'static [(ImageForm, &'static [u8])],
    exposed_port: Option<&'static str>,
}

static IMAGES: [BuiltinImage; 3] = [
    BuiltinImage {
        name: "hello-world",
        description: "prints what just happened and ends",
        forms: &[(
            ImageForm::Linux,
            include_bytes!(concat!(env!("OUT_DIR"), "/hello-world")),
        )],
        exposed_port: None,
    },
    BuiltinImage {
        name: "hello-http",
        description: "answers HTTP on port 80, or $PORT; serves files with --root DIRECTORY",
        forms: &[
            (
                ImageForm::Linux,
                include_bytes!(concat!(env!("OUT_DIR"), "/hello-http")),
            ),
            (
                ImageForm::Unikernel,
                include_bytes!(concat!(env!("OUT_DIR"), "/unikernel-http")),
            ),
        ],
        exposed_port: Some("80/tcp"),
    },
    BuiltinImage {
        name: "hello-unikernel",
        description: "says hello from a machine of its own and ends",
        forms: &[(
            ImageForm::Unikernel,
            include_bytes!(concat!(env!("OUT_DIR"), "/unikernel-hello")),
        )],
        exposed_port: None,
    },
];

/// All built-in images.
#[must_use]
pub fn images() -> &'static [BuiltinImage] {
    &IMAGES
}

/// The archive of a built-in image: plain tar, to be loaded like any other. `None` if there is no
/// such image. The name may carry the tag `latest`.
#[must_use]
pub fn archive(name: &str) -> Option<Vec<u8>> {
    let name = name.strip_suffix(":latest").unwrap_or(name);
    let image = IMAGES.iter().find(|image| image.name == name)?;
    // There are no unikernels for some processors.
    image
        .forms
        .iter()
        .find(|(_, program)| !program.is_empty())?;
    match build(image) {
        Ok(archive) => Some(archive),
        // Writing to memory does not fail; should it, the image is as good as not there.
        Err(error) => {
            tracing::error!(name, %error, "built-in image cannot be made");
            None
        }
    }
}

fn build(image: &BuiltinImage) -> io::Result<Vec<u8>> {
    let forms: Vec<Form> = image
        .forms
        .iter()
        .filter(|(_, program)| !program.is_empty())
        .map(|(form, program)| match form {
            ImageForm::Linux => linux_form(image, program),
            ImageForm::Unikernel => unikernel_form(image, program),
        })
        .collect::<io::Result<_>>()?;
    let familiar = format!("{}:latest", image.name);
    let canonical = format!("docker.io/library/{familiar}");
    layout::archive(Some((&canonical, &familiar)), &forms)
}

const DESCRIPTION: &str = "org.opencontainers.image.description";
const COMMENT: &str = "built into gamut";

fn linux_form(image: &BuiltinImage, program: &[u8]) -> io::Result<Form> {
    let path = format!("/{}", image.name);
    let config = ExecutionConfig {
        env: vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()],
        working_dir: "/".to_owned(),
        labels: [(DESCRIPTION.to_owned(), image.description.to_owned())].into(),
        exposed_ports: image
            .exposed_port
            .map(|port| (port.to_owned(), json!({})))
            .into_iter()
            .collect(),
        entrypoint: Some(vec![path.clone()]),
        ..ExecutionConfig::default()
    };
    let steps = [
        format!("COPY {} /", image.name),
        format!("ENTRYPOINT [\"{path}\"]"),
    ];
    let layer = layer(image.name, program)?;
    Form::new(ImageForm::Linux, &config, layer, &steps, COMMENT)
}

fn unikernel_form(image: &BuiltinImage, program: &[u8]) -> io::Result<Form> {
    let options = UnikernelOptions {
        labels: vec![(DESCRIPTION.to_owned(), image.description.to_owned())],
        exposed_ports: image.exposed_port.map(str::to_owned).into_iter().collect(),
        ..UnikernelOptions::default()
    };
    unikernel::form(program, None, &options, COMMENT)
}

/// The only layer: the program, the users and groups that a program may ask for, and /tmp.
fn layer(name: &str, program: &[u8]) -> io::Result<Vec<u8>> {
    let mut writer = Writer::new(Vec::new());
    let mut directory =
        |path: &str, mode| writer.append(&Entry::new(path, Kind::Directory, mode), &[]);
    directory("./", 0o755)?;
    directory("etc/", 0o755)?;
    directory("tmp/", 0o1777)?;
    for (path, mode, content) in [
        (
            "etc/group",
            0o644,
            b"root:x:0:\nnobody:x:65534:\n".as_slice(),
        ),
        (
            "etc/passwd",
            0o644,
            b"root:x:0:0:root:/:/sbin/nologin\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n",
        ),
        (name, 0o755, program),
    ] {
        writer.append(&Entry::new(path, Kind::File, mode), content)?;
    }
    writer.finish()
}
