//! What becomes of configurations.

use super::*;
use crate::compile;
use crate::compile::{CompileOptions, Network, ProcessOptions};
use gamut_abi::monitor::MonitorConfig;
use gamut_abi::plan::{MountKind, NamespaceKind};
use oci_spec::runtime::Spec;
use serde_json::{Value, json};

const MIB: u64 = 1 << 20;

const NOTE: Note = Note {
    abi_version: 1,
    needs: 0,
    stack_bytes: 65_536,
    minimum_memory_bytes: 4 * MIB,
    default_memory_bytes: 8 * MIB,
};

const HOST: Host = Host {
    has_kvm: true,
    has_tun: true,
    kernel: (6, 1),
};

/// As the engine makes it.
fn config() -> Value {
    json!({
        "ociVersion": "1.2.0",
        "root": {"path": "rootfs"},
        "hostname": "uk",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "cwd": "/",
            "args": ["/unikernel", "a b"],
            "env": ["A=b"],
            "oomScoreAdj": 5,
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm"},
            {"destination": "/etc/resolv.conf", "type": "bind", "source": "/c/resolv.conf", "options": ["rbind"]},
            {"destination": "/etc/hosts", "type": "bind", "source": "/c/hosts", "options": ["rbind"]},
            {"destination": "/etc/hostname", "type": "bind", "source": "/c/hostname", "options": ["rbind"]},
        ],
        "annotations": {"a": "b"},
        "linux": {
            "namespaces": [{"type": "mount"}, {"type": "pid"}, {"type": "network"}],
            "resources": {"cpu": {"shares": 512}, "pids": {"limit": 1_000_000}},
            "cgroupsPath": "/gamut/x",
        },
    })
}

fn translate(config: Value, host: Host) -> Result<Jail, Error> {
    let spec: Spec = serde_json::from_value(config).unwrap();
    let places = Places {
        monitor: Path::new("/lib/gamut-monitor"),
        image: Path::new("/layer/unikernel"),
        files: None,
        config: Path::new("/run/u/monitor.json"),
        status: Path::new("/run/u/machine.json"),
        debug: Path::new("/run/u/debug"),
        resolv_conf: Path::new("/run/u/resolv.conf"),
    };
    jail(&spec, &NOTE, &places, host)
}

fn translated(config: Value) -> Jail {
    translate(config, HOST).unwrap()
}

fn memory_limit(jail: &Jail) -> i64 {
    let linux = jail.config.linux().as_ref().unwrap();
    let memory = linux.resources().as_ref().unwrap().memory().unwrap();
    memory.limit().unwrap()
}

#[test]
fn the_jail_is_a_container_with_nothing_but_the_monitor() {
    let jail = translated(config());
    assert_eq!(jail.warnings, [""; 0]);
    let MonitorConfig {
        args,
        env,
        hostname,
        memory_bytes,
        blocks,
        resolv_conf_path,
        accelerator,
        ..
    } = &jail.monitor;
    assert_eq!(args, &["/unikernel", "a b"]);
    assert_eq!(env, &["A=b"]);
    assert_eq!(hostname, "uk");
    assert_eq!(*memory_bytes, Some(8 * MIB));
    assert!(blocks.is_empty());
    assert_eq!(resolv_conf_path.as_deref(), Some("/etc/resolv.conf"));
    assert_eq!(*accelerator, Accelerator::Kvm);
    let debug = jail.monitor.debug_socket_path.as_deref();
    assert_eq!(debug, Some("/debug/gdb.sock"));
    assert_eq!(
        u64::try_from(memory_limit(&jail)).unwrap(),
        8 * MIB + KVM_ALLOWANCE_BYTES
    );

    let options = CompileOptions {
        id: "x".to_owned(),
        root: RootSource::Directory(PathBuf::from("/run/u/jail")),
        mount_point: PathBuf::from("/mnt"),
        bundle: None,
        exact_bind_flags: false,
        network: Network::Config,
        cgroup_path: None,
        process: ProcessOptions::default(),
        is_host_network: |_| false,
    };
    let plan = compile::compile(&jail.config, options).unwrap().plan;
    assert!(plan.root.readonly);
    assert_eq!(plan.process.args, ["/gamut-monitor"]);
    assert!(plan.process.seccomp.is_some() && plan.process.no_new_privileges);
    let kinds: Vec<NamespaceKind> = plan.namespaces.iter().map(|one| one.kind).collect();
    for kind in [
        NamespaceKind::Mount,
        NamespaceKind::Pid,
        NamespaceKind::Ipc,
        NamespaceKind::Uts,
        NamespaceKind::Cgroup,
        NamespaceKind::Network,
    ] {
        assert!(kinds.contains(&kind), "{kind:?}");
    }
    let binds: Vec<(&str, &str, bool)> = plan
        .mounts
        .iter()
        .filter_map(|mount| match &mount.kind {
            MountKind::Bind { source, .. } => Some((
                source.as_str(),
                mount.destination.as_str(),
                mount.attributes_set & libc::MOUNT_ATTR_RDONLY != 0,
            )),
            _ => None,
        })
        .collect();
    assert_eq!(
        binds,
        [
            ("/lib/gamut-monitor", "/gamut-monitor", true),
            ("/run/u/monitor.json", "/monitor.json", true),
            ("/layer/unikernel", "/unikernel", true),
            ("/run/u/machine.json", "/machine.json", false),
            ("/run/u/debug", "/debug", false),
            ("/run/u/resolv.conf", "/etc/resolv.conf", true),
            ("/c/hosts", "/etc/hosts", true),
        ]
    );
    let devices: Vec<&str> = plan.devices.iter().map(|node| node.path.as_str()).collect();
    assert_eq!(devices, ["/dev/kvm", "/dev/net/tun"]);
    let group = plan.cgroup.unwrap();
    assert_eq!(group.path, "/gamut/x");
    assert_eq!(group.resources.pids_max, Some(Limit::Value(64)));
    assert!(group.resources.cpu != gamut_abi::resources::Cpu::default());
}

