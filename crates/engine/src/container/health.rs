//! Which health check a new container has: the user's, that of a label, or the image's.

use super::spec::ContainerSpec;
use crate::error::Result;
use crate::health::Healthcheck;
use gamut_image::ExecutionConfig;

/// Labels by which clients that know commands only ask for probes without a process, and the kind
/// of test each stands for.
const LABELS: [(&str, &str); 2] = [("gamut.health.http", "HTTP"), ("gamut.health.tcp", "TCP")];

/// Settles the health check of a new container, whose labels are complete. What the user asks for
/// comes first, then a label, then the image, piece by piece. Returns what the user should know.
///
/// # Errors
/// `InvalidArgument` for a check that the user asks for and that makes no sense.
pub(super) fn resolve(spec: &mut ContainerSpec, image: &ExecutionConfig) -> Result<Vec<String>> {
    let mut check = spec.healthcheck.take().unwrap_or_default();
    if check.test.is_empty() {
        let wanted = LABELS
            .iter()
            .find_map(|(label, kind)| Some((*kind, spec.labels.get(*label)?)));
        if let Some((kind, target)) = wanted {
            check.test = vec![kind.to_owned(), target.clone()];
        }
    }
    check.test()?;
    let mut warnings = Vec::new();
    if let Some(value) = &image.healthcheck {
        match serde_json::from_value::<Healthcheck>(value.clone())
            .map(|image| (image.test(), image))
        {
            Ok((Ok(_), image)) => check.inherit(&image),
            Ok((Err(error), _)) => warnings.push(ignored(&error.full_message())),
            Err(error) => warnings.push(ignored(&error.to_string())),
        }
    }
    if check != Healthcheck::default() {
        // Not part of what an image's health check says.
        check.shell = image.shell.clone().unwrap_or_default();
        spec.healthcheck = Some(check);
    }
    Ok(warnings)
}

fn ignored(reason: &str) -> String {
    format!("The image's health check is ignored: {reason}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::Test;
    use serde_json::{Value, json};

    fn resolved(
        user: &[&str],
        labels: &[(&str, &str)],
        image: Value,
    ) -> Result<(ContainerSpec, Vec<String>)> {
        let words = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect();
        let mut spec = ContainerSpec {
            healthcheck: Some(Healthcheck {
                test: words(user),
                interval_ns: 5,
                ..Healthcheck::default()
            }),
            labels: labels
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            ..ContainerSpec::default()
        };
        let image = ExecutionConfig {
            healthcheck: Some(image),
            shell: Some(words(&["/bin/bash", "-c"])),
            ..ExecutionConfig::default()
        };
        let warnings = resolve(&mut spec, &image)?;
        Ok((spec, warnings))
    }

    fn test(user: &[&str], labels: &[(&str, &str)]) -> Option<Test> {
        let image = json!({"Test": ["CMD-SHELL", "true"], "Retries": 9});
        let (spec, warnings) = resolved(user, labels, image).unwrap();
        assert!(warnings.is_empty());
        let check = spec.healthcheck.unwrap();
        assert_eq!((check.interval_ns, check.retries), (5, 9));
        check.test().unwrap()
    }

    #[test]
    fn user_then_label_then_image() {
        let command = |words: &[&str]| {
            Some(Test::Command(
                words.iter().map(|word| (*word).to_owned()).collect(),
            ))
        };
        let label = [("gamut.health.tcp", "80")];
        assert_eq!(test(&["CMD", "own"], &label), command(&["own"]));
        assert_eq!(test(&["NONE"], &label), None);
        assert_eq!(test(&[], &label), Some(Test::Tcp { port: 80 }));
        assert_eq!(test(&[], &[]), command(&["/bin/bash", "-c", "true"]));
    }

    #[test]
    fn nonsense_of_the_user_is_refused_and_of_the_image_ignored() {
        assert!(resolved(&["WHAT"], &[], Value::Null).is_err());
        assert!(resolved(&[], &[("gamut.health.http", "x")], Value::Null).is_err());
        for image in [json!({"Test": ["WHAT"]}), json!({"Test": 5}), json!("text")] {
            let (spec, warnings) = resolved(&[], &[], image).unwrap();
            assert_eq!(warnings.len(), 1, "{warnings:?}");
            assert_eq!(spec.healthcheck.unwrap().test().unwrap(), None);
        }
    }
}
