//! How figures, ages and names are written (ux.md §1).

use std::cmp::Ordering;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// `45s 12m 5d3h 41d`
pub(crate) fn age(since: Option<&Time>, now: Timestamp) -> String {
    let Some(since) = since else { return "<none>".to_owned() };
    let seconds = (now.as_second() - since.0.as_second()).max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{minutes}m"),
        7_200..172_800 => match minutes % 60 {
            0 => format!("{hours}h"),
            rest if hours < 8 => format!("{hours}h{rest}m"),
            _ => format!("{hours}h"),
        },
        _ if days < 10 && hours % 24 > 0 => format!("{days}d{}h", hours % 24),
        _ => format!("{days}d"),
    }
}

/// `14m19s`
pub(crate) fn lasts(seconds: u64) -> String {
    match (seconds / 60, seconds % 60) {
        (0, rest) => format!("{rest}s"),
        (minutes, 0) => format!("{minutes}m"),
        (minutes, rest) => format!("{minutes}m{rest:02}s"),
    }
}

/// `2,412`
pub(crate) fn thousands(number: impl ToString) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `worker-2` before `worker-12`.
pub(crate) fn natural(one: &str, two: &str) -> Ordering {
    let (mut one, mut two) = (one.chars().peekable(), two.chars().peekable());
    loop {
        match (one.peek().copied(), two.peek().copied()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some(a), Some(b)) if a.is_ascii_digit() && b.is_ascii_digit() => {
                let order = number(&mut one).cmp(&number(&mut two));
                if order != Ordering::Equal {
                    return order;
                }
            }
            (Some(a), Some(b)) => {
                if a != b {
                    return a.cmp(&b);
                }
                one.next();
                two.next();
            }
        }
    }
}

fn number(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> u128 {
    let mut value: u128 = 0;
    while let Some(digit) = chars.peek().and_then(|c| c.to_digit(10)) {
        value = value.saturating_mul(10).saturating_add(digit.into());
        chars.next();
    }
    value
}

/// At most five names, then how many more.
pub(crate) fn names(names: &[String]) -> String {
    let shown: Vec<&str> = names.iter().take(5).map(String::as_str).collect();
    match names.len() {
        0..=5 => shown.join(" "),
        more => format!("{} and {} more", shown.join(" "), more - 5),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_kubectls() {
        let now = Timestamp::from_second(10_000_000).unwrap();
        let of = |ago: i64| age(Some(&Time(Timestamp::from_second(10_000_000 - ago).unwrap())), now);
        let texts: Vec<String> = [45, 720, 7_500, 86_400, 5 * 86_400 + 3 * 3_600, 41 * 86_400].map(of).into();
        assert_eq!(texts, ["45s", "12m", "2h5m", "24h", "5d3h", "41d"]);
        assert_eq!(age(None, now), "<none>");
    }

    #[test]
    fn names_sort_as_people_count() {
        let mut names = ["worker-12", "worker-2", "a", "worker-2b"];
        names.sort_by(|a, b| natural(a, b));
        assert_eq!(names, ["a", "worker-2", "worker-2b", "worker-12"]);
    }

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!(
            [0, 12, 999, 2_412, 65_536, 1_000_000].map(thousands),
            ["0", "12", "999", "2,412", "65,536", "1,000,000"]
        );
    }
}
