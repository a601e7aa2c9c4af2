//! bollard, whose types are those of the public description of the API: what does not fit them is
//! an error.

use bollard::Docker;
use bollard::container::LogOutput;
use bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
use bollard::models::{
    ContainerCreateBody, ContainerUpdateBody, EndpointSettings, HostConfig, NetworkConnectRequest,
    NetworkCreateRequest, NetworkDisconnectRequest, VolumeCreateRequest,
};
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, CreateContainerOptionsBuilder, CreateImageOptionsBuilder,
    DataUsageOptions, DownloadFromContainerOptionsBuilder, EventsOptionsBuilder,
    KillContainerOptionsBuilder, ListContainersOptionsBuilder, ListImagesOptions,
    ListNetworksOptions, ListVolumesOptionsBuilder, LogsOptionsBuilder, PruneContainersOptions,
    PruneNetworksOptions, PruneVolumesOptions, RemoveContainerOptionsBuilder, RemoveImageOptions,
    RemoveVolumeOptions, StatsOptionsBuilder, TagImageOptionsBuilder,
    UploadToContainerOptionsBuilder, WaitContainerOptionsBuilder,
};
use futures_util::{StreamExt, TryStreamExt};
use gamut_tests::{Daemon, PATIENCE};
use std::collections::HashMap;
use std::future::Future;
use tokio::io::AsyncWriteExt;

fn run<F: Future<Output = Result<(), bollard::errors::Error>>>(
    test: impl FnOnce(Docker) -> F,
) -> Option<()> {
    let daemon = Daemon::with_busybox()?;
    let path = daemon.socket().display().to_string();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let seconds = PATIENCE.as_secs();
    runtime.block_on(async {
        let docker = Docker::connect_with_unix(&path, seconds, bollard::API_DEFAULT_VERSION);
        let docker = docker.unwrap().negotiate_version().await.unwrap();
        test(docker).await.unwrap();
    });
    drop(runtime);
    daemon.finish();
    Some(())
}

fn text(output: &LogOutput) -> String {
    let stream = match output {
        LogOutput::StdOut { .. } => "out",
        LogOutput::StdErr { .. } => "err",
        LogOutput::Console { .. } => "tty",
        LogOutput::StdIn { .. } => "in",
    };
    format!("{stream}: {output}")
}

fn container(command: &[&str], host_config: HostConfig) -> ContainerCreateBody {
    ContainerCreateBody {
        image: Some("busybox".to_owned()),
        cmd: Some(command.iter().map(|word| (*word).to_owned()).collect()),
        host_config: Some(host_config),
        ..ContainerCreateBody::default()
    }
}

async fn start(
    docker: &Docker,
    name: &str,
    body: ContainerCreateBody,
) -> Result<(), bollard::errors::Error> {
    let options = CreateContainerOptionsBuilder::new().name(name).build();
    docker.create_container(Some(options), body).await?;
    docker.start_container(name, None).await
}

#[test]
fn a_container_s_life() {
    let _ = run(|docker| async move {
        let script = "echo to out; echo to err >&2; read line; echo $line; exit 7";
        let mut body = container(&["sh", "-c", script], HostConfig::default());
        body.open_stdin = Some(true);
        body.stdin_once = Some(true);
        let options = CreateContainerOptionsBuilder::new().name("box").build();
        docker.create_container(Some(options), body).await?;
        let wanted = AttachContainerOptionsBuilder::new()
            .stdin(true)
            .stdout(true)
            .stderr(true)
            .stream(true)
            .build();
        let mut attached = docker.attach_container("box", Some(wanted)).await?;
        docker.start_container("box", None).await?;
        attached.input.write_all(b"hello\n").await?;
        let output: Vec<_> = attached
            .output
            .map_ok(|one| text(&one))
            .try_collect()
            .await?;
        assert_eq!(
            output.concat().len(),
            "out: to out\nerr: to err\nout: hello\n".len()
        );
        let condition = WaitContainerOptionsBuilder::new()
            .condition("not-running")
            .build();
        let ended = docker
            .wait_container("box", Some(condition))
            .next()
            .await
            .unwrap();
        match ended {
            Err(bollard::errors::Error::DockerContainerWaitError { code, .. }) => {
                assert_eq!(code, 7)
            }
            other => panic!("{other:?}"),
        }
        let shown = docker.inspect_container("box", None).await?;
        assert_eq!(shown.state.unwrap().exit_code, Some(7));
        let wanted = LogsOptionsBuilder::new()
            .stderr(true)
            .timestamps(true)
            .build();
        let logs: Vec<_> = docker
            .logs("box", Some(wanted))
            .map_ok(|one| text(&one))
            .try_collect()
            .await?;
        assert!(
            logs.len() == 1 && logs[0].ends_with("Z to err\n"),
            "{logs:?}"
        );
        docker
            .rename_container(
                "box",
                bollard::query_parameters::RenameContainerOptionsBuilder::new()
                    .name("crate")
                    .build(),
            )
            .await?;
        let wanted = ListContainersOptionsBuilder::new()
            .all(true)
            .size(true)
            .build();
        let listed = docker.list_containers(Some(wanted)).await?;
        assert_eq!(listed[0].names, Some(vec!["/crate".to_owned()]));
        docker.remove_container("crate", None).await
    });
}

