//! Rules of the code base that no compiler checks.
//!
//! Method: reads the files of the repository as text, without building anything, and lists all offences at once. The rules
//! are those of `.ci/STYLE.md`.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking, and speaks to whoever runs it"
)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What may lie at the top beside dot files.
const TOP_LEVEL: [&str; 9] = [
    "Cargo.toml",
    "Cargo.lock",
    "README.md",
    "LICENSE",
    "actors",
    "supervision",
    "storage",
    "node",
    "tests",
];

/// Lines of code that one file may have, comments, blank lines and tests not counted.
const CODE_LINES_MAX: usize = 600;

/// Which crates of ours a crate may use, and which others it must not. Dependencies point down.
const ARROWS: [(&str, &[&str], &[&str]); 13] = [
    ("weald-supervision", &[], &["heed"]),
    ("weald-storage", &[], &["tokio", "ractor", "ractor_cluster", "async-trait", "futures"]),
    ("weald-proto", &[], &["tokio", "ractor", "ractor_cluster", "heed", "async-trait", "futures"]),
    ("weald-link", &["weald-proto"], &["heed"]),
    ("weald-peers", &["weald-storage", "weald-proto"], &["heed", "ractor", "ractor_cluster"]),
    (
        "weald-membership",
        &["weald-peers", "weald-storage", "weald-proto", "weald-supervision"],
        &["heed", "ractor_cluster"],
    ),
    (
        "weald-broadcast",
        &["weald-peers", "weald-storage", "weald-proto", "weald-supervision"],
        &["heed", "ractor_cluster"],
    ),
    (
        "weald-exchange",
        &["weald-peers", "weald-storage", "weald-proto", "weald-supervision"],
        &["heed", "ractor_cluster"],
    ),
    (
        "weald-cluster",
        &[
            "weald-supervision",
            "weald-storage",
            "weald-link",
            "weald-proto",
            "weald-peers",
            "weald-membership",
            "weald-broadcast",
            "weald-exchange",
        ],
        &["heed"],
    ),
    ("weald-transports", &["weald-wamp"], &["heed", "ractor", "ractor_cluster"]),
    (
        "weald-router",
        &[
            "weald-wamp",
            "weald-transports",
            "weald-supervision",
            "weald-storage",
            "weald-proto",
            "weald-peers",
        ],
        &["heed", "ractor_cluster"],
    ),
    ("weald-wamp", &[], &["tokio", "ractor", "ractor_cluster", "heed", "async-trait", "futures"]),
    ("weald-client", &["weald-link", "weald-proto"], &["heed"]),
];

/// Crates of tests: they may use anything, and nothing that is shipped may use them.
const FOR_TESTS: [&str; 3] = ["weald-tests", "weald-client-testing", "weald-wamp-fuzz"];

/// Where unsafe code is: LMDB behind the store.
const UNSAFE: [&str; 1] = ["storage/src/lmdb.rs"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// Files below the repository, relative to it, without what was built or is ignored.
fn files() -> Vec<PathBuf> {
    fn walk(dir: &Path, root: &Path, out: &mut Vec<PathBuf>) {
        let mut entries: Vec<_> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap()).collect();
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let name = entry.file_name();
            let path = entry.path();
            if entry.file_type().unwrap().is_dir() {
                if !["target", ".git", "weald-data", "out"].iter().any(|n| name == *n) {
                    walk(&path, root, out);
                }
            } else {
                out.push(path.strip_prefix(root).unwrap().to_owned());
            }
        }
    }
    let root = root();
    let mut out = Vec::new();
    for dir in TOP_LEVEL.iter().map(|name| root.join(name)).chain([root.join(".ci")]) {
        if dir.is_dir() {
            walk(&dir, &root, &mut out);
        } else if dir.is_file() {
            out.push(dir.strip_prefix(&root).unwrap().to_owned());
        }
    }
    out
}

fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    path.extension().is_some_and(|e| extensions.iter().any(|known| e == *known))
}

fn read(path: &Path) -> String {
    let bytes = std::fs::read(root().join(path)).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn sources() -> Vec<(PathBuf, String)> {
    files()
        .into_iter()
        .filter(|path| has_extension(path, &["rs"]))
        .map(|path| (path.clone(), read(&path)))
        .collect()
}

/// Whether a file holds nothing but tests.
fn is_test_file(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let in_tests = |c: std::path::Component<'_>| c.as_os_str() == "tests";
    name.ends_with("_test.rs") || name == "tests.rs" || path.components().skip(1).any(in_tests)
}

/// The text without comments, the content of strings, and test modules; line breaks stay.
fn code_of(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let rest = &text[at..];
        let skip = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(len) = raw_string(rest, out.chars().last()) {
            len
        } else if c == '"' {
            string(rest)
        } else if c == '\'' && (rest[1..].starts_with('\\') || rest.chars().nth(2) == Some('\'')) {
            // A character; anything else after a quote is a lifetime.
            let body = if rest[1..].starts_with('\\') { 3 } else { 2 };
            rest.char_indices().skip(body).find(|(_, c)| *c == '\'').map_or(1, |(at, _)| at + 1)
        } else {
            out.push(c);
            continue;
        };
        out.extend(rest[..skip].chars().filter(|c| *c == '\n'));
        while chars.peek().is_some_and(|(next, _)| *next < at + skip) {
            chars.next();
        }
    }
    without_tests(&out)
}

