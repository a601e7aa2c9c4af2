//! Progress of pulls and loads: bars on a terminal, lines elsewhere.

use std::collections::HashMap;
use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::Value;

use super::print;
use crate::error::Error;

/// Shows the engine's progress messages (`{"id", "status", "progressDetail", …}`).
#[derive(Debug)]
pub struct Progress {
    mode: Mode,
}

#[derive(Debug)]
enum Mode {
    Quiet,
    /// Each status once per layer, to stdout or stderr.
    Lines {
        last: HashMap<String, String>,
        to_stderr: bool,
    },
    Bars {
        all: MultiProgress,
        bars: HashMap<String, ProgressBar>,
    },
}

impl Progress {
    /// Shows nothing.
    #[must_use]
    pub fn quiet() -> Self {
        Self { mode: Mode::Quiet }
    }

    /// To standard output (`pull`), or to standard error (`run`, whose output is the workload's).
    #[must_use]
    pub fn new(to_stderr: bool) -> Self {
        let is_terminal = if to_stderr {
            std::io::stderr().is_terminal()
        } else {
            std::io::stdout().is_terminal()
        };
        let mode = if is_terminal {
            let target = if to_stderr {
                indicatif::ProgressDrawTarget::stderr()
            } else {
                indicatif::ProgressDrawTarget::stdout()
            };
            Mode::Bars {
                all: MultiProgress::with_draw_target(target),
                bars: HashMap::new(),
            }
        } else {
            Mode::Lines {
                last: HashMap::new(),
                to_stderr,
            }
        };
        Self { mode }
    }

    /// Takes one message.
    ///
    /// # Errors
    /// The error that the message carries: the operation failed.
    pub fn take(&mut self, message: &Value) -> Result<(), Error> {
        let text = |name: &str| {
            message
                .get(name)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        let error = message
            .get("errorDetail")
            .and_then(|detail| detail.get("message"))
            .or_else(|| message.get("error"))
            .and_then(Value::as_str);
        if let Some(error) = error {
            return Err(Error::Message(error.to_owned()));
        }
        let (id, status) = (text("id"), text("status"));
        if status.is_empty() {
            return Ok(());
        }
        match &mut self.mode {
            Mode::Quiet => Ok(()),
            Mode::Lines { last, to_stderr } => {
                if !id.is_empty() && last.get(id).is_some_and(|known| known == status) {
                    return Ok(());
                }
                last.insert(id.to_owned(), status.to_owned());
                // On a pipe, only what happened is worth a line, not that it goes on.
                if matches!(
                    status,
                    "Downloading" | "Extracting" | "Waiting" | "Loading layer" | "Pushing"
                ) {
                    return Ok(());
                }
                let line = match id {
                    "" => status.to_owned(),
                    id => format!("{id}: {status}"),
                };
                if *to_stderr {
                    print::note(&line);
                    Ok(())
                } else {
                    print::line(&line)
                }
            }
            Mode::Bars { all, bars } => {
                if id.is_empty() {
                    let _ = all.println(status);
                    return Ok(());
                }
                let bar = bars
                    .entry(id.to_owned())
                    .or_insert_with(|| all.add(new_bar(id)));
                update(bar, status, message.get("progressDetail"));
                Ok(())
            }
        }
    }
}

fn new_bar(id: &str) -> ProgressBar {
    let bar = ProgressBar::no_length();
    bar.set_prefix(id.to_owned());
    bar.set_style(status_style());
    bar
}

fn status_style() -> ProgressStyle {
    ProgressStyle::with_template("{prefix}: {msg}").unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn update(bar: &ProgressBar, status: &str, detail: Option<&Value>) {
    let number = |name: &str| detail.and_then(|detail| detail.get(name)?.as_u64());
    bar.set_message(status.to_owned());
    match (number("current"), number("total")) {
        (Some(current), Some(total)) if total > 0 => {
            if bar.length() != Some(total) {
                bar.set_length(total);
                let template = "{prefix}: {msg} [{bar:30.cyan/blue}] {bytes}/{total_bytes}";
                if let Ok(style) = ProgressStyle::with_template(template) {
                    bar.set_style(style.progress_chars("=> "));
                }
                bar.enable_steady_tick(Duration::from_millis(250));
            }
            bar.set_position(current);
        }
        _ => {
            bar.set_style(status_style());
            let is_last = status.ends_with("omplete")
                || matches!(status, "Already exists" | "Layer already exists" | "Pushed")
                || status.starts_with("Mounted from");
            if is_last {
                bar.finish();
            }
        }
    }
}