#[test]
fn the_limit_is_the_guests_memory() {
    let mut wanted = config();
    wanted["linux"]["resources"]["memory"] = json!({"limit": 64 * MIB, "swap": 128 * MIB});
    let jail = translated(wanted.clone());
    assert_eq!(jail.monitor.memory_bytes, Some(64 * MIB));
    assert_eq!(
        u64::try_from(memory_limit(&jail)).unwrap(),
        64 * MIB + KVM_ALLOWANCE_BYTES
    );
    wanted["linux"]["resources"]["memory"] = json!({"limit": 2 * MIB});
    let error = translate(wanted, HOST).unwrap_err().to_string();
    assert!(
        error.contains("linux.resources.memory.limit") && error.contains("--memory"),
        "{error}"
    );
}

#[test]
fn mounts_become_block_devices() {
    let directory = tempfile::tempdir().unwrap();
    let volume = directory.path().join("volume");
    let image = directory.path().join("disk.img");
    fs::create_dir(&volume).unwrap();
    fs::write(&image, [0; 4096]).unwrap();
    let mut wanted = config();
    let mounts = wanted["mounts"].as_array_mut().unwrap();
    mounts.push(json!({"destination": "/data", "type": "bind", "source": volume, "options": ["rbind", "rw"]}));
    mounts.push(json!({"destination": "/disk", "type": "bind", "source": image, "options": ["rbind", "ro"]}));
    mounts.push(json!({"destination": "/cache", "type": "tmpfs", "source": "tmpfs"}));
    let jail = translated(wanted.clone());
    assert_eq!(jail.warnings.len(), 1, "{:?}", jail.warnings);
    let blocks: Vec<(&str, &str, bool)> = jail
        .monitor
        .blocks
        .iter()
        .map(|block| (block.name.as_str(), block.path.as_str(), block.read_only))
        .collect();
    assert_eq!(
        blocks,
        [
            ("/data", "/block/0/unikernel.img", false),
            ("/disk", "/block/1", true)
        ]
    );
    assert_eq!(jail.block_directories.len(), 1);
    jail.block_directories[0].ready().unwrap();
    let file = volume.join(BLOCK_FILE);
    assert_eq!(fs::metadata(&file).unwrap().len(), DEFAULT_BLOCK_BYTES);
    // What is there already stays as it is.
    fs::write(&file, "mine").unwrap();
    jail.block_directories[0].ready().unwrap();
    assert_eq!(fs::read(&file).unwrap(), b"mine");
    // A link is not followed, whatever it leads to.
    fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", &file).unwrap();
    let error = jail.block_directories[0].ready().unwrap_err().to_string();
    assert!(error.contains("no regular file"), "{error}");
    // Nothing is made on a read-only mount.
    fs::remove_file(&file).unwrap();
    wanted["mounts"][5]["options"] = json!(["rbind", "ro"]);
    let error = translated(wanted.clone()).block_directories[0]
        .ready()
        .unwrap_err()
        .to_string();
    assert!(error.contains(":ro"), "{error}");
    wanted["mounts"][5]["options"] = json!(["rbind", "x-gamut.subpath=part"]);
    let error = translate(wanted.clone(), HOST).unwrap_err().to_string();
    assert!(error.contains("mounts[5].options"), "{error}");
    wanted["mounts"][5]["options"] = json!(["rbind"]);
    wanted["mounts"][5]["source"] = json!("/dev/null");
    let error = translate(wanted, HOST).unwrap_err().to_string();
    assert!(error.contains("mounts[5].source"), "{error}");
}

