//! Round trips, dialects written by GNU tar, damage, limits.

use super::*;
use proptest::prelude::*;
use std::io::Read;
use std::process::Command;

type Files = Vec<(Entry, Vec<u8>)>;

fn read_all(archive: &[u8]) -> Result<Files, ReadError> {
    let mut reader = Reader::new(archive, Limits::default());
    let mut files = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        let mut content = Vec::new();
        reader.read_to_end(&mut content).map_err(ReadError::Io)?;
        files.push((entry, content));
    }
    Ok(files)
}

fn write_all(files: &Files) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (entry, content) in files {
        writer.append(entry, content).unwrap();
    }
    writer.finish().unwrap()
}

/// A header block with a right checksum.
fn header(name: &[u8], flag: u8, size: u64) -> [u8; 512] {
    let mut block = [0; 512];
    block[..name.len()].copy_from_slice(name);
    block[100..107].copy_from_slice(b"0000644");
    block[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
    block[156] = flag;
    block[257..265].copy_from_slice(b"ustar\x0000");
    seal(&mut block);
    block
}

fn seal(block: &mut [u8; 512]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
}

fn padded(content: &[u8]) -> Vec<u8> {
    let mut content = content.to_vec();
    content.resize(content.len().next_multiple_of(512), 0);
    content
}

fn pax(records: &[(&str, &str)]) -> Vec<u8> {
    let mut body = String::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let length = (rest..rest + 4)
            .find(|n| *n == rest + n.to_string().len())
            .unwrap();
        body += &format!("{length} {key}={value}\n");
    }
    [
        header(b"PaxHeaders/x", b'x', body.len() as u64).to_vec(),
        padded(body.as_bytes()),
    ]
    .concat()
}

#[test]
fn pax_size_rules_the_skip_and_no_extension_header() {
    // The header says 0, the pax header 512: a reader that believes the header reads the content
    // as the next entry (CVE-2025-62518).
    let inner = header(b"smuggled", b'0', 0);
    let archive = [
        pax(&[("size", "512")]),
        header(b"outer", b'0', 0).to_vec(),
        inner.to_vec(),
        header(b"after", b'0', 0).to_vec(),
    ]
    .concat();
    let files = read_all(&archive).unwrap();
    let names: Vec<_> = files
        .iter()
        .map(|(entry, _)| entry.path.as_slice())
        .collect();
    assert_eq!(names, [b"outer", b"after"]);
    assert_eq!(files[0].1, inner);

    // It does not apply to a long name between the pax header and its file (RUSTSEC-2026-0145).
    let archive = [
        pax(&[("size", "1024")]),
        header(b"././@LongLink", b'L', 5).to_vec(),
        padded(b"name\0"),
        header(b"short", b'0', 3).to_vec(),
        vec![7; 1024],
        header(b"after", b'0', 0).to_vec(),
    ]
    .concat();
    let files = read_all(&archive).unwrap();
    assert_eq!(
        (files[0].0.path.as_slice(), files[0].1.len()),
        (b"name".as_slice(), 1024)
    );
    assert_eq!(files[1].0.path, b"after");
}

#[test]
fn sizes_of_entries_without_content_are_ignored() {
    for flag in b"123456" {
        let archive = [header(b"a", *flag, 4096), header(b"b", b'0', 0)].concat();
        assert_eq!(read_all(&archive).unwrap()[1].0.path, b"b", "flag {flag}");
    }
}

#[test]
fn global_headers_apply_but_name_nothing() {
    let mut global = pax(&[("uid", "7"), ("mtime", "5.5")]);
    global[156] = b'g';
    let mut block: [u8; 512] = global[..512].try_into().unwrap();
    seal(&mut block);
    global[..512].copy_from_slice(&block);
    let archive = [
        global,
        header(b"a", b'0', 0).to_vec(),
        pax(&[("uid", "9")]),
        header(b"b", b'0', 0).to_vec(),
    ]
    .concat();
    let files = read_all(&archive).unwrap();
    assert_eq!((files[0].0.uid, files[1].0.uid), (7, 9));
    assert_eq!(
        files[1].0.mtime,
        Timestamp {
            seconds: 5,
            nanoseconds: 500_000_000
        }
    );

    let mut global = pax(&[("path", "x")]);
    global[156] = b'g';
    let mut block: [u8; 512] = global[..512].try_into().unwrap();
    seal(&mut block);
    global[..512].copy_from_slice(&block);
    assert!(
        read_all(&global)
            .unwrap_err()
            .to_string()
            .contains("global header")
    );
}

