//! Messages of a client to a supervisor's stream, and its output back as messages.

use super::frame::{self, BadFrame, Decoder, Opcode};
use super::multiplexed::Headers;
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

/// Control frames that may wait for their turn to be sent.
const CONTROL_FRAMES: usize = 4;

/// Normal end, section 7.4.1.
const DONE: u16 = 1000;

/// Copies both ways until the supervisor has nothing more to say or the client closes.
pub async fn relay<C>(
    client: C,
    supervisor: UnixStream,
    terminal: bool,
    opcode: Opcode,
) -> io::Result<()>
where
    C: AsyncRead + AsyncWrite + Unpin,
{
    let (client_read, mut client_write) = tokio::io::split(client);
    let (mut output, input) = supervisor.into_split();
    let (control, mut waiting) = mpsc::channel(CONTROL_FRAMES);
    let forward_input = forward(client_read, input, control);
    tokio::pin!(forward_input);
    let mut headers = Headers::default();
    let mut buffer = vec![0; 64 << 10];
    let mut input_open = true;
    loop {
        tokio::select! {
            count = output.read(&mut buffer) => {
                let count = count?;
                let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else {
                    break;
                };
                let message = if terminal { bytes.to_vec() } else { headers.strip(bytes) };
                if !message.is_empty() {
                    client_write.write_all(&frame::encode(opcode, &message)).await?;
                }
            }
            Some(bytes) = waiting.recv() => client_write.write_all(&bytes).await?,
            end = &mut forward_input, if input_open => {
                input_open = false;
                match end {
                    Ok(End::OfInput) => {}
                    Ok(End::Closed) => {
                        client_write.write_all(&frame::close(DONE, "")).await?;
                        return client_write.shutdown().await;
                    }
                    Ok(End::Bad(bad)) => {
                        client_write.write_all(&frame::close(bad.status, bad.reason)).await?;
                        return client_write.shutdown().await;
                    }
                    // The client is gone for good.
                    Err(_) => return Ok(()),
                }
            }
        }
    }
    client_write.write_all(&frame::close(DONE, "")).await?;
    client_write.shutdown().await
}

/// How a client's side ended.
enum End {
    /// It sends no more, but may still listen.
    OfInput,
    /// It has closed.
    Closed,
    /// What it sends makes no sense.
    Bad(BadFrame),
}

async fn forward(
    mut client: impl AsyncRead + Unpin,
    mut input: tokio::net::unix::OwnedWriteHalf,
    control: mpsc::Sender<Vec<u8>>,
) -> io::Result<End> {
    let mut decoder = Decoder::default();
    let mut buffer = vec![0; 16 << 10];
    let mut is_read = true;
    loop {
        let count = client.read(&mut buffer).await?;
        let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else {
            let _ = input.shutdown().await;
            return Ok(End::OfInput);
        };
        decoder.push(bytes);
        loop {
            let frame = match decoder.next() {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(bad) => return Ok(End::Bad(bad)),
            };
            match frame.opcode {
                Opcode::Close => return Ok(End::Closed),
                Opcode::Ping => {
                    // Who asks without reading the answers gets some of them only.
                    let _ = control.try_send(frame::encode(Opcode::Pong, &frame.payload));
                }
                Opcode::Pong => {}
                // A process that no longer reads is not the client's fault.
                _ if is_read => is_read = input.write_all(&frame.payload).await.is_ok(),
                _ => {}
            }
        }
    }
}
