//! Gamut's own verbs, below `/gamut/v1`.

use crate::error::ApiError;
use crate::hijack::{self, Output, Stdio};
use crate::reply::{self, Response};
use crate::request::{Request, blocking};
use gamut_image::{MAX_UNIKERNEL_BYTES, Package, UnikernelOptions};
use gamut_spec::reference::Reference;
use serde_json::{Value, json};
use std::io::Read;
use std::sync::Arc;

/// `GET /gamut/v1/dump`: the whole state, for people.
pub async fn dump(request: Request) -> Result<Response, ApiError> {
    let value = request.blocking(|engine, _| Ok(engine.dump())).await?;
    Ok(reply::json(&value))
}

/// `GET /gamut/v1/containers/{name}/fingerprints`: what a container's changes come down to, by path.
pub async fn fingerprints(request: Request, name: &str) -> Result<Response, ApiError> {
    let name = name.to_owned();
    let found = request
        .blocking(move |engine, _| engine.fingerprints(&name))
        .await?;
    Ok(reply::json(&found))
}

/// `POST /gamut/v1/fsck`: checks everything; with `repair`, puts right what can be.
pub async fn fsck(request: Request) -> Result<Response, ApiError> {
    let repair = request.flag("repair");
    let findings = request
        .blocking(move |engine, caller| engine.fsck(caller, repair))
        .await?;
    let list: Vec<Value> = findings
        .iter()
        .map(|finding| {
            json!({
                "object": finding.object,
                "problem": finding.problem,
                "repaired": finding.repaired,
            })
        })
        .collect();
    Ok(reply::json(&list))
}

/// `POST /gamut/v1/containers/{name}/debug`: the connection becomes that of a debugger, which
/// speaks GDB's remote protocol, to the container's machine.
pub async fn debug(request: Request, name: &str) -> Result<Response, ApiError> {
    let name = name.to_owned();
    let stream = request
        .blocking(move |engine, caller| engine.debug_container(caller, &name))
        .await?;
    let stdio = Stdio {
        stream,
        form: Output::Raw,
        detach_keys: None,
    };
    Ok(hijack::respond(request, stdio, |_| async {}))
}

/// `POST /gamut/v1/unikernels`: makes an image of the unikernel in the body, an ELF file, or with
/// content type `application/x-tar` an archive of `unikernel` and `files/PATH`. Query:
/// `name`, `addTo` (name of an image whose unikernel form it is to be), `memory` in bytes, and any
/// number of `arg`, `cmd`, `env`, `label`, `expose` and `volume`.
pub async fn pack(request: Request) -> Result<Response, ApiError> {
    let reference = |name: &str| {
        request
            .text(name)
            .map(Reference::parse)
            .transpose()
            .map_err(|error| ApiError::invalid(error.to_string()))
    };
    let (name, beside) = (reference("name")?, reference("addTo")?);
    let memory_bytes = request.number::<u64>("memory")?;
    let texts = |name: &str| request.texts(name).to_vec();
    let labels = request.texts("label").iter();
    let options = UnikernelOptions {
        arguments: texts("arg"),
        command: texts("cmd"),
        environment: texts("env"),
        labels: labels
            .map(|label| label.split_once('=').unwrap_or((label, "")))
            .map(|(name, value): (&str, &str)| (name.to_owned(), value.to_owned()))
            .collect(),
        exposed_ports: texts("expose"),
        volumes: texts("volume"),
    };
    let content_type = request.headers.get("content-type");
    let is_archive = content_type.is_some_and(|kind| kind == "application/x-tar");
    let (engine, caller) = (Arc::clone(&request.engine), request.caller.clone());
    let body = request.into_reader();
    let id = blocking(&engine, &caller, move |engine, caller| {
        let package = if is_archive {
            engine.read_unikernel_package(body)?
        } else {
            Package {
                program: read_program(body)?,
                files: Vec::new(),
            }
        };
        let names = (name.as_ref(), beside.as_ref());
        engine.pack_unikernel(caller, package, memory_bytes, &options, names.0, names.1)
    })
    .await?;
    Ok(reply::json(&json!({ "Id": id })))
}

fn read_program(body: impl Read) -> gamut_engine::Result<Vec<u8>> {
    let mut program = Vec::new();
    body.take(MAX_UNIKERNEL_BYTES + 1)
        .read_to_end(&mut program)
        .map_err(|source| gamut_engine::Error::system("read the unikernel", source))?;
    if program.len() as u64 > MAX_UNIKERNEL_BYTES {
        return Err(gamut_engine::Error::invalid(format!(
            "the file is larger than {MAX_UNIKERNEL_BYTES} bytes"
        )));
    }
    Ok(program)
}

/// `GET /gamut/v1/refusals`: what each level cannot do, and why.
pub fn refusals(request: &Request) -> Response {
    let list: Vec<Value> = request
        .engine
        .refusals()
        .iter()
        .map(|refusal| {
            json!({
                "level": refusal.level.as_str(),
                "capability": refusal.capability,
                "reason": refusal.reason,
                "alternative": refusal.alternative,
            })
        })
        .collect();
    reply::json(&list)
}
