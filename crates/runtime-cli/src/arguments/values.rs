//! Values of arguments and options.

use super::verbs::Subgroup;
use super::words::Words;
use crate::error::Error;

pub(super) fn format(words: &mut Words, name: &str, value: Option<String>) -> Result<bool, Error> {
    words
        .choice(name, value, &[("table", false), ("json", true)])
        .map_err(|error| Error::Usage(format!("invalid format option: {error}")))
}

pub(super) fn no_more(plain: &[String]) -> Result<(), Error> {
    match plain.first() {
        None => Ok(()),
        Some(word) => Err(Error::Usage(format!("unexpected argument {word:?}"))),
    }
}

pub(super) fn one_id(mut ids: Vec<String>) -> Result<String, Error> {
    match (ids.pop(), ids.len()) {
        (Some(id), 0) => check_id(id),
        _ => Err(Error::Usage(
            "exactly one container id is needed".to_owned(),
        )),
    }
}

/// An id is a name of a directory and of a control group.
fn check_id(id: String) -> Result<String, Error> {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte);
    if id.is_empty()
        || id.len() > 255
        || !id.bytes().all(fine)
        || id.starts_with('.')
        || id.starts_with("cgroup.")
    {
        return Err(Error::Usage(format!(
            "invalid container id {id:?}: it needs 1 to 255 letters, digits and _ + - . (not first)"
        )));
    }
    Ok(id)
}

pub(super) fn id_number(what: &str, text: &str) -> Result<u32, Error> {
    text.parse()
        .map_err(|_| Error::Usage(format!("bad {what}: {text:?} is no number")))
}

pub(super) fn user(text: &str) -> Result<(u32, Option<u32>), Error> {
    match text.split_once(':') {
        Some((uid, gid)) => Ok((id_number("uid", uid)?, Some(id_number("gid", gid)?))),
        None => Ok((id_number("uid", text)?, None)),
    }
}

/// `[CONTROLLER[,CONTROLLER]:]PATH`
pub(super) fn subgroup(text: &str) -> Result<Subgroup, Error> {
    let (controllers, path) = match text.split_once(':') {
        Some((controllers, path)) => (
            controllers.split(',').map(str::to_owned).collect(),
            path.to_owned(),
        ),
        None => (Vec::new(), text.to_owned()),
    };
    if controllers.iter().any(String::is_empty) {
        return Err(Error::Usage(format!(
            "invalid --cgroup argument: {text} (empty <controller> prefix)"
        )));
    }
    if path.split('/').any(|part| part == "..") {
        return Err(Error::Usage(format!("bad sub cgroup path: {path}")));
    }
    Ok(Subgroup { controllers, path })
}

pub(super) fn check_subgroups(subgroups: &[Subgroup]) -> Result<(), Error> {
    let mut seen: Vec<&str> = Vec::new();
    for subgroup in subgroups {
        if subgroup.controllers.is_empty() && subgroups.len() > 1 {
            return Err(Error::Usage(format!(
                "invalid --cgroup argument: {} (missing <controller>: prefix)",
                subgroup.path
            )));
        }
        for controller in &subgroup.controllers {
            if seen.contains(&controller.as_str()) {
                return Err(Error::Usage(format!(
                    "invalid --cgroup argument(s): controller {controller} specified multiple times"
                )));
            }
            seen.push(controller);
        }
    }
    Ok(())
}

/// A time as Go has it: `1.5s`, `100ms`, `1m30s`.
pub(super) fn duration_ms(text: &str) -> Result<u64, Error> {
    let wrong = || {
        Error::Usage(format!(
            "invalid value for --interval: {text:?} is no time above 0 such as 5s or 500ms"
        ))
    };
    let mut rest = text;
    let mut total_us: u64 = 0;
    while !rest.is_empty() {
        let digits = rest
            .find(|character: char| !character.is_ascii_digit() && character != '.')
            .ok_or_else(wrong)?;
        let (number, unit_and_rest) = rest.split_at(digits);
        let unit_end = unit_and_rest
            .find(|character: char| character.is_ascii_digit())
            .unwrap_or(unit_and_rest.len());
        let (unit, next) = unit_and_rest.split_at(unit_end);
        let unit_us: u64 = match unit {
            "us" => 1,
            "ms" => 1_000,
            "s" => 1_000_000,
            "m" => 60_000_000,
            "h" => 3_600_000_000,
            _ => return Err(wrong()),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let whole: u64 = whole.parse().map_err(|_| wrong())?;
        total_us = total_us
            .checked_add(whole.checked_mul(unit_us).ok_or_else(wrong)?)
            .ok_or_else(wrong)?;
        let mut place = unit_us;
        for digit in fraction.bytes() {
            if !digit.is_ascii_digit() {
                return Err(wrong());
            }
            place /= 10;
            total_us = total_us.saturating_add(u64::from(digit - b'0') * place);
        }
        rest = next;
    }
    match total_us.div_ceil(1_000) {
        0 => Err(wrong()),
        interval_ms => Ok(interval_ms),
    }
}
