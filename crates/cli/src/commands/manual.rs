//! `completion` and `man`, generated from the tree of commands.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, Command, ValueEnum};
use clap_complete::Shell;

use crate::error::Error;
use crate::output::print;

/// Shells with completion.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum KnownShell {
    /// GNU bash
    Bash,
    /// Z shell
    Zsh,
    /// fish
    Fish,
}

/// Flags of `gamut completion`.
#[derive(Debug, Args)]
pub struct CompletionArguments {
    /// The shell
    #[arg(value_enum)]
    pub shell: KnownShell,
}

impl CompletionArguments {
    /// Prints the script.
    ///
    /// # Errors
    /// A closed output.
    pub fn run(&self, mut command: Command) -> Result<u8, Error> {
        let shell = match self.shell {
            KnownShell::Bash => Shell::Bash,
            KnownShell::Zsh => Shell::Zsh,
            KnownShell::Fish => Shell::Fish,
        };
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut command, "gamut", &mut script);
        print::out_bytes(&script)?;
        Ok(0)
    }
}

/// Flags of `gamut man`.
#[derive(Debug, Args)]
pub struct ManArguments {
    /// Directory for the pages (section 1); made if it does not exist
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
}

impl ManArguments {
    /// Writes the pages.
    ///
    /// # Errors
    /// When a page cannot be written.
    pub fn run(&self, mut command: Command) -> Result<u8, Error> {
        command.build();
        let directory = &self.directory;
        fs::create_dir_all(directory)
            .map_err(Error::io(format!("create {}", directory.display())))?;
        write_pages(&command, "gamut", directory)?;
        Ok(0)
    }
}

fn write_pages(command: &Command, name: &str, directory: &Path) -> Result<(), Error> {
    let path = directory.join(format!("{name}.1"));
    let failed = || Error::io(format!("write {}", path.display()));
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone().disable_help_subcommand(true))
        .title(name)
        .render(&mut page)
        .map_err(failed())?;
    fs::write(&path, page).map_err(failed())?;
    for inner in command.get_subcommands() {
        write_pages(inner, &format!("{name}-{}", inner.get_name()), directory)?;
    }
    Ok(())
}
