//! Where an ordinary user's engine keeps its things (XDG Base Directory Specification).

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::account::Account;

/// An engine's directories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directories {
    /// Images, volumes, records: `$XDG_DATA_HOME/gamut`, by default `~/.local/share/gamut`.
    pub data: PathBuf,
    /// What does not outlive a reboot, and the socket: `$XDG_RUNTIME_DIR/gamut`.
    pub run: PathBuf,
    /// Settings: `$XDG_CONFIG_HOME/gamut`, by default `~/.config/gamut`; none without a home.
    pub config: Option<PathBuf>,
    /// What is not as it should be, such as a missing `XDG_RUNTIME_DIR`.
    pub note: Option<String>,
}

impl Directories {
    /// Chooses the directories of a user; makes none.
    #[must_use]
    pub fn of(account: &Account) -> Self {
        let absolute = |name: &str| {
            std::env::var_os(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
        };
        Self::choose(
            account,
            absolute("XDG_CONFIG_HOME"),
            absolute("XDG_DATA_HOME"),
            absolute("XDG_RUNTIME_DIR"),
            Path::new("/run/user"),
        )
    }

    fn choose(
        account: &Account,
        config_home: Option<PathBuf>,
        data_home: Option<PathBuf>,
        runtime: Option<PathBuf>,
        users: &Path,
    ) -> Self {
        let in_home = |name: &str| account.home.as_ref().map(|home| home.join(name));
        let share = data_home.or_else(|| in_home(".local/share"));
        let config = config_home.or_else(|| in_home(".config"));
        let (run, note) = run_directory(account, runtime, users);
        let data = share.unwrap_or_else(|| {
            // Without a home nothing is to be kept for long either.
            run.with_file_name(format!("gamut-data-{}", account.uid))
        });
        Self {
            data: data.join("gamut"),
            run,
            config: config.map(|config| config.join("gamut")),
            note,
        }
    }

    /// The socket of the user's engine.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.run.join("gamut.sock")
    }
}

fn run_directory(
    account: &Account,
    runtime: Option<PathBuf>,
    users: &Path,
) -> (PathBuf, Option<String>) {
    let is_own = |path: &PathBuf| {
        path.metadata()
            .is_ok_and(|metadata| metadata.is_dir() && metadata.uid() == account.uid)
    };
    let login = users.join(account.uid.to_string());
    let unusable = match runtime {
        Some(path) if is_own(&path) => return (path.join("gamut"), None),
        Some(path) => format!(
            "XDG_RUNTIME_DIR is {}, which is no directory of user {}",
            path.display(),
            account.name
        ),
        None => "XDG_RUNTIME_DIR is not set".to_owned(),
    };
    let used = if is_own(&login) {
        login.join("gamut")
    } else {
        PathBuf::from(format!("/tmp/gamut-{}", account.uid))
    };
    let note = format!("{unusable}; using {} instead", used.display());
    (used, Some(note))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account() -> Account {
        // SAFETY: geteuid(2) only returns a number.
        let uid = unsafe { libc::geteuid() };
        Account {
            uid,
            gid: 0,
            name: "carol".to_owned(),
            home: Some("/home/carol".into()),
        }
    }

    #[test]
    fn the_base_directories_are_used() {
        let runtime = tempfile::tempdir().unwrap();
        let users = Path::new("/nonexistent");
        let runtime_home = Some(runtime.path().to_owned());
        let chosen = Directories::choose(&account(), None, None, runtime_home, users);
        assert_eq!(chosen.data, Path::new("/home/carol/.local/share/gamut"));
        let config = chosen.config.as_deref();
        assert_eq!(config, Some(Path::new("/home/carol/.config/gamut")));
        assert_eq!(chosen.run, runtime.path().join("gamut"));
        assert_eq!(chosen.socket(), runtime.path().join("gamut/gamut.sock"));
        assert_eq!(chosen.note, None);
        let (config, data) = (Some("/srv/config".into()), Some("/srv/data".into()));
        let moved = Directories::choose(&account(), config, data, None, users);
        assert_eq!(moved.data, Path::new("/srv/data/gamut"));
        let config = moved.config.as_deref();
        assert_eq!(config, Some(Path::new("/srv/config/gamut")));
        let homeless = Account {
            home: None,
            ..account()
        };
        let chosen = Directories::choose(&homeless, None, None, None, users);
        assert_eq!(chosen.config, None);
    }

    #[test]
    fn what_takes_the_place_of_a_missing_directory_is_said() {
        let account = account();
        let users = tempfile::tempdir().unwrap();
        let chosen = Directories::choose(&account, None, None, None, users.path());
        assert_eq!(
            chosen.run,
            PathBuf::from(format!("/tmp/gamut-{}", account.uid))
        );
        assert!(chosen.note.unwrap().contains("XDG_RUNTIME_DIR is not set"));
        // That of the login session is better than one below /tmp.
        let login = users.path().join(account.uid.to_string());
        std::fs::create_dir(&login).unwrap();
        let chosen = Directories::choose(
            &account,
            None,
            None,
            Some("/nonexistent/x".into()),
            users.path(),
        );
        assert_eq!(chosen.run, login.join("gamut"));
        assert!(chosen.note.unwrap().contains("/nonexistent/x"));
    }
}
