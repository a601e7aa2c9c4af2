//! The words of `mounts[].options`, by table: attributes of the mount, propagation, and what is
//! left for the file system itself.
//!
//! Sources: OCI runtime-spec "Linux mount options", mount(8), mount_setattr(2).

use super::field::invalid;
use crate::error::Error;
use gamut_abi::plan::Propagation;

/// `MOUNT_ATTR_RDONLY` (mount_setattr(2)).
pub(super) const READ_ONLY: u64 = 0x1;
const NO_SUID: u64 = 0x2;
const NO_DEVICES: u64 = 0x4;
const NO_EXECUTION: u64 = 0x8;
/// The field that holds one of the three access time modes, the first of them (relatime) zero.
const ATIME_FIELD: u64 = 0x70;
const NO_ATIME: u64 = 0x10;
const STRICT_ATIME: u64 = 0x20;
const NO_DIRECTORY_ATIME: u64 = 0x80;
const NO_SYMLINK_FOLLOWING: u64 = 0x0020_0000;

/// Flags: word, bit, whether the word sets or clears it. With an `r` before it the word applies
/// to every mount below as well.
const FLAGS: [(&str, u64, bool); 12] = [
    ("ro", READ_ONLY, true),
    ("rw", READ_ONLY, false),
    ("nosuid", NO_SUID, true),
    ("suid", NO_SUID, false),
    ("nodev", NO_DEVICES, true),
    ("dev", NO_DEVICES, false),
    ("noexec", NO_EXECUTION, true),
    ("exec", NO_EXECUTION, false),
    ("nodiratime", NO_DIRECTORY_ATIME, true),
    ("diratime", NO_DIRECTORY_ATIME, false),
    ("nosymfollow", NO_SYMLINK_FOLLOWING, true),
    ("symfollow", NO_SYMLINK_FOLLOWING, false),
];

/// Access time modes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Atime {
    Set(u64),
    /// Clears one mode if it was set before; relatime, the kernel's default, remains.
    Unset(u64),
}

const ATIMES: [(&str, Atime); 6] = [
    ("relatime", Atime::Set(0)),
    ("noatime", Atime::Set(NO_ATIME)),
    ("strictatime", Atime::Set(STRICT_ATIME)),
    ("norelatime", Atime::Unset(0)),
    ("atime", Atime::Unset(NO_ATIME)),
    ("nostrictatime", Atime::Unset(STRICT_ATIME)),
];

const PROPAGATIONS: [(&str, Propagation, bool); 8] = [
    ("private", Propagation::Private, false),
    ("rprivate", Propagation::Private, true),
    ("shared", Propagation::Shared, false),
    ("rshared", Propagation::Shared, true),
    ("slave", Propagation::Slave, false),
    ("rslave", Propagation::Slave, true),
    ("unbindable", Propagation::Unbindable, false),
    ("runbindable", Propagation::Unbindable, true),
];

/// Words that change nothing: defaults, and how loudly the kernel logs.
const WITHOUT_EFFECT: [&str; 3] = ["defaults", "loud", "silent"];

/// A propagation word, as in `linux.rootfsPropagation`; whether recursive.
pub(super) fn propagation(word: &str) -> Option<(Propagation, bool)> {
    PROPAGATIONS
        .iter()
        .find(|(known, _, _)| *known == word)
        .map(|&(_, propagation, recursive)| (propagation, recursive))
}

/// Every word of the tables, those of recursive attributes included, and those that have a meaning
/// of their own.
pub(super) fn words() -> Vec<String> {
    let flags = FLAGS.iter().map(|(word, _, _)| *word);
    let attributes: Vec<&str> = flags.chain(ATIMES.iter().map(|(word, _)| *word)).collect();
    let recursive = attributes.iter().map(|word| format!("r{word}"));
    let others = PROPAGATIONS.iter().map(|(word, _, _)| *word);
    let plain = others
        .chain(WITHOUT_EFFECT)
        .chain(["bind", "rbind", "tmpcopyup"]);
    plain
        .chain(attributes.iter().copied())
        .map(str::to_owned)
        .chain(recursive)
        .collect()
}

/// Flags that a bind without them loses if it has any other.
const CLEARED: u64 = READ_ONLY | NO_SUID | NO_DEVICES | NO_EXECUTION | NO_SYMLINK_FOLLOWING;

/// Bits to set and to clear.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Attributes {
    pub(super) set: u64,
    pub(super) clear: u64,
}

impl Attributes {
    fn flag(&mut self, bit: u64, set: bool) {
        // The last word wins.
        self.set &= !bit;
        self.clear &= !bit;
        if set {
            self.set |= bit;
        } else {
            self.clear |= bit;
        }
    }

    fn atime(&mut self, atime: Atime) {
        match atime {
            Atime::Set(mode) => {
                // mount_setattr(2): to change the mode, the whole field has to be cleared.
                self.clear |= ATIME_FIELD;
                self.set = self.set & !ATIME_FIELD | mode;
            }
            Atime::Unset(mode) if self.clear & ATIME_FIELD != 0 => {
                if self.set & ATIME_FIELD == mode {
                    self.set &= !ATIME_FIELD;
                }
            }
            // `atime` alone undoes noatime of the source; so does `nostrictatime` for its mode.
            Atime::Unset(0) => {}
            Atime::Unset(_) => self.clear |= ATIME_FIELD,
        }
    }

