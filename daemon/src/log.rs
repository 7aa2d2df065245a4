//! Log lines: JSON, one object a line, on stderr; time, level, daemon, node and msg come first, the event's
//! fields after them in the order in which the code names them.

use std::fmt::{self, Debug, Write as _};
use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry};

/// Starts logging for the process.
///
/// # Errors
/// Where the filter does not parse, or logging was started before.
pub fn start(daemon: &'static str, node: &str, filter: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(filter)?;
    Registry::default().with(JsonLines { daemon, node: node.to_owned() }.with_filter(filter)).try_init()?;
    Ok(())
}

/// Lines written so far, by level.
static LINES: [(tracing::Level, AtomicU64); 5] = [
    (tracing::Level::ERROR, AtomicU64::new(0)),
    (tracing::Level::WARN, AtomicU64::new(0)),
    (tracing::Level::INFO, AtomicU64::new(0)),
    (tracing::Level::DEBUG, AtomicU64::new(0)),
    (tracing::Level::TRACE, AtomicU64::new(0)),
];

/// How many lines were written, by level as they show it.
pub fn counts() -> Vec<(&'static str, u64)> {
    LINES.iter().map(|(level, count)| (level.as_str(), count.load(Ordering::Relaxed))).collect()
}

struct JsonLines {
    daemon: &'static str,
    node: String,
}

impl<S: Subscriber> Layer<S> for JsonLines {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let line = self.line(event, jiff::Timestamp::now());
        if let Some((_, count)) = LINES.iter().find(|(level, _)| level == event.metadata().level()) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        // Where stderr is gone there is nobody left to tell.
        drop(std::io::stderr().lock().write_all(line.as_bytes()));
    }
}

impl JsonLines {
    fn line(&self, event: &Event<'_>, now: jiff::Timestamp) -> String {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let mut line = format!(
            r#"{{"time":"{now:.3}","level":"{}","daemon":{},"node":{},"msg":{}"#,
            event.metadata().level(),
            Value::from(self.daemon),
            Value::from(self.node.as_str()),
            Value::from(fields.message),
        );
        for (name, value) in fields.rest {
            let written = write!(line, ",{}:{value}", Value::from(name));
            debug_assert!(written.is_ok(), "writing to a String does not fail");
        }
        line.push_str("}\n");
        line
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    rest: Vec<(&'static str, Value)>,
}

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            ("message", other) => self.message = other.to_string(),
            // A keyword in Rust, `if` in ux.md §8.
            (name, value) => self.rest.push((name.strip_prefix("r#").unwrap_or(name), value)),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.put(field, Value::from(format!("{value:?}")));
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, Value::from(value));
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, Value::from(value));
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, Value::from(value));
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, Value::from(value));
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, Value::from(value));
    }
    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.put(field, Value::from(Chain(value).to_string()));
    }
}

/// An error with everything that caused it, on one line.
pub struct Chain<'a>(pub &'a dyn std::error::Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

/// A duration as log lines and tables print it: `340ms`, `4.1s`, `3m08s`.
pub fn took(duration: std::time::Duration) -> String {
    let micros = duration.as_micros();
    let seconds = duration.as_secs();
    match micros {
        0..10_000 => format!("{:.1}ms", duration.as_secs_f64() * 1e3),
        10_000..1_000_000 => format!("{}ms", micros / 1_000),
        1_000_000..60_000_000 => format!("{:.1}s", duration.as_secs_f64()),
        _ => format!("{}m{:02}s", seconds / 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Keep(Arc<Mutex<Vec<String>>>);
    struct Keeper(JsonLines, Keep);

    impl<S: Subscriber> Layer<S> for Keeper {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            let line = self.0.line(event, "2026-11-20T10:00:08.1134Z".parse().unwrap());
            self.1.0.lock().unwrap().push(line);
        }
    }

    #[test]
    fn a_line_reads_as_the_guide_shows_it() {
        let keep = Keep::default();
        let lines = JsonLines { daemon: "bgpd", node: "worker-12".into() };
        let subscriber = Registry::default().with(Keeper(lines, keep.clone()));
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(peer = "r12-tor-a", hold = "9s", prefixes = 97, "session up");
        });
        assert_eq!(
            keep.0.lock().unwrap().as_slice(),
            [concat!(
                r#"{"time":"2026-11-20T10:00:08.113Z","level":"INFO","daemon":"bgpd","node":"worker-12","#,
                r#""msg":"session up","peer":"r12-tor-a","hold":"9s","prefixes":97}"#,
                "\n"
            )]
        );
    }

    #[test]
    fn durations_are_short() {
        let of = |ms| took(std::time::Duration::from_micros(ms));
        assert_eq!(
            [of(1_240), of(340_000), of(4_100_000), of(188_000_000)],
            ["1.2ms", "340ms", "4.1s", "3m08s"]
        );
    }
}
