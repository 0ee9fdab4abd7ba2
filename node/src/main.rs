//! The `weald` binary: a node, and the command line that talks to one.
//!
//! Guarantees: every way in which it can end has an exit code of its own ([`exit`]); results go to stdout, everything else to
//! stderr. Refuses: state of its own; what a node keeps is in its data directory.

mod api;
mod args;
mod boot;
mod bundle;
mod cmd;
mod config;
mod credential;
mod dev;
mod exit;
mod logging;
mod out;
mod start;
mod text;
mod transfer;

use args::{Cli, Command, Global};
use clap::{CommandFactory, FromArgMatches};
use cmd::remote::{Remote, Target};
use exit::{Exit, Failure, Outcome};
use out::Out;
use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// Threads of the runtime of a client command: one for the connection, one for the work.
const CLIENT_THREADS: usize = 2;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let parsed = command().try_get_matches_from(&arguments);
    let cli = match parsed.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => return usage(&error, &arguments).into(),
    };
    if let Command::CheckEnv { path } = &cli.command {
        return start::check::run_here(path).into();
    }
    let json = cli.global.json;
    match run(cli) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            report(&failure, json);
            failure.exit.into()
        }
    }
}

/// The command line, with the table of exit codes in its help.
fn command() -> clap::Command {
    let codes = format!("Exit codes:\n{}", Exit::table());
    Cli::command().after_long_help(codes.clone()).after_help(codes)
}

fn usage(error: &clap::Error, arguments: &[OsString]) -> Exit {
    // There is nobody to tell when the message cannot be printed.
    error.print().ok();
    if !error.use_stderr() {
        return Exit::Ok;
    }
    let names: Vec<String> =
        Cli::command().get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    let named = arguments.iter().skip(1).find(|a| names.iter().any(|name| *a == name.as_str()));
    match named {
        Some(name) if name == "start" || name == "dev" => Exit::StartUsage,
        Some(_) | None => Exit::Usage,
    }
}

fn report(failure: &Failure, json: bool) {
    if failure.message.is_empty() {
        return;
    }
    if json {
        let error = serde_json::json!({
            "error": failure.message,
            "class": failure.exit.name(),
            "exit": failure.exit.code(),
        });
        out::note(&error.to_string());
    } else {
        out::note(&format!("weald: {}", failure.message));
    }
}

fn run(cli: Cli) -> Outcome {
    let Cli { global, command } = cli;
    let mut out = Out::new(global.json);
    match command {
        Command::Start(args) if args.plan => boot_plan(&mut out),
        Command::BootPlan => boot_plan(&mut out),
        Command::Start(args) => start::run(args, &global, out),
        Command::Dev(args) => dev::run(&args, &global, out),
        Command::Config(args) => cmd::config::run(args, &global, &mut out),
        Command::Cluster(args::Cluster::Init(args)) => cmd::init::run(&args, &mut out),
        Command::Bench(bench) => cmd::bench::run(&bench, &mut out),
        command => {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(CLIENT_THREADS)
                .enable_all()
                .build()
                .map_err(|e| Failure::new(Exit::Io, format!("cannot start threads: {e}")))?;
            let outcome = runtime.block_on(client_command(command, &global, &mut out));
            // Not waited for: a thread may be reading from a terminal.
            runtime.shutdown_background();
            outcome
        }
    }
}

fn boot_plan(out: &mut Out) -> Outcome {
    if out.is_json() {
        out.json(&boot::json())?;
    } else {
        out.bytes(boot::table().as_bytes())?;
    }
    out.flush()?;
    Ok(Exit::Ok)
}

async fn client_command(command: Command, global: &Global, out: &mut Out) -> Outcome {
    let target = Target::of(global)?;
    let data_dir = target.data_dir().map(ToOwned::to_owned);
    let api = Arc::new(Remote::new(target));
    let deadline: Duration = global.deadline;
    match command {
        Command::Status => cmd::status::run(&*api, deadline, out).await,
        Command::Get(args) => cmd::kv::get(&*api, args, deadline, out).await,
        Command::Put(args) => cmd::kv::put(&*api, args, deadline, out).await,
        Command::Delete(args) => cmd::kv::delete(&*api, args, deadline, out).await,
        Command::Scan(args) => cmd::kv::scan(&*api, args, deadline, out).await,
        Command::Watch(args) => cmd::watch::run(&*api, args, deadline, out).await,
        Command::Import(args) => cmd::transfer::import(api, args, deadline, out).await,
        Command::Export(args) => cmd::transfer::export(api, args, deadline, out).await,
        Command::Supervision(args) => {
            cmd::supervision::run(&*api, args, data_dir.as_deref(), deadline, out).await
        }
        Command::Cluster(args) => cmd::cluster::run(&*api, args, deadline, out).await,
        Command::Aae(args) => cmd::aae::run(&*api, args, deadline, out).await,
        Command::Table(args) => cmd::table::run(&*api, args, deadline, out).await,
        Command::Names { prefix } => cmd::names::run(&*api, prefix, deadline, out).await,
        Command::Client(args) => cmd::client::run(&*api, args, deadline, out).await,
        Command::LogLevel { directives } => {
            cmd::log_level::run(&*api, directives, deadline, out).await
        }
        Command::Start(_)
        | Command::Dev(_)
        | Command::BootPlan
        | Command::Config(_)
        | Command::Bench(_)
        | Command::CheckEnv { .. } => {
            Err(Failure::new(Exit::Usage, "this command does not talk to a node"))
        }
    }
}