#[test]
fn damage_is_named() {
    let file = header(b"a", b'0', 600).to_vec();
    let whole = [file.clone(), padded(&[1; 600]), vec![0; 1024]].concat();
    read_all(&whole).unwrap();
    // The padding of the last entry and the end marks are not missed.
    for length in [512 + 600, 512 + 1024, whole.len() - 512, whole.len() - 1024] {
        read_all(&whole[..length]).unwrap();
    }
    for length in [1, 511, 512, 513, 512 + 599] {
        let error = read_all(&whole[..length]).unwrap_err();
        let message = match error {
            ReadError::Archive(error) => error.to_string(),
            ReadError::Io(error) => error.to_string(),
        };
        assert!(message.contains("cut short"), "{length}: {message}");
    }
    assert!(read_all(&[]).unwrap().is_empty());
    let mut wrong = whole.clone();
    wrong[0] = b'b';
    assert!(
        read_all(&wrong)
            .unwrap_err()
            .to_string()
            .contains("checksum")
    );
    let after_zero = [vec![0; 512], whole.clone()].concat();
    assert!(
        read_all(&after_zero)
            .unwrap_err()
            .to_string()
            .contains("zero block")
    );
    let two_pax = [pax(&[("uid", "1")]), pax(&[("uid", "2")]), file.clone()].concat();
    assert!(
        read_all(&two_pax)
            .unwrap_err()
            .to_string()
            .contains("two extension headers")
    );
    let negative = pax(&[("size", "9223372036854775808")]);
    assert!(
        read_all(&[negative, file].concat())
            .unwrap_err()
            .to_string()
            .contains("63 bits")
    );
    let no_owner = [
        pax(&[("uid", "4294967295")]),
        header(b"a", b'0', 0).to_vec(),
    ]
    .concat();
    assert!(
        read_all(&no_owner)
            .unwrap_err()
            .to_string()
            .contains("user id")
    );
}

#[test]
fn limits_are_named() {
    let limits = Limits {
        max_entries: 2,
        max_path_bytes: 200,
        max_pax_bytes: 300,
        max_sparse_extents: 4,
    };
    let fails_by = |archive: &[u8], limit: &str| {
        let mut parser = Parser::new(limits.clone());
        let mut rest = archive;
        loop {
            match parser.step(rest) {
                Ok(step) => rest = &rest[step.consumed..],
                Err(error) => break assert!(error.to_string().contains(limit), "{error}"),
            }
        }
    };
    let file = header(b"a", b'0', 0);
    fails_by(&[file, file, file].concat(), "max_entries");
    fails_by(&pax(&[("comment", &"x".repeat(400))]), "max_pax_bytes");
    fails_by(
        &[pax(&[("path", &"x".repeat(250))]), file.to_vec()].concat(),
        "max_path_bytes",
    );
    fails_by(&header(b"././@LongLink", b'L', 1 << 32), "max_path_bytes");
    fails_by(&header(b"x", b'x', 1 << 32), "max_pax_bytes");
}

#[test]
fn sparse_maps_must_fit() {
    let sparse = |map: &str, size: &str, stored: usize| {
        let records = [
            ("GNU.sparse.major", "0"),
            ("GNU.sparse.minor", "1"),
            ("GNU.sparse.map", map),
            ("GNU.sparse.size", size),
        ];
        let file = header(b"a", b'0', stored as u64).to_vec();
        read_all(&[pax(&records), file, padded(&vec![1; stored])].concat())
    };
    let content = sparse("2,3,10,1", "12", 4).unwrap().remove(0).1;
    assert_eq!(content, [0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 1, 0]);
    for (map, size, stored) in [
        ("2,3,4,1", "12", 4),
        ("10,1,2,3", "12", 4),
        ("2,3,10,3", "12", 6),
        ("2,3", "12", 4),
        ("2,3,10", "12", 3),
        ("18446744073709551615,2", "12", 2),
    ] {
        assert!(sparse(map, size, stored).is_err(), "{map}");
    }
}

#[test]
fn dialects_of_gnu_tar_are_read() {
    if Command::new("tar").arg("--version").output().is_err() {
        println!("SKIPPED: no tar program to make archives with");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(200));
    std::fs::create_dir(at(&"d".repeat(120))).unwrap();
    std::fs::write(at(&long), "long").unwrap();
    std::os::unix::fs::symlink("t".repeat(300), at("link")).unwrap();
    // Sparse: with enough pieces for extension blocks, and a hole at the end.
    let mut expected = vec![0u8; 4 << 20];
    let file = std::fs::File::create(at("sparse")).unwrap();
    file.set_len(expected.len() as u64).unwrap();
    for piece in 0..40usize {
        use std::os::unix::fs::FileExt;
        let offset = piece * 96 * 1024 + 32768;
        let data = [u8::try_from(piece).unwrap() + 1; 5000];
        file.write_all_at(&data, offset as u64).unwrap();
        expected[offset..offset + 5000].copy_from_slice(&data);
    }
    file.sync_all().unwrap();
    for format in [
        "--format=gnu",
        "--format=posix --sparse-version=0.0",
        "--format=posix --sparse-version=0.1",
        "--format=posix --sparse-version=1.0",
    ] {
        let output = Command::new("tar")
            .args(["-c", "-S", "--owner=u:3000000000", "--group=g:5"])
            .args(format.split(' '))
            .arg("-C")
            .arg(dir.path())
            .args([&"d".repeat(120), "link", "sparse"])
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(output.stdout.len() < 1 << 20, "the fixture has no holes");
        let files = read_all(&output.stdout).unwrap();
        let names: Vec<_> = files.iter().map(|(entry, _)| entry.path.clone()).collect();
        let directory = format!("{}/", "d".repeat(120)).into_bytes();
        assert_eq!(
            names,
            [
                directory,
                long.clone().into_bytes(),
                b"link".to_vec(),
                b"sparse".to_vec()
            ]
        );
        assert!(
            files
                .iter()
                .all(|(entry, _)| entry.uid == 3_000_000_000 && entry.gid == 5)
        );
        assert_eq!(files[1].1, b"long");
        assert_eq!(files[2].0.link, "t".repeat(300).into_bytes());
        assert!(files[3].0.sparse && files[3].1 == expected, "{format}");
        fuzz_tar(&output.stdout);
    }
}

