//! What a health check is to do and when.

use crate::error::{Error, Result};
use serde::{Deserialize, Deserializer, Serialize};
use std::time::Duration;

/// Between the end of a probe and the next.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(30);
/// For one probe.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
/// Between probes while a container starts.
const DEFAULT_START_INTERVAL: Duration = Duration::from_secs(5);
/// Failures in a row that make a container unhealthy.
const DEFAULT_RETRIES: u32 = 3;
/// The shell of `CMD-SHELL`, unless the image has one of its own.
const DEFAULT_SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// A health check as asked for; zero means the default. Serialized in Docker's words, as images
/// have it (Docker's "Image Specification v1.3", `Healthcheck`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", program, ...]`, `["CMD-SHELL", command]`, and Gamut's own
    /// `["HTTP", "PORT[/PATH]"]` and `["TCP", "PORT"]`; empty inherits the image's.
    #[serde(deserialize_with = "null_as_default")]
    pub test: Vec<String>,
    /// Nanoseconds between the end of a probe and the next; 30 s by default.
    #[serde(rename = "Interval", deserialize_with = "nanoseconds")]
    pub interval_ns: u64,
    /// Nanoseconds that a probe may take; 30 s by default.
    #[serde(rename = "Timeout", deserialize_with = "nanoseconds")]
    pub timeout_ns: u64,
    /// Nanoseconds after a start in which failures do not count; none by default.
    #[serde(rename = "StartPeriod", deserialize_with = "nanoseconds")]
    pub start_period_ns: u64,
    /// Nanoseconds between probes in the start period; 5 s by default.
    #[serde(rename = "StartInterval", deserialize_with = "nanoseconds")]
    pub start_interval_ns: u64,
    /// Failures in a row that make it unhealthy; 3 by default.
    #[serde(deserialize_with = "count")]
    pub retries: u32,
    /// The image's shell for `CMD-SHELL`; empty for `/bin/sh -c`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub shell: Vec<String>,
}

/// What a probe does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Test {
    /// Executes a program with arguments in the container; exit code 0 is healthy.
    Command(Vec<String>),
    /// `GET http://localhost:PORT/PATH` from within; statuses 200 to 399 are healthy.
    Http {
        /// The port.
        port: u16,
        /// The path with its slash, printable ASCII.
        path: String,
    },
    /// Connects to a port from within; a connection is healthy.
    Tcp {
        /// The port.
        port: u16,
    },
}

impl Healthcheck {
    /// Takes over from `base` what is not set here.
    pub fn inherit(&mut self, base: &Self) {
        fn or<T: Default + PartialEq + Clone>(own: &mut T, base: &T) {
            if *own == T::default() {
                own.clone_from(base);
            }
        }
        or(&mut self.test, &base.test);
        or(&mut self.interval_ns, &base.interval_ns);
        or(&mut self.timeout_ns, &base.timeout_ns);
        or(&mut self.start_period_ns, &base.start_period_ns);
        or(&mut self.start_interval_ns, &base.start_interval_ns);
        or(&mut self.retries, &base.retries);
        or(&mut self.shell, &base.shell);
    }

    /// What its probes do; `None` if there are none (`NONE`, or no test at all).
    ///
    /// # Errors
    /// `InvalidArgument` for a kind that does not exist, or a test that lacks something.
    pub fn test(&self) -> Result<Option<Test>> {
        let bad = |problem: &str| {
            Err(Error::invalid(format!(
                "invalid health check {:?}: {problem}",
                self.test
            )))
        };
        let Some((kind, rest)) = self.test.split_first() else {
            return Ok(None);
        };
        match (kind.as_str(), rest) {
            ("NONE", _) => Ok(None),
            ("CMD", [_, ..]) => Ok(Some(Test::Command(rest.to_vec()))),
            ("CMD-SHELL", [_, ..]) => {
                let mut words = self.shell.clone();
                if words.is_empty() {
                    words = DEFAULT_SHELL.map(str::to_owned).to_vec();
                }
                words.extend_from_slice(rest);
                Ok(Some(Test::Command(words)))
            }
            ("HTTP", [target]) => match http_target(target) {
                Some((port, path)) => Ok(Some(Test::Http { port, path })),
                None => bad("expected PORT[/PATH], as 8080/healthz, without blanks"),
            },
            ("TCP", [port]) => match parse_port(port) {
                Some(port) => Ok(Some(Test::Tcp { port })),
                None => bad("expected a port from 1 to 65535"),
            },
            ("CMD" | "CMD-SHELL", []) => bad("the command is missing"),
            ("HTTP" | "TCP", _) => bad("expected one word, PORT/PATH or PORT"),
            _ => bad("its kind must be NONE, CMD, CMD-SHELL, HTTP or TCP"),
        }
    }

