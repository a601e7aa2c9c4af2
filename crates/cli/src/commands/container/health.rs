//! Health check flags of `run` and `create`.

use clap::Args;
use gamut_spec::units;
use serde_json::{Value, json};

use crate::error::Error;
use crate::parse::invalid;

/// How to find out whether the container is well.
#[derive(Debug, Default, Args)]
pub struct HealthFlags {
    /// Command to run to check health
    #[arg(long, value_name = "COMMAND")]
    pub health_cmd: Option<String>,
    /// Check health by an HTTP request from within, without a process
    #[arg(long, value_name = "PORT[/PATH]", conflicts_with = "health_cmd")]
    pub health_http: Option<String>,
    /// Time between running the check (ms|s|m|h) (default 30s)
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    pub health_interval: Option<String>,
    /// Consecutive failures needed to report unhealthy
    #[arg(long, value_name = "COUNT", allow_hyphen_values = true)]
    pub health_retries: Option<i64>,
    /// Time between running the check during the start period (ms|s|m|h) (default 5s)
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    pub health_start_interval: Option<String>,
    /// Start period for the container to initialize before failures count (ms|s|m|h) (default 0s)
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    pub health_start_period: Option<String>,
    /// Check health by a TCP connection from within, without a process
    #[arg(long, value_name = "PORT", conflicts_with_all = ["health_cmd", "health_http"])]
    pub health_tcp: Option<String>,
    /// Maximum time to allow one check to run (ms|s|m|h) (default 30s)
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    pub health_timeout: Option<String>,
    /// Disable any container-specified HEALTHCHECK
    #[arg(long)]
    pub no_healthcheck: bool,
}

/// `Healthcheck` of the request's body; `None` leaves it to the image.
///
/// # Errors
/// [`Error::Usage`] for what is no duration or no count, and `--no-healthcheck` beside others.
pub fn check(flags: &HealthFlags) -> Result<Option<Value>, Error> {
    let mut check = json!({});
    let one = |kind: &str, text: &Option<String>| {
        let text = text.as_deref().filter(|text| !text.is_empty());
        text.map(|text| json!([kind, text]))
    };
    let test = one("CMD-SHELL", &flags.health_cmd)
        .or_else(|| one("HTTP", &flags.health_http))
        .or_else(|| one("TCP", &flags.health_tcp));
    if let Some(test) = test {
        check["Test"] = test;
    }
    for (flag, name, text) in [
        ("--health-interval", "Interval", &flags.health_interval),
        ("--health-timeout", "Timeout", &flags.health_timeout),
        (
            "--health-start-period",
            "StartPeriod",
            &flags.health_start_period,
        ),
        (
            "--health-start-interval",
            "StartInterval",
            &flags.health_start_interval,
        ),
    ] {
        let Some(text) = text else { continue };
        let ns = units::parse_duration_ns(text)
            .filter(|ns| i64::try_from(*ns).is_ok())
            .ok_or_else(|| invalid(flag, text, "expected a duration, as 500ms, 30s or 1m30s"))?;
        if ns != 0 {
            check[name] = ns.into();
        }
    }
    match flags.health_retries {
        Some(count) if count < 0 => {
            let text = count.to_string();
            return Err(invalid("--health-retries", &text, "it cannot be negative"));
        }
        Some(count) if count > 0 => check["Retries"] = count.into(),
        _ => {}
    }
    let is_empty = check.as_object().is_none_or(serde_json::Map::is_empty);
    match (flags.no_healthcheck, is_empty) {
        (true, true) => Ok(Some(json!({"Test": ["NONE"]}))),
        (true, false) => Err(Error::Usage(
            "--no-healthcheck conflicts with --health-* options".into(),
        )),
        (false, true) => Ok(None),
        (false, false) => Ok(Some(check)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn flags_become_a_check() {
        assert_eq!(check(&HealthFlags::default()).unwrap(), None);
        let flags = HealthFlags {
            health_cmd: text("curl -f localhost || exit 1"),
            health_interval: text("1.5s"),
            health_start_period: text("0s"),
            health_retries: Some(4),
            ..HealthFlags::default()
        };
        assert_eq!(
            check(&flags).unwrap().unwrap(),
            json!({"Test": ["CMD-SHELL", "curl -f localhost || exit 1"],
                   "Interval": 1_500_000_000_u64, "Retries": 4})
        );
        let flags = HealthFlags {
            health_http: text("8080/healthz"),
            ..HealthFlags::default()
        };
        let http = check(&flags).unwrap().unwrap();
        assert_eq!(http, json!({"Test": ["HTTP", "8080/healthz"]}));
        let flags = HealthFlags {
            no_healthcheck: true,
            ..HealthFlags::default()
        };
        assert_eq!(check(&flags).unwrap().unwrap(), json!({"Test": ["NONE"]}));
    }

    #[test]
    fn nonsense_is_a_usage_error() {
        for flags in [
            HealthFlags {
                health_interval: text("-1s"),
                ..HealthFlags::default()
            },
            HealthFlags {
                health_timeout: text("soon"),
                ..HealthFlags::default()
            },
            HealthFlags {
                health_retries: Some(-1),
                ..HealthFlags::default()
            },
            HealthFlags {
                no_healthcheck: true,
                health_tcp: text("80"),
                ..HealthFlags::default()
            },
        ] {
            assert!(matches!(check(&flags), Err(Error::Usage(_))), "{flags:?}");
        }
    }
}
