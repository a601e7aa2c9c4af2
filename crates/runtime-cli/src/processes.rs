//! `ps`: the processes of a container.

use crate::arguments::Processes;
use crate::error::Error;
use crate::lifecycle::group_of;
use crate::print;
use crate::state::Root;
use crate::unikernel;
use gamut_isolation::unikernel::TOP;
use std::path::Path;
use std::process::{Command, Stdio};

/// Lists the processes, as ids or as the host's ps(1) shows them.
///
/// # Errors
/// If there is no such container, it has no control group, or ps does not work or shows no `PID`.
pub fn list(root: &Root<'_>, options: &Processes) -> Result<(), Error> {
    let container = root.find(&options.id)?;
    unikernel::refuse(&container, TOP)?;
    let pids = group_of(&container, "ps")?.processes()?;
    if options.json {
        return print(&format!("{}\n", serde_json::json!(pids)));
    }
    let ps = Path::new("ps");
    let default = ["-ef".to_owned()];
    let arguments = if options.ps_options.is_empty() {
        &default[..]
    } else {
        &options.ps_options[..]
    };
    let output = Command::new(ps)
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(Error::file("execute", ps))?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        return Err(container.refuses("ps", format!("ps: {}", output.status)));
    }
    match of_processes(&text, &pids) {
        Some(lines) => print(&lines),
        None => Err(container.refuses("ps", "ps shows no column PID; let it")),
    }
}

/// The lines of ps about some processes, below its heading; `None` if that names no `PID`.
fn of_processes(text: &str, pids: &[u32]) -> Option<String> {
    let mut lines = text.lines();
    let heading = lines.next()?;
    let column = heading
        .split_ascii_whitespace()
        .position(|word| word == "PID")?;
    let mut chosen = format!("{heading}\n");
    for line in lines {
        let pid = line.split_ascii_whitespace().nth(column);
        if pid
            .and_then(|pid| pid.parse().ok())
            .is_some_and(|pid| pids.contains(&pid))
        {
            chosen.push_str(line);
            chosen.push('\n');
        }
    }
    Some(chosen)
}

#[cfg(test)]
mod tests {
    use super::of_processes;

    #[test]
    fn only_the_containers_processes_are_shown() {
        let text = "UID   PID  PPID CMD\nroot    1     0 init\nroot   12     1 sleep 12\n";
        let chosen = of_processes(text, &[12, 99]).unwrap();
        assert_eq!(chosen, "UID   PID  PPID CMD\nroot   12     1 sleep 12\n");
        assert_eq!(of_processes("CMD\ninit\n", &[1]), None);
        assert_eq!(of_processes("", &[1]), None);
    }
}
