//! Answering one container.

use crate::ADDRESS;
use crate::book::{Answer, Book};
use crate::error::{Error, Result};
use crate::forward::{Transport, Upstream, read_framed, write_framed};
use crate::message::{self, MAX_UDP_BYTES, Query, Refusal, SERVER_FAILURE};
use gamut_network::NetworkNamespace;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::timeout;

/// Questions of one container that others are asked at one time; further ones are dropped, and
/// asked again by whoever means them.
const IN_FLIGHT: usize = 256;
/// Connections of one container at one time; further ones wait.
const CONNECTIONS: usize = 32;
/// How long a connection may be silent.
const SILENCE: Duration = Duration::from_secs(10);

/// The book that all servers of a worker share.
pub(crate) type SharedBook = Arc<Mutex<Book>>;

/// A container's resolver. Dropped, it is gone.
#[derive(Debug)]
pub(crate) struct Server {
    namespace: Arc<NetworkNamespace>,
    tasks: [AbortHandle; 2],
}

impl Drop for Server {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

#[derive(Debug)]
struct Desk {
    id: String,
    book: SharedBook,
    namespace: Arc<NetworkNamespace>,
    in_flight: Semaphore,
}

impl Server {
    /// Takes its place in a network namespace. To be called within a runtime.
    pub fn start(id: &str, namespace: NetworkNamespace, book: &SharedBook) -> Result<Self> {
        let (udp, tcp) = namespace.inside(|| Ok(bind()))??;
        let namespace = Arc::new(namespace);
        let desk = Arc::new(Desk {
            id: id.to_owned(),
            book: Arc::clone(book),
            namespace: Arc::clone(&namespace),
            in_flight: Semaphore::new(IN_FLIGHT),
        });
        let failed = |source| Error::system("listen for questions", source);
        let udp = Arc::new(UdpSocket::from_std(udp).map_err(failed)?);
        let tcp = TcpListener::from_std(tcp).map_err(failed)?;
        let tasks = [
            tokio::spawn(Arc::clone(&desk).serve_udp(udp)).abort_handle(),
            tokio::spawn(desk.serve_tcp(tcp)).abort_handle(),
        ];
        Ok(Self { namespace, tasks })
    }

    /// Whether it serves this network namespace.
    pub fn is_in(&self, namespace: &NetworkNamespace) -> bool {
        self.namespace.is_same(namespace).unwrap_or(false)
    }
}

/// Sockets in the calling thread's namespace, to which port 53 leads afterwards.
fn bind() -> Result<(std::net::UdpSocket, std::net::TcpListener)> {
    let failed = |source| Error::system(format!("listen at {ADDRESS}"), source);
    let any = SocketAddr::from((ADDRESS, 0));
    let udp = std::net::UdpSocket::bind(any).map_err(failed)?;
    let tcp = std::net::TcpListener::bind(any).map_err(failed)?;
    udp.set_nonblocking(true).map_err(failed)?;
    tcp.set_nonblocking(true).map_err(failed)?;
    let udp_port = udp.local_addr().map_err(failed)?.port();
    let tcp_port = tcp.local_addr().map_err(failed)?.port();
    gamut_network::redirect_resolver(udp_port, tcp_port)?;
    Ok((udp, tcp))
}

/// What becomes of a question.
enum Verdict {
    Reply(Vec<u8>),
    Silence,
    Ask(Query, Upstream),
}

impl Desk {
    /// Answers what is known here. By TCP an answer may have any length.
    fn consider(&self, question: &[u8], transport: Transport) -> Verdict {
        let query = match Query::parse(question) {
            Ok(query) => query,
            Err(Refusal::Silence) => return Verdict::Silence,
            Err(Refusal::Reply(reply)) => return Verdict::Reply(reply),
        };
        let limit = match transport {
            Transport::Udp => query.udp_bytes,
            Transport::Tcp => usize::from(u16::MAX),
        };
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        if query.is_internet && !query.name.is_empty() {
            match query.kind {
                message::PTR => {
                    let name = query
                        .address()
                        .and_then(|address| book.name_of(&self.id, address));
                    if let Some(name) = name {
                        return Verdict::Reply(query.reply_name(name));
                    }
                }
                kind => match book.look_up(&self.id, &query.name) {
                    // There is such a name, also where nothing is known of what is asked: not
                    // an address of that family, above all.
                    Answer::Addresses(found) => {
                        let of_kind: Vec<IpAddr> = found
                            .into_iter()
                            .filter_map(|addresses| match kind {
                                message::A => Some(addresses.fourth.into()),
                                message::AAAA => addresses.sixth.map(IpAddr::V6),
                                _ => None,
                            })
                            .collect();
                        return Verdict::Reply(query.reply_addresses(&of_kind, limit));
                    }
                    Answer::Unknown => {}
                },
            }
        }
        let record = book.record(&self.id).filter(|record| record.forwards);
        let Some(record) = record.filter(|record| !record.servers.is_empty()) else {
            return Verdict::Reply(query.reply(SERVER_FAILURE));
        };
        let upstream = Upstream {
            servers: record.servers.clone(),
            inside: record.servers_inside.then(|| Arc::clone(&self.namespace)),
        };
        Verdict::Ask(query, upstream)
    }

