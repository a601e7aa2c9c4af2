//! Compiled programs against the naive reading of their profiles.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod interpreter;

use gamut_seccomp::{Error, compile, default_profile, resolve_docker_profile};
use interpreter::*;
use oci_spec::runtime::LinuxSeccomp;
use proptest::prelude::*;
use std::time::Instant;

const NO_ARGS: [u64; 6] = [0; 6];

fn parse(json: &str) -> LinuxSeccomp {
    serde_json::from_str(json).unwrap()
}

fn program(json: &str) -> Vec<u64> {
    compile(&parse(json)).unwrap().instructions
}

/// Calls with the same number on no two of them, and their numbers: x86-64, i386, x32.
const CALLS: &[(&str, u32, u32, u32)] = &[
    ("read", 0, 3, 0),
    ("write", 1, 4, 1),
    ("open", 2, 5, 2),
    ("ioctl", 16, 54, 514),
    ("clone", 56, 120, 56),
    ("execve", 59, 11, 520),
    ("kill", 62, 37, 62),
    ("personality", 135, 136, 135),
    ("unshare", 272, 310, 272),
    ("clone3", 435, 435, 435),
    ("file_setattr", 469, 469, 469),
];

fn value() -> impl Strategy<Value = u64> {
    prop_oneof![
        0_u64..4,
        Just(0xffff_ffff),
        Just(0x1_0000_0000),
        Just(0x1_0000_0001),
        Just(0x7e02_0000),
        Just(u64::MAX),
        any::<u64>()
    ]
}

fn argument() -> impl Strategy<Value = String> {
    let op = prop_oneof![
        Just("EQ"),
        Just("NE"),
        Just("LT"),
        Just("LE"),
        Just("GT"),
        Just("GE"),
        Just("MASKED_EQ")
    ];
    (0_u32..6, value(), value(), op).prop_map(|(index, value, second, op)| {
        format!(r#"{{"index":{index},"value":{value},"valueTwo":{second},"op":"SCMP_CMP_{op}"}}"#)
    })
}

fn action() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        Just("ALLOW"),
        Just("ERRNO"),
        Just("KILL"),
        Just("KILL_THREAD"),
        Just("KILL_PROCESS"),
        Just("TRAP"),
        Just("TRACE"),
        Just("LOG")
    ]
}