    fn is_empty(self) -> bool {
        self == Self::default()
    }
}

/// The words of one mount, sorted.
#[derive(Debug, Default)]
pub(super) struct Options {
    /// `bind` (`false`) or `rbind` (`true`).
    pub(super) bind: Option<bool>,
    pub(super) attributes: Attributes,
    pub(super) recursive_attributes: Attributes,
    pub(super) propagation: Option<(Propagation, bool)>,
    pub(super) copy_up: bool,
    /// `idmap` (`false`) or `ridmap` (`true`).
    pub(super) idmap: Option<bool>,
    /// Words about the mount itself, as [`Self::exact`] needs them.
    exact: Exact,
    /// For the file system: position in the list, name, value.
    pub(super) data: Vec<(usize, String, Option<String>)>,
}

impl Options {
    /// Sorts the words of `field`, the list of options.
    pub(super) fn parse(field: &str, words: &[String]) -> Result<Self, Error> {
        let mut options = Self::default();
        for (index, word) in words.iter().enumerate() {
            let entry = || format!("{field}[{index}]");
            match word.as_str() {
                "" => return Err(invalid(entry(), "is empty")),
                "bind" => options.bind = Some(options.bind.unwrap_or(false)),
                "rbind" => options.bind = Some(true),
                "tmpcopyup" => options.copy_up = true,
                "remount" => {
                    return Err(invalid(entry(), "remount makes no sense for a new mount"));
                }
                "idmap" => options.idmap = Some(options.idmap.unwrap_or(false)),
                "ridmap" => options.idmap = Some(true),
                word if WITHOUT_EFFECT.contains(&word) => {}
                word if options.known(word) => {}
                word if word.contains('\0') => {
                    return Err(invalid(entry(), "contains a NUL byte"));
                }
                word => {
                    let (name, value) = match word.split_once('=') {
                        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                        None => (word.to_owned(), None),
                    };
                    options.data.push((index, name, value));
                }
            }
        }
        Ok(options)
    }

    /// Takes a word of the tables; false if it is in none of them.
    fn known(&mut self, word: &str) -> bool {
        if let Some(found) = propagation(word) {
            self.propagation = Some(found);
            return true;
        }
        if self.attributes.word(word) {
            self.exact.word(word);
            return true;
        }
        match word.strip_prefix('r') {
            Some(rest) => self.recursive_attributes.word(rest),
            None => false,
        }
    }

    /// Makes the attributes those of a bind that has just the flags that are asked for, as the OCI
    /// runtime specification has it after mount(8), and answers the bits to be cleared besides.
    /// `None` if no word is about flags: then it has those of its source.
    ///
    /// As mount(2) has it for `MS_REMOUNT`, access times stay as they are unless a mode is asked
    /// for; then they are set as a whole, `nodiratime` included.
    pub(super) fn exact(&mut self) -> Option<u64> {
        if !self.exact.any {
            return None;
        }
        let times = ATIME_FIELD | NO_DIRECTORY_ATIME;
        self.attributes.set &= !times;
        self.attributes.clear &= !times;
        if let Some(set) = self.exact.times() {
            self.attributes.set |= set;
            self.attributes.clear |= ATIME_FIELD | (NO_DIRECTORY_ATIME & !set);
        }
        Some(CLEARED & !self.attributes.set & !self.attributes.clear)
    }

    /// The attributes in the form of the plan: those of the mount itself, then those of everything
    /// from it on down. Where nothing can be below (`single`), the two are the same.
    pub(super) fn joined_attributes(&self, single: bool) -> (Attributes, Option<Attributes>) {
        let (plain, recursive) = (self.attributes, self.recursive_attributes);
        if recursive.is_empty() {
            return (plain, None);
        }
        if !single {
            return (plain, Some(recursive));
        }
        let clear = plain.clear & !recursive.set | recursive.clear;
        let mut set = plain.set & !recursive.clear | recursive.set;
        if recursive.clear & ATIME_FIELD != 0 {
            set = set & !ATIME_FIELD | recursive.set & ATIME_FIELD;
        }
        (Attributes { set, clear }, None)
    }
}

/// Which words were about flags, and which ways of access times they leave asked for.
#[derive(Debug, Default)]
struct Exact {
    any: bool,
    /// Bit n: the n-th of [`TIME_WORDS`] is asked for.
    asked: u8,
}

/// Words for access times with their opposites, and the bits that they stand for. Of several, the
/// first decides.
const TIME_WORDS: [(&str, &str, u64); 4] = [
    ("strictatime", "nostrictatime", STRICT_ATIME),
    ("noatime", "atime", NO_ATIME),
    ("relatime", "norelatime", 0),
    ("nodiratime", "diratime", NO_DIRECTORY_ATIME),
];

