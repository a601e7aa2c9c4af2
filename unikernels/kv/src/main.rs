//! A key-value store on the first block device, over HTTP (port 80) and the protocol of Redis
//! (port 6379). What was acknowledged survives restarts and kill -9.
//!
//! ```text
//! GET /KEY          its value                 PUT /KEY      sets it to the body
//! DELETE /KEY       removes it                GET /?from=K  up to 1000 keys, a line each
//! GET /metrics      counters
//! ```
#![no_std]
#![no_main]

mod redis;
mod web;

use gamut_libos::block;
use gamut_libos::http::{Limits, Server};
use gamut_libos::info;
use gamut_libos::metrics::Metric;
use gamut_libos::prelude::*;
use gamut_libos::start::{NEEDS_BLOCK, NEEDS_NETWORK};
use gamut_libos::store::{MAX_VALUE_BYTES, OpenMode, Store};

app!(
    main,
    needs = NEEDS_NETWORK | NEEDS_BLOCK,
    default_memory_bytes = 32 << 20,
);

static READS: Metric = Metric::counter("kv_reads_total", "Values asked for.");
static WRITES: Metric = Metric::counter("kv_writes_total", "Changes made durable.");
static KEYS: Metric = Metric::gauge("kv_keys", "Keys in the store.");
static GENERATION: Metric = Metric::gauge("kv_generation", "Raised with every compaction.");

async fn main() -> Result<(), Error> {
    let device = block::devices().next().ok_or(Error::new(
        "there is no block device; start it with one: -v VOLUME:/data",
    ))?;
    let store = Store::open(device, OpenMode::CreateIfEmpty)
        .await
        .map_err(|error| Error::from(error).context("opening the store"))?;
    let keys = store.counters().await.keys;
    info!("store of {} bytes with {keys} keys", device.bytes());
    spawn(redis::serve(store.clone()));
    let limits = Limits {
        body_bytes: MAX_VALUE_BYTES,
        ..Limits::default()
    };
    let server = Server::bind(80)?.with_limits(limits);
    info!("listening on ports 80 and 6379");
    server.serve(web::handler(store)).await;
    info!("stopped");
    Ok(())
}
