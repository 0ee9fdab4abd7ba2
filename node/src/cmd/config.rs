//! `config default`, `config check` and `config show`.

use crate::args::{Config, Global};
use crate::config::{self, Flags, Loaded, render};
use crate::exit::{Exit, Failure, Outcome};
use crate::out::{self, Out};
use serde_json::json;

pub(crate) fn run(args: Config, global: &Global, out: &mut Out) -> Outcome {
    let exit = match args {
        Config::Default => {
            let file = render::default_file();
            if out.is_json() {
                out.json(&json!({ "file": file }))?;
            } else {
                out.bytes(file.as_bytes())?;
            }
            Exit::Ok
        }
        Config::Check { file } => check(&load(file, global), out)?,
        Config::Show { config } => show(&load(config, global), out)?,
    };
    out.flush()?;
    Ok(exit)
}

fn load(file: Option<std::path::PathBuf>, global: &Global) -> Loaded {
    let mut flags = Flags { config: file, values: Vec::new() };
    if let Some(dir) = &global.data_dir {
        flags.values.push(("node.data_dir", "--data-dir", dir.to_string_lossy().into_owned()));
    }
    config::load(&flags, std::env::vars_os())
}

fn check(loaded: &Loaded, out: &mut Out) -> Result<Exit, Failure> {
    let ok = loaded.problems.is_empty();
    if out.is_json() {
        out.json(&json!({
            "ok": ok,
            "file": loaded.file,
            "problems": loaded.problems,
            "warnings": loaded.warnings,
        }))?;
    } else {
        for problem in &loaded.problems {
            out.line(&problem.to_string())?;
        }
        for warning in &loaded.warnings {
            out::note(&format!("warning: {warning}"));
        }
        match &loaded.file {
            _ if !ok => {}
            Some(file) => out.line(&format!("{} is fine", file.display()))?,
            None => out.line("no configuration file; the environment is fine")?,
        }
    }
    Ok(if ok { Exit::Ok } else { Exit::Config })
}

fn show(loaded: &Loaded, out: &mut Out) -> Result<Exit, Failure> {
    if out.is_json() {
        out.json(&render::effective_json(loaded))?;
    } else {
        out.bytes(render::effective(loaded).as_bytes())?;
    }
    for problem in &loaded.problems {
        out::note(&problem.to_string());
    }
    Ok(if loaded.problems.is_empty() { Exit::Ok } else { Exit::Config })
}