fn rule() -> impl Strategy<Value = String> {
    let names = proptest::sample::subsequence((0..CALLS.len()).collect::<Vec<_>>(), 1..4);
    let errno = proptest::option::of(1_u32..100);
    let args = prop_oneof![
        2 => Just(Vec::new()).boxed(),
        5 => proptest::collection::vec(argument(), 1..4).boxed(),
    ];
    (names, action(), errno, args).prop_map(|(names, action, errno, args)| {
        let names: Vec<String> = names
            .iter()
            .map(|at| format!("\"{}\"", CALLS[*at].0))
            .collect();
        let errno = errno.map_or_else(String::new, |errno| format!(r#""errnoRet":{errno},"#));
        format!(
            r#"{{"names":[{}],{errno}"action":"SCMP_ACT_{action}","args":[{}]}}"#,
            names.join(","),
            args.join(",")
        )
    })
}

fn profile() -> impl Strategy<Value = LinuxSeccomp> {
    (action(), proptest::collection::vec(rule(), 0..40)).prop_map(|(default, mut rules)| {
        // The newest call is always named, so that none of CALLS counts as newer.
        rules.push(
            r#"{"names":["listns"],"action":"SCMP_ACT_ALLOW"},{"names":["listns"],"action":"SCMP_ACT_TRAP"}"#
                .into(),
        );
        parse(&format!(
            r#"{{"defaultAction":"SCMP_ACT_{default}","architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86","SCMP_ARCH_X32"],"syscalls":[{}]}}"#,
            rules.join(",")
        ))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 160, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn programs_decide_as_profiles_say(
        profile in profile(),
        calls in proptest::collection::vec(proptest::collection::vec(value(), 6), 1..20),
    ) {
        let program = compile(&profile).unwrap().instructions;
        let naive = |name: &str, args: [u64; 6], wide: bool| evaluate(&profile, name, args, wide);
        // Interesting arguments are those that the profile itself speaks of.
        let spoken: Vec<u64> = profile.syscalls().iter().flatten()
            .flat_map(|rule| rule.args().clone().unwrap_or_default())
            .flat_map(|argument| [argument.value(), argument.value().wrapping_add(1), argument.value_two().unwrap_or(0)])
            .collect();
        for (at, call) in calls.iter().enumerate() {
            let mut args: [u64; 6] = call.as_slice().try_into().unwrap();
            if !spoken.is_empty() {
                for (index, arg) in args.iter_mut().enumerate() {
                    if (at + index) % 3 > 0 {
                        *arg = spoken[(at * 7 + index * 13) % spoken.len()];
                    }
                }
            }
            let narrow = args.map(|arg| arg & 0xffff_ffff);
            for (name, x86_64, i386, x32) in CALLS {
                prop_assert_eq!(run(&program, X86_64, *x86_64, args), naive(name, args, true), "{}", name);
                prop_assert_eq!(run(&program, X86_64, x32 | X32_BIT, args), naive(name, args, true), "x32 {}", name);
                prop_assert_eq!(run(&program, I386, *i386, narrow), naive(name, narrow, false), "i386 {}", name);
            }
            prop_assert_eq!(run(&program, 0xc000_00b7, 0, args), KILL_PROCESS);
        }
    }

    #[test]
    fn any_bytes_are_refused_or_compiled(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
        gamut_seccomp::fuzz_profile(&bytes);
    }

    #[test]
    fn any_json_of_the_right_words_is_refused_or_compiled(words in proptest::collection::vec(
        prop_oneof![
            Just("{"), Just("}"), Just("["), Just("]"), Just(","), Just(":"), Just("\"defaultAction\""),
            Just("\"SCMP_ACT_ERRNO\""), Just("\"syscalls\""), Just("\"names\""), Just("\"read\""),
            Just("\"action\""), Just("\"args\""), Just("\"index\""), Just("7"), Just("\"op\""), Just("null"),
        ], 0..40)) {
        gamut_seccomp::fuzz_profile(words.concat().as_bytes());
    }
}

#[test]
fn long_programs_use_long_jumps_and_endless_ones_are_refused() {
    let rules = |count: u64| {
        let rules: Vec<String> = (0..count)
            .map(|number| {
                format!(
                    r#"{{"names":["ioctl"],"action":"SCMP_ACT_ALLOW","args":[{{"index":1,"value":{},"op":"SCMP_CMP_EQ"}},{{"index":2,"value":{number},"op":"SCMP_CMP_NE"}}]}}"#,
                    number << 32
                )
            })
            .collect();
        parse(&format!(
            r#"{{"defaultAction":"SCMP_ACT_TRAP","syscalls":[{{"names":["read","socket"],"action":"SCMP_ACT_LOG"}},{}]}}"#,
            rules.join(",")
        ))
    };
    let profile = rules(300);
    let program = compile(&profile).unwrap().instructions;
    assert!(program.len() > 2000);
    for number in [0, 1, 16, 41, 42] {
        let name = ["read", "write", "ioctl", "socket", "connect"][[0, 1, 16, 41, 42]
            .iter()
            .position(|known| *known == number)
            .unwrap()];
        for argument in [0_u64, 1, 299, 300] {
            let args = [0, argument << 32, 5, 0, 0, 0];
            let wanted = if number > 41 {
                ENOSYS
            } else {
                evaluate(&profile, name, args, true)
            };
            assert_eq!(
                run(&program, X86_64, number, args),
                wanted,
                "{name} {argument}"
            );
        }
    }
    let error = compile(&rules(3000)).unwrap_err();
    assert!(
        matches!(error, Error::TooLong { maximum: 4096, .. }),
        "{error}"
    );
}

#[test]
fn calls_newer_than_the_profile_do_not_exist() {
    let newer = program(
        r#"{"defaultAction":"SCMP_ACT_KILL_PROCESS","syscalls":[{"names":["read","statx"],"action":"SCMP_ACT_ALLOW"}]}"#,
    );
    assert_eq!(run(&newer, X86_64, 332, NO_ARGS), ALLOW);
    assert_eq!(run(&newer, X86_64, 331, NO_ARGS), KILL_PROCESS);
    assert_eq!(run(&newer, X86_64, 333, NO_ARGS), ENOSYS);
    assert_eq!(run(&newer, X86_64, u32::MAX, NO_ARGS), ENOSYS);
    // x32 has old calls above the newest.
    let x32 = program(
        r#"{"defaultAction":"SCMP_ACT_KILL_PROCESS","architectures":["SCMP_ARCH_X32"],"syscalls":[{"names":["read","statx","readv"],"action":"SCMP_ACT_ALLOW"}]}"#,
    );
    for (number, wanted) in [
        (332, ALLOW),
        (333, ENOSYS),
        (511, ENOSYS),
        (514, KILL_PROCESS),
        (515, ALLOW),
        (547, KILL_PROCESS),
        (548, ENOSYS),
    ] {
        assert_eq!(
            run(&x32, X86_64, X32_BIT | number, NO_ARGS),
            wanted,
            "{number}"
        );
    }
    // A name with the default action counts as known to the profile's author.
    let named = program(
        r#"{"defaultAction":"SCMP_ACT_KILL_PROCESS","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW"},{"names":["mseal"],"action":"SCMP_ACT_KILL_PROCESS"}]}"#,
    );
    assert_eq!(run(&named, X86_64, 462, NO_ARGS), KILL_PROCESS);
    assert_eq!(run(&named, X86_64, 463, NO_ARGS), ENOSYS);
    // Nothing is named: the default action for all.
    let none = program(r#"{"defaultAction":"SCMP_ACT_TRAP"}"#);
    assert_eq!(run(&none, X86_64, 500, NO_ARGS), 0x0003_0000);
}

#[test]
fn architectures_that_are_not_listed_are_killed() {
    let program = program(
        r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_AARCH64"],"syscalls":[]}"#,
    );
    assert_eq!(run(&program, X86_64, 0, NO_ARGS), ALLOW);
    assert_eq!(run(&program, X86_64, u32::MAX, NO_ARGS), ALLOW);
    assert_eq!(run(&program, X86_64, X32_BIT, NO_ARGS), KILL_PROCESS);
    assert_eq!(run(&program, I386, 0, NO_ARGS), KILL_PROCESS);
    assert_eq!(run(&program, 0xc000_00b7, 0, NO_ARGS), KILL_PROCESS);
}

#[test]
fn a_deny_list_is_not_weakened_by_names_or_detours() {
    let compiled = compile(&parse(
        r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"],"syscalls":[
            {"names":["socket","msgget","s390_sthyi","call_of_2031"],"action":"SCMP_ACT_ERRNO"}]}"#,
    ))
    .unwrap();
    assert_eq!(compiled.unknown_names, ["call_of_2031"]);
    let program = compiled.instructions;
    assert_eq!(run(&program, X86_64, 41, NO_ARGS), EPERM);
    assert_eq!(run(&program, X86_64, 470, NO_ARGS), ALLOW);
    assert_eq!(run(&program, X86_64, 471, NO_ARGS), ENOSYS);
    assert_eq!(run(&program, I386, 102, [1, 0, 0, 0, 0, 0]), EPERM);
    assert_eq!(run(&program, I386, 102, [2, 0, 0, 0, 0, 0]), ALLOW);
    assert_eq!(run(&program, I386, 117, [0x1_000d, 0, 0, 0, 0, 0]), EPERM);
    assert_eq!(run(&program, I386, 117, [0x1_000e, 0, 0, 0, 0, 0]), ALLOW);
    assert_eq!(run(&program, I386, 359, NO_ARGS), EPERM);
    // Known names alone leave the future open, as the profile says.
    let open = compile(&parse(
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["socket"],"action":"SCMP_ACT_ERRNO"}]}"#,
    ))
    .unwrap();
    assert_eq!(run(&open.instructions, X86_64, 471, NO_ARGS), ALLOW);
    assert!(open.unknown_names.is_empty());
}

