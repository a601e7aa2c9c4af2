//! Hands each connection at the port of `PORT` (80) on to a server: `proxy HOST[:PORT]`.
//!
//! The name is resolved for every connection, so that a server that comes back with another address
//! is found again, and of one with several addresses each has its turn.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::rc::Rc;
use core::cell::Cell;
use core::net::SocketAddr;

use gamut_libos::executor::{Either, join, select};
use gamut_libos::net::{self, TcpListener, TcpReader, TcpStream, TcpWriter};
use gamut_libos::prelude::*;
use gamut_libos::start::NEEDS_NETWORK;
use gamut_libos::{env, info, shutdown, warn};

app!(main, needs = NEEDS_NETWORK, default_memory_bytes = 8 << 20,);

/// Bytes that are carried at once.
const PIECE_BYTES: usize = 8 << 10;
/// Connections at one time, each of which has two in memory; who comes later is closed at once.
const MAX_CONNECTIONS: usize = 64;

async fn main() -> Result<(), Error> {
    let target = env::args()
        .nth(1)
        .ok_or(Error::new("where to? The argument is HOST or HOST:PORT"))?;
    let (host, to_port) = match target.rsplit_once(':') {
        Some((host, port)) => (host, number("the port of the argument", port)?),
        None => (target, 80),
    };
    let port = match env::var("PORT") {
        Some(text) => number("PORT", text)?,
        None => 80,
    };
    let mut listener = TcpListener::bind(port)?;
    info!("handing connections at port {port} on to {host}:{to_port}");
    let open = Rc::new(Cell::new(0_usize));
    loop {
        let accepted = select(listener.accept(), shutdown::requested()).await;
        let Either::First(client) = accepted else {
            return Ok(());
        };
        if open.get() >= MAX_CONNECTIONS {
            client.abort();
            continue;
        }
        open.set(open.get() + 1);
        let open = open.clone();
        spawn(async move {
            if let Err(error) = hand_on(client, host, to_port).await {
                warn!("{error}");
            }
            open.set(open.get() - 1);
        });
    }
}

fn number(what: &str, text: &str) -> Result<u16, Error> {
    text.parse()
        .map_err(|_| Error::from(format!("{what} is {text:?}, which is no port")))
}

/// Carries a connection to its end.
async fn hand_on(mut client: TcpStream, host: &str, port: u16) -> Result<(), Error> {
    let mut server = match connect(host, port).await {
        Ok(server) => server,
        Err(error) => {
            client.abort();
            return Err(error);
        }
    };
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    join(carry(from_client, to_server), carry(from_server, to_client)).await;
    Ok(())
}

/// To the first of the server's addresses that takes it. The resolver tells them in another order
/// each time.
async fn connect(host: &str, port: u16) -> Result<TcpStream, Error> {
    let mut failure = Error::from(format!("{host}: no address"));
    for address in net::resolve(host).await? {
        match TcpStream::connect(SocketAddr::new(address, port)).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = Error::from(format!("{host} at {address}:{port}: {error}")),
        }
    }
    Err(failure)
}

/// Carries one direction until its sender closes it. That of a broken connection ends as well.
async fn carry(mut from: TcpReader<'_>, mut to: TcpWriter<'_>) {
    let mut piece = Vec::new();
    loop {
        piece.clear();
        if !matches!(from.read_to(&mut piece, PIECE_BYTES).await, Ok(1..))
            || to.write_all(&piece).await.is_err()
        {
            break;
        }
    }
    to.shutdown();
}
