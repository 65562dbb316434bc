//! The command line in, an exit code out (`sysexits.h`).

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

/// Lets machines into SimpleChat.
#[derive(Parser)]
#[command(name = "simplechat-gateway", version = VERSION, about, max_term_width = 100)]
struct Arguments {
    /// A TOML file with settings; the environment wins.
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Run the gateway (the default).
    Serve,
    /// Read the settings and try everything they name.
    Check,
    /// Check, then prove that upstream honours a minted session, and print what the app registration
    /// must hold.
    Doctor,
    /// Ask the running gateway whether it is ready.
    Healthcheck,
    #[command(about = "Print the OpenAPI document")]
    Openapi,
    /// Bring the database up to date.
    Migrate,
    /// The administrator's switch.
    Access {
        #[command(subcommand)]
        command: AccessCommand,
    },
    /// The administrator's log, newest first.
    Activity(ActivityCommand),
    /// Minted sessions.
    Sessions {
        #[command(subcommand)]
        command: SessionsCommand,
    },
    /// Print every setting: name, meaning, form, default and effective value.
    Settings {
        /// As a Markdown table, without values.
        #[arg(long)]
        markdown: bool,
    },
}

enum Ending {
    Settings(Problems),
    Failure(Failure),
}

impl From<Problems> for Ending {
    fn from(problems: Problems) -> Self {
        Self::Settings(problems)
    }
}

impl From<Failure> for Ending {
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
        Err(Ending::Settings(problems)) => {
            print_error(&problems.to_string());
            ExitCode::from(BAD_SETTINGS)
        }
        Err(Ending::Failure(failure)) => {
            print_error(&failure.to_string());
            ExitCode::from(failure.exit_code())
        }
    }
}

fn run(arguments: Arguments) -> Result<(), Ending> {
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

/// The environment. What is not UTF-8 is marked with U+FFFD, which no setting may hold.
fn environment() -> impl Iterator<Item = (String, String)> {
    let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    std::env::vars_os().map(move |(name, value)| (text(name), text(value)))
}
