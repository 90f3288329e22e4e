//! Which program this is called as, and its command line.

use crate::{app, controller, crd, failure, rollout};
use anyhow::Result;
use clap::error::ErrorKind;
use clap::{ArgAction, Args, Command, CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::Shell;
use std::ffi::{OsStr, OsString};
use std::process::ExitCode;

/// The names under which this binary is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// `tidegate`, and every other name.
    Tidegate,
    /// `kubectl-argo-rollouts` and `kubectl-tidegate`.
    RolloutsPlugin,
    /// `argocd`.
    Argocd,
    /// `rollouts-controller`.
    Controller,
}

impl Program {
    /// Picks by the file name of the executable.
    pub fn of(argument: &OsStr) -> Self {
        let name = std::path::Path::new(argument).file_name().and_then(OsStr::to_str).unwrap_or_default();
        match name.strip_suffix(".exe").unwrap_or(name) {
            "kubectl-argo-rollouts" | "kubectl-argo_rollouts" | "kubectl-tidegate" => Self::RolloutsPlugin,
            "argocd" => Self::Argocd,
            "rollouts-controller" => Self::Controller,
            _ => Self::Tidegate,
        }
    }

    /// The exit code for a command line that does not fit, and for everything that goes wrong.
    fn general_exit_code(self) -> u8 {
        match self {
            Self::Argocd => 20,
            _ => 1,
        }
    }

    /// The command line.
    pub fn command(self) -> Command {
        let command = match self {
            Self::Tidegate => Tidegate::command(),
            Self::RolloutsPlugin => Plugin::command(),
            Self::Argocd => Argocd::command(),
            Self::Controller => ControllerProgram::command(),
        };
        go_booleans(command)
    }
}

#[derive(Parser, Debug)]
#[command(
    name = "tidegate",
    version,
    about = "Progressive delivery and GitOps for Kubernetes",
    long_about = "Progressive delivery and GitOps for Kubernetes.\n\nTidegate takes a Git commit to production step by step: \
        it applies Applications from Git, moves traffic to new versions of Rollouts, measures them, and promotes them or \
        takes them back.",
    after_help = "Examples:
  # Follow an update
  tidegate rollout get web --watch

  # Go on after a pause, or take the update back
  tidegate rollout promote web
  tidegate rollout abort web

  # Applications
  tidegate app list
  tidegate app sync shop

  # Check manifests without a cluster
  tidegate lint -f web.yaml

Called as kubectl-argo-rollouts (or kubectl-tidegate), argocd or rollouts-controller, \
this binary has the command line of the program of that name.",
    subcommand_required = true,
    arg_required_else_help = true
)]
struct Tidegate {
    #[command(subcommand)]
    command: TidegateCommand,
}

#[derive(Subcommand, Debug)]
enum TidegateCommand {
    /// See and steer Rollouts, Experiments and AnalysisRuns
    #[command(visible_aliases = ["rollouts", "ro"], arg_required_else_help = true)]
    Rollout(Box<rollout::Grammar>),
    /// See and steer Applications
    #[command(visible_aliases = ["application", "applications"], arg_required_else_help = true)]
    App(Box<app::Grammar>),
    /// Run the controller
    Controller(Box<controller::Flags>),
    /// Check manifests without a cluster
    Lint(rollout::lint::Args),
    /// Print the CustomResourceDefinitions
    Crds(crd::Args),
    /// Print a completion script for a shell
    Completion(CompletionArgs),
    /// Print the version
    Version(VersionArgs),
}

#[derive(Parser, Debug)]
#[command(
    name = "kubectl-argo-rollouts",
    bin_name = "kubectl argo rollouts",
    version,
    about = "See and steer Rollouts, Experiments and AnalysisRuns",
    subcommand_required = true,
    arg_required_else_help = true
)]
struct Plugin {
    #[command(flatten)]
    grammar: rollout::Grammar,
}

#[derive(Parser, Debug)]
#[command(
    name = "argocd",
    version,
    about = "See and steer Applications, on the cluster directly",
    subcommand_required = true,
    arg_required_else_help = true
)]
struct Argocd {
    #[command(flatten)]
    grammar: app::argocd::Grammar,
}

