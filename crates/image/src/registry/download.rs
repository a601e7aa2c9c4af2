//! Blobs on their way from a registry: several at once, resumed where they were cut.

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ureq::http::StatusCode;

use super::client::Client;
use super::connection::header_text;
use super::sources::Sources;
use crate::blobs::Layout;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::manifest::Descriptor;
use crate::parallel::in_parallel;
use crate::pipeline::{LayerWriter, PendingLayer, StagedLayer};
use crate::progress::{Progress, Step, report};

/// Connections at a time, as docker and podman have it.
pub(super) const MAX_CONNECTIONS: usize = 3;
/// Attempts without a single new byte before a transfer is given up.
pub(super) const MAX_ATTEMPTS: u32 = 5;
const FIRST_DELAY: Duration = Duration::from_millis(250);
/// Bytes between two reports of progress.
pub(super) const REPORT_BYTES: u64 = 512 * 1024;
const BUFFER_BYTES: usize = 256 * 1024;
/// A layer that cannot be unpacked is still received to its end, to tell a wrong digest from a bad
/// layer, unless more than this is missing.
const MAX_FUTILE_BYTES: u64 = 64 * 1024 * 1024;

/// What the transfers of one pull share.
pub(super) struct Transfer<'t> {
    pub(super) sources: &'t Sources,
    pub(super) layout: &'t Layout,
    pub(super) progress: &'t dyn Progress,
    stop: AtomicBool,
}

impl<'t> Transfer<'t> {
    pub(super) fn new(
        sources: &'t Sources,
        layout: &'t Layout,
        progress: &'t dyn Progress,
    ) -> Self {
        Self {
            sources,
            layout,
            progress,
            stop: AtomicBool::new(false),
        }
    }

    /// Fetches and unpacks layers, a few at a time, in the order given. The first failure stops
    /// all.
    pub(super) fn layers(&self, wanted: &[Descriptor]) -> Result<Vec<StagedLayer>> {
        in_parallel(
            wanted,
            MAX_CONNECTIONS,
            "pulling layers",
            &self.stop,
            &|descriptor| self.layer(descriptor),
        )
    }

    /// Fetches a layer from the first source that has it and gives it rightly.
    fn layer(&self, descriptor: &Descriptor) -> Result<StagedLayer> {
        self.sources
            .first(|client| self.layer_from(client, descriptor))
    }

    fn layer_from(&self, client: &Client, descriptor: &Descriptor) -> Result<StagedLayer> {
        let id = descriptor.digest.short();
        let pending = self.download(client, descriptor, &id)?;
        report(self.progress, &id, Step::DownloadComplete);
        let total_bytes = descriptor.size_bytes;
        while !pending.is_done() {
            self.check_stop()?;
            let current_bytes = pending.consumed_bytes().min(total_bytes);
            report(
                self.progress,
                &id,
                Step::Extracting {
                    current_bytes,
                    total_bytes,
                },
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        let staged = pending.wait()?;
        report(
            self.progress,
            &id,
            Step::Extracting {
                current_bytes: total_bytes,
                total_bytes,
            },
        );
        report(self.progress, &id, Step::PullComplete);
        Ok(staged)
    }

    /// Ends a transfer whose caller has given up or whose sibling has failed.
    fn check_stop(&self) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) || self.progress.is_cancelled() {
            return Err(Error::Cancelled("pull".to_owned()));
        }
        Ok(())
    }

    fn download(&self, client: &Client, descriptor: &Descriptor, id: &str) -> Result<PendingLayer> {
        let object = format!("layer {}", descriptor.digest);
        let mut writer = LayerWriter::new(self.layout, &object);
        let mut received_bytes = 0u64;
        let mut failures = 0;
        loop {
            let before_bytes = received_bytes;
            let received = (&mut writer, &mut received_bytes);
            let result = self.attempt(client, descriptor, id, &object, received);
            let error = match result {
                Ok(()) => break,
                Err(error) => error,
            };
            failures = if received_bytes > before_bytes {
                1
            } else {
                failures + 1
            };
            if !is_transient(&error) || failures >= MAX_ATTEMPTS {
                return Err(error);
            }
            tracing::debug!(layer = id, received_bytes, %error, "download cut, trying again");
            self.pause(id, failures)?;
        }
        report(self.progress, id, Step::VerifyingChecksum);
        let pending = writer.finish()?;
        let (actual, _) = pending.raw;
        if actual != descriptor.digest {
            return Err(Error::DigestMismatch {
                object,
                expected: descriptor.digest.to_string(),
                actual: actual.to_string(),
            });
        }
        Ok(pending)
    }

    fn pause(&self, id: &str, failures: u32) -> Result<()> {
        pause(self.progress, id, failures, &|| self.check_stop())
    }