impl Exact {
    fn word(&mut self, word: &str) {
        self.any = true;
        for (index, (asks, takes_back, _)) in TIME_WORDS.iter().enumerate() {
            if word == *asks {
                self.asked |= 1 << index;
            } else if word == *takes_back {
                self.asked &= !(1 << index);
            }
        }
    }

    /// Bits to set; `None` if nothing is asked for.
    fn times(&self) -> Option<u64> {
        if self.asked == 0 {
            return None;
        }
        let asked = |index: usize| self.asked & 1 << index != 0;
        let mode = (0..3).find(|index| asked(*index));
        let directories = if asked(3) { NO_DIRECTORY_ATIME } else { 0 };
        Some(mode.map_or(0, |index| TIME_WORDS[index].2) | directories)
    }
}

impl Attributes {
    fn word(&mut self, word: &str) -> bool {
        if let Some(&(_, bit, set)) = FLAGS.iter().find(|(known, _, _)| *known == word) {
            self.flag(bit, set);
            return true;
        }
        if let Some(&(_, atime)) = ATIMES.iter().find(|(known, _)| *known == word) {
            self.atime(atime);
            return true;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> Options {
        let words: Vec<String> = words.split(',').map(str::to_owned).collect();
        Options::parse("o", &words).unwrap()
    }

    #[test]
    fn attributes_by_table() {
        for (words, set, clear) in [
            ("ro", 0x1, 0),
            ("rw", 0, 0x1),
            ("ro,rw", 0, 0x1),
            ("rw,ro", 0x1, 0),
            ("nosuid,nodev,noexec", 0xe, 0),
            ("relatime", 0, 0x70),
            ("noatime", 0x10, 0x70),
            ("strictatime", 0x20, 0x70),
            ("noatime,strictatime", 0x20, 0x70),
            ("noatime,nostrictatime", 0x10, 0x70),
            ("noatime,atime", 0, 0x70),
            ("norelatime", 0, 0),
            ("nodiratime,nosymfollow", 0x0020_0080, 0),
            ("defaults,loud", 0, 0),
        ] {
            assert_eq!(
                parse(words).attributes,
                Attributes { set, clear },
                "{words}"
            );
        }
    }

    #[test]
    fn a_bind_has_just_the_flags_that_are_asked_for() {
        for (words, set, clear, implied) in [
            // Nothing about flags: those of the source.
            ("bind,rprivate", 0, 0, None),
            ("ro", 0x1, 0, Some(0x0020_000e)),
            ("rw", 0, 0x1, Some(0x0020_000e)),
            ("dev", 0, 0x4, Some(0x0020_000b)),
            ("ro,symfollow,nosuid", 0x3, 0x0020_0000, Some(0xc)),
            // Access times stay, unless a mode is asked for.
            ("noatime,atime", 0, 0, Some(0x0020_000f)),
            ("norelatime", 0, 0, Some(0x0020_000f)),
            ("noatime", 0x10, 0xf0, Some(0x0020_000f)),
            ("noatime,relatime", 0x10, 0xf0, Some(0x0020_000f)),
            ("relatime", 0, 0xf0, Some(0x0020_000f)),
            ("nodiratime", 0x80, 0x70, Some(0x0020_000f)),
            ("nodiratime,norelatime", 0x80, 0x70, Some(0x0020_000f)),
            ("nodiratime,strictatime", 0xa0, 0x70, Some(0x0020_000f)),
            ("strictatime,nostrictatime", 0, 0, Some(0x0020_000f)),
        ] {
            let mut options = parse(words);
            assert_eq!(options.exact(), implied, "{words}");
            assert_eq!(options.attributes, Attributes { set, clear }, "{words}");
        }
    }

    #[test]
    fn recursive_words_are_not_taken_for_others() {
        let options = parse("rbind,rro,rprivate,ronly=1");
        assert_eq!(options.bind, Some(true));
        assert_eq!(
            options.recursive_attributes,
            Attributes { set: 1, clear: 0 }
        );
        assert_eq!(options.attributes, Attributes::default());
        assert_eq!(options.propagation, Some((Propagation::Private, true)));
        assert_eq!(
            options.data,
            [(3, "ronly".to_owned(), Some("1".to_owned()))]
        );
        // `rw` clears, `rrw` clears recursively, `relatime` is no recursive word.
        assert_eq!(
            parse("rrw").recursive_attributes,
            Attributes { set: 0, clear: 1 }
        );
        assert_eq!(parse("rrelatime").recursive_attributes.clear, 0x70);
    }

    #[test]
    fn recursive_attributes_come_after_plain_ones() {
        let attributes = |words, single| parse(words).joined_attributes(single);
        let of = |set, clear| Attributes { set, clear };
        assert_eq!(attributes("ro,rro", false), (of(1, 0), Some(of(1, 0))));
        assert_eq!(attributes("rro,nosuid", true), (of(3, 0), None));
        assert_eq!(attributes("rro,nosuid", false), (of(2, 0), Some(of(1, 0))));
        assert_eq!(attributes("ro,rrw", true), (of(0, 1), None));
        assert_eq!(
            attributes("rnoatime,rnosuid", false),
            (of(0, 0), Some(of(0x12, 0x70)))
        );
    }
}
