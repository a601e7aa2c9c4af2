//! From flags to the body of `POST /containers/create`. Source: Docker Engine API 1.51,
//! ContainerCreate.

use std::path::Path;

use gamut_spec::signal;
use serde_json::{Map, Value, json};

use super::flags::ContainerFlags;
use super::health;
use crate::error::Error;
use crate::parse::{
    device, environment, files, invalid, limits, mount,
    network::{self, Attachment},
    policy::{self, Attach},
    port,
    volume::{self, Volume},
};
use crate::terminal::raw;

/// A checked description of a container.
#[derive(Debug)]
pub struct Description {
    /// The image's reference, as typed.
    pub image: String,
    /// Body of the request.
    pub body: Value,
    /// Streams to attach when it is run in the foreground.
    pub attach: Attach,
}

/// Checks the flags and makes the request's body; no request is made before.
///
/// # Errors
/// [`Error::Usage`] for what no engine would take, and unreadable files that flags name.
pub fn describe(flags: &ContainerFlags, is_detached: bool) -> Result<Description, Error> {
    let Some((image, command)) = flags.image_and_command.split_first() else {
        return Err(Error::Usage("an image is required".into()));
    };
    check(flags, is_detached)?;
    let attach = attach(flags, is_detached)?;
    let (bodies, publish) = (volumes(flags)?, ports(flags)?);
    let mut body = json!({
        "Image": image,
        "AttachStdin": attach.stdin,
        "AttachStdout": attach.stdout,
        "AttachStderr": attach.stderr,
        "Tty": flags.tty,
        "OpenStdin": flags.interactive,
        "StdinOnce": flags.interactive && attach.stdin,
        "Env": files::environment(&flags.env_file, &flags.env)?,
        "Labels": files::labels(&flags.label_file, &flags.label)?,
        "HostConfig": host_config(flags, &bodies, &publish)?,
    });
    if !command.is_empty() {
        body["Cmd"] = command.into();
    }
    if let Some(entrypoint) = &flags.entrypoint {
        // An empty one means: none, not even the image's.
        body["Entrypoint"] = json!([entrypoint]);
    }
    if !bodies.anonymous.is_empty() {
        body["Volumes"] = bodies.anonymous.into();
    }
    if !publish.exposed.is_empty() {
        body["ExposedPorts"] = publish.exposed.into();
    }
    if let Some(check) = health::check(&flags.health)? {
        body["Healthcheck"] = check;
    }
    set(&mut body, "Hostname", flags.hostname.as_deref());
    set(&mut body, "Domainname", flags.domainname.as_deref());
    set(&mut body, "User", flags.user.as_deref());
    set(&mut body, "WorkingDir", flags.workdir.as_deref());
    set(&mut body, "StopSignal", flags.stop_signal.as_deref());
    set(&mut body, "StopTimeout", flags.stop_timeout);
    set_networks(&mut body, flags)?;
    Ok(Description {
        image: image.clone(),
        body,
        attach,
    })
}

fn check(flags: &ContainerFlags, is_detached: bool) -> Result<(), Error> {
    let conflict = |a: &str, b: &str| {
        Err(Error::Usage(format!(
            "conflicting options: cannot specify both {a} and {b}"
        )))
    };
    if is_detached && !flags.attach.is_empty() {
        return conflict("--attach", "--detach");
    }
    let restarts = !matches!(flags.restart.as_deref(), None | Some("" | "no"));
    if flags.rm && restarts {
        return conflict("--restart", "--rm");
    }
    if flags.cpus.is_some() && (flags.cpu_quota.is_some() || flags.cpu_period.is_some()) {
        return conflict("--cpus", "--cpu-period or --cpu-quota");
    }
    if flags.pid.as_deref() == Some("") || flags.name.as_deref() == Some("") {
        return Err(Error::Usage("--name and --pid cannot be empty".into()));
    }
    if let Some(name) = &flags.stop_signal
        && signal::parse(name).is_none()
    {
        return Err(invalid("--stop-signal", name, "no such signal"));
    }
    if let Some(percent) = flags.memory_swappiness
        && !(-1..=100).contains(&percent)
    {
        let value = percent.to_string();
        return Err(invalid(
            "--memory-swappiness",
            &value,
            "valid range is 0 to 100",
        ));
    }
    if let Some(score) = flags.oom_score_adj
        && !(-1000..=1000).contains(&score)
    {
        let value = score.to_string();
        return Err(invalid(
            "--oom-score-adj",
            &value,
            "valid range is -1000 to 1000",
        ));
    }
    if let Some(directory) = &flags.workdir
        && !directory.starts_with('/')
    {
        let reason = "the working directory must be an absolute path";
        return Err(invalid("--workdir", directory, reason));
    }
    Ok(())
}

