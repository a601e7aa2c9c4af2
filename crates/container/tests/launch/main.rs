//! Launches real containers. They fork, so the cases run one after another in a single thread.
//! Arguments choose cases by part of their names; `--list` and `--exact` work as with the standard
//! harness.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test without the standard harness is not seen as one"
)]

mod cases_binds;
mod cases_files;
mod cases_hooks;
mod cases_idmap;
mod cases_listener;
mod cases_namespaces;
mod cases_network;
mod cases_process;
mod cases_scheduling;
mod rig;

use rig::Rig;

type Case = (&'static str, fn(&mut Rig));

fn main() {
    let cases: Vec<Case> = [
        cases_namespaces::CASES,
        cases_files::CASES,
        cases_binds::CASES,
        cases_hooks::CASES,
        cases_process::CASES,
        cases_scheduling::CASES,
        cases_idmap::CASES,
        cases_listener::CASES,
        cases_network::CASES,
    ]
    .concat();
    let (flags, wanted): (Vec<String>, Vec<String>) = std::env::args()
        .skip(1)
        .partition(|argument| argument.starts_with('-'));
    let has_flag = |name: &str| flags.iter().any(|flag| flag == name);
    if has_flag("--list") {
        // None is ignored.
        for (name, _) in cases.iter().filter(|_| !has_flag("--ignored")) {
            println!("{name}: test");
        }
        return;
    }
    // SAFETY: cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        println!("SKIPPED: launching containers here needs root");
        return;
    }
    let is_wanted = |name: &str| {
        wanted.is_empty()
            || wanted.iter().any(|part| match has_flag("--exact") {
                true => name == part,
                false => name.contains(part.as_str()),
            })
    };
    // Other tests of this machine neither see what is mounted here nor change it.
    // SAFETY: there is one thread; the path is a C string, the other pointers may be null.
    unsafe {
        assert_eq!(libc::unshare(libc::CLONE_NEWNS), 0);
        let (none, flags) = (std::ptr::null(), libc::MS_REC | libc::MS_PRIVATE);
        let root = c"/".as_ptr();
        assert_eq!(libc::mount(none, root, none, flags, none.cast()), 0);
    }
    let mut rig = Rig::new();
    let mut failed = 0;
    for (name, case) in &cases {
        if !is_wanted(name) {
            continue;
        }
        let before = rig::Footprint::now();
        let start = std::time::Instant::now();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| case(&mut rig)));
        rig.reset();
        let leak = before.difference(&rig::Footprint::now());
        let took = start.elapsed();
        match (result, leak) {
            (Ok(()), None) => println!("ok      {name} ({} ms)", took.as_millis()),
            (Ok(()), Some(leak)) => {
                failed += 1;
                println!("LEAKED  {name}: {leak}");
            }
            (Err(_), _) => {
                failed += 1;
                println!("FAILED  {name}");
            }
        }
    }
    drop(rig);
    if failed > 0 {
        println!("{failed} failed");
        std::process::exit(1);
    }
}
