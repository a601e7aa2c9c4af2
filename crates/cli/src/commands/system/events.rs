//! `events`.

use std::sync::Arc;

use clap::Args;
use gamut_spec::time;
use hyper::Method;
use serde_json::Value;

use crate::client::http::Call;
use crate::client::{Client, Query};
use crate::commands::{Verb, number, text};
use crate::error::Error;
use crate::output::template::Template;
use crate::output::{json, print, units};
use crate::parse::{filter, timestamp};

/// Flags of `gamut events`.
#[derive(Debug, Args)]
pub struct EventsArguments {
    /// Filter output based on conditions provided
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub filter: Vec<String>,
    /// Format output: json, or a Go template
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Show all events created since timestamp
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Stream events until this timestamp
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
}

impl Verb for EventsArguments {
    const USAGE: &'static str = "[OPTIONS]";

    async fn run(self, client: Arc<Client>) -> Result<u8, Error> {
        let now_ns = time::now_ns();
        let at = |text: &Option<String>| match text {
            Some(text) => timestamp::parse(text, now_ns).map(Some),
            None => Ok(None),
        };
        let (since, until) = (at(&self.since)?, at(&self.until)?);
        let filters = filter::parse(&self.filter)?;
        let format = self.format.as_deref();
        let template = match format {
            None | Some("json") => None,
            Some(format) => Some(Template::parse(format)?),
        };
        let query = Query::new()
            .maybe("since", since.as_deref())
            .maybe("until", until.as_deref())
            .maybe("filters", filters.as_deref());
        let call = Call::new(Method::GET, "/events", &query);
        let mut stream = client.stream(call).await?;
        while let Some(raw) = stream.next_raw_json().await? {
            let raw = String::from_utf8_lossy(&raw);
            if format == Some("json") {
                print::line(&json::compact(&raw))?;
                continue;
            }
            let event: Value = serde_json::from_str(&raw).map_err(|error| Error::Answer {
                operation: "GET /events".into(),
                reason: error.to_string(),
            })?;
            match &template {
                Some(template) => print::line(&template.render_value(&event)?)?,
                None => print::line(&line(&event))?,
            }
        }
        Ok(0)
    }
}

/// `2006-01-02T15:04:05.000000000+01:00 container create ID (image=alpine, name=x)`.
fn line(event: &Value) -> String {
    let when = match number(event, "timeNano") {
        0 => units::local_rfc3339(number(event, "time")),
        time_ns => units::local_rfc3339_ns(time_ns),
    };
    let actor = event.get("Actor").unwrap_or(&Value::Null);
    let mut attributes: Vec<String> = actor
        .get("Attributes")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default()))
        .collect();
    attributes.sort();
    let mut line = format!(
        "{when} {} {} {}",
        text(event, "Type"),
        text(event, "Action"),
        text(actor, "ID")
    );
    if !attributes.is_empty() {
        line.push_str(&format!(" ({})", attributes.join(", ")));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_line() {
        let event = json!({
            "Type": "container", "Action": "create", "timeNano": 1_700_000_000_000_000_007_i64,
            "Actor": {"ID": "abc", "Attributes": {"name": "x", "image": "i"}}
        });
        let line = line(&event);
        assert!(
            line.ends_with(" container create abc (image=i, name=x)"),
            "{line}"
        );
        assert!(line.contains(".000000007"), "{line}");
    }
}
