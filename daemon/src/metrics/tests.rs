#![allow(clippy::unwrap_used, clippy::float_cmp)]

use prometheus_parse::{Scrape, Value as Parsed};

use super::*;

fn parse(text: &str) -> Scrape {
    Scrape::parse(text.lines().map(|line| Ok(line.to_owned()))).unwrap()
}

#[test]
fn what_is_counted_is_what_a_scraper_reads() {
    let mut figures = Figures::default();
    figures.gauge("a_gauge", "Help", [(vec![("peer", "fd00::1".to_owned())], 2.5), (Labels::new(), 1.0)]);
    figures.counter("a_counter", "Help", [(vec![("type", "a\"b\\c".to_owned())], 7)]);
    let buckets = vec![(0.5, 2), (1.0, 1)];
    let distribution = Distribution { buckets, sum: 9.0, count: 5 };
    figures.histogram("a_histogram", "Help", vec![("component", "x".to_owned())], distribution);
    let text = figures.expose().unwrap();
    assert!(text.ends_with("# EOF\n"), "{text}");
    assert!(text.contains("manx_a_gauge{peer=\"fd00::1\"} 2.5\n"), "{text}");
    assert!(text.contains("\nmanx_a_gauge 1.0\n"), "{text}");
    assert!(text.contains(r#"manx_a_counter_total{type="a\"b\\c"} 7"#), "{text}");
    assert!(text.contains("# TYPE manx_a_counter counter\n"), "{text}");
    assert!(text.contains("manx_a_histogram_sum{component=\"x\"} 9.0\n"), "{text}");
    let scrape = parse(&text);
    let sample = scrape.samples.iter().find(|sample| sample.metric == "manx_a_histogram").unwrap();
    let Parsed::Histogram(buckets) = &sample.value else { panic!("{sample:?}") };
    let counts: Vec<(f64, f64)> = buckets.iter().map(|bucket| (bucket.less_than, bucket.count)).collect();
    assert_eq!(counts, [(0.5, 2.0), (1.0, 3.0), (f64::INFINITY, 5.0)]);
}

#[test]
fn the_process_is_described_by_everybodys_names() {
    let scrape = parse(&Figures::default().expose().unwrap());
    for name in [
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_virtual_memory_bytes",
        "process_threads",
        "process_start_time_seconds",
        "process_open_fds",
        "process_max_fds",
    ] {
        let sample = scrape.samples.iter().find(|sample| sample.metric == name);
        let value = sample.map(|sample| match sample.value {
            Parsed::Counter(value) | Parsed::Gauge(value) | Parsed::Untyped(value) => value,
            Parsed::Histogram(_) | Parsed::Summary(_) => f64::NAN,
        });
        let least = if name.contains("cpu") { 0.0 } else { 1.0 };
        assert!(value.is_some_and(|value| value >= least), "{name}: {value:?}");
    }
}

#[test]
fn a_program_may_be_called_anything() {
    let fields = "S 1 1 1 0 -1 4194560 5 0 0 0 11 22 0 0 20 0 3 0 444 5000 66 0";
    let stat = Stat::parse(&format!("7 (b) gp (d) {fields}")).unwrap();
    let expected =
        Stat { cpu_ticks: 33, threads: 3, start_ticks: 444, virtual_bytes: 5000, resident_pages: 66 };
    assert_eq!(stat, expected);
    assert_eq!(Stat::parse("7 (bgpd S 1"), None);
}
