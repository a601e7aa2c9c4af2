//! Packs a path of a container as the tar archive that `docker cp` expects.

use super::node::Node;
use super::path::Asked;
use super::walk::{Next, walk};
use gamut_image::tar::{Entry, Kind, Writer};
use std::collections::{BTreeSet, HashMap};
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

/// File systems that show the kernel's state: a copy of a tree leaves their content out.
/// Source: linux/magic.h.
const KERNEL_FILE_SYSTEMS: [i64; 15] = [
    0x9fa0,      // proc
    0x6265_6572, // sysfs
    0x0027_e0eb, // cgroup
    0x6367_7270, // cgroup2
    0x1cd1,      // devpts
    0x1980_0202, // mqueue
    0x6462_6720, // debugfs
    0x7472_6163, // tracefs
    0x7363_6673, // securityfs
    0xcafe_4a11, // bpf
    0x6165_676c, // pstore
    0xde5e_81e4, // efivarfs
    0x9584_58f6, // hugetlbfs
    0x6265_6570, // configfs
    0xf97c_ff8c, // selinuxfs
];

/// Writes the archive. Names begin with the path's own name: `etc/`, `etc/passwd` for `/etc`,
/// `./`, `./passwd` for `/etc/.`, `/`, `/etc/` for the root. Of other mounts met on the way,
/// `/dev` and the kernel's own file systems stay empty, as they are in the image.
///
/// # Errors
/// The system's, and the output's.
pub(super) fn pack(root: BorrowedFd<'_>, asked: &Asked, output: &mut dyn Write) -> io::Result<()> {
    let start = asked.open(root)?;
    let mut pack = Pack::new(output);
    if !start.is_directory() {
        pack.append(asked.name.clone().into_bytes(), &start)?;
        return pack.finish();
    }
    let mut left_out = BTreeSet::new();
    let own_mount = start.mount_id()?;
    if let Ok(devices) = Node::open_directory(root, b"dev", super::node::IN_ROOT) {
        left_out.insert(devices.mount_id()?);
        // An image's own /dev is on the root's mount.
        left_out.remove(&Node::open_directory(root, b"", super::node::IN_ROOT)?.mount_id()?);
    }
    let mut prefix = asked.name.clone().into_bytes();
    if prefix != b"/" {
        prefix.push(b'/');
    }
    pack.append(prefix.clone(), &start)?;
    walk(start.fd.as_fd(), &mut |path, node| {
        let mut name = [prefix.as_slice(), path].concat();
        if !node.is_directory() {
            pack.append(name, node)?;
            return Ok(Next::Skip);
        }
        name.push(b'/');
        pack.append(name, node)?;
        let mount = node.mount_id()?;
        let is_left_out = mount != own_mount
            && (left_out.contains(&mount) || KERNEL_FILE_SYSTEMS.contains(&node.file_system()?));
        Ok(if is_left_out {
            Next::Skip
        } else {
            Next::Descend
        })
    })?;
    pack.finish()
}

/// Writes a whole tree without mounts, as `docker export` does: names are relative, and the root
/// itself has none.
///
/// # Errors
/// The system's, and the output's.
pub(super) fn pack_tree(root: BorrowedFd<'_>, output: &mut dyn Write) -> io::Result<()> {
    let mut pack = Pack::new(output);
    walk(root, &mut |path, node| {
        let mut name = path.to_vec();
        if node.is_directory() {
            name.push(b'/');
        }
        pack.append(name, node)?;
        Ok(Next::Descend)
    })?;
    pack.finish()
}

/// Attributes that belong into an archive.
pub(super) fn is_kept(name: &[u8]) -> bool {
    name == b"security.capability"
        || (name.starts_with(b"user.")
            && !name.starts_with(b"user.overlay.")
            && !name.contains(&b'='))
}

/// An archive being written.
pub(super) struct Pack<'a> {
    writer: Writer<BufWriter<&'a mut dyn Write>>,
    /// Names of files that may have further ones, by device and inode.
    links: HashMap<(u64, u64), Vec<u8>>,
}

impl<'a> Pack<'a> {
    pub fn new(output: &'a mut dyn Write) -> Self {
        Self {
            writer: Writer::new(BufWriter::with_capacity(128 << 10, output)),
            links: HashMap::new(),
        }
    }

    pub fn finish(self) -> io::Result<()> {
        self.writer.finish().map(drop)
    }

    /// An empty file by whose name a layer hides another.
    pub fn whiteout(&mut self, name: Vec<u8>) -> io::Result<()> {
        self.writer.append(&Entry::new(name, Kind::File, 0), &[])
    }

    pub fn append(&mut self, name: Vec<u8>, node: &Node) -> io::Result<()> {
        // Sockets have no place in an archive.
        let Some(mut entry) = node.entry(name)? else {
            return Ok(());
        };
        if entry.kind != Kind::Directory && node.stat.st_nlink > 1 {
            let identity = (node.stat.st_dev, node.stat.st_ino);
            if let Some(first) = self.links.get(&identity) {
                entry.kind = Kind::HardLink;
                entry.link.clone_from(first);
                return self.writer.append(&entry, &[]);
            }
            self.links.insert(identity, entry.path.clone());
        }
        entry.xattrs = node.xattrs(is_kept)?;
        if entry.kind != Kind::File || entry.size_bytes == 0 {
            return self.writer.append(&entry, &[]);
        }
        let file = match node.reader() {
            // A file that cannot be read must not cost the client all the others.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                tracing::warn!(path = %entry.path.escape_ascii(), %error, "a file is left out of an archive");
                return Ok(());
            }
            file => file?,
        };
        // The header has the length by now. A file that grows is cut off, one that shrinks is
        // filled with zeros: the archive stays whole.
        let size_bytes = entry.size_bytes;
        self.writer.append_from(
            &entry,
            size_bytes,
            file.take(size_bytes).chain(io::repeat(0)),
        )
    }
}
