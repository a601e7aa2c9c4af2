//! A network's place in the table of one family, and that the host forwards for it.

use std::fs;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result};
use crate::firewall::{Firewall, Member};
use crate::inet::Family;
use crate::sysctl;

/// A network in the table of a family.
#[derive(Debug)]
pub(crate) struct Forwarding {
    firewall: Firewall,
    member: Member,
    /// Whether we switched forwarding on, and the host is to forward nothing else.
    for_us_only: bool,
}

fn setting(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4/ip_forward",
        Family::V6 => "ipv6/conf/all/forwarding",
    }
}

/// Held while a network comes or goes: the last one to go takes the table away, which must not be
/// decided while another one comes, nor by two of which each sees the other.
static CHANGING: Mutex<()> = Mutex::new(());

fn changing() -> MutexGuard<'static, ()> {
    CHANGING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Enters a network into its table and lets the host forward.
pub(crate) fn begin(firewall: &Firewall, member: &Member) -> Result<Forwarding> {
    let _changing = changing();
    let setting = setting(firewall.family());
    let is_off = match sysctl::read(setting) {
        Err(error) if error.errno() == Some(libc::ENOENT) => {
            return Err(Error::Unsupported(
                "this kernel has no IPv6: make the network without it".to_owned(),
            ));
        }
        other => other? == "0",
    };
    let for_us_only = is_off
        || firewall
            .state()?
            .is_some_and(|state| state.forwards_for_us_only());
    firewall.ensure(member, for_us_only)?;
    // Last, so that the host does not forward before our rules stand.
    if is_off {
        if firewall.family() == Family::V6 {
            keep_accepting_routes()?;
        }
        sysctl::write(setting, "1")?;
        tracing::info!(
            setting,
            "switched on forwarding, for containers only; a host that is to forward for others too sets it in its own configuration"
        );
    }
    Ok(Forwarding {
        firewall: firewall.clone(),
        member: member.clone(),
        for_us_only,
    })
}

/// A host that forwards stops to learn its routes from routers, unless it is told otherwise
/// (`accept_ra` 2, Documentation/networking/ip-sysctl.rst): one that learned them goes on.
fn keep_accepting_routes() -> Result<()> {
    let entries = fs::read_dir("/proc/sys/net/ipv6/conf")
        .map_err(|source| Error::system("list the settings of the host's interfaces", source))?;
    for entry in entries.flatten() {
        let Ok(interface) = entry.file_name().into_string() else {
            continue;
        };
        let name = format!("ipv6/conf/{interface}/accept_ra");
        match sysctl::read(&name) {
            // Of these two names it is a default, which is not the host's own interfaces'.
            Ok(value) if value == "1" && !matches!(&*interface, "all" | "default" | "lo") => {
                sysctl::write_if_present(&name, "2")?;
            }
            // It may vanish meanwhile.
            _ => {}
        }
    }
    Ok(())
}

impl Forwarding {
    /// Leaves the table. The last network takes the table with it, and what we switched on.
    pub fn end(&self) -> Result<()> {
        let _changing = changing();
        let was_last = self.firewall.remove(&self.member)?;
        // Nobody else can depend on it: our rule kept the host from forwarding for others.
        if was_last && self.for_us_only {
            sysctl::ensure(setting(self.firewall.family()), "0")?;
        }
        Ok(())
    }

    /// Whether the table has all rules, and knows the network.
    pub fn is_complete(&self) -> Result<bool> {
        let state = self.firewall.state()?;
        Ok(state.is_some_and(|state| {
            state.has_all_rules(self.for_us_only) && self.member.is_in(&state)
        }))
    }

    /// Makes the table complete.
    pub fn renew(&self) -> Result<()> {
        let _changing = changing();
        self.firewall.ensure(&self.member, self.for_us_only)
    }

    /// Family and name of the table.
    pub fn table(&self) -> &str {
        self.firewall.table()
    }
}
