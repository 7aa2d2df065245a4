//! Why the command could not do its work: what, where, expected, do (ux.md §4).

use std::fmt;

#[derive(Debug)]
pub(crate) struct Failure {
    what: String,
    place: String,
    expected: String,
    todo: String,
    is_broken_pipe: bool,
}

impl Failure {
    pub(crate) fn new(what: &str, place: &str, expected: &str, todo: &str) -> Self {
        Self {
            what: what.into(),
            place: place.into(),
            expected: expected.into(),
            todo: todo.into(),
            is_broken_pipe: false,
        }
    }

    /// Whoever reads our output has gone.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        self.is_broken_pipe
    }

    pub(crate) fn plain(what: &str) -> Self {
        Self::new(what, "", "", "")
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.what)?;
        for (word, text) in [("where", &self.place), ("expected", &self.expected), ("do", &self.todo)] {
            if !text.is_empty() {
                write!(f, "\n  {word:<10} {text}")?;
            }
        }
        Ok(())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        let is_broken_pipe = error.kind() == std::io::ErrorKind::BrokenPipe;
        Self { is_broken_pipe, ..Self::plain(&error.to_string()) }
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::plain(&error.to_string())
    }
}

impl From<manx_crds::store::StoreError> for Failure {
    fn from(error: manx_crds::store::StoreError) -> Self {
        Self::new(
            &error.to_string(),
            "the datastore",
            "a directory of objects that can be read",
            "manxctl --store DIR status",
        )
    }
}
