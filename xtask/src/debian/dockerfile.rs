//! The Dockerfile of `examples/container`, as far as it goes without an engine: its steps run in a bare root of Debian in
//! place of the image that it names.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::Root;

/// The instructions of a Dockerfile, with its arguments put in.
#[derive(Debug, PartialEq)]
pub(super) struct Dockerfile {
    pub(super) from: String,
    steps: Vec<Step>,
    /// The program and its arguments.
    pub(super) command: Vec<String>,
}

#[derive(Debug, PartialEq)]
enum Step {
    /// From the checkout to a path of the image.
    Copy { from: String, to: String },
    /// In a shell.
    Run(String),
}

impl Dockerfile {
    /// Reads the instructions ARG, FROM, COPY, RUN and CMD; `arguments` come before the defaults.
    pub(super) fn parse(text: &str, arguments: &[(&str, String)]) -> Result<Dockerfile> {
        let text = text.replace("\\\n", " ");
        let mut values = BTreeMap::new();
        let mut dockerfile = Dockerfile { from: String::new(), steps: Vec::new(), command: Vec::new() };
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (instruction, rest) =
                line.split_once(' ').with_context(|| format!("no instruction: {line}"))?;
            match instruction {
                "ARG" => {
                    let (name, default) = rest.split_once('=').unwrap_or((rest, ""));
                    let given =
                        arguments.iter().find(|(given, _)| *given == name).map(|(_, value)| value.clone());
                    let value =
                        given.or_else(|| values.get(name).cloned()).unwrap_or_else(|| default.to_owned());
                    values.insert(name.to_owned(), value);
                }
                "FROM" => dockerfile.from = filled(rest, &values)?,
                "COPY" => {
                    let filled = filled(rest, &values)?;
                    let (from, to) = filled.split_once(' ').with_context(|| format!("one path: {line}"))?;
                    dockerfile.steps.push(Step::Copy { from: from.to_owned(), to: to.to_owned() });
                }
                "RUN" => dockerfile.steps.push(Step::Run(rest.to_owned())),
                "CMD" => dockerfile.command = serde_json::from_str(rest).with_context(|| line.to_owned())?,
                _ => bail!("an instruction that is not known: {line}"),
            }
        }
        Ok(dockerfile)
    }

    /// Takes the steps in a root, with files of the checkout.
    pub(super) fn build(&self, root: &Root, checkout: &Path) -> Result<()> {
        for step in &self.steps {
            match step {
                Step::Copy { from, to } => copy(checkout, from, root, to)?,
                Step::Run(script) => root.run(script).map(drop)?,
            }
        }
        Ok(())
    }
}

/// A text with `${NAME}` replaced.
fn filled(text: &str, values: &BTreeMap<String, String>) -> Result<String> {
    let mut filled = text.to_owned();
    for (name, value) in values {
        filled = filled.replace(&format!("${{{name}}}"), value);
    }
    ensure!(!filled.contains('$'), "an argument that is not declared: {filled}");
    Ok(filled)
}

/// Copies the files that a path names, whose last part may begin with an asterisk, into a folder of the root.
fn copy(checkout: &Path, from: &str, root: &Root, to: &str) -> Result<()> {
    let (folder, name) = from.rsplit_once('/').unwrap_or((".", from));
    let folder = checkout.join(folder);
    let fits = |path: &PathBuf| {
        let found = path.file_name().unwrap_or_default().to_string_lossy();
        name.strip_prefix('*').map_or(found == name, |end| found.ends_with(end))
    };
    let entries = fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(fits).collect();
    ensure!(!files.is_empty(), "COPY finds no {from}");
    let to = root.path().join(to.trim_start_matches('/'));
    for file in files {
        let name = file.file_name().context("a file has a name")?;
        fs::copy(&file, to.join(name)).with_context(|| format!("cannot copy {}", file.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Dockerfile, Step};

    const TEXT: &str = "ARG MAJOR=18\nFROM image:${MAJOR}\n# A remark.\nARG MAJOR\nCOPY packages/${MAJOR}/*.deb /tmp/\n\
                        RUN one \\\n    && two $HOME\nCMD [\"postgres\", \"-c\", \"a=b\"]\n";

    #[test]
    fn reads_its_steps_and_puts_arguments_in() {
        let expected = |major: &str| Dockerfile {
            from: format!("image:{major}"),
            steps: vec![
                Step::Copy { from: format!("packages/{major}/*.deb"), to: "/tmp/".to_owned() },
                Step::Run("one      && two $HOME".to_owned()),
            ],
            command: ["postgres", "-c", "a=b"].map(str::to_owned).into(),
        };
        assert_eq!(Dockerfile::parse(TEXT, &[]).expect("a Dockerfile"), expected("18"));
        let given = Dockerfile::parse(TEXT, &[("MAJOR", "15".to_owned())]).expect("a Dockerfile");
        assert_eq!(given, expected("15"));
    }

    #[test]
    fn refuses_unknown_instructions() {
        assert!(Dockerfile::parse("FROM a\nVOLUME /data\n", &[]).is_err());
        assert!(Dockerfile::parse("FROM a:${TAG}\n", &[]).is_err());
    }
}