    fn attempt(
        &self,
        client: &Client,
        descriptor: &Descriptor,
        id: &str,
        object: &str,
        (writer, received_bytes): (&mut LayerWriter, &mut u64),
    ) -> Result<()> {
        let total_bytes = descriptor.size_bytes;
        let mut answer = client.blob(&descriptor.digest, *received_bytes)?;
        // A server that does not know ranges sends what is here already once more.
        let mut skip_bytes = 0;
        if *received_bytes > 0 {
            if answer.status() == StatusCode::PARTIAL_CONTENT {
                check_range(&answer, *received_bytes, object)?;
            } else {
                skip_bytes = *received_bytes;
            }
        }
        let promised_bytes = answer.body().content_length();
        let start_bytes = *received_bytes - skip_bytes;
        if let Some(promised_bytes) = promised_bytes
            && promised_bytes.saturating_add(start_bytes) != total_bytes
        {
            return Err(Error::SizeMismatch {
                object: object.to_owned(),
                expected_bytes: total_bytes,
                actual_bytes: promised_bytes.saturating_add(start_bytes),
            });
        }
        let mut body = answer.body_mut().as_reader();
        let mut reported_bytes = *received_bytes;
        let mut buffer = vec![0u8; BUFFER_BYTES];
        loop {
            self.check_stop()?;
            let count = match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(client.cut(object, error)),
            };
            let skipped = usize::try_from(skip_bytes).unwrap_or(usize::MAX).min(count);
            skip_bytes -= skipped as u64;
            let data = buffer.get(skipped..count).unwrap_or_default();
            *received_bytes += data.len() as u64;
            if *received_bytes > total_bytes {
                return Err(Error::SizeMismatch {
                    object: object.to_owned(),
                    expected_bytes: total_bytes,
                    actual_bytes: *received_bytes,
                });
            }
            writer.write(data)?;
            if writer.has_failed() && total_bytes - *received_bytes > MAX_FUTILE_BYTES {
                return Err(Error::malformed(
                    object,
                    "it cannot be unpacked; download ended",
                ));
            }
            if *received_bytes >= reported_bytes + REPORT_BYTES || *received_bytes == total_bytes {
                reported_bytes = *received_bytes;
                let current_bytes = *received_bytes;
                report(
                    self.progress,
                    id,
                    Step::Downloading {
                        current_bytes,
                        total_bytes,
                    },
                );
            }
        }
        if *received_bytes == total_bytes {
            return Ok(());
        }
        let missing = format!("it ended after {} of {total_bytes} bytes", *received_bytes);
        Err(client.cut(
            object,
            io::Error::new(io::ErrorKind::UnexpectedEof, missing),
        ))
    }
}

/// Waits before a transfer goes on, longer with every failure in a row.
pub(super) fn pause(
    progress: &dyn Progress,
    id: &str,
    failures: u32,
    check_stop: &dyn Fn() -> Result<()>,
) -> Result<()> {
    let delay = FIRST_DELAY * 2u32.saturating_pow(failures.saturating_sub(1));
    if delay >= Duration::from_secs(1) {
        let delay_s = delay.as_secs();
        report(progress, id, Step::Retrying { delay_s });
    }
    let step = Duration::from_millis(50);
    for _ in 0..(delay.as_millis() / step.as_millis()) {
        check_stop()?;
        std::thread::sleep(step);
    }
    Ok(())
}

fn check_range(
    answer: &ureq::http::Response<ureq::Body>,
    start_bytes: u64,
    object: &str,
) -> Result<()> {
    let range = header_text(answer, "content-range").unwrap_or_default();
    let found = range
        .strip_prefix("bytes ")
        .and_then(|range| range.split('-').next())
        .and_then(|start| start.parse().ok());
    if found == Some(start_bytes) {
        return Ok(());
    }
    Err(Error::malformed(
        object,
        format!("asked for bytes {start_bytes}-, the registry answered with {range:?}"),
    ))
}

/// Whether trying again may help.
pub(super) fn is_transient(error: &Error) -> bool {
    matches!(
        error,
        Error::Registry {
            transient: true,
            ..
        }
    )
}

/// Tries `request` again, with growing delays, while it fails for passing reasons.
pub(super) fn retrying<T>(progress: &dyn Progress, request: impl Fn() -> Result<T>) -> Result<T> {
    let mut delay = FIRST_DELAY;
    for _ in 1..MAX_ATTEMPTS {
        match request() {
            Err(error) if is_transient(&error) => {
                if progress.is_cancelled() {
                    return Err(Error::Cancelled("the transfer".to_owned()));
                }
                tracing::debug!(%error, "trying again");
                std::thread::sleep(delay);
                delay *= 2;
            }
            result => return result,
        }
    }
    request()
}

/// Whether two descriptors mean the same blob.
pub(super) fn same_blob(digest: &Digest) -> impl Fn(&Descriptor) -> bool + '_ {
    move |descriptor| descriptor.digest == *digest
}
