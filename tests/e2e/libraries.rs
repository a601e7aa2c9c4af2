//! Two versions of one tool that need clashing versions of one library, side by side.

use std::path::{Path, PathBuf};
use std::process::Command;

use gamut_tests::{Daemon, Rootfs, has};

/// The library: the newer one has other functions under the same file name.
const LIBCORE: [(&str, &str); 2] = [
    (
        "1.1",
        "int core_score(const char *a, const char *b) { int n = 0; while (*a && *b) n += *a++ == *b++; return n; }\n",
    ),
    (
        "2.3",
        "struct core_result { int matches, length; };\n\
             struct core_result core_align(const char *a, const char *b) {\n\
               struct core_result r = {0, 0}; while (*a && *b) { r.matches += *a++ == *b++; r.length++; } return r; }\n",
    ),
];

/// The tool: each version calls what its library has.
const BIOALIGN: [(&str, &str); 2] = [
    (
        "2.7",
        "#include <stdio.h>\n\
             extern const char *core_version(void); extern int core_score(const char *, const char *);\n\
             int main(int n, char **v) { if (n < 3) return 2;\n\
               printf(\"bioalign 2.7 (libcore %s): %d\\n\", core_version(), core_score(v[1], v[2])); return 0; }\n",
    ),
    (
        "4.1",
        "#include <stdio.h>\n\
             struct core_result { int matches, length; };\n\
             extern const char *core_version(void); extern struct core_result core_align(const char *, const char *);\n\
             int main(int n, char **v) { if (n < 3) return 2; struct core_result r = core_align(v[1], v[2]);\n\
               printf(\"bioalign 4.1 (libcore %s): %d/%d\\n\", core_version(), r.matches, r.length); return 0; }\n",
    ),
];

fn compile(directory: &Path, output: &str, source: &str, arguments: &[&str]) -> PathBuf {
    let path = directory.join(format!("{output}.c"));
    std::fs::write(&path, source).unwrap();
    let output = directory.join(output);
    let compiled = Command::new("gcc")
        .arg("-o")
        .arg(&output)
        .arg(path)
        .args(arguments)
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&compiled.stderr);
    assert!(compiled.status.success(), "{error}");
    output
}

/// What the dynamic linker resolves for a program: the linker itself and the C library.
fn system_libraries(program: &Path) -> Vec<PathBuf> {
    let listed = Command::new("ldd").arg(program).output().unwrap();
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let words = listed
        .split_whitespace()
        .filter(|word| word.starts_with("/lib"));
    words.map(PathBuf::from).collect()
}

/// An image with one version of the tool and the library it needs.
fn build(daemon: &Daemon, version: usize) {
    let (tool, source) = BIOALIGN[version];
    let (library, library_source) = LIBCORE[version];
    let directory = daemon.directory().join(tool);
    std::fs::create_dir(&directory).unwrap();
    let source_with_version =
        format!("const char *core_version(void) {{ return \"{library}\"; }}\n{library_source}");
    let shared = ["-shared", "-fPIC", "-Wl,-soname,libcore.so"];
    let libcore = compile(&directory, "libcore.so", &source_with_version, &shared);
    let here = format!("-L{}", directory.display());
    let bioalign = compile(&directory, "bioalign", source, &[&here, "-lcore"]);
    let mut rootfs = Rootfs::new()
        .copy(&bioalign, "usr/bin/bioalign", 0o755)
        .copy(&libcore, "usr/lib/libcore.so", 0o644);
    for path in system_libraries(&bioalign) {
        let inside = path.display().to_string();
        rootfs = rootfs.copy(&path, inside.trim_start_matches('/'), 0o755);
    }
    let reference = format!("bioalign:{tool}");
    daemon.import(
        &rootfs.finish(),
        &reference,
        &["ENTRYPOINT [\"/usr/bin/bioalign\"]"],
    );
}

#[test]
fn two_versions_with_clashing_libraries_run_side_by_side() {
    if !(has("gcc") && has("ldd")) {
        return;
    }
    let Some(daemon) = Daemon::start() else {
        return;
    };
    build(&daemon, 0);
    build(&daemon, 1);
    let runs: Vec<_> = ["bioalign:2.7", "bioalign:4.1"]
        .iter()
        .map(|image| daemon.spawn(&["run", "--rm", image, "GATTACA", "GATCACA"]))
        .collect();
    let outputs: Vec<_> = runs.into_iter().map(|run| run.wait().ok()).collect();
    assert_eq!(
        outputs,
        [
            "bioalign 2.7 (libcore 1.1): 6",
            "bioalign 4.1 (libcore 2.3): 6/7"
        ]
    );

    // They really clash: neither runs with the other's library.
    for (image, other) in [("bioalign:2.7", "4.1"), ("bioalign:4.1", "2.7")] {
        let library = daemon.directory().join(other).join("libcore.so");
        let bind = format!("{}:/usr/lib/libcore.so:ro", library.display());
        let clash = daemon
            .gamut(&["run", "--rm", "-v", &bind, image, "A", "A"])
            .fails(127);
        assert!(clash.contains("undefined symbol"), "{clash}");
    }
    daemon.finish();
}
