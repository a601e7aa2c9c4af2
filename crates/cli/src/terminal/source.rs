//! Standard input as a source for a container.

use std::io::{self, Read as _};

use tokio::sync::mpsc;

/// Reads standard input on a thread of its own; the channel closes at its end. The thread ends
/// with the process: a read of a terminal cannot be cancelled.
#[must_use]
pub fn stdin() -> mpsc::Receiver<Vec<u8>> {
    const PIECE_BYTES: usize = 32 * 1024;
    let (sender, receiver) = mpsc::channel(2);
    std::thread::spawn(move || {
        let mut buffer = vec![0; PIECE_BYTES];
        let mut stdin = io::stdin().lock();
        loop {
            match stdin.read(&mut buffer) {
                Ok(0) => return,
                Ok(length) => {
                    let piece = buffer.get(..length).unwrap_or_default().to_vec();
                    if sender.blocking_send(piece).is_err() {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    });
    receiver
}
