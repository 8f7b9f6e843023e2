//! Modules use those below them and never those above: the order that `lib.rs` draws, held by its `use` lines.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// From the street to the cellar. Modules on one line never use each other.
const ORDER: [&[&str]; 16] = [
    &["main"],
    &["androidcam", "demo", "healthcheck", "user_command"],
    &["app"],
    &["gateway", "vicer"],
    &["redirect", "tls"],
    &["http"],
    &["ingest", "egress", "control", "api", "account", "acme"],
    &["ui", "edge"],
    &["hub", "auth"],
    &["telemetry"],
    &["config"],
    &["store"],
    &["websocket"],
    &["connection"],
    &["port"],
    &["reload"],
];
/// What everything may use. These use only each other, in this order.
const WORDS: [&str; 5] = ["session", "frame", "error", "placeholder", "wire"];

#[test]
fn modules_use_only_what_is_below_them() {
    let mut files = Vec::new();
    collect(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")), &mut files);
    let mut seen = BTreeMap::new();
    for file in files {
        let module = top_module(&file);
        if module == "lib" {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for used in used_modules(code) {
            if used != module {
                assert!(may_use(&module, &used), "{}: {module} uses {used}, which is not below it", file.display());
                *seen.entry(module.clone()).or_insert(0) += 1;
            }
        }
    }
    // The check would be worth nothing if it read no `use` lines.
    for module in ["app", "http", "hub", "store", "ingest", "egress"] {
        assert!(seen.get(module).is_some_and(|uses| *uses >= 2), "{module}: {seen:?}");
    }
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// `src/store/redis/lanes.rs` belongs to `store`.
fn top_module(file: &Path) -> String {
    let inside = file.strip_prefix(concat!(env!("CARGO_MANIFEST_DIR"), "/src")).unwrap();
    let first = inside.components().next().unwrap().as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

/// The modules of this crate that a text names, in `use` trees and in paths.
fn used_modules(code: &str) -> Vec<String> {
    let code: String =
        code.lines().filter(|line| !line.trim_start().starts_with("//")).flat_map(|line| [line, "\n"]).collect();
    let mut found = Vec::new();
    for start in ["crate::", "image_streamer::"] {
        for (at, _) in code.match_indices(start) {
            let rest = &code[at + start.len()..];
            if let Some(tree) = rest.strip_prefix('{') {
                found.extend(first_names_of_tree(tree));
            } else {
                found.push(name_at_start(rest));
            }
        }
    }
    found
}

/// `config::Config, store::{a, b}}` names `config` and `store`.
fn first_names_of_tree(tree: &str) -> Vec<String> {
    let (mut depth, mut names, mut at_start) = (0, Vec::new(), true);
    for (index, character) in tree.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => at_start = true,
            character if at_start && !character.is_whitespace() => {
                names.push(name_at_start(&tree[index..]));
                at_start = false;
            }
            _ => {}
        }
    }
    names
}

fn name_at_start(text: &str) -> String {
    text.chars().take_while(|character| character.is_alphanumeric() || *character == '_').collect()
}

fn may_use(module: &str, used: &str) -> bool {
    let floor = |name: &str| ORDER.iter().position(|floor| floor.contains(&name));
    match (floor(module), floor(used)) {
        (Some(from), Some(to)) => from < to,
        (Some(_), None) => WORDS.contains(&used),
        // Names a session id, a number or an error in what it is about.
        (None, None) => WORDS.contains(&module) && WORDS.contains(&used),
        (None, Some(_)) => false,
    }
}
