//! Copying files into and out of containers.

use crate::body::{self, BodyWriter};
use crate::error::ApiError;
use crate::reply::{self, Response};
use crate::request::{Request, blocking};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gamut_engine::files::archive::PathStat;
use gamut_spec::time;
use hyper::StatusCode;
use hyper::header::{HeaderName, HeaderValue};
use serde_json::json;
use std::io::Write;
use std::sync::Arc;

fn path_of(request: &Request) -> Result<String, ApiError> {
    match request.text("path") {
        Some(path) if !path.is_empty() => Ok(path.to_owned()),
        _ => Err(ApiError::invalid("Bad parameter: 'path' cannot be empty")),
    }
}

/// The header that tells what a path is: base64 of JSON.
fn stat_header(stat: &PathStat) -> Result<HeaderValue, ApiError> {
    let value = json!({
        "name": stat.name,
        "size": stat.size_bytes,
        "mode": go_mode(stat.mode),
        "mtime": time::rfc3339(stat.mtime_ns),
        "linkTarget": stat.link_target,
    });
    HeaderValue::try_from(STANDARD.encode(value.to_string()))
        .map_err(|error| ApiError::invalid(error.to_string()))
}

/// `st_mode` as Go's `os.FileMode`.
fn go_mode(mode: u32) -> u32 {
    let kind = match mode & libc::S_IFMT {
        libc::S_IFDIR => 1 << 31,
        libc::S_IFLNK => 1 << 27,
        libc::S_IFBLK => 1 << 26,
        libc::S_IFIFO => 1 << 25,
        libc::S_IFSOCK => 1 << 24,
        libc::S_IFCHR => 1 << 26 | 1 << 21,
        _ => 0,
    };
    let mut bits = kind | (mode & 0o777);
    for (flag, go) in [
        (libc::S_ISUID, 1 << 23),
        (libc::S_ISGID, 1 << 22),
        (libc::S_ISVTX, 1 << 20),
    ] {
        if mode & flag != 0 {
            bits |= go;
        }
    }
    bits
}

const STAT_HEADER: HeaderName = HeaderName::from_static("x-docker-container-path-stat");

/// `HEAD /containers/{id}/archive`
pub async fn stat(request: Request, name: &str) -> Result<Response, ApiError> {
    let path = path_of(&request)?;
    let name = name.to_owned();
    let stat = request
        .blocking(move |engine, caller| engine.archive_stat(caller, &name, &path))
        .await?;
    let mut response = reply::empty(StatusCode::OK);
    response
        .headers_mut()
        .insert(STAT_HEADER, stat_header(&stat)?);
    Ok(response)
}

/// `GET /containers/{id}/archive`: a tar of the path.
pub async fn get(request: Request, name: &str) -> Result<Response, ApiError> {
    let path = path_of(&request)?;
    let (name, wanted) = (name.to_owned(), path.clone());
    let (engine, caller) = (Arc::clone(&request.engine), request.caller.clone());
    let container = name.clone();
    let stat = blocking(&engine, &caller, move |engine, caller| {
        engine.archive_stat(caller, &container, &wanted)
    })
    .await?;
    let (sender, reply) = body::stream();
    tokio::task::spawn_blocking(move || {
        let mut writer = BodyWriter::new(sender);
        let sent = engine
            .archive_get(&caller, &name, &path, &mut writer)
            .map_err(|error| std::io::Error::other(error.full_message()))
            .and_then(|()| writer.flush());
        if let Err(error) = sent {
            tracing::warn!(%error, "an archive could not be sent");
            writer.fail(error);
        }
    });
    let mut response = reply::with_type(reply, "application/x-tar");
    response
        .headers_mut()
        .insert(STAT_HEADER, stat_header(&stat)?);
    Ok(response)
}

/// `PUT /containers/{id}/archive`: unpacks a tar (plain, gzip or zstd) into a directory.
pub async fn put(request: Request, name: &str) -> Result<Response, ApiError> {
    let path = path_of(&request)?;
    let keep_kind = request.flag("noOverwriteDirNonDir");
    let copy_owner = request.flag("copyUIDGID");
    let name = name.to_owned();
    let (engine, caller) = (Arc::clone(&request.engine), request.caller.clone());
    let mut reader = request.into_reader();
    blocking(&engine, &caller, move |engine, caller| {
        engine.archive_put(caller, &name, &path, &mut reader, keep_kind, copy_owner)
    })
    .await?;
    Ok(reply::empty(StatusCode::OK))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_gos() {
        assert_eq!(go_mode(libc::S_IFDIR | 0o1777), 1 << 31 | 1 << 20 | 0o777);
        assert_eq!(go_mode(libc::S_IFREG | 0o4755), 1 << 23 | 0o755);
    }
}
