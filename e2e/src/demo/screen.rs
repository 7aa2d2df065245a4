//! Progress on standard error: numbered lines, the last one redrawn on a terminal, each printed once elsewhere.

use std::io::{IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Where progress goes.
#[derive(Debug)]
pub(crate) struct Screen {
    terminal: bool,
    colour: bool,
    steps: usize,
    /// Behind every step: a choice that changes what the whole run shows.
    note: &'static str,
}

/// A step that is under way. [`Step::end`] prints its last line.
#[derive(Debug)]
pub(crate) struct Step {
    line: Arc<Mutex<Line>>,
    over: Arc<AtomicBool>,
    ticker: Option<JoinHandle<()>>,
    terminal: bool,
    colour: bool,
}

#[derive(Debug)]
struct Line {
    number: usize,
    name: String,
    text: String,
    begun: Instant,
    note: &'static str,
}

/// How a step or check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Ok,
    Fail,
    Skip,
}

impl State {
    #[must_use]
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Fail => "FAIL",
            Self::Skip => "skip",
        }
    }

    /// The word, green or red, padded to `width`.
    #[must_use]
    pub(crate) fn painted(self, width: usize, colour: bool) -> String {
        let word = format!("{:<width$}", self.word());
        if !colour {
            return word;
        }
        let code = match self {
            Self::Ok => 32,
            Self::Fail => 31,
            Self::Skip => 33,
        };
        format!("\u{1b}[{code}m{word}\u{1b}[0m")
    }
}

/// Whether colour is wanted on a stream that is, or is not, a terminal.
#[must_use]
pub(crate) fn colour(terminal: bool) -> bool {
    terminal
        && std::env::var_os("NO_COLOR").is_none()
        && std::env::var("TERM").is_ok_and(|term| term != "dumb")
}

/// Seconds as ux.md writes durations: `340ms`, `21.4s`, `3m08s`.
#[must_use]
pub(crate) fn duration(time: Duration) -> String {
    let millis = time.as_millis();
    match millis {
        0..=9 => format!("{:.1}ms", time.as_secs_f64() * 1000.0),
        10..=999 => format!("{millis}ms"),
        1000..=59_949 => format!("{:.1}s", time.as_secs_f64()),
        _ => {
            let seconds = (millis + 500) / 1000;
            format!("{}m{:02}s", seconds / 60, seconds % 60)
        }
    }
}

/// The time column of a step: seconds with a tenth, also below one.
fn step_time(time: Duration) -> String {
    if time < Duration::from_millis(59_950) { format!("{:.1}s", time.as_secs_f64()) } else { duration(time) }
}

impl Line {
    fn render(&self, state: &str) -> String {
        let text: String = self.text.chars().take(50).collect();
        format!(
            "{:>4}  {:<16}{:<51}{:<4}{:>9}{}",
            self.number,
            self.name,
            text,
            state,
            step_time(self.begun.elapsed()),
            self.note
        )
    }
}

impl Screen {
    #[must_use]
    pub(crate) fn new(note: &'static str) -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self { terminal, colour: colour(terminal), steps: 0, note }
    }

    /// A line of its own.
    pub(crate) fn say(&self, text: &str) {
        let _ = writeln!(std::io::stderr(), "{text}");
    }

    /// Begins the next numbered step.
    pub(crate) fn begin(&mut self, name: &str, text: &str) -> Step {
        self.steps += 1;
        let line = Line {
            number: self.steps,
            name: name.to_owned(),
            text: text.to_owned(),
            begun: Instant::now(),
            note: self.note,
        };
        let line = Arc::new(Mutex::new(line));
        let over = Arc::new(AtomicBool::new(false));
        let ticker = self.terminal.then(|| tick(Arc::clone(&line), Arc::clone(&over)));
        Step { line, over, ticker, terminal: self.terminal, colour: self.colour }
    }
}

fn tick(line: Arc<Mutex<Line>>, over: Arc<AtomicBool>) -> JoinHandle<()> {
    thread::spawn(move || {
        while !over.load(Ordering::Relaxed) {
            if let Ok(line) = line.lock() {
                let _ = write!(std::io::stderr(), "\r\u{1b}[K{}", line.render(".."));
            }
            thread::sleep(Duration::from_millis(100));
        }
    })
}

impl Step {
    /// What it is at now.
    pub(crate) fn update(&self, text: &str) {
        if let Ok(mut line) = self.line.lock() {
            line.text = text.to_owned();
        }
    }

    /// Prints something whole in between, such as the form of a failed check.
    pub(crate) fn interject(&self, print: impl FnOnce()) {
        let _held = self.line.lock();
        if self.terminal {
            let _ = write!(std::io::stderr(), "\r\u{1b}[K");
        }
        print();
    }

    /// The last line of this step.
    pub(crate) fn end(mut self, state: State, text: &str) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(ticker) = self.ticker.take() {
            let _ = ticker.join();
        }
        if let Ok(mut line) = self.line.lock() {
            line.text = text.to_owned();
            let clear = if self.terminal { "\r\u{1b}[K" } else { "" };
            let _ = writeln!(std::io::stderr(), "{clear}{}", line.render(&state.painted(4, self.colour)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_line_has_the_columns_of_the_mock() {
        let begun = Instant::now().checked_sub(Duration::from_millis(21_400)).unwrap();
        let line = Line { number: 1, name: "packages".to_owned(), text: "frr".to_owned(), begun, note: "" };
        let mock = "   1  packages        frr                                                ok      21.4s";
        assert_eq!(line.render("ok"), mock);
    }

    #[test]
    fn durations_read_as_in_the_mocks() {
        for (millis, text) in
            [(9, "9.0ms"), (84, "84ms"), (1_100, "1.1s"), (58_300, "58.3s"), (188_000, "3m08s")]
        {
            assert_eq!(duration(Duration::from_millis(millis)), text);
        }
    }
}
