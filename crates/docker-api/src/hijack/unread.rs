//! How much of what was sent to a client it has not read yet.
//!
//! Clients that read the head of an answer through a buffer and the rest past it (docker-py) lose
//! what comes together with the head. dockerd is slow enough for them; here they are waited for.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;
use tokio::net::UnixStream;

/// Whoever has not read by then is not waited for any longer.
const LIMIT: Duration = Duration::from_secs(2);
/// Between two looks.
const PAUSE: Duration = Duration::from_micros(500);

/// A client's connection, to be asked how much is on its way.
#[derive(Debug)]
pub struct Unread(OwnedFd);

impl Unread {
    /// Of this connection. `None` if no descriptor is free: then nobody is waited for.
    #[must_use]
    pub fn of(connection: &UnixStream) -> Option<Self> {
        connection.as_fd().try_clone_to_owned().ok().map(Self)
    }

    /// Bytes that were sent and not read yet, as far as the kernel tells.
    fn bytes(&self) -> usize {
        let mut count: libc::c_int = 0;
        // SAFETY: the descriptor is ours, and SIOCOUTQ (unix(7)) writes one int to the address
        // that it is given.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), libc::TIOCOUTQ, &raw mut count) };
        if result == 0 {
            usize::try_from(count).unwrap_or(0)
        } else {
            0
        }
    }

    /// Waits until the client has read all that was sent to it.
    pub async fn none(&self) {
        let all_read = async {
            while self.bytes() > 0 {
                tokio::time::sleep(PAUSE).await;
            }
        };
        let _ = tokio::time::timeout(LIMIT, all_read).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    #[tokio::test]
    async fn a_client_that_reads_is_waited_for() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let unread = Unread::of(&ours).unwrap();
        assert_eq!(unread.bytes(), 0);
        ours.write_all(b"head").await.unwrap();
        assert!(unread.bytes() > 0);
        let reader = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            theirs.readable().await.unwrap();
            theirs.try_read(&mut [0; 16]).unwrap();
            theirs
        });
        unread.none().await;
        assert_eq!(unread.bytes(), 0);
        drop(reader.await.unwrap());
    }
}