#[derive(Parser, Debug)]
#[command(name = "rollouts-controller", version, about = "Run the controller")]
struct ControllerProgram {
    #[command(flatten)]
    flags: controller::Flags,
}

/// `completion`.
#[derive(Args, Debug)]
pub struct CompletionArgs {
    /// Shell
    #[arg(value_enum)]
    pub shell: Shell,
}

/// `version`.
#[derive(Args, Debug)]
pub struct VersionArgs {
    /// Only the number
    #[arg(long)]
    pub short: bool,
    /// Accepted for the peers' sake: there is no server to ask
    #[arg(long, hide = true)]
    pub client: bool,
    /// Format: json, yaml, short or wide
    #[arg(short, long, value_name = "FORMAT", hide = true)]
    pub output: Option<String>,
}

/// Flags without a value take `=true` and `=false` too, as programs written in Go do.
fn go_booleans(command: Command) -> Command {
    command
        .mut_args(|arg| match arg.get_action() {
            ArgAction::SetTrue => arg
                .action(ArgAction::Set)
                .num_args(0..=1)
                .require_equals(true)
                .default_value("false")
                .default_missing_value("true")
                .value_parser(go_bool)
                .value_name("BOOL")
                .hide_default_value(true),
            _ => arg,
        })
        .mut_subcommands(go_booleans)
}

/// A boolean as Go's flags spell it.
pub fn go_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("found {text:?}, expected true or false")),
    }
}

/// Runs the program that the first argument names.
pub fn run(arguments: Vec<OsString>) -> ExitCode {
    let program = arguments.first().map_or(Program::Tidegate, |first| Program::of(first));
    let matches = match program.command().try_get_matches_from(&arguments) {
        Ok(matches) => matches,
        Err(error) => {
            let _ = error.print();
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
                _ => ExitCode::from(program.general_exit_code()),
            };
        }
    };
    let mut general = program.general_exit_code();
    let outcome = dispatch(program, &matches, &mut general);
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => match error.downcast_ref::<failure::Exit>() {
            Some(exit) => {
                if let Some(message) = &exit.message {
                    eprintln!("Error: {message}");
                }
                ExitCode::from(exit.code)
            }
            None => {
                eprintln!("Error: {}", failure::text(&error));
                ExitCode::from(general)
            }
        },
    }
}

fn dispatch(program: Program, matches: &clap::ArgMatches, general: &mut u8) -> Result<()> {
    match program {
        Program::Tidegate => match Tidegate::from_arg_matches(matches)?.command {
            TidegateCommand::Rollout(grammar) => rollout(program, *grammar),
            TidegateCommand::App(grammar) => {
                *general = Program::Argocd.general_exit_code();
                block_on(app::run(*grammar))
            }
            TidegateCommand::Controller(flags) => controller::run(*flags),
            TidegateCommand::Lint(args) => rollout::lint::run(&args),
            TidegateCommand::Crds(_) => crd::run(),
            TidegateCommand::Completion(args) => completion(program, &args),
            TidegateCommand::Version(args) => version("tidegate", &args),
        },
        Program::RolloutsPlugin => rollout(program, Plugin::from_arg_matches(matches)?.grammar),
        Program::Argocd => {
            let grammar = Argocd::from_arg_matches(matches)?.grammar;
            match &grammar.command {
                app::argocd::Command::Completion(args) => completion(program, args),
                app::argocd::Command::Version(args) => version("argocd", args),
                _ => block_on(app::argocd::run(grammar)),
            }
        }
        Program::Controller => controller::run(ControllerProgram::from_arg_matches(matches)?.flags),
    }
}

fn rollout(program: Program, grammar: rollout::Grammar) -> Result<()> {
    match &grammar.command {
        rollout::Command::Completion(args) => completion(program, args),
        rollout::Command::Version(args) => version("kubectl-argo-rollouts", args),
        _ => block_on(rollout::run(grammar)),
    }
}

/// Runs a command on this thread: commands wait for the network most of the time.
fn block_on(command: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(command)
}

fn completion(program: Program, args: &CompletionArgs) -> Result<()> {
    let mut command = program.command();
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, name, &mut script);
    crate::output::print(&String::from_utf8_lossy(&script))
}

