//! Other engines above `gamut-runtime`: podman, containerd and dockerd run, enter, pause, kill and
//! remove containers by it. Only with `GAMUT_TEST_PEERS=1` (`./test --peers`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod containerd;
mod dockerd;
mod engine;
mod podman;