fn attach(flags: &ContainerFlags, is_detached: bool) -> Result<Attach, Error> {
    if is_detached {
        return Ok(Attach::default());
    }
    let mut attach = policy::attach(&flags.attach)?;
    if flags.attach.is_empty() {
        attach = Attach {
            stdin: flags.interactive,
            stdout: true,
            stderr: true,
        };
    } else if flags.interactive && flags.attach.is_empty() {
        attach.stdin = true;
    }
    Ok(attach)
}

#[derive(Debug, Default)]
struct Volumes {
    binds: Vec<String>,
    anonymous: Map<String, Value>,
}

fn volumes(flags: &ContainerFlags) -> Result<Volumes, Error> {
    let mut volumes = Volumes::default();
    if flags.volume.is_empty() {
        return Ok(volumes);
    }
    let here = std::env::current_dir().map_err(Error::io("find the current directory"))?;
    for text in &flags.volume {
        match volume::parse(text, Path::new(&here))? {
            Volume::Bind(bind) => volumes.binds.push(bind),
            Volume::Anonymous(target) => {
                volumes.anonymous.insert(target, json!({}));
            }
        }
    }
    Ok(volumes)
}

#[derive(Debug, Default)]
struct Ports {
    exposed: Map<String, Value>,
    bindings: Map<String, Value>,
}

fn ports(flags: &ContainerFlags) -> Result<Ports, Error> {
    let mut ports = Ports::default();
    for text in &flags.publish {
        for port in port::parse(text)? {
            ports.exposed.insert(port.container.clone(), json!({}));
            let bindings = ports.bindings.entry(port.container).or_insert(json!([]));
            if let Value::Array(bindings) = bindings {
                bindings.push(json!({"HostIp": port.host_ip, "HostPort": port.host}));
            }
        }
    }
    for text in &flags.expose {
        for port in port::parse_exposed(text)? {
            ports.exposed.insert(port, json!({}));
        }
    }
    Ok(ports)
}

fn host_config(flags: &ContainerFlags, volumes: &Volumes, ports: &Ports) -> Result<Value, Error> {
    let mut host = json!({
        "AutoRemove": flags.rm,
        "Privileged": flags.privileged,
        "PublishAllPorts": flags.publish_all,
        "ReadonlyRootfs": flags.read_only,
        "RestartPolicy": policy::restart(flags.restart.as_deref().unwrap_or("no"))?,
    });
    if flags.init {
        host["Init"] = true.into();
    }
    if flags.oom_kill_disable {
        host["OomKillDisable"] = true.into();
    }
    if flags.tty
        && let Some((rows, columns)) = raw::size()
    {
        host["ConsoleSize"] = json!([rows, columns]);
    }
    set_list(&mut host, "Binds", &volumes.binds);
    set_list(&mut host, "CapAdd", &flags.cap_add);
    set_list(&mut host, "CapDrop", &flags.cap_drop);
    set_list(&mut host, "Dns", &flags.dns);
    set_list(&mut host, "DnsOptions", &flags.dns_option);
    set_list(&mut host, "DnsSearch", &flags.dns_search);
    set_list(&mut host, "ExtraHosts", &flags.add_host);
    set_list(&mut host, "GroupAdd", &flags.group_add);
    set_list(&mut host, "VolumesFrom", &flags.volumes_from);
    set_each(&mut host, "Devices", &flags.device, device::parse)?;
    set_each(&mut host, "Mounts", &flags.mount, mount::parse)?;
    set_each(&mut host, "Ulimits", &flags.ulimit, limits::ulimit)?;
    set_map(&mut host, "Annotations", "--annotation", &flags.annotation)?;
    if let Some(mode) = &flags.systemd {
        host["Annotations"]["gamut.systemd"] = mode.as_str().into();
    }
    set_map(&mut host, "Sysctls", "--sysctl", &flags.sysctl)?;
    if !ports.bindings.is_empty() {
        host["PortBindings"] = ports.bindings.clone().into();
    }
    if !flags.tmpfs.is_empty() {
        let mut all = Map::new();
        for text in &flags.tmpfs {
            let (target, options) = volume::tmpfs(text)?;
            all.insert(target, options.into());
        }
        host["Tmpfs"] = all.into();
    }
    set_security(&mut host, &flags.security_opt)?;
    set(&mut host, "CgroupParent", flags.cgroup_parent.as_deref());
    set(&mut host, "CgroupnsMode", flags.cgroupns.as_deref());
    set(&mut host, "IpcMode", flags.ipc.as_deref());
    set(&mut host, "PidMode", flags.pid.as_deref());
    set(&mut host, "UTSMode", flags.uts.as_deref());
    set(&mut host, "UsernsMode", flags.userns.as_deref());
    set(&mut host, "OomScoreAdj", flags.oom_score_adj);
    set(&mut host, "Isolation", flags.isolation.as_deref());
    set(&mut host, "Runtime", flags.runtime.as_deref());
    if flags.log_driver.is_some() || !flags.log_opt.is_empty() {
        let mut log = json!({"Type": flags.log_driver.as_deref().unwrap_or_default()});
        set_map(&mut log, "Config", "--log-opt", &flags.log_opt)?;
        host["LogConfig"] = log;
    }
    if let Some(text) = &flags.shm_size {
        host["ShmSize"] = limits::bytes("--shm-size", text)?.into();
    }
    set_limits(&mut host, flags)?;
    Ok(host)
}

