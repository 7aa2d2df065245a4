//! What a daemon exposes on `/metrics` (ux.md §7), from plain values: whoever owns the counts writes them down when they are
//! asked for, and `prometheus-client` makes the OpenMetrics text of them.
//!
//! ```text
//!   GET /metrics ─► health ─► control socket, verb `metrics` ─► the daemon's loop: Figures ─► text
//! ```
//! So nothing is shared with the loop, and a scrape proves that it turns.

use std::fmt;
use std::time::{Duration, SystemTime};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

/// Before every name of ours.
const PREFIX: &str = "manx";

/// Name and value of labels, in the order in which they are shown.
pub type Labels = Vec<(&'static str, String)>;

/// A distribution: upper bounds ascending, each with how many values are in it and in no earlier one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Distribution {
    pub buckets: Vec<(f64, u64)>,
    pub sum: f64,
    pub count: u64,
}

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Gauge(f64),
    Counter(u64),
    /// A counter of seconds.
    Seconds(f64),
    Histogram(Distribution),
}

#[derive(Clone, Debug)]
struct Metric {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    samples: Vec<(Labels, Value)>,
}

/// Metrics as they are exposed, in order. A metric without a sample is shown with its help and type alone.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    metrics: Vec<Metric>,
}

impl Figures {
    /// A gauge.
    pub fn gauge(
        &mut self,
        name: &'static str,
        help: &'static str,
        samples: impl IntoIterator<Item = (Labels, f64)>,
    ) {
        let samples = samples.into_iter().map(|(labels, value)| (labels, Value::Gauge(value)));
        self.metrics.push(Metric { name, help, kind: MetricType::Gauge, samples: samples.collect() });
    }

    /// A counter; `name` without its `_total`.
    pub fn counter(
        &mut self,
        name: &'static str,
        help: &'static str,
        samples: impl IntoIterator<Item = (Labels, u64)>,
    ) {
        let samples = samples.into_iter().map(|(labels, value)| (labels, Value::Counter(value)));
        self.metrics.push(Metric { name, help, kind: MetricType::Counter, samples: samples.collect() });
    }

    /// A counter of seconds; `name` without its `_total`.
    pub fn seconds(&mut self, name: &'static str, help: &'static str, total: Duration) {
        let samples = vec![(Labels::new(), Value::Seconds(total.as_secs_f64()))];
        self.metrics.push(Metric { name, help, kind: MetricType::Counter, samples });
    }

    /// A histogram.
    pub fn histogram(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: Labels,
        distribution: Distribution,
    ) {
        let samples = vec![(labels, Value::Histogram(distribution))];
        self.metrics.push(Metric { name, help, kind: MetricType::Histogram, samples });
    }

    /// The OpenMetrics text: these, and what the kernel says of this process.
    ///
    /// # Errors
    /// What cannot be written to memory: none in practice.
    pub fn expose(self) -> Result<String, fmt::Error> {
        let mut ours = Registry::with_prefix(PREFIX);
        ours.register_collector(Box::new(self));
        // `process_*` are everybody's names.
        let mut process = Registry::default();
        process.register_collector(Box::new(of_process()));
        let mut text = String::new();
        text::encode_registry(&mut text, &ours)?;
        text::encode_registry(&mut text, &process)?;
        text::encode_eof(&mut text)?;
        Ok(text)
    }
}

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for metric in &self.metrics {
            let mut described = encoder.encode_descriptor(metric.name, metric.help, None, metric.kind)?;
            for (labels, value) in &metric.samples {
                if labels.is_empty() {
                    sample(&mut described, value)?;
                } else {
                    sample(&mut described.encode_family(labels)?, value)?;
                }
            }
        }
        Ok(())
    }
}

