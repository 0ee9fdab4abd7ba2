//! `import` and `export`: from the arguments to the pipelines in [`crate::transfer`].

use crate::api::Api;
use crate::args::{Export, Import};
use crate::exit::{Exit, Failure, Outcome};
use crate::out::{self, Out};
use crate::transfer::checkpoint::AtomicFile;
use crate::transfer::{export, import};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub(crate) async fn import<A: Api>(
    api: Arc<A>,
    args: Import,
    deadline: Duration,
    out: &mut Out,
) -> Outcome {
    let stdin = args.file == Path::new("-");
    let mut options = import::Options {
        batch_ops: usize::from(args.batch),
        in_flight: usize::from(args.in_flight),
        retry_for: args.retry_for,
        deadline,
        on_bad: args.on_bad,
        resume: args.resume,
        ack_file: args.ack_file,
        eager: stdin,
        input_bytes: None,
    };
    let summary = if stdin {
        import::run(api, std::io::stdin(), options).await?
    } else {
        let open = || -> std::io::Result<(File, std::fs::Metadata)> {
            let file = File::open(&args.file)?;
            let metadata = file.metadata()?;
            Ok((file, metadata))
        };
        let (file, metadata) = open().map_err(|e| Failure::file("read", &args.file, &e))?;
        if metadata.is_dir() {
            let text = format!("{} is a directory, not a file of lines", args.file.display());
            return Err(Failure::new(Exit::Usage, text));
        }
        // A pipe or device has no size, and may make us wait.
        options.eager = !metadata.is_file();
        options.input_bytes = metadata.is_file().then_some(metadata.len());
        import::run(api, file, options).await?
    };
    import::report(&summary, out.is_json(), out)
}

pub(crate) async fn export<A: Api>(
    api: Arc<A>,
    args: Export,
    deadline: Duration,
    out: &mut Out,
) -> Outcome {
    let options = export::Options {
        tables: args.tables,
        prefix: args.prefix.into_bytes(),
        deadline,
        retry_for: args.retry_for,
    };
    let sink = match &args.output {
        Some(path) => export::Sink::File(AtomicFile::create(path)?),
        None => export::Sink::Out(out),
    };
    let summary = export::run(api, options, sink).await?;
    if summary.siblings > 0 {
        out::note(&format!(
            "{} keys have several values, one per line; an import keeps the last of each",
            summary.siblings
        ));
    }
    if out.is_json() && args.output.is_some() {
        out.json(&summary)?;
        out.flush()?;
    } else if args.output.is_some() {
        out::note(&format!("exported {} lines of {} tables", summary.exported, summary.tables));
    }
    if summary.corrupt > 0 {
        let text = format!("{} damaged records were left out", summary.corrupt);
        return Err(Failure::new(Exit::NodeFault, text));
    }
    Ok(Exit::Ok)
}
