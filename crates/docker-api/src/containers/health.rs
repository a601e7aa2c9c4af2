//! Health checks, between Docker's words and the engine's.

use super::create::null_as_default;
use crate::error::ApiError;
use gamut_engine::health::{Health, Healthcheck};
use gamut_spec::time;
use serde::Deserialize;
use serde_json::{Value, json};

/// dockerd takes no durations below this, in nanoseconds.
const MINIMUM_NS: i64 = 1_000_000;

/// `Healthcheck` of `POST /containers/create`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct WireHealthcheck {
    #[serde(deserialize_with = "null_as_default")]
    test: Vec<String>,
    #[serde(deserialize_with = "null_as_default")]
    interval: i64,
    #[serde(deserialize_with = "null_as_default")]
    timeout: i64,
    #[serde(deserialize_with = "null_as_default")]
    start_period: i64,
    #[serde(deserialize_with = "null_as_default")]
    start_interval: i64,
    #[serde(deserialize_with = "null_as_default")]
    retries: i64,
}

impl WireHealthcheck {
    /// In the engine's words.
    ///
    /// # Errors
    /// In dockerd's words, for durations below a millisecond and negative numbers.
    pub(super) fn into_domain(self) -> Result<Healthcheck, ApiError> {
        let nanoseconds = |name: &str, value: i64| match u64::try_from(value) {
            Ok(ns) if value == 0 || value >= MINIMUM_NS => Ok(ns),
            _ => Err(ApiError::invalid(format!(
                "{name} in Healthcheck cannot be less than 1ms"
            ))),
        };
        let retries = u32::try_from(self.retries).map_err(|_| {
            ApiError::invalid(if self.retries < 0 {
                "Retries in Healthcheck cannot be negative"
            } else {
                "Retries in Healthcheck cannot be more than 4294967295"
            })
        })?;
        Ok(Healthcheck {
            test: self.test,
            interval_ns: nanoseconds("Interval", self.interval)?,
            timeout_ns: nanoseconds("Timeout", self.timeout)?,
            start_period_ns: nanoseconds("StartPeriod", self.start_period)?,
            start_interval_ns: nanoseconds("StartInterval", self.start_interval)?,
            retries,
            shell: Vec::new(),
        })
    }
}

/// `Config.Healthcheck` of an inspected container; what is not set is left out.
pub(super) fn describe_check(check: &Healthcheck) -> Value {
    let mut value = json!({});
    if !check.test.is_empty() {
        value["Test"] = json!(check.test);
    }
    for (name, number) in [
        ("Interval", check.interval_ns),
        ("Timeout", check.timeout_ns),
        ("StartPeriod", check.start_period_ns),
        ("StartInterval", check.start_interval_ns),
        ("Retries", u64::from(check.retries)),
    ] {
        if number != 0 {
            value[name] = json!(number);
        }
    }
    value
}

/// `State.Health` of an inspected container.
pub(super) fn describe(health: &Health) -> Value {
    let log: Vec<Value> = health
        .log
        .iter()
        .map(|result| {
            json!({
                "Start": time::rfc3339(result.start_ns),
                "End": time::rfc3339(result.end_ns),
                "ExitCode": result.exit_code,
                "Output": result.output,
            })
        })
        .collect();
    json!({
        "Status": health.status.as_str(),
        "FailingStreak": health.failing_streak,
        "Log": log,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(value: Value) -> Result<Healthcheck, ApiError> {
        serde_json::from_value::<WireHealthcheck>(value)
            .unwrap()
            .into_domain()
    }

    #[test]
    fn there_and_back() {
        let wire = json!({"Test": ["CMD", "true"], "Interval": 2_000_000_000_u64,
                          "StartInterval": 1_000_000, "Retries": 2});
        assert_eq!(describe_check(&parse(wire.clone()).unwrap()), wire);
        assert_eq!(
            describe_check(&parse(json!({"Test": null})).unwrap()),
            json!({})
        );
    }

    #[test]
    fn what_dockerd_refuses() {
        for (wire, message) in [
            (
                json!({"Interval": 5}),
                "Interval in Healthcheck cannot be less than 1ms",
            ),
            (
                json!({"StartPeriod": -1}),
                "StartPeriod in Healthcheck cannot be less than 1ms",
            ),
            (
                json!({"Retries": -1}),
                "Retries in Healthcheck cannot be negative",
            ),
        ] {
            assert_eq!(parse(wire).unwrap_err().message, message);
        }
    }
}
