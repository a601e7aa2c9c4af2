//! What clients ask most often: lists of few and of many containers, statistics; and what goes from
//! one container to another.

use crate::daemons::{Daemon, Setting};
use crate::measure::{Budget, Contender, Failure, Times, race, table};
use std::time::Duration;

/// Containers in the short and in the long list.
const FEW: usize = 50;
const MANY: usize = 1000;
/// Containers that run while statistics are asked for.
const RUNNING: usize = 10;
/// What one container sends to the other, in MiB.
const SENT_MIB: u64 = 1024;

/// Not slower than dockerd (DESIGN.md names no figure).
const NOT_SLOWER: [Budget; 2] = [
    Budget {
        subject: 0,
        peer: 2,
        factor: 1.0,
    },
    Budget {
        subject: 1,
        peer: 2,
        factor: 1.0,
    },
];

/// Races them.
///
/// # Errors
/// If a daemon refuses.
pub fn compare(setting: &Setting<'_>, gamut: &Daemon, dockerd: &Daemon) -> Result<String, Failure> {
    let own = |words: &[&str]| setting.run_gamut(words);
    let ask = |words: &'static [&'static str], rounds: usize| -> Result<Vec<Times>, Failure> {
        let mut contenders = [
            Contender::new("gamut", |_| own(words)),
            Contender::new("docker on gamut", |_| gamut.run_docker(words)),
            Contender::new("docker on dockerd", |_| dockerd.run_docker(words)),
        ];
        race(&mut contenders, rounds, Duration::from_millis(50))
    };
    let mut text = throughput(setting, gamut, dockerd)?;
    for daemon in [gamut, dockerd] {
        for number in 0..RUNNING {
            let name = format!("running{number}");
            daemon.run_docker(&[
                "run",
                "-d",
                "--name",
                &name,
                "bench:latest",
                "/bin/sleep",
                "100000",
            ])?;
        }
    }
    text.push_str(&table(
        &format!("`stats --no-stream` of {RUNNING} containers"),
        "From fork of the client to its end.",
        &ask(&["stats", "--no-stream"], setting.rounds.div_ceil(5))?,
        &NOT_SLOWER,
    ));
    let mut made = 0;
    for count in [FEW, MANY] {
        for daemon in [gamut, dockerd] {
            for number in made..count {
                let name = format!("listed{number}");
                daemon.run_docker(&["create", "--name", &name, "bench:latest", "/bin/true"])?;
            }
        }
        made = count;
        text.push_str(&table(
            &format!("`ps -a` with {count} containers, and {RUNNING} that run"),
            "From fork of the client to its end.",
            &ask(&["ps", "-a"], setting.rounds)?,
            &NOT_SLOWER,
        ));
    }
    Ok(text)
}

/// From one container of the default bridge to another.
fn throughput(setting: &Setting<'_>, gamut: &Daemon, dockerd: &Daemon) -> Result<String, Failure> {
    let serve = "while :; do nc -l -p 5000 >/dev/null; done";
    let mut addresses = Vec::new();
    for daemon in [gamut, dockerd] {
        daemon.run_docker(&[
            "run",
            "-d",
            "--name",
            "sink",
            "bench:latest",
            "/bin/sh",
            "-c",
            serve,
        ])?;
        daemon.run_docker(&[
            "run",
            "-d",
            "--name",
            "source",
            "bench:latest",
            "/bin/sleep",
            "100000",
        ])?;
        let format = "{{.NetworkSettings.Networks.bridge.IPAddress}}";
        let output = daemon.docker(&["inspect", "-f", format, "sink"]).output()?;
        addresses.push(String::from_utf8(output.stdout)?.trim().to_owned());
    }
    let [own_sink, docker_sink] = &addresses[..] else {
        return Err("a sink has no address".into());
    };
    let send = |address: &str| {
        format!(
            "until dd if=/dev/zero bs=64k count={} 2>/dev/null | nc {address} 5000; do :; done",
            SENT_MIB * 16
        )
    };
    let (own_send, docker_send) = (send(own_sink), send(docker_sink));
    let from = |daemon: &Daemon, script: &str| {
        daemon.run_docker(&["exec", "source", "/bin/sh", "-c", script])
    };
    let mut contenders = [
        Contender::new("gamut", |_| from(gamut, &own_send)),
        Contender::new("dockerd", |_| from(dockerd, &docker_send)),
    ];
    let times = race(
        &mut contenders,
        setting.rounds.div_ceil(2),
        Duration::from_millis(200),
    )?;
    for daemon in [gamut, dockerd] {
        daemon.run_docker(&["rm", "-f", "sink", "source"])?;
    }
    Ok(table(
        &format!("{SENT_MIB} MiB from one container to another over the bridge"),
        "`docker exec` of dd and nc, the same programs in both.",
        &times,
        &[Budget {
            subject: 0,
            peer: 1,
            factor: 1.0,
        }],
    ))
}
