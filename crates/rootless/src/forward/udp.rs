//! UDP: one socket to the workload for each client.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::tcp;
use crate::sys;

/// A flow without a datagram for this long is forgotten, as the kernel's own NAT does
/// (`nf_conntrack_udp_timeout_stream`).
const IDLE_LIMIT: Duration = Duration::from_secs(120);
/// Flows of one port; the one that was idle longest makes room.
const MAX_FLOWS: usize = 4096;
const MAX_DATAGRAM_BYTES: usize = 65_536;

/// One client.
struct Flow {
    workload: Arc<UdpSocket>,
    answers: JoinHandle<()>,
    last: Instant,
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.answers.abort();
    }
}

/// Leads datagrams of the host's socket to `target`, and the answers back.
pub(super) async fn serve(host: Arc<UdpSocket>, target: SocketAddrV4) {
    let mut flows: HashMap<SocketAddr, Flow> = HashMap::new();
    let mut buffer = vec![0; MAX_DATAGRAM_BYTES];
    loop {
        let received = tokio::time::timeout(IDLE_LIMIT, host.recv_from(&mut buffer)).await;
        let now = Instant::now();
        match received {
            Ok(Ok((count, client))) => {
                let datagram = buffer.get(..count).unwrap_or_default();
                if let Err(error) = pass(&mut flows, &host, client, target, datagram, now).await {
                    tracing::debug!(%error, %client, "a datagram was lost");
                }
            }
            // An ICMP error of an earlier answer.
            Ok(Err(_)) => {}
            Err(_) => flows.retain(|_, flow| now.duration_since(flow.last) < IDLE_LIMIT),
        }
    }
}

async fn pass(
    flows: &mut HashMap<SocketAddr, Flow>,
    host: &Arc<UdpSocket>,
    client: SocketAddr,
    target: SocketAddrV4,
    datagram: &[u8],
    now: Instant,
) -> io::Result<()> {
    if !flows.contains_key(&client) {
        if flows.len() >= MAX_FLOWS {
            flows.retain(|_, flow| now.duration_since(flow.last) < IDLE_LIMIT);
        }
        if flows.len() >= MAX_FLOWS
            && let Some(oldest) = flows
                .iter()
                .min_by_key(|(_, flow)| flow.last)
                .map(|(client, _)| *client)
        {
            flows.remove(&oldest);
        }
        let workload = Arc::new(open(client)?);
        workload.connect(target).await?;
        let answers = tokio::spawn(answer(Arc::clone(&workload), Arc::clone(host), client));
        let flow = Flow {
            workload,
            answers,
            last: now,
        };
        flows.insert(client, flow);
    }
    if let Some(flow) = flows.get_mut(&client) {
        flow.last = now;
        flow.workload.send(datagram).await?;
    }
    Ok(())
}

/// Sends what the workload says to the client.
async fn answer(workload: Arc<UdpSocket>, host: Arc<UdpSocket>, client: SocketAddr) {
    let mut buffer = vec![0; MAX_DATAGRAM_BYTES];
    loop {
        match workload.recv(&mut buffer).await {
            Ok(count) => {
                let _ = host
                    .send_to(buffer.get(..count).unwrap_or_default(), client)
                    .await;
            }
            // Refused: nobody listens there yet.
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// A socket with the client's address as source if that is possible.
fn open(client: SocketAddr) -> io::Result<UdpSocket> {
    if let SocketAddr::V4(client) = client
        && !client.ip().is_loopback()
    {
        for source in [client, SocketAddrV4::new(*client.ip(), 0)] {
            let opened = tcp::marked(libc::SOCK_DGRAM)
                .and_then(|socket| sys::bind(&socket, source).map(|()| socket));
            match opened {
                Ok(socket) => return UdpSocket::from_std(socket.into()),
                Err(error) => tracing::debug!(%error, %source, "not taken as source"),
            }
        }
    }
    let plain = std::net::UdpSocket::bind(("0.0.0.0", 0))?;
    plain.set_nonblocking(true)?;
    UdpSocket::from_std(plain)
}