fn set_limits(host: &mut Value, flags: &ContainerFlags) -> Result<(), Error> {
    set(host, "BlkioWeight", flags.blkio_weight);
    set(host, "CpuPeriod", flags.cpu_period);
    set(host, "CpuQuota", flags.cpu_quota);
    set(host, "CpuRealtimePeriod", flags.cpu_rt_period);
    set(host, "CpuRealtimeRuntime", flags.cpu_rt_runtime);
    set(host, "CpuShares", flags.cpu_shares);
    set(host, "CpusetCpus", flags.cpuset_cpus.as_deref());
    set(host, "CpusetMems", flags.cpuset_mems.as_deref());
    set(host, "MemorySwappiness", flags.memory_swappiness);
    set(host, "PidsLimit", flags.pids_limit);
    if let Some(text) = &flags.cpus {
        host["NanoCpus"] = limits::cpus_to_nano(text)?.into();
    }
    if let Some(text) = &flags.memory {
        host["Memory"] = limits::bytes("--memory", text)?.into();
    }
    if let Some(text) = &flags.memory_reservation {
        host["MemoryReservation"] = limits::bytes("--memory-reservation", text)?.into();
    }
    if let Some(text) = &flags.memory_swap {
        host["MemorySwap"] = limits::memory_swap(text)?.into();
    }
    Ok(())
}

fn set_security(host: &mut Value, options: &[String]) -> Result<(), Error> {
    let mut options = files::security_options(options)?;
    // Not an option of the engine: it is spelled as two empty lists.
    let before = options.len();
    options.retain(|option| option != "systempaths=unconfined");
    if options.len() < before {
        host["MaskedPaths"] = json!([]);
        host["ReadonlyPaths"] = json!([]);
    }
    set_list(host, "SecurityOpt", &options);
    Ok(())
}

/// The first network is the container's mode; flags that name no network are about it.
fn set_networks(body: &mut Value, flags: &ContainerFlags) -> Result<(), Error> {
    let mut networks = Vec::new();
    for text in &flags.network {
        networks.push(network::attachment(text)?);
    }
    if networks.is_empty() {
        networks.push(Attachment {
            network: "default".to_owned(),
            ..Attachment::default()
        });
    }
    let mut endpoints = Map::new();
    for (number, mut attachment) in networks.into_iter().enumerate() {
        let is_default = matches!(attachment.network.as_str(), "default" | "bridge");
        if number == 0 {
            body["HostConfig"]["NetworkMode"] = attachment.network.as_str().into();
            // On the default network links are the container's, elsewhere the endpoint's.
            let links: &[String] = if is_default { &[] } else { &flags.link };
            if is_default {
                set_list(&mut body["HostConfig"], "Links", &flags.link);
            }
            let (ip, ip6) = (flags.ip.as_deref(), flags.ip6.as_deref());
            attachment.extend(ip, ip6, &flags.network_alias, links)?;
            if let Some(address) = &flags.mac_address {
                attachment.mac_address(address)?;
            }
            if attachment.endpoint.is_empty() && flags.network.len() < 2 {
                return Ok(());
            }
        }
        let name = attachment.network.clone();
        if endpoints
            .insert(name.clone(), attachment.endpoint.into())
            .is_some()
        {
            return Err(Error::Usage(format!(
                "network \"{name}\" is specified multiple times"
            )));
        }
    }
    body["NetworkingConfig"] = json!({"EndpointsConfig": endpoints});
    Ok(())
}