#[test]
fn gnu_tar_reads_what_is_written() {
    let mut entry = Entry::new(format!("{}/x", "p".repeat(180)), Kind::File, 0o4755);
    entry.mtime = Timestamp {
        seconds: 20,
        nanoseconds: 750_000_000,
    };
    entry.uid = 3_000_000_000;
    let archive = write_all(&vec![
        (entry, b"content".to_vec()),
        (
            Entry::new(
                format!("{}/{}", "a".repeat(90), "b".repeat(90)),
                Kind::File,
                0o644,
            ),
            vec![],
        ),
    ]);
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.tar"), archive).unwrap();
    let Ok(output) = Command::new("tar")
        .args(["-tv", "--full-time", "--utc", "--numeric-owner", "-f"])
        .arg(dir.path().join("a.tar"))
        .output()
    else {
        println!("SKIPPED: no tar program to read archives with");
        return;
    };
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    assert!(text.contains("-rwsr-xr-x 3000000000/0"), "{text}");
    assert!(text.contains("1970-01-01 00:00:20.75"), "{text}");
    assert!(
        text.contains(&format!("{}/{}", "a".repeat(90), "b".repeat(90))),
        "{text}"
    );
}

fn name(longest: usize) -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(1u8.., 1..longest)
}

prop_compose! {
    fn file()(
        path in name(400),
        kind in prop_oneof![
            Just(Kind::File), Just(Kind::Directory), Just(Kind::Symlink), Just(Kind::HardLink),
            Just(Kind::Fifo), Just(Kind::CharacterDevice), Just(Kind::BlockDevice),
        ],
        link in name(300),
        mode in 0u32..0o10000,
        uid in 0..u32::MAX, gid in 0..u32::MAX,
        user_name in name(50), group_name in name(20),
        seconds in any::<i32>().prop_map(|seconds| i64::from(seconds) * 3),
        nanoseconds in prop_oneof![Just(0), 0u32..1_000_000_000],
        device in (0u32..0x1000, 0u32..0x10_0000),
        xattrs in proptest::collection::btree_map("[a-z.]{1,20}", proptest::collection::vec(any::<u8>(), 1..50), 0..3),
        content in proptest::collection::vec(any::<u8>(), 0..1500),
    ) -> (Entry, Vec<u8>) {
        let is_device = matches!(kind, Kind::CharacterDevice | Kind::BlockDevice);
        let content = if kind == Kind::File { content } else { Vec::new() };
        let entry = Entry {
            path, kind, link, mode, uid, gid, user_name, group_name,
            mtime: Timestamp { seconds, nanoseconds },
            size_bytes: content.len() as u64,
            device: if is_device { device } else { (0, 0) },
            xattrs: xattrs.into_iter().map(|(name, value)| (name.into_bytes(), value)).collect(),
            sparse: false,
        };
        (entry, content)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read(files in proptest::collection::vec(file(), 0..6)) {
        let archive = write_all(&files);
        prop_assert_eq!(archive.len() % 512, 0);
        prop_assert_eq!(read_all(&archive).unwrap(), files);
        fuzz_tar(&archive);
    }

    #[test]
    fn any_bytes_are_refused_or_read_alike_however_cut(
        files in proptest::collection::vec(file(), 0..4),
        changes in proptest::collection::vec((any::<usize>(), any::<u8>()), 0..6),
        flags in proptest::collection::vec((0usize..12, proptest::sample::select(b"\x00017xgLKSV".to_vec())), 0..4),
        cut in any::<usize>(),
    ) {
        let mut archive = write_all(&files);
        for (at, byte) in changes {
            let at = at % archive.len();
            archive[at] = byte;
        }
        // Damaged headers with right checksums reach what is behind the check.
        for (block, flag) in flags {
            if let Some(block) = archive.get_mut(block * 512..block * 512 + 512) {
                let mut sealed: [u8; 512] = block.try_into().unwrap();
                sealed[156] = flag;
                seal(&mut sealed);
                block.copy_from_slice(&sealed);
            }
        }
        archive.truncate(cut % (archive.len() + 1));
        fuzz_tar(&archive);
    }
}
