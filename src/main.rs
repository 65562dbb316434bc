//! Entry point: parses the command line, runs a command, returns its exit code (`sysexits.h`).

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand, error::ErrorKind};
use simplechat_gateway::{
    AccessCommand, ActivityCommand, Config, Failure, Problems, SessionsCommand, VERSION, access,
    activity, check, doctor, healthcheck, migrate, openapi, print, print_error,
    print_error_in_time, serve, sessions,
};

/// `EX_USAGE`
const BAD_COMMAND_LINE: u8 = 64;
/// `EX_CONFIG`
const BAD_SETTINGS: u8 = 78;

/// Shown below the options of `--help`.
const AFTER_HELP: &str = "\
Environment:
  GATEWAY_CONFIG  TOML file with settings, where --config is not given
  RUST_LOG        Log filter (default: info)
  Every setting is an environment variable; `simplechat-gateway settings` lists them.

Exit codes:
  0   success
  64  invalid command line
  69  required service unavailable
  70  internal error
  78  invalid settings";

/// Reverse proxy that signs MCP servers and scripts in to SimpleChat with Microsoft Entra tokens.
#[derive(Parser)]
#[command(
    name = "simplechat-gateway", version = VERSION, after_help = AFTER_HELP, max_term_width = 100
)]
struct Arguments {
    #[arg(
        long,
        value_name = "FILE",
        global = true,
        help = "TOML file with settings; environment variables take precedence [env: GATEWAY_CONFIG]"
    )]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Run the gateway (default command).
    Serve,
    /// Validate configuration and test all dependencies.
    Check,
    /// Run `check`, test an issued session on SimpleChat, and print the required app registration.
    Doctor,
    /// Test whether the running gateway is ready.
    Healthcheck,
    #[command(about = "Print the OpenAPI document")]
    Openapi,
    /// Apply database migrations.
    Migrate,
    /// Manage external access and blocks.
    Access {
        #[command(subcommand)]
        command: AccessCommand,
    },
    /// Print the activity log, newest first.
    Activity(ActivityCommand),
    /// List and end gateway-issued sessions.
    Sessions {
        #[command(subcommand)]
        command: SessionsCommand,
    },
    /// Print every setting: name, meaning, form, default and effective value.
    Settings {
        /// Print a Markdown table, without values.
        #[arg(long)]
        markdown: bool,
    },
}

/// Reason for which the program ends with an exit code other than 0.
enum ExitReason {
    Settings(Problems),
    Failure(Failure),
}

impl From<Problems> for ExitReason {
    fn from(problems: Problems) -> Self {
        Self::Settings(problems)
    }
}

impl From<Failure> for ExitReason {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

fn main() -> ExitCode {
    #[cfg(debug_assertions)]
    if let Some(at) = environment().find_map(|(name, at)| (name == "STOPPED_CLOCK").then_some(at)) {
        simplechat_gateway::stop_clock(at.parse().unwrap_or_default());
    }
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            let is_requested =
                matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return if is_requested { ExitCode::SUCCESS } else { ExitCode::from(BAD_COMMAND_LINE) };
        }
    };
    let is_service = matches!(arguments.command, None | Some(Command::Serve));
    let print_error = if is_service { print_error_in_time } else { print_error };
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(ExitReason::Settings(problems)) => {
            print_error(&problems.to_string());
            ExitCode::from(BAD_SETTINGS)
        }
        Err(ExitReason::Failure(failure)) => {
            print_error(&failure.to_string());
            ExitCode::from(failure.exit_code())
        }
    }
}

fn run(arguments: Arguments) -> Result<(), ExitReason> {
    let file = arguments.config;
    let named = file.clone();
    let read = move || Config::read(environment(), named.as_deref());
    match arguments.command.unwrap_or(Command::Serve) {
        Command::Serve => serve(read()?, read)?,
        Command::Check => check(&read()?)?,
        Command::Doctor => doctor(&read()?)?,
        Command::Healthcheck => healthcheck(&read()?)?,
        Command::Openapi => print(&openapi()),
        Command::Migrate => migrate(&read()?)?,
        Command::Access { command } => access(&read()?, command)?,
        Command::Activity(command) => activity(&read()?, command)?,
        Command::Sessions { command } => sessions(&read()?, command)?,
        Command::Settings { markdown: true } => print(&Config::markdown_table()),
        Command::Settings { markdown: false } => {
            let (table, checked) = Config::table(environment(), file.as_deref())?;
            print(&table);
            checked?;
        }
    }
    Ok(())
}

/// Environment variables. Bytes that are not UTF-8 become U+FFFD, which no setting may contain.
fn environment() -> impl Iterator<Item = (String, String)> {
    let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    std::env::vars_os().map(move |(name, value)| (text(name), text(value)))
}