/// Sets a field if there is a value.
pub(super) fn set(target: &mut Value, name: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        target[name] = value.into();
    }
}

fn set_list(target: &mut Value, name: &str, values: &[String]) {
    if !values.is_empty() {
        target[name] = values.into();
    }
}

fn set_each(
    target: &mut Value,
    name: &str,
    texts: &[String],
    parse: impl Fn(&str) -> Result<Value, Error>,
) -> Result<(), Error> {
    if texts.is_empty() {
        return Ok(());
    }
    let values: Result<Vec<Value>, Error> = texts.iter().map(|text| parse(text)).collect();
    target[name] = values?.into();
    Ok(())
}

fn set_map(target: &mut Value, name: &str, flag: &str, texts: &[String]) -> Result<(), Error> {
    if texts.is_empty() {
        return Ok(());
    }
    let mut values = Map::new();
    for text in texts {
        let (key, value) = environment::key_value(flag, text)?;
        values.insert(key, value.into());
    }
    target[name] = values.into();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Args as _, Command, FromArgMatches as _};

    fn flags(line: &str) -> ContainerFlags {
        let command = ContainerFlags::augment_args(Command::new("run").disable_help_flag(true));
        let words = std::iter::once("run").chain(line.split(' '));
        let matches = command.try_get_matches_from(words).unwrap();
        ContainerFlags::from_arg_matches(&matches).unwrap()
    }

    fn body(line: &str) -> Value {
        describe(&flags(line), false).unwrap().body
    }

    #[test]
    fn everything_after_the_image_is_the_command() {
        let body = body("--rm alpine sh -c x --rm -- -t");
        assert_eq!(body["Cmd"], json!(["sh", "-c", "x", "--rm", "--", "-t"]));
        assert_eq!(body["HostConfig"]["AutoRemove"], true);
        assert_eq!(body["Tty"], false);
        assert_eq!(body["AttachStdout"], true);
    }

    #[test]
    fn limits_and_mounts() {
        let body = body(
            "-m 64m --cpus 1.5 --memory-swap 128m -v /a:/b -v /c --tmpfs /t:size=1m -p 8080:80 \
             --device /dev/null --ulimit nofile=10 --sysctl a=b --isolation microvm -h box \
             --network net --ip 10.0.0.2 --entrypoint /x -e A=1 -l k=v --annotation a=b \
             --systemd always image",
        );
        let host = &body["HostConfig"];
        assert_eq!(host["Memory"], 64 << 20);
        assert_eq!(host["MemorySwap"], 128 << 20);
        assert_eq!(host["NanoCpus"], 1_500_000_000);
        assert_eq!(host["Binds"], json!(["/a:/b"]));
        assert_eq!(body["Volumes"], json!({"/c": {}}));
        assert_eq!(host["Tmpfs"], json!({"/t": "size=1m"}));
        assert_eq!(host["PortBindings"]["80/tcp"][0]["HostPort"], "8080");
        assert_eq!(host["Isolation"], "microvm");
        assert_eq!(host["Sysctls"], json!({"a": "b"}));
        let annotations = json!({"a": "b", "gamut.systemd": "always"});
        assert_eq!(host["Annotations"], annotations);
        assert_eq!(body["Entrypoint"], json!(["/x"]));
        assert_eq!(body["Hostname"], "box");
        assert_eq!(
            body["NetworkingConfig"]["EndpointsConfig"]["net"]["IPAMConfig"]["IPv4Address"],
            "10.0.0.2"
        );
    }

    #[test]
    fn conflicts_fail_before_any_request() {
        for (line, is_detached) in [
            ("-a stdout i", true),
            ("--rm --restart always i", false),
            ("--cpus 1 --cpu-quota 5 i", false),
            ("--stop-signal BOGUS i", false),
            ("--oom-score-adj 2000 i", false),
            ("-w relative i", false),
            ("--restart sometimes i", false),
            ("-m lots i", false),
            ("-a bogus i", false),
        ] {
            let error = describe(&flags(line), is_detached).unwrap_err();
            assert!(matches!(error, Error::Usage(_)), "{line}: {error}");
        }
    }

    #[test]
    fn attached_streams() {
        let attach = |line, detached| describe(&flags(line), detached).unwrap().attach;
        assert!(attach("-i i", false).stdin);
        assert!(!attach("-a stderr i", false).stdout);
        assert_eq!(attach("-i i", true), Attach::default());
    }
}
