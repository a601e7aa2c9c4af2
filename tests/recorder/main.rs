//! Stands between clients of the Docker API and an engine, and holds what the engine answers
//! against the public description of the API:
//!
//! ```text
//! api-recorder LISTEN-SOCKET ENGINE-SOCKET SWAGGER-DIRECTORY RECORDS-FILE
//! ```
//!
//! Each exchange becomes a line of JSON in RECORDS-FILE when its connection ends: version, method,
//! operation (as the description has it, or the path if it knows none), status, and what is wrong
//! (`problems`) or more (`undescribed`) in the answer. Bytes pass unchanged; they are read once the
//! connection has ended.
//!
//! ```text
//! api-recorder --document SWAGGER-DIRECTORY LABEL=RECORDS-FILE...
//! ```
//!
//! prints docs/docker-compatibility.md out of such records.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod document;

use gamut_tests::swagger::{Exchange, Problem, Swagger, Version, exchanges, versions};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

/// Bytes kept of each direction of a connection: archives are longer, and not looked at.
const KEPT_BYTES: usize = 16 << 20;

struct Recorder {
    directory: PathBuf,
    newest: Version,
    descriptions: Mutex<BTreeMap<Version, Arc<Swagger>>>,
    records: Mutex<File>,
}

impl Recorder {
    fn description(&self, version: Version) -> Arc<Swagger> {
        let mut known = self.descriptions.lock().unwrap();
        let load = || Arc::new(Swagger::load(&self.directory, version));
        Arc::clone(known.entry(version).or_insert_with(load))
    }

    fn record(&self, exchange: &Exchange) {
        let version = exchange.version().unwrap_or(self.newest).min(self.newest);
        let (operation, problems) = exchange.check(&self.description(version));
        let texts = |wrong: bool| -> Vec<String> {
            problems
                .iter()
                .filter_map(|problem| match problem {
                    Problem::Wrong(text) if wrong => Some(text.clone()),
                    Problem::Undescribed(text) if !wrong => Some(text.clone()),
                    _ => None,
                })
                .collect()
        };
        let line = json!({
            "version": format!("{}.{}", version.0, version.1),
            "method": exchange.method,
            "operation": operation.as_ref().map_or(exchange.path(), |found| &found.path),
            "described": operation.is_some(),
            "target": exchange.target,
            "status": exchange.status,
            "problems": texts(true),
            "undescribed": texts(false),
        });
        let mut records = self.records.lock().unwrap();
        writeln!(records, "{line}").expect("the records can be written");
    }
}

/// Copies until the end and passes that on; returns what was copied, as far as it is kept.
fn copy(mut from: UnixStream, mut to: UnixStream) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(count) => count,
        };
        if kept.len() < KEPT_BYTES {
            kept.extend_from_slice(&buffer[..count]);
        }
        if to.write_all(&buffer[..count]).is_err() {
            let _ = from.shutdown(Shutdown::Read);
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
    kept
}

fn relay(client: &UnixStream, engine: &UnixStream, recorder: &Recorder) {
    let (requests, answers) = std::thread::scope(|scope| {
        let up = scope.spawn(|| copy(client.try_clone().unwrap(), engine.try_clone().unwrap()));
        let answers = copy(engine.try_clone().unwrap(), client.try_clone().unwrap());
        // An engine that has closed reads no more.
        let _ = client.shutdown(Shutdown::Both);
        (up.join().unwrap(), answers)
    });
    for exchange in exchanges(&requests, &answers) {
        recorder.record(&exchange);
    }
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, directory, sources @ ..] = words.as_slice()
        && flag == "--document"
    {
        let directory = PathBuf::from(directory);
        let newest = *versions(&directory).last().expect("a description");
        let sources: Vec<(String, String)> = sources
            .iter()
            .filter_map(|source| source.split_once('='))
            .map(|(label, file)| (label.to_owned(), file.to_owned()))
            .collect();
        print!("{}", document::document(&directory, newest, &sources));
        return;
    }
    let [listen, engine, directory, records] = words.as_slice() else {
        eprintln!("usage: api-recorder LISTEN-SOCKET ENGINE-SOCKET SWAGGER-DIRECTORY RECORDS-FILE");
        eprintln!("       api-recorder --document SWAGGER-DIRECTORY LABEL=RECORDS-FILE...");
        std::process::exit(2);
    };
    let directory = PathBuf::from(directory);
    let newest = *versions(&directory).last().expect("a description");
    let records = File::options().create(true).append(true).open(records);
    let recorder = Arc::new(Recorder {
        directory,
        newest,
        descriptions: Mutex::default(),
        records: Mutex::new(records.expect("the records can be opened")),
    });
    let _ = std::fs::remove_file(listen);
    let listener = UnixListener::bind(listen).expect("the socket can be made");
    for client in listener.incoming() {
        let Ok(client) = client else { continue };
        let (recorder, engine) = (Arc::clone(&recorder), engine.clone());
        std::thread::spawn(move || match UnixStream::connect(&engine) {
            Ok(engine) => relay(&client, &engine, &recorder),
            Err(error) => eprintln!("{engine}: {error}"),
        });
    }
}
