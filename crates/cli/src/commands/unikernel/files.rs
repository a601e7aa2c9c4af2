//! Files that are packed with a unikernel.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::error::Error;

/// A file, and where it is to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    source: PathBuf,
    /// Without a slash in front.
    path: String,
}

/// The files that `SOURCE[:PATH]` means, in the order of their paths. Links are followed.
///
/// # Errors
/// If something cannot be read, or is neither file nor directory.
pub(super) fn find(text: &str) -> Result<Vec<Found>, Error> {
    // A path of the host may hold a colon; it is one if there is such a file.
    let (source, path) = match text.rsplit_once(':') {
        Some((source, path)) if !Path::new(text).exists() => (Path::new(source), Some(path)),
        _ => (Path::new(text), None),
    };
    let mut found = Vec::new();
    let kind = fs::metadata(source).map_err(Error::io(format!("open {}", source.display())))?;
    let path = match path {
        Some(path) => path.trim_matches('/').to_owned(),
        None if kind.is_dir() => String::new(),
        None => name(source)?,
    };
    add(source, path, &mut found)?;
    found.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(found)
}

fn name(path: &Path) -> Result<String, Error> {
    let name = path.file_name().and_then(|name| name.to_str());
    name.map(str::to_owned).ok_or_else(|| {
        Error::Message(format!(
            "{} has no name in UTF-8 that could be its own there; say one: SOURCE:PATH",
            path.display()
        ))
    })
}

fn add(source: &Path, path: String, found: &mut Vec<Found>) -> Result<(), Error> {
    let failed = || Error::io(format!("open {}", source.display()));
    let kind = fs::metadata(source).map_err(failed())?;
    if kind.is_file() {
        found.push(Found {
            source: source.to_owned(),
            path,
        });
        return Ok(());
    }
    if !kind.is_dir() {
        return Err(Error::Message(format!(
            "{} is neither file nor directory, which alone a unikernel can have",
            source.display()
        )));
    }
    for entry in fs::read_dir(source).map_err(failed())? {
        let inner = entry.map_err(failed())?.path();
        let name = name(&inner)?;
        let path = if path.is_empty() {
            name
        } else {
            format!("{path}/{name}")
        };
        add(&inner, path, found)?;
    }
    Ok(())
}

/// Writes the archive from which an image is packed. Of files only contents are in it, so that the
/// same ones give the same image.
///
/// # Errors
/// If one cannot be read.
pub(super) fn archive(program: File, files: &[Found], output: impl Write) -> io::Result<()> {
    let mut builder = tar::Builder::new(io::BufWriter::new(output));
    append(&mut builder, "unikernel", program)?;
    for file in files {
        let content = File::open(&file.source).map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("open {}: {error}", file.source.display()),
            )
        })?;
        append(&mut builder, &format!("files/{}", file.path), content)?;
    }
    builder.into_inner()?.flush()
}

fn append(builder: &mut tar::Builder<impl Write>, path: &str, content: File) -> io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(0o444);
    header.set_size(content.metadata()?.len());
    builder.append_data(&mut header, path, content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_directories_have_a_place() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir_all(root.join("www/img")).unwrap();
        fs::write(root.join("www/index.html"), "page").unwrap();
        fs::write(root.join("www/img/a:b"), "image").unwrap();
        let at = |source: &str, path: &str| Found {
            source: root.join(source),
            path: path.to_owned(),
        };
        let find = |text: &str| find(&root.join(text).display().to_string());
        let page = "www/index.html";
        assert_eq!(find(page).unwrap(), [at(page, "index.html")]);
        assert_eq!(find("www/index.html:/a/b").unwrap(), [at(page, "a/b")]);
        let image = "www/img/a:b";
        assert_eq!(find(image).unwrap(), [at(image, "a:b")]);
        assert_eq!(
            find("www:/srv/").unwrap(),
            [at(image, "srv/img/a:b"), at(page, "srv/index.html")]
        );
        assert_eq!(
            find("www").unwrap(),
            [at(image, "img/a:b"), at(page, "index.html")]
        );
        let error = find("nothing:/x").unwrap_err().to_string();
        assert!(error.contains("nothing"), "{error}");
    }
}
