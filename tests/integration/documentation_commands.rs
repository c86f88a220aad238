//! The commands in the documentation: `documentation` runs the commands that a test can run. For the rest, the
//! program says whether it has the subcommand and the options. A program that neither of them knows fails.

use std::fs;
use std::process::Command;

use pg_clip_tests::{Block, Page, ServerCopy, repository, tested_postgres};

/// The commands of the embedder's command line that run on any machine, with no model but the demo.
const RUN: [&str; 7] = ["catalogue", "check", "embed", "list", "quantize", "remove", "sandbox"];

/// Other projects' programs, and the shell's own commands.
const OTHERS: [&str; 10] =
    ["apt-get", "cd", "export", "git", "npm", "npx", "pg_basebackup", "pgxn", "podman", "skopeo"];

/// The subcommands that take the option --models-directory.
pub(crate) fn needs_models() -> Vec<&'static str> {
    RUN.into_iter().filter(|command| *command != "catalogue").collect()
}

/// Whether a block's commands run where it is tested.
pub(crate) fn is_run(block: &Block) -> bool {
    block.language == "sh"
        && commands(block).iter().all(|words| match words[0].as_str() {
            "pg_clip_embedder" => RUN.contains(&words[1].as_str()) && !words.contains(&"NAME".to_owned()),
            "psql" => true,
            _ => false,
        })
}

#[test]
fn every_command_is_known() {
    let mut known = 0;
    for page in documentation() {
        for block in page.blocks().iter().filter(|block| block.language == "sh" && !is_run(block)) {
            for words in commands(block) {
                if let Err(complaint) = look_up(&words) {
                    panic!("{}: {}: {complaint}", block.place, words.join(" "));
                }
                known += 1;
            }
        }
    }
    assert!(known > 20, "{known} commands");
}

#[test]
fn a_command_that_is_not_there_is_found_out() {
    for wrong in [
        "cargo xtask tests",
        "cargo xtask test --postgres 18",
        "cargo xtask bench chaoss",
        "cargo xtask bench peers corse",
        "benches/gpu/measur.sh",
        "cargo nonsense",
        "make instal",
        "pg_clip_embedder get a-model",
        "pg_clip_embedder fetch --modell a-model",
        "pg_clip_feeder run --shop file:///photos",
        "curl https://example.invalid",
        ".ci/amd64",
    ] {
        let words: Vec<String> = wrong.split(' ').map(str::to_owned).collect();
        assert!(look_up(&words).is_err(), "{wrong}");
    }
}

/// `pgsql` marks the text of a file: a test compares it with the file, and another one runs the file.
#[test]
fn every_block_names_its_language() {
    const LANGUAGES: [&str; 11] =
        ["dockerfile", "ini", "mermaid", "pgsql", "prisma", "sh", "sql", "text", "ts", "toml", "yaml"];
    for page in documentation() {
        for block in page.blocks() {
            assert!(LANGUAGES.contains(&block.language.as_str()), "{}: {:?}", block.place, block.language);
        }
    }
}

/// The pages with commands of pg_clip. Pages below tests/ and models/ call scripts of their own.
fn documentation() -> impl Iterator<Item = Page> {
    Page::all()
        .into_iter()
        .filter(|page| !page.path.starts_with("tests/") && !page.path.starts_with("models/"))
}

/// The words of each command of a block, without comments and without the program that runs it as root. A text in
/// quotes is no one word, but no program that is looked up has one before its end.
fn commands(block: &Block) -> Vec<Vec<String>> {
    let text = block.text.replace("\\\n", " ");
    let lines = text.lines().map(|line| line.split(" #").next().unwrap_or_default());
    let words = lines.map(|line| {
        let words = line.split_whitespace().skip_while(|word| *word == "sudo");
        words.map(str::to_owned).collect::<Vec<String>>()
    });
    words.filter(|words| !words.is_empty() && !words[0].starts_with('#')).collect()
}

/// Why there is no such command.
fn look_up(words: &[String]) -> Result<(), String> {
    let rest = &words[1..];
    let first = rest.first().map(String::as_str);
    match words[0].as_str() {
        "cargo" if first == Some("xtask") => {
            let xtask = ServerCopy::target().join("debug/xtask");
            asks_for_help(Command::new(xtask), &rest[1..])?;
            if rest.get(1).is_some_and(|task| task == "bench") {
                is_bench(&rest[2..])?;
            }
            Ok(())
        }
        // Of cargo's own house; it is not on every machine.
        "cargo" if ["deny", "install"].map(Some).contains(&first) => Ok(()),
        "make" => {
            let mut goals = rest.iter().filter(|word| !word.contains('=')).map(String::as_str);
            goals.try_for_each(is_goal)
        }
        program @ ("pg_clip_embedder" | "pg_clip_feeder") => {
            asks_for_help(Command::new(tested_postgres().program(program)), rest)
        }
        "psql" => Ok(()),
        script if script.contains('/') && repository().join(script).is_file() => Ok(()),
        other if OTHERS.contains(&other) => Ok(()),
        // A script of the project's.
        script if script.contains('/') && repository().join(script).is_file() => Ok(()),
        _ => Err("a program that is not known".to_owned()),
    }
}

/// Whether a program accepts these arguments, as far as it reads them before `--help`.
fn asks_for_help(mut program: Command, arguments: &[String]) -> Result<(), String> {
    let own = arguments.iter().take_while(|word| *word != "--");
    let output = program.args(own).arg("--help").output().map_err(|error| format!("{program:?}: {error}"))?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

fn is_bench(arguments: &[String]) -> Result<(), String> {
    let read =
        |path: &str| fs::read_to_string(repository().join(path)).map_err(|error| format!("{path}: {error}"));
    let benches = read("benches/main.rs")?;
    let parts = read("xtask/src/peers/mod.rs")?;
    match arguments {
        [peers, part] if peers == "peers" => named(&parts, part),
        [peers] if peers == "peers" => Ok(()),
        [name, ..] => named(&benches, name),
        [] => Ok(()),
    }
}

fn named(source: &str, name: &str) -> Result<(), String> {
    let is_there = source.contains(&format!("\"{name}\""));
    if is_there { Ok(()) } else { Err(format!("no bench is named {name}")) }
}

fn is_goal(goal: &str) -> Result<(), String> {
    let makefile = fs::read_to_string(repository().join("Makefile")).map_err(|error| error.to_string())?;
    let is_there = makefile.lines().any(|line| line.starts_with(&format!("{goal}:")));
    if is_there { Ok(()) } else { Err(format!("the Makefile has no goal {goal}")) }
}