#[test]
fn a_running_container_is_looked_at_and_changed() {
    let _ = run(|docker| async move {
        let limits = HostConfig {
            memory: Some(64 << 20),
            ..HostConfig::default()
        };
        start(&docker, "box", container(&["sleep", "1000"], limits)).await?;
        let once = StatsOptionsBuilder::new().stream(false).build();
        let stats = docker.stats("box", Some(once)).next().await.unwrap()?;
        assert_eq!(stats.memory_stats.unwrap().limit, Some(64 << 20));
        let top = docker.top_processes("box", None).await?;
        assert_eq!(top.processes.unwrap().len(), 1);
        let update = ContainerUpdateBody {
            cpu_shares: Some(512),
            ..ContainerUpdateBody::default()
        };
        docker.update_container("box", update).await?;
        docker.pause_container("box").await?;
        let shown = docker.inspect_container("box", None).await?;
        assert_eq!(shown.host_config.unwrap().cpu_shares, Some(512));
        assert_eq!(shown.state.unwrap().paused, Some(true));
        docker.unpause_container("box").await?;

        let options = CreateExecOptions {
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            cmd: Some(vec!["sh", "-c", "echo $0; exit 3"]),
            ..CreateExecOptions::default()
        };
        let session = docker.create_exec("box", options).await?;
        match docker
            .start_exec(&session.id, None::<StartExecOptions>)
            .await?
        {
            StartExecResults::Attached { output, .. } => {
                let output: Vec<_> = output.map_ok(|one| text(&one)).try_collect().await?;
                assert_eq!(output, ["out: sh\n"]);
            }
            StartExecResults::Detached => panic!("it is attached"),
        }
        assert_eq!(docker.inspect_exec(&session.id).await?.exit_code, Some(3));

        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(4);
        header.set_mode(0o644);
        archive
            .append_data(&mut header, "given", &b"this"[..])
            .unwrap();
        let archive = archive.into_inner().unwrap();
        let into = UploadToContainerOptionsBuilder::new().path("/tmp").build();
        docker
            .upload_to_container("box", Some(into), bollard::body_full(archive.into()))
            .await?;
        let from = DownloadFromContainerOptionsBuilder::new()
            .path("/tmp/given")
            .build();
        let got: Vec<_> = docker
            .download_from_container("box", Some(from))
            .try_collect()
            .await?;
        let got = got.concat();
        let mut archive = tar::Archive::new(&got[..]);
        let entry = archive.entries().unwrap().next().unwrap().unwrap();
        assert_eq!(entry.size(), 4);
        let changes = docker.container_changes("box").await?.unwrap();
        assert!(changes.iter().any(|change| change.path == "/tmp/given"));

        let kill = KillContainerOptionsBuilder::new().signal("SIGKILL").build();
        docker.kill_container("box", Some(kill)).await?;
        let remove = RemoveContainerOptionsBuilder::new().force(true).build();
        docker.remove_container("box", Some(remove)).await
    });
}

