//! Answers each request with its path, at the port of `PORT` (80).
#![no_std]
#![no_main]

use gamut_libos::env;
use gamut_libos::http::{Request, Response, Server};
use gamut_libos::prelude::*;
use gamut_libos::start::NEEDS_NETWORK;

app!(main, needs = NEEDS_NETWORK, default_memory_bytes = 8 << 20);

async fn main() -> Result<(), Error> {
    let port = match env::var("PORT") {
        Some(text) => text
            .parse()
            .map_err(|_| Error::from(format!("PORT={text} is not a port")))?,
        None => 80,
    };
    let server = Server::bind(port)?;
    println!("listening on port {port}");
    server.serve(answer).await;
    Ok(())
}

async fn answer(request: &Request<'_>) -> Response {
    Response::text(format!("Hello from Unikernel! Path: {}\n", request.path()))
}
