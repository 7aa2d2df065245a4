//! Before a destructive act a person is asked; a script says `--yes` (ux.md §1).

use std::io::{self, IsTerminal as _, Write as _};

use crate::error::Failure;

/// Whether to go on: `act` says what would happen.
pub(crate) fn confirmed(act: &str, yes: bool) -> Result<bool, Failure> {
    if yes {
        return Ok(true);
    }
    if !io::stdin().is_terminal() {
        return Err(Failure::new(
            "this needs a person's word, and there is no terminal to ask at",
            act,
            "--yes",
            "look at what it does, then repeat it with --yes",
        ));
    }
    eprint!("{act}\nGo on? [y/N] ");
    io::stderr().flush()?;
    let mut word = String::new();
    io::stdin().read_line(&mut word)?;
    Ok(is_yes(&word))
}

fn is_yes(word: &str) -> bool {
    matches!(word.trim().to_lowercase().as_str(), "y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clear_yes_is_one() {
        for (word, expected) in
            [("y\n", true), ("Yes\n", true), ("\n", false), ("no\n", false), ("yy", false)]
        {
            assert_eq!(is_yes(word), expected, "{word:?}");
        }
        assert!(confirmed("ends 3 sessions", true).unwrap_or(false));
    }
}
