//! Starting, arguments, time, devices.

use crate::guest::{MICROVM, Setup, arguments, config, free_port, image, probe};

#[test]
fn a_unikernel_boots_on_every_machine_of_qemu() {
    for machine in [MICROVM, "microvm,isa-serial=on,acpi=off", "q35"] {
        let Some(setup) = Setup::new(&image("hello"), machine) else {
            return;
        };
        let (code, output) = setup.start().ends();
        assert_eq!(code, 0, "{machine}: {output}");
        assert!(
            output.contains("Hello from a unikernel!\n"),
            "{machine}: {output}"
        );
    }
}

#[test]
fn arguments_and_environment_come_with_a_boot_module() {
    let Some(setup) = Setup::new(&image("probe"), MICROVM) else {
        return;
    };
    let text = config(&[
        ("arg", "/unikernel"),
        ("arg", "do"),
        ("arg", "print"),
        ("arg", "a b"),
        ("arg", ""),
        ("arg", "\"c\""),
        ("arg", "then"),
        ("arg", "env"),
        ("arg", "then"),
        ("arg", "hostname"),
        ("env", "A=b=c"),
        ("env", "EMPTY="),
        ("hostname", "guest-1"),
        ("later", "unknown keys are skipped"),
    ]);
    let (code, output) = setup.config(&text).start().ends();
    assert_eq!(code, 0, "{output}");
    let output = output.replace('\r', "");
    assert!(
        output.contains("a b\n\n\"c\"\nA=b=c\nEMPTY=\nguest-1\n"),
        "{output}"
    );
}

#[test]
fn arguments_and_environment_come_on_the_command_line() {
    let Some(setup) = Setup::new(&image("probe"), "microvm,isa-serial=on,acpi=off") else {
        return;
    };
    let line = "quiet NAME=value module.option=1 -- do print \"a b\" c then env";
    let port = free_port();
    let (code, output) = setup
        .network(port, 80)
        .args(&["-append", line])
        .start()
        .ends();
    assert_eq!(code, 0, "{output}");
    // The monitor puts its devices behind the arguments: they are none.
    assert!(output.contains("a b\nc\nNAME=value\n"), "{output}");
    assert!(!output.contains("virtio"), "{output}");
}

#[test]
fn exit_codes_arrive() {
    for (words, expected, text) in [
        (&["exit", "0"][..], 0, ""),
        (&["exit", "42"], 42, ""),
        (&["error", "as asked"], 1, "error: as asked\n"),
        (&["nonsense"], 1, "error: unknown command \"nonsense\"\n"),
    ] {
        let Some((code, output)) = probe(words) else {
            return;
        };
        assert_eq!(code, expected, "{words:?}: {output}");
        assert!(output.contains(text), "{words:?}: {output}");
    }
}

#[test]
fn time_goes_on_and_random_numbers_differ() {
    let Some((code, first)) = probe(&["do", "clock", "then", "random", "then", "random"]) else {
        return;
    };
    assert_eq!(code, 0, "{first}");
    assert!(first.contains("time goes on"), "{first}");
    let told = first
        .lines()
        .find_map(|line| line.trim().parse::<u64>().ok());
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970")
        .as_secs();
    assert!(
        told.is_some_and(|told| told.abs_diff(now) < 3600),
        "{told:?}, now {now}"
    );
    let numbers: Vec<&str> = first.lines().filter(|line| line.starts_with('[')).collect();
    assert_eq!(numbers.len(), 2, "{first}");
    assert_ne!(numbers[0], numbers[1]);
    let (_, second) = probe(&["random"]).expect("QEMU was there");
    assert!(
        !second.contains(numbers[0]),
        "the same numbers after every start"
    );
}

#[test]
fn memory_can_be_used_up_to_its_end() {
    let Some((code, output)) = probe(&["memory"]) else {
        return;
    };
    assert_eq!(code, 0, "{output}");
    assert!(output.contains("allocated "), "{output}");
}

#[test]
fn a_block_device_is_read_written_and_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    std::fs::write(&disk, vec![0; 1 << 20]).unwrap();
    let run = |words: &[&str]| {
        let setup = Setup::new(&image("probe"), MICROVM)?;
        Some(setup.config(&arguments(words)).block(&disk).start().ends())
    };
    let Some((code, output)) = run(&["do", "block", "info", "then", "block", "write", "kept"])
    else {
        return;
    };
    assert_eq!(code, 0, "{output}");
    assert!(output.contains(" 1048576 rw\n"), "{output}");
    assert_eq!(std::fs::read(&disk).unwrap()[..5], *b"kept\0");
    let (code, output) = run(&["do", "block", "read", "then", "block", "fill"]).unwrap();
    assert_eq!(code, 0, "{output}");
    assert!(output.contains("kept\nfilled 1048576 bytes\n"), "{output}");
    let (code, output) = run(&["block", "beyond"]).unwrap();
    assert_eq!(code, 1, "{output}");
    assert!(
        output.contains("beyond the end of the block device"),
        "{output}"
    );
}
