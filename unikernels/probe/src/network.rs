//! Commands that use the network.

use core::net::SocketAddr;
use core::time::Duration;

use gamut_libos::executor::{Either, select, timeout};
use gamut_libos::http::{Limits, Request, Response, Server, client};
use gamut_libos::net::{self, TcpStream, UdpSocket};
use gamut_libos::prelude::*;
use gamut_libos::{env, shutdown};

const PATIENCE: Duration = Duration::from_secs(10);

pub(super) async fn addresses() {
    if timeout(PATIENCE, net::ready()).await.is_err() {
        println!("no device got an address");
    }
    for (device, address) in net::addresses() {
        println!("{device} {address}");
    }
}

pub(super) async fn resolve(name: &str) -> Result<(), Error> {
    for address in net::resolve(name).await? {
        println!("{address}");
    }
    Ok(())
}

pub(super) async fn get(url: &str) -> Result<(), Error> {
    let answer = client::get(url, &Limits::default(), PATIENCE).await?;
    println!("status {}", answer.status.0);
    print!("{}", String::from_utf8_lossy(&answer.body));
    Ok(())
}

pub(super) async fn serve(port: &str) -> Result<(), Error> {
    let port = if port.is_empty() {
        80
    } else {
        super::number(port)?
    };
    let server = Server::bind(port)?;
    println!("listening on port {port}");
    server
        .serve(async |request: &Request<'_>| {
            Response::text(format!("{} {}\n", env::hostname(), request.path()))
        })
        .await;
    println!("stopped");
    Ok(())
}

pub(super) async fn echo(port: u16) -> Result<(), Error> {
    net::ready().await;
    let mut socket = UdpSocket::bind(port)?;
    println!("listening on port {port}");
    let mut bytes = vec![0; 2048];
    loop {
        let received = select(socket.receive_from(&mut bytes), shutdown::requested()).await;
        let Either::First((count, from)) = received else {
            return Ok(());
        };
        socket
            .send_to(bytes.get(..count).unwrap_or_default(), from)
            .await?;
    }
}

pub(super) async fn connect(address: &str) -> Result<(), Error> {
    let address: SocketAddr = address
        .parse()
        .map_err(|_| Error::from(format!("{address:?} is not ADDRESS:PORT")))?;
    let _ = timeout(PATIENCE, net::ready()).await;
    let mut stream = TcpStream::connect(address).await?;
    let mut heard = Vec::new();
    while stream.read_to(&mut heard, 4096).await? > 0 {}
    print!("{}", String::from_utf8_lossy(&heard));
    Ok(())
}
