//! Fuzz targets: plain functions over bytes, one per parser of hostile input.
//!
//! `fuzz-run` drives them on the stable compiler by mutating a committed corpus
//! (`fuzz/corpus/<target>/`). Any coverage-guided fuzzer can call the same functions through
//! [`target`].

mod guest;
mod mutate;
mod tar;
mod wire;

pub use mutate::{MAX_INPUT_BYTES, Mutator, Random};

/// One fuzz target.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, and that of its folder in the corpus.
    pub name: &'static str,
    /// Must come back from any input, without a panic, in reasonable time and memory.
    pub run: fn(&[u8]),
    /// Repairs checksums after a mutation, so that mutants get past them.
    pub repair: Option<fn(&mut [u8])>,
}

const fn plain(name: &'static str, run: fn(&[u8])) -> Target {
    Target {
        name,
        run,
        repair: None,
    }
}

/// Every target, by name.
pub const TARGETS: &[Target] = &[
    plain("api-filters", gamut_docker_api::fuzz::fuzz_filters),
    plain("api-mounts", gamut_docker_api::fuzz::fuzz_mounts),
    plain("api-query", gamut_docker_api::fuzz::fuzz_query),
    plain("api-websocket", gamut_docker_api::fuzz::fuzz_frames),
    plain("cgroup-dbus", gamut_cgroup::fuzz_dbus),
    plain("cgroup-mountinfo", gamut_cgroup::fuzz_mountinfo),
    plain("cgroup-stats", gamut_cgroup::fuzz_stats),
    plain("cli-address", gamut_cli::client::address::fuzz_endpoint),
    plain("cli-context", gamut_cli::contexts::fuzz_context),
    plain("cli-demux", gamut_cli::client::demux::fuzz_demux),
    plain(
        "cli-docker-config",
        gamut_cli::credentials::file::fuzz_config_file,
    ),
    plain("cli-flags", gamut_cli::parse::fuzz_flag_values),
    plain(
        "cli-json-stream",
        gamut_cli::client::json_stream::fuzz_json_stream,
    ),
    plain("cli-template", gamut_cli::output::template::fuzz_template),
    Target {
        name: "control-protocol",
        run: wire::fuzz_control,
        repair: Some(wire::repair_length),
    },
    plain("detach-keys", gamut_spec::detach_keys::fuzz_detach_keys),
    plain("dns-query", gamut_dns::message::fuzz_query),
    plain("dns-record", gamut_dns::fuzz_record),
    plain("guest-config", guest::fuzz_config),
    plain("guest-dns", guest::fuzz_dns),
    plain("guest-http", guest::fuzz_http),
    plain("guest-resp", guest::fuzz_resp),
    plain("guest-rofs", guest::fuzz_rofs),
    plain("guest-store", guest::fuzz_store),
    plain("health-http", gamut_engine::health::fuzz_status_line),
    plain("image-assembly", gamut_image::fuzz_assembly),
    plain("image-config", gamut_image::fuzz_config),
    plain("log-address", gamut_engine::logging::fuzz_address),
    plain("log-line", gamut_engine::logs::fuzz_line),
    plain("log-splitter", gamut_supervisor::fuzz_line_splitter),
    plain("manifest", gamut_image::fuzz_manifest),
    plain("monitor-elf", gamut_vmm::fuzz::fuzz_elf),
    plain("monitor-names", gamut_vmm::config_text::fuzz_name_files),
    plain("monitor-questions", gamut_vmm::net::question::fuzz_frame),
    plain("monitor-records", gamut_vmm::tcg::records::fuzz_records),
    Target {
        name: "monitor-requests",
        run: gamut_vmm::fuzz::fuzz_requests,
        repair: Some(gamut_vmm::fuzz::repair_requests),
    },
    plain("network-addresses", gamut_network::fuzz::fuzz_addresses),
    plain("network-conntrack", gamut_network::fuzz::fuzz_flow),
    plain("network-firewall", gamut_network::fuzz::fuzz_notice),
    plain("network-netlink", gamut_network::fuzz::fuzz_netlink),
    plain("network-nft", gamut_network::fuzz::fuzz_table_state),
    plain("network-statistics", gamut_network::fuzz::fuzz_statistics),
    plain("passwd", gamut_container::passwd::fuzz_passwd),
    plain("reference", gamut_spec::reference::fuzz_reference),
    plain("registry-challenge", gamut_image::fuzz_challenge),
    plain("registry-settings", gamut_image::fuzz_registry_settings),
    plain("runtime-config", gamut_isolation::compile::fuzz_config),
    plain("seccomp-profile", gamut_seccomp::fuzz_profile),
    plain("solo5-emulate", gamut_vmm::solo5::fuzz_emulate),
    plain("solo5-instruction", gamut_vmm::solo5::decode::fuzz_decode),
    plain("solo5-manifest", gamut_abi::guest::solo5::fuzz_manifest),
    Target {
        name: "tar",
        run: gamut_image::tar::fuzz_tar,
        repair: Some(tar::repair_checksums),
    },
    plain("unikernel-note", gamut_abi::guest::elf::fuzz_elf),
    plain("unikernel-package", gamut_image::fuzz_unikernel_package),
    plain("units", wire::fuzz_units),
    plain(
        "volume-options",
        gamut_engine::local_volume::fuzz_local_mount,
    ),
];

/// The target of a name.
#[must_use]
pub fn target(name: &str) -> Option<Target> {
    TARGETS.iter().copied().find(|target| target.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn names_are_sorted_and_unique() {
        assert!(TARGETS.is_sorted_by(|left, right| left.name < right.name));
    }

    #[test]
    fn every_target_has_a_corpus_and_every_corpus_a_target() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
        for target in TARGETS {
            let seeds = std::fs::read_dir(corpus.join(target.name)).map_or(0, Iterator::count);
            assert!(seeds >= 2, "fuzz/corpus/{} has {seeds} seeds", target.name);
        }
        for folder in std::fs::read_dir(&corpus).unwrap() {
            let name = folder.unwrap().file_name().into_string().unwrap();
            assert!(target(&name).is_some(), "fuzz/corpus/{name} has no target");
        }
    }

    #[test]
    fn every_seed_passes() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
        for target in TARGETS {
            for seed in std::fs::read_dir(corpus.join(target.name)).unwrap() {
                (target.run)(&std::fs::read(seed.unwrap().path()).unwrap());
            }
        }
    }
}
