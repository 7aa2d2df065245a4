//! The programs of another Debian release, beside this machine's own: unpacked by e2e/trixie/build, run through e2e/trixie/enter.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::netns::stdout_of;

/// Where that release lies. Its /usr is seen by its programs alone; all other paths are the same on both sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root(PathBuf);

impl Root {
    /// Debian 13, as `make trixie` leaves it.
    pub fn trixie() -> Result<Self> {
        let mut build = Command::new(script("build"));
        build.arg("where");
        let root = PathBuf::from(stdout_of(build)?.trim());
        if !root.is_dir() {
            bail!("{} is missing: make trixie", root.display());
        }
        Ok(Self(root))
    }

    /// A program of it, by its path there, and the arguments after it: what to run instead, and with what.
    pub(crate) fn runs(&self, program: &Path, arguments: &[String]) -> (PathBuf, Vec<String>) {
        let [root, program] = [self.0.as_path(), program].map(|path| path.to_string_lossy().into_owned());
        (script("enter"), [root, program].into_iter().chain(arguments.iter().cloned()).collect())
    }
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("trixie").join(name)
}

/// A program of `root`, or of this machine.
#[must_use]
pub fn command(root: Option<&Root>, program: &Path) -> Command {
    let Some(root) = root else { return Command::new(program) };
    let (enter, arguments) = root.runs(program, &[]);
    let mut command = Command::new(enter);
    command.args(arguments);
    command
}

/// Whether `root`, or this machine, has the file.
#[must_use]
pub fn has(root: Option<&Root>, file: &Path) -> bool {
    match root {
        // An absolute path would replace the root's.
        Some(root) => file.strip_prefix("/").is_ok_and(|inside| root.0.join(inside).exists()),
        None => file.exists(),
    }
}

/// The words of `program --version`, whichever stream it says them on.
pub fn version_words(root: Option<&Root>, program: &Path) -> Result<Vec<String>> {
    let output = command(root, program)
        .arg("--version")
        .output()
        .with_context(|| format!("starting {}", program.display()))?;
    if !output.status.success() {
        bail!("{} --version: {}", program.display(), String::from_utf8_lossy(&output.stderr).trim());
    }
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    Ok(text.split_whitespace().map(str::to_owned).collect())
}