#[test]
fn flags_follow_the_profile() {
    let flags = |text: &str| {
        compile(&parse(&format!(
            r#"{{"defaultAction":"SCMP_ACT_ALLOW"{text}}}"#
        )))
        .unwrap()
        .flags
    };
    assert_eq!(flags(""), 4);
    assert_eq!(flags(r#","flags":[]"#), 0);
    assert_eq!(
        flags(r#","flags":["SECCOMP_FILTER_FLAG_LOG","SECCOMP_FILTER_FLAG_TSYNC"]"#),
        2
    );
    let notify = r#","syscalls":[{"names":["mount"],"action":"SCMP_ACT_NOTIFY"}]"#;
    assert_eq!(flags(&format!(r#","flags":[]{notify}"#)), 8);
    let killable = r#","flags":["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]"#;
    assert_eq!(flags(&format!("{killable}{notify}")), 40);
    assert_eq!(flags(killable), 0);
}

#[test]
fn wrong_profiles_are_refused() {
    for (json, wanted) in [
        (
            r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#,
            "SCMP_ACT_NOTIFY cannot be used as default action: the container's set-up would wait for itself",
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["write"],"action":"SCMP_ACT_NOTIFY"}]}"#,
            "SCMP_ACT_NOTIFY cannot be used for the write syscall: the container's set-up would wait for itself",
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":4096}"#,
            "the seccomp profile returns error number 4096; the kernel takes at most 4095",
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":[],"action":"SCMP_ACT_TRAP"}]}"#,
            "rule 0 of the seccomp profile names no system call",
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_TRAP","args":[{"index":6,"value":0,"op":"SCMP_CMP_EQ"}]}]}"#,
            "the seccomp rule for read compares argument 6; arguments are numbered 0 to 5",
        ),
    ] {
        assert_eq!(compile(&parse(json)).unwrap_err().to_string(), wanted);
    }
}

#[test]
fn docker_profiles_are_resolved() {
    let json = br#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":13,
        "archMap":[{"architecture":"SCMP_ARCH_AARCH64","subArchitectures":["SCMP_ARCH_ARM"]},
                   {"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86","SCMP_ARCH_X32"]}],
        "syscalls":[
          {"names":["read"],"action":"SCMP_ACT_ALLOW","args":[],"comment":"","includes":{},"excludes":{}},
          {"name":"write","action":"SCMP_ACT_ALLOW","args":null},
          {"names":["ptrace"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"4.8"}},
          {"names":["bpf"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_SYS_ADMIN"]}},
          {"names":["clone"],"action":"SCMP_ACT_ALLOW","excludes":{"caps":["CAP_SYS_ADMIN"],"arches":["s390"]}},
          {"names":["open"],"action":"SCMP_ACT_ALLOW","includes":{"arches":["arm64"]}},
          {"names":["close"],"action":"SCMP_ACT_ALLOW","includes":{"arches":["amd64","x32"]}}]}"#;
    let names = |capabilities: u64, kernel: (u32, u32)| -> Vec<String> {
        let profile = resolve_docker_profile(json, capabilities, kernel).unwrap();
        assert_eq!(profile.architectures().as_ref().unwrap().len(), 3);
        assert_eq!(profile.default_errno_ret(), Some(13));
        compile(&profile).unwrap();
        profile
            .syscalls()
            .iter()
            .flatten()
            .flat_map(|rule| rule.names().clone())
            .collect()
    };
    assert_eq!(names(0, (4, 7)), ["read", "write", "clone", "close"]);
    assert_eq!(
        names(0, (4, 8)),
        ["read", "write", "ptrace", "clone", "close"]
    );
    assert_eq!(
        names(1 << 21, (5, 0)),
        ["read", "write", "ptrace", "bpf", "close"]
    );
    for (json, wanted) in [
        (
            "{}}",
            "cannot read the seccomp profile: it is not valid JSON of a profile",
        ),
        (
            r#"{"syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW"}]}"#,
            "the seccomp profile has rules but no defaultAction; add one, for example SCMP_ACT_ERRNO",
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"read","names":["write"],"action":"SCMP_ACT_ALLOW"}]}"#,
            "the seccomp profile has both 'name' and 'names'; keep one of them",
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"4"}}]}"#,
            "the seccomp profile has minKernel \"4\"; write it as MAJOR.MINOR",
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"],"archMap":[{"architecture":"SCMP_ARCH_X86_64"}]}"#,
            "the seccomp profile has both 'architectures' and 'archMap'; keep one of them",
        ),
    ] {
        let error = resolve_docker_profile(json.as_bytes(), 0, (6, 0)).unwrap_err();
        assert_eq!(error.to_string(), wanted);
    }
    let empty = resolve_docker_profile(b"{}", 0, (6, 0)).unwrap();
    assert_eq!(
        run(&compile(&empty).unwrap().instructions, X86_64, 0, NO_ARGS),
        ALLOW
    );
}

