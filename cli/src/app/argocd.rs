//! The command line of `argocd`, as far as it works on the cluster alone.

use super::Command as AppCommand;
use super::connect::Flags;
use crate::failure::Exit;
use crate::grammar::{CompletionArgs, VersionArgs};
use crate::output::print;
use anyhow::{Result, anyhow};
use clap::{Args, Subcommand};
use std::ffi::OsString;

/// The flags that every command takes, and the command.
#[derive(Args, Debug)]
pub struct Grammar {
    #[command(flatten)]
    pub flags: Flags,
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// See and steer Applications
    #[command(visible_aliases = ["application", "applications"], arg_required_else_help = true)]
    App {
        #[command(subcommand)]
        command: Box<AppCommand>,
    },
    /// Accepted for scripts: there is no server to log in to
    Login {
        #[arg(value_name = "SERVER")]
        server: Option<String>,
        #[arg(long, hide = true)]
        username: Option<String>,
        #[arg(long, hide = true)]
        password: Option<String>,
        #[arg(long, hide = true)]
        sso: bool,
        #[arg(long, hide = true)]
        name: Option<String>,
        #[arg(long, hide = true)]
        skip_test_tls: bool,
    },
    /// Accepted for scripts: there is no server to log out of
    Logout {
        #[arg(value_name = "CONTEXT")]
        context: Option<String>,
    },
    /// Print a completion script for a shell
    Completion(CompletionArgs),
    /// Print the version
    Version(VersionArgs),
    /// A program `argocd-NAME` in the path
    #[command(external_subcommand)]
    Plugin(Vec<OsString>),
}

/// Runs a command. `Completion` and `Version` are the grammar's.
///
/// # Errors
/// Whatever goes wrong.
pub async fn run(grammar: Grammar) -> Result<()> {
    match grammar.command {
        Command::App { command } => super::dispatch(*command, &grammar.flags).await,
        Command::Login { .. } => print("Context 'kubernetes' updated\n"),
        Command::Logout { context } => {
            print(&format!("Logged out from '{}'\n", context.as_deref().unwrap_or("kubernetes")))
        }
        Command::Plugin(words) => plugin(&words),
        Command::Completion(_) | Command::Version(_) => Ok(()),
    }
}

/// Runs `argocd-NAME` and ends as it does.
fn plugin(words: &[OsString]) -> Result<()> {
    let Some((name, rest)) = words.split_first() else { return Ok(()) };
    let mut program = OsString::from("argocd-");
    program.push(name);
    match std::process::Command::new(&program).args(rest).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Exit::silently(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(20))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(anyhow!(
            "unknown command {name:?} for \"argocd\": it is not part of this binary, and there is no program {} in the path",
            program.display()
        )),
        Err(error) => Err(anyhow!(error).context(format!("running {}", program.display()))),
    }
}
