//! The store over the protocol of Redis: what `redis-cli` and client libraries need to get, set and
//! delete.

use core::time::Duration;

use gamut_libos::executor::{Either, select, timeout};
use gamut_libos::net::{TcpListener, TcpStream};
use gamut_libos::prelude::*;
use gamut_libos::store::{MAX_VALUE_BYTES, Store, StoreError};
use gamut_libos::{resp, shutdown};

use crate::{READS, WRITES};

const PORT: u16 = 6379;
const READ_BYTES: usize = 16 << 10;
const IDLE: Duration = Duration::from_secs(300);

/// Serves connections until the guest is asked to stop.
pub(super) async fn serve(store: Store) {
    let mut listener = match TcpListener::bind(PORT) {
        Ok(listener) => listener,
        Err(error) => return println!("port {PORT}: {error}"),
    };
    while let Either::First(stream) = select(listener.accept(), shutdown::requested()).await {
        let store = store.clone();
        spawn(async move {
            // A connection that breaks has nobody to be told.
            let _ = connection(stream, &store).await;
        });
    }
}

async fn connection(mut stream: TcpStream, store: &Store) -> Result<(), Error> {
    let mut input = Vec::new();
    let mut output = Vec::new();
    loop {
        let mut used = 0;
        loop {
            let rest = input.get(used..).unwrap_or_default();
            match resp::command(rest, MAX_VALUE_BYTES) {
                Ok(Some((arguments, taken))) => {
                    used += taken;
                    if !carry_out(store, &arguments, &mut output).await {
                        stream.write_all(&output).await?;
                        return Ok(());
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    resp::error(&mut output, &format!("ERR {error}"));
                    stream.write_all(&output).await?;
                    return Ok(());
                }
            }
        }
        input.drain(..used);
        if !output.is_empty() {
            stream.write_all(&output).await?;
            output.clear();
        }
        let read = timeout(IDLE, stream.read_to(&mut input, READ_BYTES));
        match select(read, shutdown::requested()).await {
            Either::First(Ok(Ok(1..))) => {}
            _ => return Ok(()),
        }
    }
}

fn failure(out: &mut Vec<u8>, error: &StoreError) {
    let code = match error {
        StoreError::NoSpace => "OOM",
        _ => "ERR",
    };
    resp::error(out, &format!("{code} {error}"));
}

/// Carries out a command. False if the connection ends with it.
async fn carry_out(store: &Store, arguments: &[&[u8]], out: &mut Vec<u8>) -> bool {
    let Some((&name, rest)) = arguments.split_first() else {
        return true;
    };
    let name = String::from_utf8_lossy(name).to_ascii_uppercase();
    match (name.as_str(), rest) {
        ("PING", []) => resp::simple(out, "PONG"),
        ("PING" | "ECHO", [text]) => resp::bulk(out, Some(text)),
        ("GET", [key]) => get(store, key, out).await,
        ("MGET", keys @ [_, ..]) => {
            resp::array(out, keys.len());
            for key in keys {
                get(store, key, out).await;
            }
        }
        ("SET", [key, value]) => match store.put(key, value.to_vec()).await {
            Ok(()) => {
                WRITES.add(1);
                resp::simple(out, "OK");
            }
            Err(error) => failure(out, &error),
        },
        ("DEL" | "UNLINK", keys @ [_, ..]) => delete(store, keys, out).await,
        ("EXISTS", keys @ [_, ..]) => {
            let mut count = 0;
            for key in keys {
                count += u64::from(matches!(store.get(key).await, Ok(Some(_))));
            }
            resp::integer(out, count);
        }
        ("DBSIZE", []) => resp::integer(out, store.counters().await.keys),
        // What clients ask when they connect.
        ("COMMAND", _) => resp::array(out, 0),
        ("SELECT", [b"0"]) => resp::simple(out, "OK"),
        ("CLIENT", _) => resp::simple(out, "OK"),
        ("QUIT", _) => {
            resp::simple(out, "OK");
            return false;
        }
        ("GET" | "MGET" | "SET" | "DEL" | "UNLINK" | "EXISTS" | "ECHO", _) => {
            let text = format!(
                "ERR wrong number of arguments for '{}'",
                name.to_lowercase()
            );
            resp::error(out, &text);
        }
        _ => resp::error(out, &format!("ERR unknown command '{name}'")),
    }
    true
}

async fn get(store: &Store, key: &[u8], out: &mut Vec<u8>) {
    READS.add(1);
    match store.get(key).await {
        Ok(value) => resp::bulk(out, value.as_deref()),
        Err(error) => failure(out, &error),
    }
}

async fn delete(store: &Store, keys: &[&[u8]], out: &mut Vec<u8>) {
    let mut count = 0;
    for key in keys {
        match store.delete(key).await {
            Ok(existed) => count += u64::from(existed),
            Err(error) => return failure(out, &error),
        }
        WRITES.add(1);
    }
    resp::integer(out, count);
}