    async fn serve_udp(self: Arc<Self>, socket: Arc<UdpSocket>) {
        let mut buffer = vec![0; MAX_UDP_BYTES];
        loop {
            let (count, client) = match socket.recv_from(&mut buffer).await {
                Ok(received) => received,
                // An earlier answer that nobody wanted any more.
                Err(error) => {
                    tracing::debug!(%error, "receive a question");
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    continue;
                }
            };
            let question = buffer.get(..count).unwrap_or_default();
            match self.consider(question, Transport::Udp) {
                Verdict::Silence => {}
                Verdict::Reply(reply) => {
                    let _ = socket.send_to(&reply, client).await;
                }
                Verdict::Ask(query, upstream) => {
                    let (desk, socket) = (Arc::clone(&self), Arc::clone(&socket));
                    let question = question.to_vec();
                    tokio::spawn(async move {
                        let Ok(_permit) = desk.in_flight.try_acquire() else {
                            return;
                        };
                        let answer = upstream.ask(&query, &question, Transport::Udp).await;
                        let reply = match answer {
                            Some(answer) if answer.len() <= query.udp_bytes => answer,
                            Some(_) => query.reply_cut(),
                            None => query.reply(SERVER_FAILURE),
                        };
                        let _ = socket.send_to(&reply, client).await;
                    });
                }
            }
        }
    }

    async fn serve_tcp(self: Arc<Self>, listener: TcpListener) {
        let connections = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let Ok(permit) = Arc::clone(&connections).acquire_owned().await else {
                return;
            };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let desk = Arc::clone(&self);
                    tokio::spawn(async move {
                        desk.serve_connection(stream).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::debug!(%error, "accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// One question after the other, until the client is silent or leaves.
    async fn serve_connection(&self, mut stream: TcpStream) {
        while let Ok(Ok(question)) = timeout(SILENCE, read_framed(&mut stream)).await {
            let reply = match self.consider(&question, Transport::Tcp) {
                Verdict::Silence => return,
                Verdict::Reply(reply) => reply,
                Verdict::Ask(query, upstream) => {
                    let Ok(_permit) = self.in_flight.try_acquire() else {
                        return;
                    };
                    let answer = upstream.ask(&query, &question, Transport::Tcp).await;
                    answer.unwrap_or_else(|| query.reply(SERVER_FAILURE))
                }
            };
            let written = timeout(SILENCE, write_framed(&mut stream, &reply)).await;
            if !matches!(written, Ok(Ok(()))) {
                return;
            }
        }
    }
}