fn sample(encoder: &mut MetricEncoder<'_>, value: &Value) -> Result<(), fmt::Error> {
    match value {
        Value::Gauge(value) => encoder.encode_gauge(value),
        Value::Counter(value) => encoder.encode_counter::<Labels, u64, u64>(value, None),
        Value::Seconds(value) => encoder.encode_counter::<Labels, f64, f64>(value, None),
        Value::Histogram(distribution) => {
            let mut buckets = distribution.buckets.clone();
            let within: u64 = buckets.iter().map(|(_, count)| count).sum();
            buckets.push((f64::INFINITY, distribution.count.saturating_sub(within)));
            let (sum, count) = (distribution.sum, distribution.count);
            encoder.encode_histogram::<Labels>(sum, count, &buckets, None)
        }
    }
}

/// `build_info` of a component.
pub fn build_info(figures: &mut Figures, component: &str) {
    let labels = vec![
        ("component", component.to_owned()),
        ("version", crate::VERSION.to_owned()),
        ("schema_revision", manx_crds::v1alpha1::SCHEMA_REVISION.to_string()),
    ];
    figures.gauge("build_info", "Which version this is; always 1", [(labels, 1.0)]);
}

/// `log_events_total` of a component.
pub fn log_events(figures: &mut Figures, component: &str) {
    let levels = crate::log::counts().into_iter().map(|(level, count)| {
        (vec![("component", component.to_owned()), ("level", level.to_lowercase())], count)
    });
    figures.counter("log_events", "Log lines written, by level", levels);
}

/// What the kernel says of this process, under the names that every client library uses. What it does not say is left out.
fn of_process() -> Figures {
    let mut figures = Figures::default();
    let read = |name: &str| std::fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
    let (stat, limits) = (read("stat"), read("limits"));
    let one = |value: u64| [(Labels::new(), as_f64(value))];
    if let Some(process) = Stat::parse(&stat) {
        let cpu = Duration::from_millis(process.cpu_ticks.saturating_mul(1000 / TICKS));
        figures.seconds("process_cpu_seconds", "Processor time used", cpu);
        figures.gauge(
            "process_resident_memory_bytes",
            "Memory in use",
            one(process.resident_pages.saturating_mul(PAGE)),
        );
        figures.gauge("process_virtual_memory_bytes", "Memory mapped", one(process.virtual_bytes));
        figures.gauge("process_threads", "Threads", one(process.threads));
        if let Some(started) = process.started() {
            figures.gauge(
                "process_start_time_seconds",
                "When the process began, since 1970",
                [(Labels::new(), started)],
            );
        }
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        // The directory itself is open, too.
        let open = u64::try_from(open.count()).unwrap_or(0).saturating_sub(1);
        figures.gauge("process_open_fds", "File descriptors in use", one(open));
    }
    if let Some(most) = limits.lines().find_map(|line| line.strip_prefix("Max open files")) {
        let most = most.split_whitespace().next().and_then(|most| most.parse().ok());
        if let Some(most) = most {
            figures.gauge("process_max_fds", "File descriptors allowed", one(most));
        }
    }
    figures
}

/// USER_HZ: 100 in every Linux ABI that we are built for.
const TICKS: u64 = 100;
/// The page of every architecture that we are built for.
const PAGE: u64 = 4096;

/// `/proc/self/stat`, proc(5).
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    cpu_ticks: u64,
    threads: u64,
    start_ticks: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The name may hold anything, also spaces and parentheses; the state behind it is field 3.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let field = |number: usize| fields.get(number.checked_sub(3)?)?.parse::<u64>().ok();
        Some(Self {
            cpu_ticks: field(14)?.checked_add(field(15)?)?,
            threads: field(20)?,
            start_ticks: field(22)?,
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }

    /// Since 1970: the machine's age says when it began.
    fn started(&self) -> Option<f64> {
        let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
        let uptime: f64 = uptime.split_whitespace().next()?.parse().ok()?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs_f64();
        Some(now - uptime + as_f64(self.start_ticks) / as_f64(TICKS))
    }
}

/// A count as metrics hold it: exact below 2^53.
#[expect(clippy::cast_precision_loss, reason = "a gauge of Prometheus is a double")]
pub fn as_f64(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests;