fn version(name: &str, args: &VersionArgs) -> Result<()> {
    let number = concat!("v", env!("CARGO_PKG_VERSION"));
    let text = match args.output.as_deref() {
        Some("json") => format!("{}\n", serde_json::json!({"client": {"Version": number, "Compiler": "rustc"}})),
        _ if args.short => format!("{number}\n"),
        _ => format!(
            "{name}: {number}\n  Program: tidegate\n  Platform: {}/{}\n",
            std::env::consts::OS,
            std::env::consts::ARCH
        ),
    };
    crate::output::print(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn picks_the_program_by_the_name() {
        for (name, program) in [
            ("tidegate", Program::Tidegate),
            ("/usr/local/bin/kubectl-argo-rollouts", Program::RolloutsPlugin),
            ("kubectl-tidegate", Program::RolloutsPlugin),
            ("argocd.exe", Program::Argocd),
            ("/bin/rollouts-controller", Program::Controller),
            ("tg", Program::Tidegate),
        ] {
            assert_eq!(Program::of(OsStr::new(name)), program, "{name}");
        }
    }

    #[test]
    fn every_command_line_is_consistent() {
        for program in [Program::Tidegate, Program::RolloutsPlugin, Program::Argocd, Program::Controller] {
            program.command().debug_assert();
        }
    }

    fn accepts(program: Program, line: &str) -> bool {
        let words = std::iter::once("program").chain(line.split_whitespace());
        program.command().try_get_matches_from(words).is_ok()
    }

    #[test]
    fn accepts_the_peers_command_lines() {
        for line in [
            "get rollout web -w --no-color --timeout-seconds 5",
            "get ro web -n shop",
            "-n shop get experiment exp",
            "list rollouts -A --timestamps --name web",
            "list experiments --all-namespaces",
            "status web --watch=false -t 60s",
            "status web -w",
            "promote web --full",
            "promote web -c",
            "promote web --skip-all-steps",
            "abort web",
            "retry rollout web",
            "retry experiment exp",
            "undo web --to-revision=3",
            "pause web other",
            "set image web app=image:2 *=b",
            "restart web -i 10s",
            "restart web --in 10m",
            "terminate analysisrun ar",
            "terminate experiment exp",
            "create -f file.yaml -w",
            "create analysisrun --from t -a k=v --global --generate-name x- --instance-id i",
            "create analysisrun --from-file t.yaml --argument k=v --name x",
            "lint -f file.yaml",
            "version --short",
            "completion bash",
            "--context c --kubeconfig f --cluster c --user u -s https://x --token t --as a --as-group g --request-timeout 5s --insecure-skip-tls-verify --certificate-authority f -v 4 --loglevel debug abort web",
        ] {
            assert!(accepts(Program::RolloutsPlugin, line), "{line}");
            assert!(accepts(Program::Tidegate, &format!("rollout {line}")), "{line}");
        }
        assert!(accepts(Program::Tidegate, "rollout get web -w"));
        assert!(accepts(Program::Tidegate, "rollout list -A"));
        assert!(accepts(Program::Tidegate, "rollout retry web"));
        for line in [
            "get",
            "promote",
            "promote web -a -c",
            "set image web",
            "set image web forgot-equals-sign",
            "set image web too=many=equals",
            "undo",
            "abort",
            "lint",
            "create analysisrun",
            "promote web --no-such-flag",
            "nonsense",
        ] {
            assert!(!accepts(Program::RolloutsPlugin, line), "{line}");
        }
    }

    #[test]
    fn booleans_take_a_value_after_equals_signs_only() {
        let full = |line: &str| {
            let words = std::iter::once("p").chain(line.split_whitespace());
            let matches = Program::RolloutsPlugin.command().try_get_matches_from(words).unwrap();
            let promote = matches.subcommand_matches("promote").unwrap();
            (promote.get_flag("full"), promote.get_one::<String>("name").unwrap().clone())
        };
        assert_eq!(full("promote --full web"), (true, "web".into()));
        assert_eq!(full("promote --full=false web"), (false, "web".into()));
        assert_eq!(full("promote web"), (false, "web".into()));
        assert!(accepts(Program::RolloutsPlugin, "list rollouts -Aw"));
        assert!(go_bool("maybe").is_err());
    }
}
