//! What an archive says about one file.

/// Kind of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Regular file.
    File,
    /// Further name of a file that the archive named before; see [`Entry::link`].
    HardLink,
    /// Symbolic link to [`Entry::link`].
    Symlink,
    /// Character device.
    CharacterDevice,
    /// Block device.
    BlockDevice,
    /// Directory.
    Directory,
    /// Named pipe.
    Fifo,
    /// A type flag that this parser does not know; content, if any, is delivered as it is.
    Other(u8),
}

impl Kind {
    pub(super) fn from_flag(flag: u8) -> Self {
        match flag {
            0 | b'0' | b'7' | b'S' => Self::File,
            b'1' => Self::HardLink,
            b'2' => Self::Symlink,
            b'3' => Self::CharacterDevice,
            b'4' => Self::BlockDevice,
            b'5' => Self::Directory,
            b'6' => Self::Fifo,
            other => Self::Other(other),
        }
    }

    pub(super) fn flag(self) -> u8 {
        match self {
            Self::File => b'0',
            Self::HardLink => b'1',
            Self::Symlink => b'2',
            Self::CharacterDevice => b'3',
            Self::BlockDevice => b'4',
            Self::Directory => b'5',
            Self::Fifo => b'6',
            Self::Other(flag) => flag,
        }
    }

    /// Whether content follows the header. For the others the size field is ignored, as in Go.
    pub(super) fn has_content(self) -> bool {
        matches!(self, Self::File | Self::Other(_))
    }
}

/// A point in time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    /// Seconds since 1970-01-01 00:00 UTC, rounded down.
    pub seconds: i64,
    /// Nanoseconds after that, below 1,000,000,000.
    pub nanoseconds: u32,
}

/// Extended attributes: full name and value.
pub type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// One entry of an archive. Names are the archive's bytes, unchecked but for the absence of NUL:
/// they may be empty, absolute or hold `..`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Name, without a change.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Target of a hard or symbolic link.
    pub link: Vec<u8>,
    /// Permission bits with setuid, setgid and sticky: the lower twelve bits of a mode.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Name of the owner, often empty.
    pub user_name: Vec<u8>,
    /// Name of the group, often empty.
    pub group_name: Vec<u8>,
    /// Last modification.
    pub mtime: Timestamp,
    /// Length of the content in bytes, holes included.
    pub size_bytes: u64,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Extended attributes: full name and value.
    pub xattrs: Xattrs,
    /// Whether the content has holes: its length is then not told by the data alone.
    pub sparse: bool,
}

impl Entry {
    /// An entry owned by root, with time 0 and no content.
    #[must_use]
    pub fn new(path: impl Into<Vec<u8>>, kind: Kind, mode: u32) -> Self {
        Self {
            path: path.into(),
            kind,
            link: Vec::new(),
            mode,
            uid: 0,
            gid: 0,
            user_name: Vec::new(),
            group_name: Vec::new(),
            mtime: Timestamp::default(),
            size_bytes: 0,
            device: (0, 0),
            xattrs: Vec::new(),
            sparse: false,
        }
    }
}
