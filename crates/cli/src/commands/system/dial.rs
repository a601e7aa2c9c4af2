//! `gamut system dial-stdio`: the engine's API on standard input and output, for clients that come
//! over ssh.

use std::sync::Arc;

use clap::Args;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::client::Client;
use crate::commands::Verb;
use crate::error::Error;

/// Flags of `gamut system dial-stdio`.
#[derive(Debug, Args)]
pub struct DialArguments {}

impl Verb for DialArguments {
    const USAGE: &'static str = "";

    async fn run(self, client: Arc<Client>) -> Result<u8, Error> {
        let (mut answers, mut requests) = client.dial().await?;
        let failed = |operation: &'static str| Error::io(operation);
        let forward = async {
            let mut input = tokio::io::stdin();
            let copied = tokio::io::copy(&mut input, &mut requests).await;
            // The end of the input is told; answers may still come.
            let _ = requests.shutdown().await;
            copied.map(drop)
        };
        let backward = async {
            let mut output = tokio::io::stdout();
            let mut buffer = vec![0; 64 << 10];
            loop {
                let count = answers.read(&mut buffer).await?;
                let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else {
                    return Ok(());
                };
                output.write_all(bytes).await?;
                // Each piece at once: somebody waits for it.
                output.flush().await?;
            }
        };
        tokio::pin!(forward, backward);
        let mut is_open = true;
        loop {
            tokio::select! {
                ended = &mut backward => {
                    return ended.map(|()| 0).map_err(failed("pass on answers of the engine"));
                }
                _ = &mut forward, if is_open => is_open = false,
            }
        }
    }
}
