//! Progress of blocking work, as lines of JSON.

use crate::body::{self, Sender};
use crate::error::ApiError;
use crate::reply::{self, Response};
use bytes::Bytes;
use gamut_image::{Event, Progress, Step};
use serde_json::{Value, json};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Sends progress as lines of JSON.
pub(crate) struct ProgressLines {
    /// The body of the answer.
    pub(crate) sender: Sender,
    /// Nothing is told of steps.
    pub(crate) quiet: bool,
}

impl ProgressLines {
    /// Sends a line that is no report.
    pub(crate) fn send(&self, value: &Value) {
        let _ = self
            .sender
            .blocking_send(Ok(Bytes::from(format!("{value}\r\n"))));
    }

    /// An event as clients are told of it.
    fn value(event: &Event<'_>) -> Value {
        let mut value = json!({"status": event.step.to_string()});
        if let Some(id) = event.id {
            value["id"] = json!(id);
        }
        if !matches!(event.step, Step::Message(_)) {
            value["progressDetail"] = json!({});
        }
        if let Some((current, total)) = event.step.amount_bytes() {
            value["progressDetail"] = json!({"current": current, "total": total});
            value["progress"] = json!(progress_bar(current, total));
        }
        value
    }
}

impl Progress for ProgressLines {
    fn report(&self, event: &Event<'_>) {
        if !self.quiet {
            self.send(&Self::value(event));
        }
    }

    fn is_cancelled(&self) -> bool {
        self.sender.is_closed()
    }
}

/// `[=====>    ]  1.2MB/3.4MB`, for clients that only print it.
fn progress_bar(current: u64, total: u64) -> String {
    let filled = current
        .min(total)
        .saturating_mul(50)
        .checked_div(total.max(1))
        .unwrap_or(0);
    let filled = usize::try_from(filled).unwrap_or(50);
    let mut bar = "=".repeat(filled);
    if filled < 50 {
        bar.push('>');
        bar.push_str(&" ".repeat(49 - filled));
    }
    format!("[{bar}] {:>8}/{}", decimal(current), decimal(total))
}

fn decimal(bytes: u64) -> String {
    const UNITS: [(&str, u64); 4] = [
        ("GB", 1_000_000_000),
        ("MB", 1_000_000),
        ("kB", 1_000),
        ("B", 1),
    ];
    let (unit, scale) = UNITS
        .into_iter()
        .find(|(_, scale)| bytes >= *scale)
        .unwrap_or(("B", 1));
    if scale == 1 {
        return format!("{bytes}B");
    }
    let tenths = bytes / (scale / 10);
    format!("{}.{}{unit}", tenths / 10, tenths % 10)
}

/// Answers with lines of progress of blocking work. What fails before its first report is an
/// error, not a stream that begins with one; `announced` work says in its first message only what
/// it is about to do.
pub(crate) async fn reported(
    announced: bool,
    work: impl FnOnce(&FirstReport) -> gamut_engine::Result<()> + Send + 'static,
) -> Result<Response, ApiError> {
    let (sender, reply) = body::stream();
    let (begun, early) = tokio::sync::oneshot::channel::<Option<ApiError>>();
    tokio::task::spawn_blocking(move || {
        let progress = FirstReport {
            lines: ProgressLines {
                sender,
                quiet: false,
            },
            begun: Mutex::new(Some(begun)),
            announced,
            announcement: Mutex::new(None),
        };
        match work(&progress) {
            Ok(()) => drop(progress.begin(None)),
            Err(error) => progress.fail(error.into()),
        }
    });
    match early.await {
        Ok(Some(error)) => Err(error),
        _ => Ok(reply::with_type(reply, "application/json")),
    }
}

/// Lines of progress that tell when the first has been sent.
pub(crate) struct FirstReport {
    lines: ProgressLines,
    begun: Mutex<Option<tokio::sync::oneshot::Sender<Option<ApiError>>>>,
    announced: bool,
    /// The first message, held back until there is something to tell.
    announcement: Mutex<Option<Value>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FirstReport {
    /// Lets the answer begin, or be an error. False if it has begun before.
    fn begin(&self, error: Option<ApiError>) -> Option<ApiError> {
        let Some(sender) = lock(&self.begun).take() else {
            return error;
        };
        let has_failed = error.is_some();
        let unsent = sender.send(error).err().flatten();
        if let Some(announcement) = lock(&self.announcement).take()
            && !has_failed
        {
            self.lines.send(&announcement);
        }
        unsent
    }

    /// Whether this is the message that is held back.
    fn is_announcement(&self, event: &Event<'_>) -> bool {
        self.announced
            && matches!(event.step, Step::Message(_))
            && lock(&self.begun).is_some()
            && lock(&self.announcement).is_none()
    }

    /// Sends a line that is no report.
    pub(crate) fn send(&self, value: &Value) {
        self.begin(None);
        self.lines.send(value);
    }

    fn fail(&self, error: ApiError) {
        if let Some(error) = self.begin(Some(error)) {
            let line = format!("{}\r\n", error.progress_line());
            let _ = self.lines.sender.blocking_send(Ok(Bytes::from(line)));
        }
    }
}

impl Progress for FirstReport {
    fn report(&self, event: &Event<'_>) {
        if self.is_announcement(event) {
            *lock(&self.announcement) = Some(ProgressLines::value(event));
            return;
        }
        self.begin(None);
        self.lines.report(event);
    }

    fn is_cancelled(&self) -> bool {
        self.lines.is_cancelled()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars() {
        assert_eq!(progress_bar(0, 0).len(), progress_bar(50, 100).len() - 2);
        assert!(progress_bar(1_500_000, 3_000_000).ends_with("1.5MB/3.0MB"));
    }
}