#[test]
fn the_default_profile_says_what_the_field_says() {
    let compiled = compile(&default_profile(0, (6, 1))).unwrap();
    assert_eq!(compiled.unknown_names, Vec::<String>::new());
    let first =
        |number: u32, arg: u64| run(&compiled.instructions, X86_64, number, [arg, 0, 0, 0, 0, 0]);
    // read, mount, keyctl, unshare, clone3, listns
    assert_eq!(
        [0, 165, 250, 272, 435, 470].map(|number| first(number, 0)),
        [ALLOW, EPERM, EPERM, EPERM, ENOSYS, ENOSYS]
    );
    // io_uring, userfaultfd, bpf, reboot, kexec_load
    for number in [425, 426, 427, 323, 321, 169, 246] {
        assert_eq!(first(number, 0), EPERM, "{number}");
    }
    // socket: AF_INET, AF_ALG, AF_VSOCK, AF_XDP, a family with bits above 32
    assert_eq!(
        [2, 38, 40, 44, 1 << 32 | 2].map(|family| first(41, family)),
        [ALLOW, EPERM, EPERM, ALLOW, EPERM]
    );
    // clone: SIGCHLD, and with each namespace
    assert_eq!(first(56, 17), ALLOW);
    for bit in [17, 25, 26, 27, 28, 29, 30] {
        assert_eq!(first(56, 1 << bit | 17), EPERM);
    }
    assert_eq!(
        [0, 8, 0x20000, 0xffff_ffff, 1].map(|domain| first(135, domain)),
        [ALLOW, ALLOW, ALLOW, ALLOW, EPERM]
    );
    assert_eq!(
        run(&compiled.instructions, I386, 102, [1, 0, 0, 0, 0, 0]),
        ALLOW
    );
    let admin = compile(&default_profile(1 << 21, (6, 1)))
        .unwrap()
        .instructions;
    for number in [56, 165, 272, 321, 435] {
        assert_eq!(
            run(&admin, X86_64, number, [u64::MAX; 6]),
            ALLOW,
            "{number}"
        );
    }
    let old = compile(&default_profile(0, (4, 7))).unwrap().instructions;
    assert_eq!(run(&old, X86_64, 101, NO_ARGS), EPERM);
}

#[test]
fn cost_of_the_default_profile() {
    let mut times: Vec<_> = (0..50)
        .map(|_| {
            let start = Instant::now();
            let profile = default_profile(0, (6, 1));
            let made = start.elapsed();
            let program = compile(&profile).unwrap();
            (
                start.elapsed().checked_sub(made).unwrap(),
                made,
                program.instructions.len(),
            )
        })
        .collect();
    times.sort_unstable();
    let (compiled, made, length) = times[25];
    eprintln!(
        "compile: median {} us, minimum {} us; build the profile: {} us; {length} instructions",
        compiled.as_micros(),
        times[0].0.as_micros(),
        made.as_micros()
    );
}