#[test]
fn networks_volumes_images_and_the_engine() {
    let _ = run(|docker| async move {
        let labels = HashMap::from([("made-by".to_owned(), "test".to_owned())]);
        let request = NetworkCreateRequest {
            name: "net".to_owned(),
            labels: Some(labels.clone()),
            ..NetworkCreateRequest::default()
        };
        docker.create_network(request).await?;
        let request = VolumeCreateRequest {
            name: Some("data".to_owned()),
            labels: Some(labels),
            ..VolumeCreateRequest::default()
        };
        assert_eq!(docker.create_volume(request).await?.name, "data");
        let host = HostConfig {
            binds: Some(vec!["data:/data".to_owned()]),
            port_bindings: Some(HashMap::from([("80/tcp".to_owned(), Some(Vec::new()))])),
            ..HostConfig::default()
        };
        start(&docker, "box", container(&["sleep", "1000"], host)).await?;
        let request = NetworkConnectRequest {
            container: "box".to_owned(),
            endpoint_config: Some(EndpointSettings {
                aliases: Some(vec!["alias".to_owned()]),
                ..EndpointSettings::default()
            }),
        };
        docker.connect_network("net", request).await?;
        let network = docker.inspect_network("net", None).await?;
        assert_eq!(network.containers.unwrap().len(), 1);
        let shown = docker.inspect_container("box", None).await?;
        let networks = shown.network_settings.unwrap().networks.unwrap();
        assert_eq!(networks["net"].aliases, Some(vec!["alias".to_owned()]));
        assert_eq!(shown.mounts.unwrap()[0].name.as_deref(), Some("data"));
        let request = NetworkDisconnectRequest {
            container: "box".to_owned(),
            force: None,
        };
        docker.disconnect_network("net", request).await?;
        let wanted = HashMap::from([("label", vec!["made-by=test"])]);
        let wanted = ListVolumesOptionsBuilder::new().filters(&wanted).build();
        assert_eq!(
            docker
                .list_volumes(Some(wanted))
                .await?
                .volumes
                .unwrap()
                .len(),
            1
        );
        let remove = RemoveContainerOptionsBuilder::new().force(true).build();
        docker.remove_container("box", Some(remove)).await?;
        docker
            .remove_volume("data", None::<RemoveVolumeOptions>)
            .await?;
        docker.remove_network("net").await?;
        assert_eq!(
            docker
                .list_networks(None::<ListNetworksOptions>)
                .await?
                .len(),
            3
        );

        let tag = TagImageOptionsBuilder::new().repo("copy").tag("1").build();
        docker.tag_image("busybox", Some(tag)).await?;
        let image = docker.inspect_image("copy:1").await?;
        assert!(image.repo_tags.unwrap().contains(&"copy:1".to_owned()));
        assert_eq!(docker.image_history("copy:1").await?.len(), 1);
        let archive: Vec<_> = docker.export_image("copy:1").try_collect().await?;
        docker
            .remove_image("copy:1", None::<RemoveImageOptions>, None)
            .await?;
        let load = bollard::query_parameters::ImportImageOptionsBuilder::new().build();
        let archive = archive.concat();
        let loaded = docker.import_image(load, bollard::body_full(archive.into()), None);
        let loaded: Vec<_> = loaded.try_collect().await?;
        assert!(
            format!("{loaded:?}").contains("Loaded image: copy:1"),
            "{loaded:?}"
        );
        let images = docker.list_images(None::<ListImagesOptions>).await?;
        let listed = images.iter().flat_map(|image| &image.repo_tags);
        assert!(listed.clone().any(|tag| tag == "copy:1"));
        let pull = CreateImageOptionsBuilder::new()
            .from_image("127.0.0.1:1/absent")
            .build();
        let pulled: Result<Vec<_>, _> = docker
            .create_image(Some(pull), None, None)
            .try_collect()
            .await;
        assert!(pulled.is_err());
        docker
            .remove_image("copy:1", None::<RemoveImageOptions>, None)
            .await?;

        assert_eq!(docker.ping().await?, "OK");
        assert!(docker.version().await?.api_version.is_some());
        assert!(docker.info().await?.ncpu.unwrap() > 0);
        docker.df(None::<DataUsageOptions>).await?;
        let past = EventsOptionsBuilder::new().since("0").until("1").build();
        let events: Vec<_> = docker.events(Some(past)).try_collect().await?;
        assert!(events.is_empty());
        docker
            .prune_containers(None::<PruneContainersOptions>)
            .await?;
        docker.prune_networks(None::<PruneNetworksOptions>).await?;
        docker.prune_volumes(None::<PruneVolumesOptions>).await?;
        Ok(())
    });
}