    /// Between the end of a probe and the next.
    #[must_use]
    pub fn interval(&self) -> Duration {
        or_default(self.interval_ns, DEFAULT_INTERVAL)
    }

    /// For one probe.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        or_default(self.timeout_ns, DEFAULT_TIMEOUT)
    }

    /// After a start, in which failures do not count.
    #[must_use]
    pub fn start_period(&self) -> Duration {
        Duration::from_nanos(self.start_period_ns)
    }

    /// Between probes in the start period.
    #[must_use]
    pub fn start_interval(&self) -> Duration {
        or_default(self.start_interval_ns, DEFAULT_START_INTERVAL)
    }

    /// Failures in a row that make a container unhealthy, at least 1.
    #[must_use]
    pub fn retries(&self) -> u32 {
        if self.retries == 0 {
            DEFAULT_RETRIES
        } else {
            self.retries
        }
    }
}

fn or_default(ns: u64, default: Duration) -> Duration {
    if ns == 0 {
        default
    } else {
        Duration::from_nanos(ns)
    }
}

/// `PORT[/PATH]`.
fn http_target(text: &str) -> Option<(u16, String)> {
    let (port, path) = match text.split_once('/') {
        Some((port, path)) => (port, format!("/{path}")),
        None => (text, "/".to_owned()),
    };
    // What is not printable would end the request line.
    let is_plain = path.bytes().all(|byte| byte.is_ascii_graphic());
    Some((parse_port(port)?, path)).filter(|_| is_plain)
}

fn parse_port(text: &str) -> Option<u16> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| is_number && *port > 0)
}

fn null_as_default<'de, D, T>(deserializer: D) -> std::result::Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// An image may say anything: what is no duration is the default.
fn nanoseconds<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<u64, D::Error> {
    let value: Option<i64> = Option::deserialize(deserializer)?;
    Ok(value.and_then(|ns| u64::try_from(ns).ok()).unwrap_or(0))
}

fn count<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<u32, D::Error> {
    let value: Option<i64> = Option::deserialize(deserializer)?;
    Ok(value
        .and_then(|count| u32::try_from(count).ok())
        .unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(test: &[&str]) -> Healthcheck {
        Healthcheck {
            test: test.iter().map(|word| (*word).to_owned()).collect(),
            ..Healthcheck::default()
        }
    }

    #[test]
    fn tests_of_every_kind() {
        let command = |test: &[&str]| match check(test).test().unwrap() {
            Some(Test::Command(words)) => words,
            other => panic!("{other:?}"),
        };
        assert_eq!(command(&["CMD", "curl", "-f"]), ["curl", "-f"]);
        assert_eq!(
            command(&["CMD-SHELL", "a || b"]),
            ["/bin/sh", "-c", "a || b"]
        );
        assert_eq!(check(&["NONE"]).test().unwrap(), None);
        assert_eq!(check(&[]).test().unwrap(), None);
        let http = |port, path: &str| {
            let path = path.to_owned();
            Some(Test::Http { port, path })
        };
        assert_eq!(check(&["HTTP", "80"]).test().unwrap(), http(80, "/"));
        assert_eq!(
            check(&["HTTP", "8080/a/b?c=d"]).test().unwrap(),
            http(8080, "/a/b?c=d")
        );
        assert_eq!(
            check(&["TCP", "5432"]).test().unwrap(),
            Some(Test::Tcp { port: 5432 })
        );
        for bad in [
            &["CMD"][..],
            &["CMD-SHELL"],
            &["HTTP"],
            &["HTTP", "0"],
            &["HTTP", "x/y"],
            &["HTTP", "80/a b"],
            &["HTTP", "80/a\r\nHost: b"],
            &["HTTP", "80", "/x"],
            &["TCP", "65536"],
            &["TCP", "+80"],
            &["EXEC", "true"],
            &[""],
        ] {
            let error = check(bad).test().unwrap_err().full_message();
            assert!(error.contains("invalid health check"), "{error}");
        }
    }

    #[test]
    fn what_an_image_says_is_inherited_piece_by_piece() {
        let image: Healthcheck = serde_json::from_str(
            r#"{"Test":["CMD","true"],"Interval":5000000000,"Retries":-1,"Timeout":null,"Shell":["/s"]}"#,
        )
        .unwrap();
        let mut own = Healthcheck {
            interval_ns: 7,
            ..Healthcheck::default()
        };
        own.inherit(&image);
        assert_eq!(own.test, ["CMD", "true"]);
        assert_eq!(own.interval(), Duration::from_nanos(7));
        assert_eq!(own.retries(), 3);
        assert_eq!(own.timeout(), Duration::from_secs(30));
        let mut none = check(&["NONE"]);
        none.inherit(&image);
        assert_eq!(none.test().unwrap(), None);
        let again: Healthcheck =
            serde_json::from_value(serde_json::to_value(&own).unwrap()).unwrap();
        assert_eq!(again, own);
    }
}
