//! The sidecar's image: what is in it, and how it stops.

use std::time::{Duration, Instant};

use crate::harness::docker::Docker;
use crate::harness::docker::images::SIDECAR;

#[tokio::test]
async fn the_image_runs_as_nobody_in_particular_and_checks_itself() {
    let docker = Docker::turn().await;
    let config = docker.run(&["image", "inspect", "--format", "{{json .Config}}", SIDECAR]);
    let config: serde_json::Value = serde_json::from_str(&config.await).expect("a JSON object");
    assert_eq!(config["User"], "65532:65532");
    assert_eq!(config["Entrypoint"], serde_json::json!(["/egress"]));
    assert_eq!(
        config["Healthcheck"]["Test"],
        serde_json::json!(["CMD", "/egress", "status"])
    );
    let version = docker.run(&["run", "--rm", SIDECAR, "--version"]).await;
    assert!(version.starts_with("egress "), "{version}");
}

#[tokio::test]
async fn it_stops_at_once_although_it_is_process_1() {
    let docker = Docker::turn().await;
    let routes = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(routes.path().join("routes.yaml"), "routes: []\n")
        .expect("a writable directory");
    let mount = format!("{}:/etc/egress:ro", routes.path().display());
    let start = [
        "run",
        "-d",
        "--name",
        "sidecar",
        "-v",
        &mount,
        SIDECAR,
        "serve",
        "--ca-ephemeral",
    ];
    docker.run(&start).await;
    docker.healthy("sidecar").await;
    let begin = Instant::now();
    docker.run(&["stop", "sidecar"]).await;
    assert!(
        begin.elapsed() < Duration::from_secs(5),
        "{:?}",
        begin.elapsed()
    );
    let code = docker
        .run(&["inspect", "--format", "{{.State.ExitCode}}", "sidecar"])
        .await;
    assert_eq!(code.trim(), "0");
}