fn raw_string(rest: &str, before: Option<char>) -> Option<usize> {
    if before.is_some_and(|c| c.is_alphanumeric() || c == '_') && before != Some('b') {
        return None;
    }
    let hashes = rest.strip_prefix('r')?.chars().take_while(|c| *c == '#').count();
    let body = rest[1 + hashes..].strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(hashes));
    Some(body.find(&close).map_or(rest.len(), |end| 2 + hashes + end + close.len()))
}

fn string(rest: &str) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

fn without_tests(code: &str) -> String {
    let mut out = String::new();
    let mut lines = code.lines().peekable();
    while let Some(line) = lines.next() {
        let opens = |l: &&str| l.trim_start().contains("mod ") && l.trim_end().ends_with('{');
        if line.trim() == "#[cfg(test)]" && lines.peek().is_some_and(opens) {
            let indent = line.len() - line.trim_start().len();
            let close = format!("{}}}", " ".repeat(indent));
            for inner in lines.by_ref() {
                if inner.trim_end() == close {
                    break;
                }
            }
        } else {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}

/// Whether `word` stands in the text by itself, not as a part of a longer word.
fn has_word(text: &str, word: &str) -> bool {
    let part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    text.match_indices(word).any(|(at, _)| {
        !part(text[..at].chars().last()) && !part(text[at + word.len()..].chars().next())
    })
}

/// Fails with all offences.
fn none(rule: &str, offences: &[String]) {
    let mut text = String::new();
    for offence in offences {
        writeln!(text, "  {offence}").unwrap();
    }
    assert!(offences.is_empty(), "{rule}:\n{text}");
}

/// Lines of all sources that break a rule.
fn offending_lines(
    sources: &[(PathBuf, String)],
    bad: impl Fn(&Path, &str) -> Option<String>,
) -> Vec<String> {
    let mut offences = Vec::new();
    for (path, text) in sources {
        for (number, line) in (1..).zip(text.lines()) {
            if let Some(what) = bad(path, line) {
                offences.push(format!("{}:{number}: {what}", path.display()));
            }
        }
    }
    offences
}

#[test]
fn cores_are_pure() {
    // What a state machine must not know: clocks, sockets, disks, randomness, and maps in random order.
    const IMPURE: [&str; 15] = [
        "tokio",
        "ractor",
        "heed",
        "Instant",
        "SystemTime",
        "rand",
        "rand_chacha",
        "getrandom",
        "HashMap",
        "HashSet",
        "fs",
        "net",
        "thread",
        "Mutex",
        "async",
    ];
    let cores: Vec<_> = sources()
        .into_iter()
        .filter(|(path, _)| path.starts_with("actors") || path.starts_with("supervision"))
        .filter(|(path, _)| path.file_name().is_some_and(|name| name == "core.rs"))
        .map(|(path, text)| (path, code_of(&text)))
        .collect();
    assert!(cores.len() >= 3, "the cores were not found: {cores:?}");
    let offences = offending_lines(&cores, |_, line| {
        IMPURE.iter().find(|word| has_word(line, word)).map(|word| format!("uses {word}"))
    });
    none("a core.rs is a pure state machine", &offences);
}

#[test]
fn dependencies_point_down() {
    let mut manifests = BTreeMap::new();
    for path in files().iter().filter(|path| path.ends_with("Cargo.toml")) {
        let manifest: toml::Table = toml::from_str(&read(path)).unwrap();
        let Some(package) = manifest.get("package").and_then(toml::Value::as_table) else {
            continue;
        };
        let name = package["name"].as_str().unwrap().to_owned();
        let section = |name: &str| match manifest.get(name).and_then(toml::Value::as_table) {
            Some(table) => table.keys().cloned().collect::<Vec<_>>(),
            None => Vec::new(),
        };
        let used = [section("dependencies"), section("build-dependencies")].concat();
        manifests.insert(name, used);
    }
    let mut offences = Vec::new();
    for (name, ours, foreign) in ARROWS {
        let used = manifests.get(name).unwrap_or_else(|| panic!("no crate {name}"));
        for dependency in used {
            let up = dependency.starts_with("weald") && !ours.contains(&dependency.as_str());
            if up || foreign.contains(&dependency.as_str()) {
                offences.push(format!("{name} uses {dependency}"));
            }
        }
    }
    for (name, used) in &manifests {
        let known = name == "weald"
            || FOR_TESTS.contains(&name.as_str())
            || ARROWS.iter().any(|(crate_name, _, _)| crate_name == name);
        if !known {
            offences.push(format!("{name} has no place in the table of arrows"));
        }
        let for_tests = used.iter().filter(|d| FOR_TESTS.contains(&d.as_str()));
        if !FOR_TESTS.contains(&name.as_str()) {
            offences.extend(for_tests.map(|dependency| format!("{name} uses {dependency}")));
        }
    }
    none("dependencies point down (.ci/STYLE.md)", &offences);
}

#[test]
fn files_are_short() {
    let offences: Vec<_> = sources()
        .iter()
        .filter(|(path, _)| !is_test_file(path))
        .filter_map(|(path, text)| {
            let lines = code_of(text).lines().filter(|line| !line.trim().is_empty()).count();
            (lines > CODE_LINES_MAX).then(|| format!("{}: {lines}", path.display()))
        })
        .collect();
    none(&format!("files have at most {CODE_LINES_MAX} lines of code"), &offences);
}

#[test]
fn nothing_is_left_undone() {
    // In two parts, so that this file may be read by its own rule.
    let marks =
        [("todo", "!"), ("unimplemented", "!"), ("#[ign", "ore"), ("FIX", "ME"), ("XX", "X")]
            .map(|(a, b)| format!("{a}{b}"));
    let offences = offending_lines(&sources(), |_, line| {
        let hit = |mark: &&String| {
            if mark.starts_with('#') { line.contains(mark.as_str()) } else { has_word(line, mark) }
        };
        marks.iter().find(hit).map(|mark| format!("has {mark}"))
    });
    none("no marks of unfinished work", &offences);
}

#[test]
fn files_say_what_they_are() {
    let offences: Vec<_> = sources()
        .iter()
        .filter(|(_, text)| !text.starts_with("//! "))
        .map(|(path, _)| path.display().to_string())
        .collect();
    none("a file opens with its documentation (//!)", &offences);
}

#[test]
fn panics_unwind() {
    // Supervision turns a panic into a crash report and a restart; an abort would end the node.
    let manifests = files()
        .into_iter()
        .filter(|path| has_extension(path, &["toml"]))
        .map(|path| (path.clone(), read(&path)))
        .collect::<Vec<_>>();
    let offences = offending_lines(&manifests, |_, line| {
        let line: String = line.chars().filter(|c| !c.is_whitespace()).collect();
        line.starts_with("panic=\"abort\"").then_some(line)
    });
    none("panics unwind", &offences);
}

#[test]
fn top_level_is_the_design() {
    let mut listing = Command::new("git");
    listing.arg("-C").arg(root()).args(["ls-tree", "--name-only", "HEAD"]);
    let names = match listing.output() {
        Ok(out) if out.status.success() => String::from_utf8_lossy(&out.stdout).into_owned(),
        // Unpacked from an archive: whoever unpacked it may have put things beside.
        _ => return eprintln!("SKIPPED: top level not checked, this is no git repository"),
    };
    let offences: Vec<_> = names
        .lines()
        .filter(|name| !name.starts_with('.') && !TOP_LEVEL.contains(name))
        .map(ToOwned::to_owned)
        .collect();
    none("the top level holds the design's entries only", &offences);
}

#[test]
fn no_path_of_one_machine() {
    let places = ["work", "root", "farm", "home"].map(|place| format!("/{place}/"));
    let texts = files()
        .into_iter()
        .filter(|path| has_extension(path, &["rs", "toml", "md", "c", "sh", "yml", "json"]))
        .map(|path| (path.clone(), read(&path)))
        .collect::<Vec<_>>();
    let offences = offending_lines(&texts, |_, line| {
        let starts = |place: &String| {
            line.match_indices(place.as_str()).any(|(at, _)| {
                let before = line[..at].chars().last();
                !before.is_some_and(|c| c.is_alphanumeric() || "_-.*}".contains(c))
            })
        };
        places.iter().find(|place| starts(place)).map(|place| format!("has {place}"))
    });
    none("no paths of one machine", &offences);
}

#[test]
fn unsafe_code_is_in_one_file() {
    let offences = sources()
        .into_iter()
        .filter(|(path, _)| !UNSAFE.iter().any(|known| path == Path::new(known)))
        .filter(|(_, text)| {
            let code = code_of(text);
            has_word(&code, "unsafe") || code.contains("allow(unsafe_code")
        })
        .map(|(path, _)| path.display().to_string())
        .collect::<Vec<_>>();
    none("shipped unsafe code is in storage/src/lmdb.rs only", &offences);
}

#[test]
fn scanner_sees_code_only() {
    let text = "let a = \"un\\\"safe\"; // tokio\nlet b = r#\"heed\"#; let c: &'static str = x; /* y\n*/ '\"' ; d\n\
                #[cfg(test)]\nmod tests {\n    rand\n}\nend\n";
    assert_eq!(code_of(text), "let a = ; \nlet b = ; let c: &'static str = x; \n  ; d\nend\n");
    assert!(has_word("use tokio::x", "tokio") && !has_word("tokio_like", "tokio"));
}
