//! Joins a header block and the extension headers before it to an entry. Pure functions.

use super::header::{Format, Header};
use super::pax::Records;
use super::sparse::{self, Extent};
use super::{Entry, Kind, Timestamp};

/// Extension headers that apply to the next entry.
#[derive(Debug, Default)]
pub(super) struct Extensions {
    pub pax: Option<Records>,
    pub long_name: Option<Vec<u8>>,
    pub long_link: Option<Vec<u8>>,
}

impl Extensions {
    pub fn is_empty(&self) -> bool {
        self.pax.is_none() && self.long_name.is_none() && self.long_link.is_none()
    }
}

/// An entry, and how its content is stored.
#[derive(Debug)]
pub(super) struct Joined {
    pub entry: Entry,
    /// Bytes that follow, without padding.
    pub stored_bytes: u64,
    /// Where the data goes in the file, as far as it is known.
    pub map: Vec<Extent>,
    /// What of the map is still to come.
    pub missing: MissingMap,
}

/// Where the rest of a sparse file's map is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MissingMap {
    /// Nowhere: the map is complete.
    Nothing,
    /// In extension blocks of the old GNU header.
    OldBlocks,
    /// Before the data: pax format 1.0.
    BeforeData,
}

/// Joins them. An error says what is malformed.
pub(super) fn join(
    header: &Header<'_>,
    extensions: Extensions,
    global: &Records,
) -> Result<Joined, &'static str> {
    let mut pax = extensions.pax.unwrap_or_default().over(global);
    let path = match (extensions.long_name, pax.get("path")) {
        (Some(name), _) => name,
        (None, Some(name)) => name.to_vec(),
        (None, None) => header.name(),
    };
    let link = match (extensions.long_link, pax.get("linkpath")) {
        (Some(link), _) => link,
        (None, Some(link)) => link.to_vec(),
        (None, None) => header.link().to_vec(),
    };
    let kind = match Kind::from_flag(header.flag()) {
        // Before POSIX a directory was a file whose name ends in a slash.
        _ if header.flag() == 0 && path.last() == Some(&b'/') => Kind::Directory,
        kind => kind,
    };
    let stored_bytes = match pax.number("size")? {
        _ if !kind.has_content() => 0,
        Some(size) => size,
        None => header.size().ok_or("malformed size")?,
    };
    if stored_bytes > i64::MAX.cast_unsigned() {
        return Err("size does not fit 63 bits");
    }
    let mode = header.mode().ok_or("malformed mode")?;
    let device = match kind {
        Kind::CharacterDevice | Kind::BlockDevice => {
            header.device().ok_or("malformed device number")?
        }
        _ => (0, 0),
    };
    let mtime = match pax.mtime()? {
        Some(mtime) => mtime,
        None => Timestamp {
            seconds: header.mtime().ok_or("malformed time")?,
            nanoseconds: 0,
        },
    };
    let name = |key, field: &[u8]| pax.get(key).unwrap_or(field).to_vec();
    let entry = Entry {
        path,
        kind,
        link,
        mode: u32::try_from(mode & 0o7777).unwrap_or(0),
        uid: id(pax.number("uid")?, header.uid()).ok_or("malformed user id")?,
        gid: id(pax.number("gid")?, header.gid()).ok_or("malformed group id")?,
        user_name: name("uname", header.user_name()),
        group_name: name("gname", header.group_name()),
        mtime,
        size_bytes: stored_bytes,
        device,
        xattrs: pax.xattrs()?,
        sparse: false,
    };
    let joined = Joined {
        entry,
        stored_bytes,
        map: Vec::new(),
        missing: MissingMap::Nothing,
    };
    match (header.flag() == b'S', pax_sparse_format(&pax)?) {
        (true, None) => with_old_map(joined, header),
        (false, Some(format)) if kind == Kind::File => with_pax_map(joined, format, &mut pax),
        (_, Some(_)) => Err("sparse map of something that is not a plain file"),
        (false, None) => Ok(with_whole_map(joined)),
    }
}

/// An id: the pax record's, else the header's. The largest number is none: it means "do not
/// change" to the kernel.
fn id(record: Option<u64>, field: Option<i64>) -> Option<u32> {
    let id = match record {
        Some(value) => u32::try_from(value).ok(),
        None => field.and_then(|value| u32::try_from(value).ok()),
    };
    id.filter(|&id| id != u32::MAX)
}

/// A file without holes.
fn with_whole_map(mut joined: Joined) -> Joined {
    if joined.stored_bytes > 0 {
        joined.map.push(Extent {
            offset: 0,
            length: joined.stored_bytes,
        });
    }
    joined
}

fn with_old_map(mut joined: Joined, header: &Header<'_>) -> Result<Joined, &'static str> {
    if header.format() != Format::Gnu {
        return Err("sparse header that is not GNU's");
    }
    let (pairs, is_extended, real_size) = header.old_sparse();
    joined.entry.sparse = true;
    joined.entry.size_bytes = real_size.ok_or("malformed size of a sparse file")?;
    sparse::old_pairs(pairs, &mut joined.map)?;
    if is_extended {
        joined.missing = MissingMap::OldBlocks;
    }
    Ok(joined)
}

fn with_pax_map(
    mut joined: Joined,
    format: PaxSparse,
    pax: &mut Records,
) -> Result<Joined, &'static str> {
    if let Some(name) = pax.get("GNU.sparse.name") {
        joined.entry.path = name.to_vec();
    }
    let size = pax.number("GNU.sparse.size")?;
    let real_size = pax.number("GNU.sparse.realsize")?;
    joined.entry.sparse = true;
    joined.entry.size_bytes = size.or(real_size).ok_or("sparse file without size")?;
    match format {
        PaxSparse::BeforeData => joined.missing = MissingMap::BeforeData,
        PaxSparse::InHeader => {
            let numbers = match pax.get("GNU.sparse.map") {
                Some(map) => sparse::comma_separated(map)?,
                None => std::mem::take(&mut pax.sparse_pairs),
            };
            joined.map = sparse::from_pairs(&numbers)?;
        }
    }
    Ok(joined)
}

/// Where a pax header has a sparse file's map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PaxSparse {
    /// Formats 0.0 and 0.1.
    InHeader,
    /// Format 1.0.
    BeforeData,
}

fn pax_sparse_format(pax: &Records) -> Result<Option<PaxSparse>, &'static str> {
    match (pax.get("GNU.sparse.major"), pax.get("GNU.sparse.minor")) {
        (Some(b"1"), Some(b"0")) => Ok(Some(PaxSparse::BeforeData)),
        (Some(b"0"), Some(b"0" | b"1")) => Ok(Some(PaxSparse::InHeader)),
        (None, None) if pax.get("GNU.sparse.map").is_some() || !pax.sparse_pairs.is_empty() => {
            Ok(Some(PaxSparse::InHeader))
        }
        (None, None) => Ok(None),
        _ => Err("unknown version of a sparse map"),
    }
}