#[test]
fn what_a_unikernel_cannot_have_is_refused_by_name() {
    let refused = |change: &dyn Fn(&mut Value)| {
        let mut wanted = config();
        change(&mut wanted);
        match translate(wanted, HOST) {
            Err(Error::Refused(refusal)) => refusal.capability,
            other => panic!("{other:?}"),
        }
    };
    let namespaces =
        |value: Value| move |wanted: &mut Value| wanted["linux"]["namespaces"] = value.clone();
    assert_eq!(
        refused(&namespaces(json!([{"type": "mount"}]))),
        refusals::HOST_NETWORK.capability
    );
    assert_eq!(
        refused(&namespaces(json!([{"type": "network"}, {"type": "user"}]))),
        refusals::USER_NAMESPACE.capability
    );
    assert_eq!(
        refused(&namespaces(
            json!([{"type": "network"}, {"type": "pid", "path": "/proc/1/ns/pid"}])
        )),
        refusals::SHARED_PROCESSES.capability
    );
    assert_eq!(
        refused(&|wanted| wanted["process"]["terminal"] = json!(true)),
        refusals::TERMINAL.capability
    );
    let mut hooked = config();
    hooked["hooks"] = json!({"startContainer": [{"path": "/bin/true"}]});
    let error = translate(hooked, HOST).unwrap_err().to_string();
    assert!(error.contains("hooks.startContainer"), "{error}");
    let later = Note {
        abi_version: GUEST_VERSION + 1,
        ..NOTE
    };
    let spec: Spec = serde_json::from_value(config()).unwrap();
    let place = Path::new("/x");
    let places = Places {
        monitor: place,
        image: place,
        files: None,
        config: place,
        status: place,
        debug: place,
        resolv_conf: place,
    };
    let error = jail(&spec, &later, &places, HOST).unwrap_err().to_string();
    assert!(error.contains("version 2 of the guest ABI"), "{error}");
}

const GUEST_VERSION: u32 = gamut_abi::guest::GUEST_ABI_VERSION;

#[test]
fn signals_ask_for_the_end_or_are_refused() {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGQUIT] {
        assert_eq!(signal_for_monitor(signal).unwrap(), libc::SIGTERM);
    }
    assert_eq!(signal_for_monitor(libc::SIGKILL).unwrap(), libc::SIGKILL);
    assert!(matches!(
        signal_for_monitor(libc::SIGHUP),
        Err(Error::Refused(refusals::SIGNALS))
    ));
}

#[test]
fn every_refusal_says_why_and_what_to_do() {
    for refusal in refusals::REFUSALS {
        assert_eq!(refusal.level, IsolationLevel::Unikernel);
        for text in [refusal.capability, refusal.reason, refusal.alternative] {
            assert!(!text.is_empty() && !text.ends_with('.'), "{refusal}");
        }
    }
}

#[test]
fn what_a_monitor_tells_is_read_as_hostile() {
    let directory = tempfile::tempdir().unwrap();
    let own = JailDirectory::at(directory.path().join("x"));
    let monitor = translated(config()).monitor;
    let record = JailRecord {
        addresses: vec!["10.0.0.2".parse().unwrap()],
    };
    own.make(&monitor, &record, None).unwrap();
    assert_eq!(own.read().unwrap(), Some(record));
    assert_eq!(own.memory_bytes(), Some(8 * MIB));
    assert_eq!(own.machine(), None);
    fs::write(own.status(), r#"{"accelerator":"kvm","more":1}"#).unwrap();
    assert_eq!(own.machine().unwrap().accelerator, Accelerator::Kvm);
    for text in ["{", r#"{"accelerator":"\u001b[2J"}"#, &" ".repeat(1 << 20)] {
        fs::write(own.status(), text).unwrap();
        assert_eq!(own.machine(), None);
    }
    own.make(&monitor, &JailRecord::default(), None).unwrap();
    own.remove().unwrap();
    own.remove().unwrap();
}

#[test]
fn without_kvm_it_is_translated() {
    let without_kvm = Host {
        has_kvm: false,
        ..HOST
    };
    let chosen = |accelerator: &str, host| {
        let mut wanted = config();
        wanted["annotations"] = json!({ACCELERATOR_ANNOTATION: accelerator});
        translate(wanted, host)
    };
    let translated = [
        translate(config(), without_kvm),
        chosen("auto", without_kvm),
        chosen("tcg", without_kvm),
        chosen("tcg", HOST),
    ];
    for jail in translated {
        let jail = jail.unwrap();
        assert_eq!(jail.monitor.accelerator, Accelerator::Tcg);
        assert_eq!(
            u64::try_from(memory_limit(&jail)).unwrap(),
            8 * MIB + TCG_ALLOWANCE_BYTES
        );
        let mounts = jail.config.mounts().as_ref().unwrap();
        let mount = |place: &str| {
            mounts
                .iter()
                .find(|one| one.destination() == Path::new(place))
        };
        let options = |place: &str| mount(place).unwrap().options().clone().unwrap();
        assert!(options("/usr").contains(&"ro".to_owned()));
        let scratch = jail.monitor.scratch_path.as_deref().unwrap();
        assert!(options(scratch).contains(&"noexec".to_owned()));
        let linux = jail.config.linux().as_ref().unwrap();
        let devices = linux.devices().as_ref().unwrap();
        assert!(
            devices
                .iter()
                .all(|one| one.path() != Path::new("/dev/kvm"))
        );
    }
    assert_eq!(chosen("kvm", HOST).unwrap().monitor.scratch_path, None);
    let error = chosen("kvm", without_kvm).unwrap_err().to_string();
    assert!(error.contains("/dev/kvm cannot be opened"), "{error}");
    let error = chosen("xen", HOST).unwrap_err().to_string();
    assert!(error.contains("use auto, kvm or tcg"), "{error}");
}
